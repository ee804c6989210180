//! Memory: how much there is, and files that live in it (`memfd_create(2)`).

use crate::formats::multiboot::{Region, Use};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Receiver;

/// What `/proc/meminfo` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it, in bytes.
    pub total: u64,
    /// What can be had without swapping, in bytes.
    pub available: u64,
}

impl Memory {
    /// The state of this machine now.
    pub fn now() -> io::Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo lacks MemTotal or MemAvailable"))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some(Self { total: field("MemTotal:")?, available: field("MemAvailable:")? })
    }
}

/// The firmware's map of the physical memory, in order
/// (`Documentation/ABI/testing/sysfs-firmware-memmap`).
pub fn regions() -> io::Result<Vec<Region>> {
    let mut regions = Vec::new();
    for entry in std::fs::read_dir("/sys/firmware/memmap")? {
        let dir = entry?.path();
        let field = |name: &str| std::fs::read_to_string(dir.join(name)).map(|text| text.trim().to_owned());
        regions.push(region(&field("type")?, &field("start")?, &field("end")?)?);
    }
    regions.sort_by_key(|region| region.start);
    Ok(regions)
}

/// The region that an entry of sysfs describes by its first and its last byte.
fn region(kind: &str, first: &str, last: &str) -> io::Result<Region> {
    let number =
        |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(io::Error::other);
    let is = match kind {
        "System RAM" => Use::Ram,
        "ACPI Tables" => Use::AcpiTables,
        "ACPI Non-volatile Storage" => Use::AcpiStorage,
        _ => Use::Other,
    };
    // The last byte of the address space has none after it.
    Ok(Region { start: number(first)?, end: number(last)?.saturating_add(1), is })
}

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

    #[test]
    fn the_kernels_figures_are_read() {
        let text = "MemTotal:         476532 kB\nMemFree:          1 kB\nMemAvailable:     400000 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { total: 476_532 * 1024, available: 400_000 * 1024 }));
        assert_eq!(Memory::parse("MemTotal: x kB"), None);
    }

    /// A region may end with the address space.
    #[test]
    fn regions_are_read() {
        let low = region("System RAM", "0x0", "0x9fbff").unwrap();
        assert_eq!(low, Region { start: 0, end: 0x9fc00, is: Use::Ram });
        assert_eq!(region("Reserved", "0xfffc0000", "0xffffffffffffffff").unwrap().end, u64::MAX);
        assert!(region("Reserved", "0x0", "all").is_err());
    }

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
