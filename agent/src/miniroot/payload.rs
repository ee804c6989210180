//! The outcome of step 6: all that the next kernel is started with.

use crate::formats::statement::Statement;
use crate::machine::memfd::Sealed;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// A kernel and what it starts with.
#[derive(Debug)]
pub struct Payload {
    /// Starts the kernel in our place, if one was asked for.
    pub hypervisor: Option<Hypervisor>,
    pub kernel: Sealed,
    pub initrd: Initrd,
    /// Kernel, initrds and overlay, file by file: all but padding and the archives' own headers.
    pub parts: Vec<Statement>,
    pub cmdline: CString,
}

/// The medium's initrds and our overlay, one after the other. Only the notes are still missing.
#[derive(Debug)]
pub struct Initrd(File);

impl Initrd {
    /// `file` holds the initrds and the overlay, and is made by [`memfd::file`](crate::machine::memfd::file).
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// Appends the notes, a segment about this one boot that is not measured, and forbids changes.
    pub fn seal(mut self, notes: &[u8]) -> io::Result<Sealed> {
        self.0.seek(SeekFrom::End(0))?;
        self.0.write_all(notes)?;
        Sealed::new(self.0)
    }
}

/// A hypervisor and its arguments.
#[derive(Debug)]
pub struct Hypervisor {
    /// Its path on the medium.
    pub path: String,
    /// The file as it lies there.
    pub file: Vec<u8>,
    /// The program in it, unpacked.
    pub program: Vec<u8>,
    pub words: String,
}
