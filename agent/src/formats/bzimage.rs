//! The header of an x86 Linux kernel (`Documentation/arch/x86/boot.rst`). Pure.

/// `COMMAND_LINE_SIZE` of x86, its terminating NUL included.
pub const CMDLINE_MAX: usize = 2048;

/// The header's fields that we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The release, as `uname -r` prints it: the name of the modules' directory.
    pub release: String,
}

/// Reasons why a file is not a kernel that can be started on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBootable {
    #[error("it is not an x86 Linux kernel")]
    NotX86,
    #[error("it is a kernel for {0} machines, and this is a 64-bit PC")]
    Machine(&'static str),
    #[error("it is a 32-bit kernel, and this machine was booted with a 64-bit one")]
    Not64Bit,
}

const MAGIC_AT: usize = 0x202;
const VERSION_AT: usize = 0x206;
const KERNEL_VERSION_AT: usize = 0x20E;
const XLOADFLAGS_AT: usize = 0x236;

/// Bytes of a file that hold its header and the version string to which that points.
pub const HEADER: usize = 0x8000;

impl Kernel {
    /// Reads the header from the first [`HEADER`] bytes of the file.
    pub fn parse(start: &[u8]) -> Result<Self, NotBootable> {
        let u16_at = |at: usize| {
            start
                .get(at..at + 2)
                .map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
                .ok_or(NotBootable::NotX86)
        };
        if start.get(MAGIC_AT..MAGIC_AT + 4) != Some(b"HdrS") {
            return Err(machine(start).map_or(NotBootable::NotX86, NotBootable::Machine));
        }
        // XLF_KERNEL_64, since protocol 2.12 (Linux 3.8).
        if u16_at(VERSION_AT)? < 0x020c || u16_at(XLOADFLAGS_AT)? & 1 == 0 {
            return Err(NotBootable::Not64Bit);
        }
        let version_at = usize::from(u16_at(KERNEL_VERSION_AT)?) + 0x200;
        let version = start.get(version_at..).unwrap_or_default();
        let version = version.split(|byte| *byte == 0 || *byte == b' ').next().unwrap_or_default();
        Ok(Self { release: String::from_utf8_lossy(version).into_owned() })
    }
}

/// The machine of a kernel that is not for PCs. Today's kernels are EFI programs as well, whose header has it (PE,
/// "COFF File Header"); arm64 has a mark of its own too (`Documentation/arch/arm64/booting.rst`).
fn machine(start: &[u8]) -> Option<&'static str> {
    const PE_AT: usize = 0x3c;
    if start.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Some("arm64");
    }
    let at = u32::from_le_bytes(start.get(PE_AT..PE_AT + 4)?.try_into().ok()?) as usize;
    if start.get(at..at.checked_add(4)?) != Some(b"PE\0\0") {
        return None;
    }
    match u16::from_le_bytes(start.get(at + 4..at.checked_add(6)?)?.try_into().ok()?) {
        0xaa64 => Some("arm64"),
        0x01c0 | 0x01c2 | 0x01c4 => Some("arm"),
        0x5064 => Some("riscv64"),
        0x6264 => Some("loongarch64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Vec<u8> {
        let mut start = vec![0; 0x1000];
        start[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"HdrS");
        start[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        start[KERNEL_VERSION_AT..KERNEL_VERSION_AT + 2].copy_from_slice(&0x300_u16.to_le_bytes());
        start[XLOADFLAGS_AT] = 1;
        let version = b"6.1.0-56-amd64 (debian-kernel@lists.debian.org) #1 SMP\0";
        start[0x500..0x500 + version.len()].copy_from_slice(version);
        start
    }

    #[test]
    fn a_kernel_says_its_release() {
        let kernel = Kernel::parse(&header()).unwrap();
        assert_eq!(kernel.release, "6.1.0-56-amd64");
    }

    #[test]
    fn other_machines_kernels_are_refused() {
        let mut old = header();
        old[XLOADFLAGS_AT] = 0;
        assert_eq!(Kernel::parse(&old), Err(NotBootable::Not64Bit));
        assert_eq!(Kernel::parse(b"\x4d\x5aARM64"), Err(NotBootable::NotX86));
        // The beginning of a vmlinuz of linux-image-arm64 6.1: EFI stub, and the mark.
        let mut arm = vec![0; 0x400];
        arm[..2].copy_from_slice(b"MZ");
        arm[0x3c] = 0x40;
        arm[0x40..0x46].copy_from_slice(&[b'P', b'E', 0, 0, 0x64, 0xaa]);
        assert_eq!(Kernel::parse(&arm), Err(NotBootable::Machine("arm64")));
        arm[0x40] = 0;
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(Kernel::parse(&arm), Err(NotBootable::Machine("arm64")));
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0usize..0x1000, byte: u8, length in 0usize..0x1000) {
            let mut start = header();
            start[at] = byte;
            let _ = Kernel::parse(&start[..length]);
        }
    }
}
