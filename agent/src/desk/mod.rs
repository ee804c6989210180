//! The host's tools, used by `inetbootctl`: the same rooms as the boot, on a desk.

pub mod cache;
pub mod image;
pub mod mount;
pub mod sort;
