//! Codecs: bytes to values and back. Nothing here reads a file, opens a socket or asks the kernel.
//!
//! Bytes of other programs (menus, indexes, event logs, kernels, archives) become a type here, with a bound on
//! its size, before a step of the boot uses them. Each file has a target in `fuzz/`, or its values are read
//! by another file's; `tests/corpus.rs` says which.

pub mod bank;
pub mod boot_menu;
pub mod bzimage;
pub mod catalogue;
pub mod cmdline;
pub mod compression;
pub mod cpio;
pub mod depmod;
pub mod disk_layout;
pub mod eventlog;
pub mod family;
pub mod handoff;
pub mod index;
pub mod lease;
pub mod links;
pub mod mac;
pub mod multiboot;
pub mod pcr;
pub mod pieces;
pub mod profile;
pub mod receipt;
pub mod recipe;
pub mod statement;
pub mod tpm12;
pub mod tpm2;
pub mod tpm_policy;
pub mod trust;
pub mod unpack;
pub mod url;
pub mod version;
