//! Fedora live, CentOS, openSUSE live and what else dracut starts from a CD: dracut.cmdline(7),
//! "Booting live images", and `modules.d/*dmsquash-live`, or kiwi's `kiwi-live` in its place.

use crate::distro::{Family, Marker};
use crate::formats::family::FamilyName;

/// dracut's dmsquash-live.
pub const FAMILY: Family = Family {
    name: FamilyName::Fedora.word(),
    marks: &["LiveOS/squashfs.img", "LiveOS/*.img"],
    menus: &[
        "boot/grub2/grub.cfg",
        "boot/grub/grub.cfg",
        "EFI/BOOT/grub.cfg",
        "boot/grub2/loopback.cfg",
        "isolinux/isolinux.cfg",
        "boot/*/loader/isolinux.cfg",
    ],
    // The installer's has inst.stage2=.
    live: &[Marker::Word("root=live:*")],
    kernels: &["boot/*/loader/linux", "images/pxeboot/vmlinuz", "isolinux/vmlinuz*", "boot/vmlinuz*"],
    initrds: &["boot/*/loader/initrd*", "images/pxeboot/initrd*", "isolinux/initrd*", "boot/init*"],
    // A label in the menu leads to our device by udev's links; without a menu the device does.
    words: &["root=live:/dev/loop0", "rd.live.image"],
    roots: &["LiveOS/squashfs.img", "LiveOS/rootfs.img", "LiveOS/ext3fs.img"],
    drop: &[
        // Would configure the card we hold.
        "BOOTIF",
        "bootdev",
        "ip",
        "rd.neednet",
        // Would read the whole image.
        "rd.live.check",
        "rd.live.ram",
        // Would write beside the image, on a CD.
        "rd.live.overlay.cowfs",
        "rd.live.overlay.persistent",
        // Other places to find the medium.
        "iso-scan/filename",
    ],
    add: &[
        // Before dracut 060 a root that lies flat in the squashfs has no other way, and one in a
        // rootfs.img is spared a snapshot device.
        "rd.live.overlay.overlayfs=1",
    ],
    modules: &["isofs", "squashfs", "overlay"],
    premount: None,
};
