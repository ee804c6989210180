//! The firmware's map of the physical memory (`Documentation/ABI/testing/sysfs-firmware-memmap`).

use crate::formats::multiboot::{Region, RegionKind};
use std::{fs, io};

/// The map, in order of address.
pub fn regions() -> io::Result<Vec<Region>> {
    let mut regions = Vec::new();
    for entry in fs::read_dir("/sys/firmware/memmap")? {
        let dir = entry?.path();
        let field = |name: &str| fs::read_to_string(dir.join(name)).map(|text| text.trim().to_owned());
        regions.push(region(&field("type")?, &field("start")?, &field("end")?)?);
    }
    regions.sort_by_key(|region| region.start);
    Ok(regions)
}

/// The region that an entry of sysfs describes by its first and its last byte.
fn region(kind: &str, first: &str, last: &str) -> io::Result<Region> {
    let number =
        |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(io::Error::other);
    let kind = match kind {
        "System RAM" => RegionKind::Ram,
        "ACPI Tables" => RegionKind::AcpiTables,
        "ACPI Non-volatile Storage" => RegionKind::AcpiStorage,
        _ => RegionKind::Reserved,
    };
    // A region that ends at the last address has no address after it.
    Ok(Region { start: number(first)?, end: number(last)?.saturating_add(1), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A region may end with the address space.
    #[test]
    fn regions_are_read() {
        let low = region("System RAM", "0x0", "0x9fbff").unwrap();
        assert_eq!(low, Region { start: 0, end: 0x9fc00, kind: RegionKind::Ram });
        assert_eq!(region("Reserved", "0xfffc0000", "0xffffffffffffffff").unwrap().end, u64::MAX);
        assert!(region("Reserved", "0x0", "all").is_err());
    }
}
