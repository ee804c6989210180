//! Readers of a file by an offset of their own (`pread(2)`): several may share one descriptor.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Receiver;

/// Reads a file from its start. The offset of the descriptor does not move.
#[derive(Debug)]
pub struct Pread<'a> {
    file: &'a File,
    offset: u64,
}

impl<'a> Pread<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for Pread<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Reads a file while another thread writes it. At the end of the file it waits until the writer announces
/// more, or has dropped its side of the channel: then the file is complete.
#[derive(Debug)]
pub struct Growing<'a> {
    written: Pread<'a>,
    announced: Receiver<()>,
    is_whole: bool,
}

impl<'a> Growing<'a> {
    /// Reads `file` from its start. The writer sends to `announced` after each write.
    pub fn new(file: &'a File, announced: Receiver<()>) -> Self {
        Self { written: Pread::new(file), announced, is_whole: false }
    }
}

impl Read for Growing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.written.read(buffer)?;
            if length > 0 || buffer.is_empty() || self.is_whole {
                return Ok(length);
            }
            // The writer may have written once more just before it ended, so read again after that.
            self.is_whole = self.announced.recv().is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memfd::file;
    use std::io::Write;
    use std::sync::mpsc::channel;
    use std::thread;

    /// A growing file is read to the end that its writer leaves, announced or not.
    #[test]
    fn growing_files_are_read_whole() {
        let mut written = file("test").unwrap();
        let (announcer, announced) = channel();
        let shared = written.try_clone().unwrap();
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            Growing::new(&shared, announced).read_to_end(&mut all).map(|_| all).unwrap()
        });

        for part in [&b"one "[..], b"two "] {
            written.write_all(part).unwrap();
            announcer.send(()).unwrap();
        }
        written.write_all(b"three").unwrap();
        drop(announcer);
        assert_eq!(reading.join().unwrap(), b"one two three");
    }
}
