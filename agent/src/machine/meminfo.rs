//! The size of the machine's memory, by `/proc/meminfo` (`Documentation/filesystems/proc.rst`).

use std::{fs, io};

/// The memory of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it, in bytes.
    pub total: u64,
    /// The part that new programs can have without swapping, in bytes.
    pub available: u64,
}

impl Memory {
    /// The state of this machine now.
    pub fn now() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo lacks MemTotal or MemAvailable"))
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self { total: field(text, "MemTotal:")?, available: field(text, "MemAvailable:")? })
    }
}

/// Bytes that disks have still to take: dirty pages, and those that are being written.
pub fn unwritten() -> u64 {
    parse_unwritten(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn parse_unwritten(text: &str) -> u64 {
    let of = |name| field(text, name).unwrap_or(0);
    of("Dirty:").saturating_add(of("Writeback:"))
}

/// A figure of the kernel, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's kibibytes become bytes. A line that is damaged or too large is refused.
    #[test]
    fn figures_are_read() {
        let text = "MemTotal:         476532 kB\nMemFree:          1 kB\nMemAvailable:     400000 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { total: 476_532 * 1024, available: 400_000 * 1024 }));
        assert_eq!(Memory::parse("MemTotal: x kB"), None);
        let huge = format!("MemTotal: {} kB\nMemAvailable: 1 kB\n", u64::MAX);
        assert_eq!(Memory::parse(&huge), None);
    }

    /// Pages that wait for a disk count, and no others.
    #[test]
    fn unwritten_data_is_counted() {
        let text = "MemFree: 9 kB\nDirty:   120 kB\nWriteback:  8 kB\nWritebackTmp: 5 kB\n";
        assert_eq!(parse_unwritten(text), 128 * 1024);
        assert_eq!(parse_unwritten(""), 0);
    }
}
