//! A hypervisor and its dom0 as `kexec_load` segments: the Multiboot2 specification, and what Xen's
//! `arch/x86/boot` expects. Pure; the kernel only copies what is laid out here to where it says.
//!
//! Everything lies below 4 GiB: the hypervisor where it was linked to, and behind it the kernel and
//! the initrd of dom0 as its modules, the information about all of this, and the trampoline.

use crate::sys::trampoline;
use std::borrow::Cow;

/// `COMMAND_LINE_SIZE` of Xen, and what it has for dom0's: the terminating NUL included.
pub const WORDS_MAX: usize = 1024;

const PAGE: u64 = 4096;

/// What Multiboot modules and information can be told of.
const FOUR_GIB: u64 = 1 << 32;

/// Of the Multiboot2 header; it lies in the first bytes of the file.
const MAGIC: u32 = 0xe852_50d6;
const HEADER_WITHIN: usize = 32768;

/// Why a hypervisor cannot be started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultibootError {
    /// It is not one.
    #[error("it is no 32-bit ELF program")]
    NotElf,
    /// It is one for other loaders.
    #[error("it has no Multiboot2 header")]
    NoHeader,
    /// Where it wants to be is no memory.
    #[error("it has to lie at {at:#x}, and there are no {size} bytes of memory there")]
    Taken {
        /// Where.
        at: u64,
        /// How long it is.
        size: u64,
    },
    /// What goes with it does not fit below 4 GiB.
    #[error("there are no {size} bytes of memory left below 4 GiB for its {what}")]
    NoRoom {
        /// For what.
        what: &'static str,
        /// How many.
        size: u64,
    },
}

/// Bytes for a place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// What is there; zeros behind it.
    pub bytes: Cow<'a, [u8]>,
    /// Its physical address, at a page's start.
    pub at: u64,
    /// How long the place is, in whole pages.
    pub length: u64,
}

impl<'a> Segment<'a> {
    fn new(bytes: impl Into<Cow<'a, [u8]>>, at: u64, length: u64) -> Self {
        Self { bytes: bytes.into(), at, length: length.next_multiple_of(PAGE) }
    }
}

/// A file that the hypervisor is given, and the words with it.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// What it is.
    pub what: &'static str,
    /// Its contents.
    pub bytes: &'a [u8],
    /// Its words.
    pub words: &'a str,
}

/// A hypervisor as its file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Elf<'a> {
    entry: u32,
    /// Contents, physical address, length in memory.
    loads: Vec<(&'a [u8], u64, u64)>,
}

impl<'a> Elf<'a> {
    /// ELF-32, "Program Header".
    fn parse(file: &'a [u8]) -> Result<Self, MultibootError> {
        const LOAD: u32 = 1;
        let error = || MultibootError::NotElf;
        let u16_at = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
        // Class 32, little-endian, for the 80386.
        if !file.starts_with(b"\x7fELF\x01\x01") || u16_at(18) != Some(3) {
            return Err(error());
        }
        if !has_header(file) {
            return Err(MultibootError::NoHeader);
        }
        let parsed = || {
            let (table, size, count) = (u32_at(28)? as usize, usize::from(u16_at(42)?), u16_at(44)?);
            let mut loads = Vec::new();
            for number in 0..usize::from(count) {
                let at = table.checked_add(number.checked_mul(size)?)?;
                if u32_at(at)? != LOAD {
                    continue;
                }
                let (offset, length) = (u32_at(at + 4)? as usize, u32_at(at + 16)? as usize);
                let contents = file.get(offset..offset.checked_add(length)?)?;
                loads.push((contents, u64::from(u32_at(at + 12)?), u64::from(u32_at(at + 20)?)));
            }
            Some(Self { entry: u32_at(24)?, loads })
        };
        let elf: Self = parsed().ok_or_else(error)?;
        let whole =
            elf.loads.iter().all(|(bytes, at, length)| bytes.len() as u64 <= *length && at % PAGE == 0);
        if whole && !elf.loads.is_empty() { Ok(elf) } else { Err(error()) }
    }

