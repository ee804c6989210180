//! A kernel and its initrd that somebody named: no medium, nothing to find, nothing to add. An
//! installer's netboot files, mostly, which get on the network by themselves.

use crate::distro::Family;

/// A plain kernel and initrd. Never recognised, for it has no marks: `netdir=` or `kernel=` says so.
pub const FAMILY: Family = Family {
    name: "plain",
    marks: &[],
    menus: &[],
    live: &[],
    kernels: &["kernel/*"],
    initrds: &["initrd/*"],
    words: &[],
    roots: &[],
    drop: &[],
    add: &[],
    modules: &[],
    premount: None,
};
