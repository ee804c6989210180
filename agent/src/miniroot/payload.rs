//! The payload.

use crate::formats::statement::Statement;
use crate::machine::memory::Sealed;
use std::ffi::CString;
use std::fs::File;

/// A kernel and what it starts with.
#[derive(Debug)]
pub struct Payload {
    /// What starts the target's kernel, where that is not us.
    pub hypervisor: Option<Hypervisor>,
    /// The target's kernel.
    pub kernel: Sealed,
    /// Its initrds with our overlay, one after the other.
    pub initrd: File,
    /// What both consist of, file by file: all but padding and the archives' own headers.
    pub parts: Vec<Statement>,
    /// The target's command line.
    pub cmdline: CString,
}

/// A hypervisor and its arguments.
#[derive(Debug)]
pub struct Hypervisor {
    /// Where it is on the medium.
    pub path: String,
    /// The file as it is there.
    pub file: Vec<u8>,
    /// The program in it.
    pub program: Vec<u8>,
    /// Its arguments.
    pub words: String,
}
