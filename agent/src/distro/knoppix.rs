//! KNOPPIX from version 6 on. Its initrd is minirt.gz, whose `/init` is a shell script: it mounts the medium at
//! /mnt-system, and the compressed images on it by the cloop driver of its kernel. No document describes it;
//! `qemu-tests/isos/knoppix-init` says what is known, and from where.

use crate::distro::{Family, Marker};
use crate::formats::family::FamilyName;

/// Media with one compressed image, or with several.
pub const FAMILY: Family = Family {
    name: FamilyName::Knoppix.word(),
    marks: &["KNOPPIX/KNOPPIX"],
    menus: &["boot/isolinux/isolinux.cfg", "boot/syslinux/syslnx64.cfg", "boot/grub/grub.cfg"],
    // Kernels for 32 and for 64 bits are side by side: 64 bits come first.
    live: &[Marker::Kernel("*/linux64"), Marker::Kernel("*/linux")],
    kernels: &["boot/isolinux/linux64", "boot/isolinux/linux"],
    initrds: &["boot/isolinux/minirt.gz"],
    words: &["lang=en", "apm=power-off", "nomce", "loglevel=1"],
    roots: &["KNOPPIX/KNOPPIX", "KNOPPIX/KNOPPIX[0-9]"],
    drop: &[
        // The first three would look for the medium elsewhere, and the last two would read the whole image.
        "bootfrom", "fromdvd", "fromhd", "tohd", "toram",
    ],
    add: &[
        // It would ask at shutdown to remove the medium, and wait for Enter (KNOPPIX' cheat codes).
        "noeject", "noprompt",
    ],
    modules: &["isofs"],
    // Its search skips loop devices, but it takes a medium that is mounted here already.
    premount: Some("/mnt-system"),
};
