//! The host's tools, used by `inetbootctl`: the same rooms as the boot, on a desk.

pub mod cache;
pub mod catalogue;
pub mod cloop;
pub mod drivers;
pub mod files;
pub mod image;
pub mod iso;
pub mod log;
pub mod mount;
pub mod overlay;
pub mod pcrs;
pub mod predict;
pub mod quote;
pub mod sort;
mod subject;
