//! Readers of a file by an offset of their own (`pread(2)`).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Receiver;

/// Reads a file by an offset of its own, so that nobody else's moves (`pread(2)`).
#[derive(Debug)]
pub struct Pread<'a> {
    file: &'a File,
    offset: u64,
}

impl<'a> Pread<'a> {
    /// Read `file` from its start.
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

/// Reads a file while another thread writes it. At the end of what is there it waits until more is
/// announced, or until the announcer is gone: then that is all.
#[derive(Debug)]
pub struct Growing<'a> {
    written: Pread<'a>,
    announced: Receiver<()>,
    is_whole: bool,
}

impl<'a> Growing<'a> {
    /// Read `file` from its start; whatever is written to it is `announced` afterwards.
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
            // Something may have been written just before the announcer went: once more, then.
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

    #[test]
    fn a_file_that_grows_is_read_to_what_becomes_its_end() {
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
