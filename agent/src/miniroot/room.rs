//! Whether there is enough memory.

use crate::distro::{Plan, xen};
use crate::machine::memory::Memory;
use crate::medium::Cd;
use crate::miniroot::{MinirootError, read_error};
use std::path::PathBuf;

/// Memory beyond the payload that this life and the kernel's own tables need.
const SLACK: u64 = 24 << 20;

/// Memory the target needs beside its unpacked initrd, to come up at all.
const TARGET_FLOOR: u64 = 128 << 20;

/// Whose memory it is.
const MACHINE: &str = "this machine";

pub const DOM0: &str = "dom0";

#[derive(Clone, Copy)]
pub struct Sizes {
    pub kernel: u64,
    pub initrd: u64,
}

impl Sizes {
    pub fn of(plan: &Plan, cd: &dyn Cd) -> Result<Self, MinirootError> {
        let length = |path: &PathBuf| {
            let metadata = cd.dir().join(path).metadata();
            metadata.map(|metadata| metadata.len()).map_err(|error| read_error(cd, path, error))
        };
        let initrds: Vec<u64> = plan.initrds.iter().map(length).collect::<Result<_, _>>()?;
        Ok(Self { kernel: length(&plan.kernel)?, initrd: initrds.iter().sum() })
    }
}

/// Before anything large is fetched. The payload is in memory three times at the peak: our copy,
/// the one `kexec_file_load` reads, and where that will start.
pub fn check_room(sizes: Sizes, memory: Memory) -> Result<(), MinirootError> {
    let need = 3 * (sizes.kernel + sizes.initrd) + SLACK;
    let have = memory.available;
    if need > have {
        let what = "the target's kernel and initrd";
        return Err(MinirootError::Memory { what, who: MACHINE, need, have });
    }
    Ok(())
}

/// The target unpacks its initrd into a file system that takes half of the memory at most, while
/// the packed one is still there.
pub fn check_target(unpacked: u64, packed: u64, plan: &Plan, memory: Memory) -> Result<(), MinirootError> {
    let (who, have) = match &plan.hypervisor {
        None => (MACHINE, memory.total),
        Some(hypervisor) => (DOM0, xen::dom0_memory(&hypervisor.words, memory.total)),
    };
    let need = (2 * unpacked).max(unpacked + packed + TARGET_FLOOR);
    if need > have {
        return Err(MinirootError::Memory { what: "the target to unpack its initrd", who, need, have });
    }
    Ok(())
}
