//! The running kernel: mounts, drivers, memory, the clock, loop devices, the TPM. A step of the boot asks
//! here for what it needs of the machine; nothing here knows the order of the boot.

mod chip;
pub mod clock;
pub mod drivers;
mod firmware;
pub mod ledger;
pub mod loopdev;
pub mod memfd;
pub mod meminfo;
pub mod memmap;
pub mod mounts;
pub mod pread;
