//! KNOPPIX from version 6 on: `/init` in its minirt.gz, a shell script that mounts the medium at
//! /mnt-system and the compressed images on it by its kernel's cloop driver. No document describes
//! it; see `qemu-tests/isos/knoppix-init` for what is known and how.

use crate::distro::{Family, Tell};

/// KNOPPIX.
pub const FAMILY: Family = Family {
    name: "knoppix",
    marks: &["KNOPPIX/KNOPPIX"],
    menus: &["boot/isolinux/isolinux.cfg", "boot/syslinux/syslnx64.cfg", "boot/grub/grub.cfg"],
    // Kernels for 32 and for 64 bits lie side by side.
    live: &[Tell::Kernel("*/linux64"), Tell::Kernel("*/linux")],
    kernels: &["boot/isolinux/linux64", "boot/isolinux/linux"],
    initrds: &["boot/isolinux/minirt.gz"],
    words: &["lang=en", "apm=power-off", "nomce", "loglevel=1"],
    roots: &["KNOPPIX/KNOPPIX", "KNOPPIX/KNOPPIX[0-9]"],
    drop: &[
        // Other ways to find the medium; and, the last two, what would read the whole image.
        "bootfrom", "fromdvd", "fromhd", "tohd", "toram",
    ],
    add: &[
        // It would ask at shutdown to remove the medium, and wait for Enter (KNOPPIX' cheat codes).
        "noeject", "noprompt",
    ],
    modules: &["isofs"],
    // Its search for devices skips loop devices; what is mounted there already it takes.
    premount: Some("/mnt-system"),
};
