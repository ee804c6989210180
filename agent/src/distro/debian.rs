//! Debian live, and what is made of it with live-build (Kali, Tails, …). Its initrd is
//! live-boot's: `/usr/lib/live/boot/` of the package, described in live-boot(7).

use crate::distro::{Family, Tell};

/// Debian live-boot.
pub const FAMILY: Family = Family {
    name: "debian",
    marks: &["live/*.squashfs"],
    menus: &[
        "boot/grub/grub.cfg",
        "boot/grub/loopback.cfg",
        "isolinux/live.cfg",
        "isolinux/menu.cfg",
        "isolinux/isolinux.cfg",
    ],
    live: &[Tell::Word("boot=live")],
    kernels: &["live/vmlinuz*"],
    initrds: &["live/initrd*"],
    words: &["boot=live", "components"],
    roots: &["live/*.squashfs"],
    drop: &[
        // Other ways to find the medium would be tried before ours.
        "bootfrom",
        "fetch",
        "findiso",
        "fromiso",
        "ftpfs",
        "httpfs",
        "isofrom",
        "live-media",
        "netboot",
        // Would configure the card we hold.
        "dhcp",
        "ethdevice",
        "ip",
        // Would read the whole image.
        "toram",
        "verify-checksums",
    ],
    add: &[
        // The scan for media skips loop devices, but takes one that is named.
        "live-media=/dev/loop0",
        // Writes "manual" for our card into /etc/network/interfaces, which ifupdown and
        // NetworkManager take as "hands off".
        "nodhcp",
        // live-tools would ask at shutdown to remove the medium, and wait for Enter.
        "noeject",
    ],
    modules: &["isofs", "squashfs", "overlay"],
    premount: None,
};
