//! Files that live in memory (`memfd_create(2)`).

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A nameless file in memory, to be written.
pub fn file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

/// A file in memory that nobody can change any more: what was digested is what will run.
#[derive(Debug)]
pub struct Sealed {
    file: File,
}

impl Sealed {
    /// Seal `file`, which [`file`] made. It is opened anew for reading: the kernel refuses to
    /// load what anybody holds open for writing.
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

    #[test]
    fn what_is_sealed_cannot_be_changed() {
        let mut open = file("test").unwrap();
        open.write_all(b"kernel").unwrap();
        let mut copy = open.try_clone().unwrap();
        let sealed = Sealed::new(open).unwrap();
        assert_eq!(sealed.file().metadata().unwrap().len(), 6);
        assert!(copy.write_all(b"evil").is_err());
    }
}
