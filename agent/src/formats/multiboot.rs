//! The start of a hypervisor and its dom0 by `kexec_load(2)`: the places in memory for all their parts, and
//! the description of them that the hypervisor reads.
//!
//! Formats: the Multiboot2 specification and ELF-32. What Xen makes of them: `xen/arch/x86/boot`. All parts
//! must lie below 4 GiB, since a Multiboot2 kernel starts in 32-bit mode. From low to high:
//!
//! ```text
//! hypervisor, where it was linked to | dom0's kernel | dom0's initrd | boot information | trampoline
//! ```

use crate::sys::trampoline;
use std::borrow::Cow;

/// Bytes that Xen has for its command line (`COMMAND_LINE_SIZE`), and also for dom0's. The terminating NUL
/// counts.
pub const WORDS_MAX: usize = 1024;

const PAGE: u64 = 4096;

const FOUR_GIB: u64 = 1 << 32;

/// The mark of a Multiboot2 header, and the part of the file that the header lies in (3.1 of the
/// specification).
const MAGIC: u32 = 0xe852_50d6;
const HEADER_WITHIN: usize = 32768;

/// The reason why a hypervisor cannot be started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultibootError {
    #[error("it is not a 32-bit ELF program")]
    NotElf,
    #[error("it has no Multiboot2 header")]
    NoHeader,
    #[error("it has to lie at {at:#x}, and there are no {size} bytes of memory there")]
    Taken { at: u64, size: u64 },
    #[error("there are no {size} bytes of memory left below 4 GiB for its {what}")]
    NoRoom { what: &'static str, size: u64 },
}

/// A range of the physical memory, as the firmware describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: u64,
    /// The address behind the last byte.
    pub end: u64,
    pub kind: RegionKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Free to use.
    Ram,
    /// ACPI's tables. Free once they were read.
    AcpiTables,
    /// Memory that ACPI must find unchanged after a sleep.
    AcpiStorage,
    Reserved,
}

impl RegionKind {
    /// The number for the memory map of the boot information (3.6.8 of the specification).
    const fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::AcpiTables => 3,
            Self::AcpiStorage => 4,
        }
    }
}

impl Region {
    fn is_ram(&self) -> bool {
        self.kind == RegionKind::Ram
    }

    fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }
}

/// A file for the hypervisor: dom0's kernel, or its initrd.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its name, for errors.
    pub what: &'static str,
    pub bytes: &'a [u8],
    /// Its command line.
    pub words: &'a str,
}

/// Bytes, and the place in memory that the kernel copies them to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// The physical address, at the start of a page.
    pub address: u64,
    /// The length of the place in bytes: whole pages. Behind `bytes` it is filled with zeros.
    pub length: u64,
}

impl<'a> Segment<'a> {
    fn new(bytes: impl Into<Cow<'a, [u8]>>, address: u64, length: u64) -> Self {
        Self { bytes: bytes.into(), address, length: length.next_multiple_of(PAGE) }
    }
}

/// All parts in their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout<'a> {
    pub segments: Vec<Segment<'a>>,
    /// The address to jump to: the trampoline's.
    pub start: u64,
}

/// Gives `hypervisor`, its `modules`, and the code that starts it their places in `memory`. `words` is the
/// hypervisor's command line.
pub fn lay_out<'a>(
    hypervisor: &'a [u8],
    words: &str,
    modules: &[Module<'a>],
    memory: &[Region],
) -> Result<Layout<'a>, MultibootError> {
    // The hypervisor's own place is fixed.
    let elf = Elf::parse(hypervisor)?;
    let mut segments = Vec::new();
    for &Load { contents, address, size } in &elf.loads {
        if !is_free(memory, address, size) {
            return Err(MultibootError::Taken { at: address, size });
        }
        segments.push(Segment::new(contents, address, size));
    }

    // All else may lie anywhere, and goes behind it, one after the other.
    let mut free_from = elf.end();
    let mut allocate = |what, size| {
        let address = next_place(memory, free_from, size).ok_or(MultibootError::NoRoom { what, size })?;
        free_from = address + size;
        Ok(address)
    };
    let mut placed = Vec::new();
    for module in modules {
        let size = module.bytes.len() as u64;
        let start = allocate(module.what, size)?;
        segments.push(Segment::new(module.bytes, start, size));
        placed.push(Placed { start, end: start + size, words: module.words });
    }

    let information = boot_information(words, &placed, memory);
    let size = information.len() as u64;
    let information_at = allocate("description", size)?;
    segments.push(Segment::new(information, information_at, size));

    let start = allocate("trampoline", PAGE)?;
    segments.push(Segment::new(trampoline::code(elf.entry, information_at as u32), start, PAGE));
    Ok(Layout { segments, start })
}

