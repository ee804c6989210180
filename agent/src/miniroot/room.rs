//! Checks that the machine has the memory for a payload, before large files are fetched for nothing.

use crate::distro::{Plan, xen};
use crate::machine::meminfo::Memory;
use crate::medium::Directory;
use crate::miniroot::{MinirootError, read_error};
use std::path::PathBuf;

/// Bytes beside the payload that this life and the kernel's tables need.
const SLACK: u64 = 24 << 20;

/// Bytes beside its unpacked initrd that a target needs to come up at all.
const TARGET_FLOOR: u64 = 128 << 20;

/// The owner of memory that is too small, for the error's sentence.
const MACHINE: &str = "this machine";
pub const DOM0: &str = "dom0";

/// Sizes of files on the medium, in bytes.
#[derive(Clone, Copy)]
pub struct Sizes {
    kernel: u64,
    initrds: u64,
}

impl Sizes {
    pub fn of(plan: &Plan, medium: &dyn Directory) -> Result<Self, MinirootError> {
        let length = |path: &PathBuf| {
            let metadata = medium.dir().join(path).metadata();
            metadata.map(|metadata| metadata.len()).map_err(|error| read_error(path, error))
        };
        let initrds: Vec<u64> = plan.initrds.iter().map(length).collect::<Result<_, _>>()?;
        Ok(Self { kernel: length(&plan.kernel)?, initrds: initrds.iter().sum() })
    }

    /// At the peak the payload is in memory three times: our copy, the one that `kexec_file_load` reads,
    /// and the place from which it will start.
    pub fn fit(self, memory: Memory) -> Result<(), MinirootError> {
        let need = 3 * (self.kernel + self.initrds) + SLACK;
        let have = memory.available;
        if need > have {
            let what = "the target's kernel and initrd";
            return Err(MinirootError::Memory { what, who: MACHINE, need, have });
        }
        Ok(())
    }

    /// The target unpacks its initrd, `unpacked` bytes, into a file system that may take half of the
    /// memory, while the packed one is still there.
    pub fn fit_unpacked(self, unpacked: u64, plan: &Plan, memory: Memory) -> Result<(), MinirootError> {
        let (who, have) = match &plan.hypervisor {
            None => (MACHINE, memory.total),
            Some(hypervisor) => (DOM0, xen::dom0_memory(&hypervisor.words, memory.total)),
        };
        let need = (2 * unpacked).max(unpacked + self.initrds + TARGET_FLOOR);
        if need > have {
            return Err(MinirootError::Memory { what: "the target to unpack its initrd", who, need, have });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::Explain;
    use crate::formats::boot_menu::Program;
    use crate::miniroot::tests::plan;

    /// The machine, or dom0 under a hypervisor, is told how much memory it lacks.
    #[test]
    fn too_little_memory_is_told() {
        let machine = Memory { total: 2 << 30, available: 2 << 30 };
        let sizes = Sizes { kernel: 8 << 20, initrds: 40 << 20 };
        let refusal = |plan: &Plan, unpacked| {
            sizes.fit_unpacked(unpacked, plan, machine).map_err(|error| (error.to_string(), error.hint()))
        };
        let under_xen = |words: &str| Plan {
            hypervisor: Some(Program { path: "boot/xen.gz".into(), words: vec![words.into()] }),
            ..plan()
        };
        assert_eq!(refusal(&plan(), 200 << 20), Ok(()));
        assert!(refusal(&plan(), 2 << 30).unwrap_err().0.contains("this machine has"));
        assert_eq!(refusal(&under_xen("dom0_mem=1G"), 200 << 20), Ok(()));
        let (said, hint) = refusal(&under_xen("dom0_mem=256M"), 200 << 20).unwrap_err();
        assert!(said.contains("dom0 has"), "{said}");
        assert!(hint.contains("inetboot.xen=dom0_mem="), "{hint}");
    }
}
