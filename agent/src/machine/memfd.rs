//! Files that live in memory (`memfd_create(2)`), and seals that forbid further changes.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// An empty file in memory, open for writing. `name` shows in `/proc/self/fd` alone.
pub fn file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

/// A file in memory that cannot change any more: the bytes that were digested are those that will run.
#[derive(Debug)]
pub struct Sealed {
    file: File,
}

impl Sealed {
    /// Seals `file`, which [`file()`] made, and opens it anew for reading: the kernel refuses to load a file
    /// that is open for writing (`ETXTBSY`).
    pub fn new(file: File) -> io::Result<Self> {
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let read_only = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Self { file: read_only })
    }

    /// The file, open for reading only.
    pub fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A sealed file refuses writes through descriptors that were opened before.
    #[test]
    fn sealed_files_stay() {
        let mut open = file("test").unwrap();
        open.write_all(b"kernel").unwrap();
        let mut copy = open.try_clone().unwrap();
        let sealed = Sealed::new(open).unwrap();
        assert_eq!(sealed.file().metadata().unwrap().len(), 6);
        assert!(copy.write_all(b"evil").is_err());
    }
}