/// True if all of `size` bytes from `address` on are memory below 4 GiB.
fn is_free(memory: &[Region], address: u64, size: u64) -> bool {
    let end = address + size;
    let holds = |region: &Region| region.is_ram() && region.start <= address && end <= region.end;
    end <= FOUR_GIB && memory.iter().any(holds)
}

/// The lowest page at or above `from` with `size` bytes of memory.
fn next_place(memory: &[Region], from: u64, size: u64) -> Option<u64> {
    let size = size.next_multiple_of(PAGE);
    let ram = memory.iter().filter(|region| region.is_ram());
    let starts = ram.map(|region| region.start.max(from).next_multiple_of(PAGE));
    starts.filter(|start| is_free(memory, *start, size)).min()
}

/// The parts of a hypervisor's file that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Elf<'a> {
    /// The physical address at which it starts.
    entry: u32,
    loads: Vec<Load<'a>>,
}

/// A segment that the file wants loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Load<'a> {
    contents: &'a [u8],
    /// The physical address.
    address: u64,
    /// Bytes in memory. There may be more of them than in the file.
    size: u64,
}

impl<'a> Elf<'a> {
    /// Reads the ELF header and the program headers of a Multiboot2 kernel.
    fn parse(file: &'a [u8]) -> Result<Self, MultibootError> {
        const LITTLE_ENDIAN_32_BITS: &[u8] = b"\x7fELF\x01\x01";
        const I386: u16 = 3;
        let machine = u16_at(file, 18); // e_machine
        if !file.starts_with(LITTLE_ENDIAN_32_BITS) || machine != Some(I386) {
            return Err(MultibootError::NotElf);
        }
        if !has_multiboot_header(file) {
            return Err(MultibootError::NoHeader);
        }

        let elf = Self::parse_headers(file).ok_or(MultibootError::NotElf)?;
        let is_sound =
            |load: &Load<'_>| load.contents.len() as u64 <= load.size && load.address.is_multiple_of(PAGE);
        let is_loadable = !elf.loads.is_empty() && elf.loads.iter().all(is_sound);
        if is_loadable { Ok(elf) } else { Err(MultibootError::NotElf) }
    }

    /// The names behind the numbers are those of the ELF specification.
    fn parse_headers(file: &'a [u8]) -> Option<Self> {
        const PT_LOAD: u32 = 1;
        let entry = u32_at(file, 24)?; // e_entry
        let table = u32_at(file, 28)? as usize; // e_phoff
        let header_size = usize::from(u16_at(file, 42)?); // e_phentsize
        let count = usize::from(u16_at(file, 44)?); // e_phnum

        let mut loads = Vec::new();
        for number in 0..count {
            let header = table.checked_add(number.checked_mul(header_size)?)?;
            if u32_at(file, header)? != PT_LOAD {
                continue;
            }
            let offset = u32_at(file, header + 4)? as usize; // p_offset
            let address = u64::from(u32_at(file, header + 12)?); // p_paddr
            let length = u32_at(file, header + 16)? as usize; // p_filesz
            let size = u64::from(u32_at(file, header + 20)?); // p_memsz
            loads.push(Load { contents: file.get(offset..offset.checked_add(length)?)?, address, size });
        }
        Some(Self { entry, loads })
    }

