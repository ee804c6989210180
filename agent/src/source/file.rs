//! A file of this machine, on a disk or in memory.

use crate::source::Source;
use crate::source::fault::SourceError;
use std::os::unix::fs::FileExt;
use std::{fmt, fs};

/// A file and what it is called.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    length: u64,
    name: String,
}

impl File {
    /// The first `length` bytes of `file`, which is called `name`.
    pub fn new(file: fs::File, length: u64, name: String) -> Self {
        Self { file, length, name }
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Source for File {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| SourceError::File { name: self.name.clone(), error })
    }
}
