//! Ubuntu, Mint, Pop!_OS and other systems that casper starts. Its initrd: casper(7), and `scripts/casper` in
//! the package.

use crate::distro::{Family, Marker};
use crate::formats::family::FamilyName;

/// Media of one squashfs, or of several layers.
pub const FAMILY: Family = Family {
    name: FamilyName::Casper.word(),
    marks: &["casper*/*.squashfs"],
    menus: &["boot/grub/grub.cfg", "boot/grub/loopback.cfg", "isolinux/txt.cfg", "isolinux/isolinux.cfg"],
    // Newer menus lack the word, since the initrd knows by itself that it is casper's.
    live: &[Marker::Word("boot=casper"), Marker::Kernel("casper*/*")],
    kernels: &["casper*/vmlinuz*", "casper*/hwe-vmlinuz"],
    initrds: &["casper*/initrd*", "casper*/hwe-initrd"],
    words: &["boot=casper"],
    roots: &["casper*/*.squashfs"],
    drop: &[
        // Separates arguments for the installed system in menus; the kernel reads none behind it.
        "--",
        // The initrd would look for its medium in these ways first.
        "bootfrom",
        "iso-scan/filename",
        "live-media",
        "netboot",
        "nfsroot",
        "url",
        // Would configure the network card that is in use.
        "BOOTIF",
        "ip",
        // Would read the whole image.
        "todisk",
        "toram",
    ],
    add: &[
        // The scan for media skips loop devices, but takes one that is named, and does not compare its
        // identity (.disk/casper-uuid-*).
        "live-media=/dev/loop0",
        // casper-md5check would read the whole image. It looks for this word in the first 1023 bytes of the
        // command line, and no further.
        "fsck.mode=skip",
        // cloud-init would write a configuration for every card.
        "network-config=disabled",
        // It would ask at shutdown to remove the medium, and wait for Enter.
        "noprompt",
    ],
    modules: &["isofs", "squashfs", "overlay"],
    premount: None,
};