    /// The address behind its last byte.
    fn end(&self) -> u64 {
        self.loads.iter().map(|load| load.address + load.size).max().unwrap_or_default()
    }
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?))
}

/// The header is aligned to eight bytes and begins with four numbers: magic, architecture, length, and a
/// checksum that makes their sum zero.
fn has_multiboot_header(file: &[u8]) -> bool {
    let sum_from =
        |at| (0..4).try_fold(0_u32, |sum, number| Some(sum.wrapping_add(u32_at(file, at + number * 4)?)));
    let mut places = (0..file.len().min(HEADER_WITHIN)).step_by(8);
    places.any(|at| u32_at(file, at) == Some(MAGIC) && sum_from(at) == Some(0))
}

/// A module in its place, as the boot information describes it.
struct Placed<'a> {
    start: u64,
    /// The address behind its last byte.
    end: u64,
    words: &'a str,
}

/// The boot information, section 3.6 of the specification.
fn boot_information(words: &str, modules: &[Placed<'_>], memory: &[Region]) -> Vec<u8> {
    const END: u32 = 0;
    const COMMAND_LINE: u32 = 1;
    const LOADER_NAME: u32 = 2;
    const MODULE: u32 = 3;
    const BASIC_MEMORY: u32 = 4;
    const MEMORY_MAP: u32 = 6;

    // The length of all, filled in at the end, and a reserved number. Then tags, each aligned to eight bytes.
    let mut information = vec![0; 8];
    let mut add_tag = |kind: u32, body: &[u8]| {
        information.extend_from_slice(&kind.to_le_bytes());
        information.extend_from_slice(&(8 + body.len() as u32).to_le_bytes());
        information.extend_from_slice(body);
        information.resize(information.len().next_multiple_of(8), 0);
    };

    // Unless the loader is GRUB 2, Xen drops the first word of each command line: the name of the file.
    add_tag(COMMAND_LINE, format!("xen {words}\0").as_bytes());
    add_tag(LOADER_NAME, concat!("InetBoot ", env!("CARGO_PKG_VERSION"), "\0").as_bytes());
    for Placed { start, end, words } in modules {
        let range = [(*start as u32).to_le_bytes(), (*end as u32).to_le_bytes()].concat();
        add_tag(MODULE, &[&range, format!("module {words}\0").as_bytes()].concat());
    }
    add_tag(BASIC_MEMORY, &[kib_from(memory, 0), kib_from(memory, 1 << 20)].concat());
    add_tag(MEMORY_MAP, &memory_map(memory));
    add_tag(END, &[]);

    let length = information.len() as u32;
    information[..4].copy_from_slice(&length.to_le_bytes());
    information
}

/// The length in KiB of the memory that begins at `start`.
fn kib_from(memory: &[Region], start: u64) -> [u8; 4] {
    let region = memory.iter().find(|region| region.is_ram() && region.contains(start));
    let bytes = region.map_or(0, |region| region.end - start).min(FOUR_GIB);
    ((bytes >> 10) as u32).to_le_bytes()
}

/// The size of an entry, the version of the format, then the entries: address, length, kind and a reserved
/// number.
fn memory_map(memory: &[Region]) -> Vec<u8> {
    const ENTRY_SIZE: u32 = 24;
    const VERSION: u32 = 0;
    let mut map = [ENTRY_SIZE.to_le_bytes(), VERSION.to_le_bytes()].concat();
    for region in memory {
        map.extend_from_slice(&region.start.to_le_bytes());
        map.extend_from_slice(&(region.end - region.start).to_le_bytes());
        map.extend_from_slice(&region.kind.number().to_le_bytes());
        map.extend_from_slice(&[0; 4]);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory() -> Vec<Region> {
        let region = |start, end, kind| Region { start, end, kind };
        vec![
            region(0, 0x9fc00, RegionKind::Ram),
            region(0x9fc00, 0x10_0000, RegionKind::Reserved),
            region(0x10_0000, 0x4000_0000, RegionKind::Ram),
        ]
    }

    /// An ELF of one segment at 2 MiB with a Multiboot2 header, as Xen is.
    fn hypervisor() -> Vec<u8> {
        let mut file = vec![0; 0x200];
        file[..6].copy_from_slice(b"\x7fELF\x01\x01");
        file[18] = 3;
        let mut put = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(24, 0x20_0010); // entry
        put(28, 52);
        put(42, 32 | 1 << 16); // one header of 32 bytes
        for (at, value) in [(0, 1), (4, 0x100), (12, 0x20_0000), (16, 0x100), (20, 0x3000)] {
            put(52 + at, value);
        }
        for (number, value) in [MAGIC, 0, 16, 0_u32.wrapping_sub(MAGIC + 16)].into_iter().enumerate() {
            put(0x100 + number * 4, value);
        }
        file
    }

    fn modules() -> [Module<'static>; 2] {
        [
            Module { what: "kernel", bytes: &[1; 5000], words: "console=hvc0" },
            Module { what: "initrd", bytes: &[2; 100], words: "" },
        ]
    }

    /// The parts lie behind the hypervisor and apart from each other, and the boot information tells where.
    #[test]
    fn layout() {
        let file = hypervisor();
        let Layout { segments, start } = lay_out(&file, "dom0_mem=1G", &modules(), &memory()).unwrap();
        let places: Vec<(u64, u64)> =
            segments.iter().map(|segment| (segment.address, segment.length)).collect();
        assert_eq!(
            places,
            [
                (0x20_0000, 0x3000),
                (0x20_3000, 0x2000),
                (0x20_5000, 0x1000),
                (0x20_6000, 0x1000),
                (0x20_7000, 0x1000)
            ]
        );
        assert_eq!(start, 0x20_7000);
        let info = &segments[3].bytes;
        let has = |text: &[u8]| info.windows(text.len()).any(|window| window == text);
        assert!(has(b"xen dom0_mem=1G\0") && has(b"module console=hvc0\0"));
        assert_eq!(info[..4], (info.len() as u32).to_le_bytes());
        assert_eq!(info[info.len() - 8..], [0, 0, 0, 0, 8, 0, 0, 0]);
        // The first module's tag has its own end, not that of its last page.
        assert!(has(&[0, 0x30, 0x20, 0, 0x88, 0x43, 0x20, 0]));
    }

    /// A part that finds no memory below 4 GiB is named.
    #[test]
    fn too_little_low_memory() {
        let high = |start, end| vec![Region { start, end, kind: RegionKind::Ram }];
        let file = hypervisor();
        let error = lay_out(&file, "", &modules(), &high(0x40_0000, 0x4000_0000)).unwrap_err();
        assert_eq!(error, MultibootError::Taken { at: 0x20_0000, size: 0x3000 });
        let error = lay_out(&file, "", &modules(), &high(0, 0x20_4000)).unwrap_err();
        assert_eq!(error, MultibootError::NoRoom { what: "kernel", size: 5000 });
        let beyond = high(0, 0x20_3000).into_iter().chain(high(FOUR_GIB, 2 * FOUR_GIB)).collect::<Vec<_>>();
        assert!(lay_out(&file, "", &modules(), &beyond).is_err());
    }

    /// A file of another kind is refused, and a file without a valid Multiboot2 header.
    #[test]
    fn other_files() {
        let refusal = |file: &[u8]| lay_out(file, "", &[], &memory()).unwrap_err();
        assert_eq!(refusal(b"MZ"), MultibootError::NotElf);
        let mut file = hypervisor();
        file[0x100] ^= 1;
        assert_eq!(refusal(&file), MultibootError::NoHeader);
    }

    proptest! {
        /// A damaged or cut file is refused or laid out, without a panic.
        #[test]
        fn damaged_files(at in 0usize..0x110, byte: u8, length in 0usize..0x200) {
            let mut file = hypervisor();
            file[at] = byte;
            let _ = lay_out(&file[..length], "", &modules(), &memory());
            let _ = lay_out(&file, "", &modules(), &memory());
        }
    }
}