    fn end(&self) -> u64 {
        self.loads.iter().map(|(_, at, length)| at + length).max().unwrap_or_default()
    }
}

fn has_header(file: &[u8]) -> bool {
    let within = &file[..file.len().min(HEADER_WITHIN)];
    within.chunks_exact(8).enumerate().any(|(number, start)| {
        start.starts_with(&MAGIC.to_le_bytes())
            && file.get(number * 8..number * 8 + 16).is_some_and(|header| {
                // The four numbers of a header sum to nothing.
                header.chunks(4).fold(0_u32, |sum, bytes| {
                    sum.wrapping_add(u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
                }) == 0
            })
    })
}

/// Where everything goes, and the address to start at.
pub fn lay_out<'a>(
    hypervisor: &'a [u8],
    words: &str,
    modules: &[Module<'a>],
    memory: &[Region],
) -> Result<(Vec<Segment<'a>>, u64), MultibootError> {
    let elf = Elf::parse(hypervisor)?;
    let mut segments = Vec::new();
    for (bytes, at, size) in &elf.loads {
        let (at, size) = (*at, *size);
        if !fits(memory, at, size) {
            return Err(MultibootError::Taken { at, size });
        }
        segments.push(Segment::new(*bytes, at, size));
    }
    let mut free = elf.end();
    let mut place = |what, size| {
        let at = next_place(memory, free, size).ok_or(MultibootError::NoRoom { what, size })?;
        free = at + size;
        Ok(at)
    };
    let mut told = Vec::new();
    for module in modules {
        let size = module.bytes.len() as u64;
        let at = place(module.what, size)?;
        segments.push(Segment::new(module.bytes, at, size));
        told.push((at, size, module.words));
    }
    let info = information(words, &told, memory);
    let info_at = place("description", info.len() as u64)?;
    segments.push(Segment::new(info.clone(), info_at, info.len() as u64));
    let start = place("trampoline", PAGE)?;
    segments.push(Segment::new(trampoline::code(elf.entry, info_at as u32), start, PAGE));
    Ok((segments, start))
}

fn fits(memory: &[Region], at: u64, size: u64) -> bool {
    let end = at + size;
    end <= FOUR_GIB && memory.iter().any(|region| region.is_ram() && region.start <= at && end <= region.end)
}

/// The first page from `from` on where `size` bytes of memory lie together.
fn next_place(memory: &[Region], from: u64, size: u64) -> Option<u64> {
    let size = size.next_multiple_of(PAGE);
    let starts = memory.iter().filter(|region| region.is_ram());
    let starts = starts.map(|region| region.start.max(from).next_multiple_of(PAGE));
    starts.filter(|at| fits(memory, *at, size)).min()
}

/// The boot information, 3.6 of the specification: tags of eight bytes' alignment.
fn information(words: &str, modules: &[(u64, u64, &str)], memory: &[Region]) -> Vec<u8> {
    const END: u32 = 0;
    const COMMAND_LINE: u32 = 1;
    const LOADER: u32 = 2;
    const MODULE: u32 = 3;
    const MEMORY: u32 = 4;
    const MEMORY_MAP: u32 = 6;
    let mut info = vec![0; 8];
    let mut tag = |kind: u32, body: &[u8]| {
        info.extend_from_slice(&kind.to_le_bytes());
        info.extend_from_slice(&(8 + body.len() as u32).to_le_bytes());
        info.extend_from_slice(body);
        info.resize(info.len().next_multiple_of(8), 0);
    };
    // To loaders that are not GRUB, Xen drops the first word of each line.
    tag(COMMAND_LINE, format!("xen {words}\0").as_bytes());
    tag(LOADER, concat!("InetBoot ", env!("CARGO_PKG_VERSION"), "\0").as_bytes());
    for (at, size, words) in modules {
        let (start, end) = (*at as u32, (at + size) as u32);
        tag(
            MODULE,
            &[&start.to_le_bytes(), &end.to_le_bytes(), format!("module {words}\0").as_bytes()].concat(),
        );
    }
    let ram_from = |start: u64| {
        let region =
            memory.iter().find(|region| region.is_ram() && region.start <= start && start < region.end);
        (region.map_or(0, |region| (region.end - start).min(FOUR_GIB) >> 10) as u32).to_le_bytes()
    };
    tag(MEMORY, &[ram_from(0), ram_from(1 << 20)].concat());
    let mut map = [24_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat();
    for region in memory {
        map.extend_from_slice(&region.start.to_le_bytes());
        map.extend_from_slice(&(region.end - region.start).to_le_bytes());
        let kind: u32 = match region.is {
            Use::Ram => 1,
            Use::AcpiTables => 3,
            Use::AcpiStorage => 4,
            Use::Other => 2,
        };
        map.extend_from_slice(&[kind.to_le_bytes(), [0; 4]].concat());
    }
    tag(MEMORY_MAP, &map);
    tag(END, &[]);
    let length = info.len() as u32;
    info[..4].copy_from_slice(&length.to_le_bytes());
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory() -> Vec<Region> {
        let region = |start, end, is| Region { start, end, is };
        vec![
            region(0, 0x9fc00, Use::Ram),
            region(0x9fc00, 0x10_0000, Use::Other),
            region(0x10_0000, 0x4000_0000, Use::Ram),
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

    #[test]
    fn everything_lies_behind_the_hypervisor_and_apart() {
        let file = hypervisor();
        let (segments, start) = lay_out(&file, "dom0_mem=1G", &modules(), &memory()).unwrap();
        let places: Vec<(u64, u64)> = segments.iter().map(|segment| (segment.at, segment.length)).collect();
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
        // The first module's tag: from and to, as it is, not in whole pages.
        assert!(has(&[0, 0x30, 0x20, 0, 0x88, 0x43, 0x20, 0]));
    }

    #[test]
    fn a_machine_without_low_memory_says_so() {
        let high = |start, end| vec![Region { start, end, is: Use::Ram }];
        let file = hypervisor();
        let error = lay_out(&file, "", &modules(), &high(0x40_0000, 0x4000_0000)).unwrap_err();
        assert_eq!(error, MultibootError::Taken { at: 0x20_0000, size: 0x3000 });
        let error = lay_out(&file, "", &modules(), &high(0, 0x20_4000)).unwrap_err();
        assert_eq!(error, MultibootError::NoRoom { what: "kernel", size: 5000 });
        let beyond = high(0, 0x20_3000).into_iter().chain(high(FOUR_GIB, 2 * FOUR_GIB)).collect::<Vec<_>>();
        assert!(lay_out(&file, "", &modules(), &beyond).is_err());
    }

    #[test]
    fn what_is_no_hypervisor_is_told_apart() {
        let refusal = |file: &[u8]| lay_out(file, "", &[], &memory()).unwrap_err();
        assert_eq!(refusal(b"MZ"), MultibootError::NotElf);
        let mut file = hypervisor();
        file[0x100] ^= 1;
        assert_eq!(refusal(&file), MultibootError::NoHeader);
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0usize..0x110, byte: u8, length in 0usize..0x200) {
            let mut file = hypervisor();
            file[at] = byte;
            let _ = lay_out(&file[..length], "", &modules(), &memory());
            let _ = lay_out(&file, "", &modules(), &memory());
        }
    }
}

/// What a part of the physical memory is used for, as the firmware says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Memory for everybody.
    Ram,
    /// ACPI's tables; free once they are read.
    AcpiTables,
    /// What ACPI wants back after a sleep.
    AcpiStorage,
    /// Not to be touched.
    Other,
}

/// A part of the physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first byte.
    pub start: u64,
    /// The byte behind its last.
    pub end: u64,
    /// What it is used for.
    pub is: Use,
}

impl Region {
    /// Whether anybody may use it.
    pub fn is_ram(&self) -> bool {
        self.is == Use::Ram
    }
}
