//! The running kernel: mounts, drivers, memory, the clock, loop devices. A step of the boot asks here
//! for what it needs of the machine; nothing here knows the order of the boot.

pub mod clock;
pub mod drivers;
pub mod loopdev;
pub mod memory;
