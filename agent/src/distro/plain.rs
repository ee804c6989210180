//! A kernel and an initrd that the kernel arguments name, mostly an installer's netboot files. There is no
//! medium to recognise and nothing to add: such a target sets up the network by itself.

use crate::distro::Family;

/// The row that `kernel=`, or a directory in `netdir=`, selects. It has no marks, so no medium is recognised
/// as one.
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
