//! Debian live, and systems that live-build makes of it (Kali, Tails, …). Their initrd is live-boot's:
//! live-boot(7), and `/usr/lib/live/boot/` of the package.

use crate::distro::{Family, Marker};
use crate::formats::family::FamilyName;

/// Media of one squashfs, or of several.
pub const FAMILY: Family = Family {
    name: FamilyName::Debian.word(),
    marks: &["live/*.squashfs"],
    menus: &[
        "boot/grub/grub.cfg",
        "boot/grub/loopback.cfg",
        "isolinux/live.cfg",
        "isolinux/menu.cfg",
        "isolinux/isolinux.cfg",
    ],
    live: &[Marker::Word("boot=live")],
    kernels: &["live/vmlinuz*"],
    initrds: &["live/initrd*"],
    words: &["boot=live", "components"],
    roots: &["live/*.squashfs"],
    drop: &[
        // The initrd would look for its medium in these ways first.
        "bootfrom",
        "fetch",
        "findiso",
        "fromiso",
        "ftpfs",
        "httpfs",
        "isofrom",
        "live-media",
        "netboot",
        // Would configure the network card that is in use.
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
        // Makes live-boot write "manual" for our card into /etc/network/interfaces. ifupdown and
        // NetworkManager then leave the card alone.
        "nodhcp",
        // live-tools would ask at shutdown to remove the medium, and wait for Enter.
        "noeject",
    ],
    modules: &["isofs", "squashfs", "overlay"],
    premount: None,
};
