//! Fedora, CentOS, openSUSE and other live systems that dracut starts from a CD. Its initrd: dracut.cmdline(7),
//! "Booting live images", and `modules.d/*dmsquash-live`, or kiwi's `kiwi-live` in its place.

use crate::distro::{Family, Marker};
use crate::formats::family::FamilyName;

/// Media with their root in `LiveOS/`.
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
    // An installer's entry has inst.stage2= in its place.
    live: &[Marker::Word("root=live:*")],
    kernels: &["boot/*/loader/linux", "images/pxeboot/vmlinuz", "isolinux/vmlinuz*", "boot/vmlinuz*"],
    initrds: &["boot/*/loader/initrd*", "images/pxeboot/initrd*", "isolinux/initrd*", "boot/init*"],
    // A menu names the medium's label, and udev makes a link from it to our device. Without a menu the device
    // is named.
    words: &["root=live:/dev/loop0", "rd.live.image"],
    roots: &["LiveOS/squashfs.img", "LiveOS/rootfs.img", "LiveOS/ext3fs.img"],
    drop: &[
        // Would configure the network card that is in use.
        "BOOTIF",
        "bootdev",
        "ip",
        "rd.neednet",
        // Would read the whole image.
        "rd.live.check",
        "rd.live.ram",
        // Would write beside the image, but that is a CD.
        "rd.live.overlay.cowfs",
        "rd.live.overlay.persistent",
        // The initrd would look for its medium there first.
        "iso-scan/filename",
    ],
    add: &[
        // Before dracut 060 this is the only way to mount a root that lies flat in the squashfs. A root in a
        // rootfs.img is mounted without a snapshot device.
        "rd.live.overlay.overlayfs=1",
    ],
    modules: &["isofs", "squashfs", "overlay"],
    premount: None,
};
