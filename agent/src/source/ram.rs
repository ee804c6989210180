//! An image that is in memory whole: the fallback for servers that cannot serve ranges.

use super::Source;
use super::fault::SourceError;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A file in memory and where it came from.
#[derive(Debug)]
pub struct Ram {
    file: File,
    length: u64,
    origin: String,
}

impl Ram {
    /// `length` bytes of `file`, which came from `origin`.
    pub fn new(file: File, length: u64, origin: String) -> Self {
        Self { file, length, origin }
    }
}

impl fmt::Display for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (read whole into memory)", self.origin)
    }
}

impl Source for Ram {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.file.read_exact_at(buffer, offset).map_err(SourceError::Memory)
    }
}
