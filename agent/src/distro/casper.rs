//! Ubuntu, Mint, Pop!_OS and what else casper starts: casper(7), and `scripts/casper` in its initrd.

use crate::distro::{Family, Tell};

/// casper, of one squashfs or of layers.
pub const FAMILY: Family = Family {
    name: "casper",
    marks: &["casper*/*.squashfs"],
    menus: &["boot/grub/grub.cfg", "boot/grub/loopback.cfg", "isolinux/txt.cfg", "isolinux/isolinux.cfg"],
    // New menus lack the word: the initrd knows by itself.
    live: &[Tell::Word("boot=casper"), Tell::Kernel("casper*/*")],
    kernels: &["casper*/vmlinuz*", "casper*/hwe-vmlinuz"],
    initrds: &["casper*/initrd*", "casper*/hwe-initrd"],
    words: &["boot=casper"],
    roots: &["casper*/*.squashfs"],
    drop: &[
        // Parts the installed system's arguments from ours in the menu; the kernel stops there.
        "--",
        // Other ways to find the medium would be tried before ours.
        "bootfrom",
        "iso-scan/filename",
        "live-media",
        "netboot",
        "nfsroot",
        "url",
        // Would configure the card we hold.
        "BOOTIF",
        "ip",
        // Would read the whole image.
        "todisk",
        "toram",
    ],
    add: &[
        // The scan for media skips loop devices, but takes one that is named; and asks no identity
        // (.disk/casper-uuid-*) of it.
        "live-media=/dev/loop0",
        // casper-md5check would read the whole image. It looks at the first 1023 bytes only.
        "fsck.mode=skip",
        // cloud-init would write a configuration for every card.
        "network-config=disabled",
        // It would ask at shutdown to remove the medium, and wait for Enter.
        "noprompt",
    ],
    modules: &["isofs", "squashfs", "overlay"],
    premount: None,
};
