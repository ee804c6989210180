//! Disks that a UEFI firmware boots.

use crate::repository::{built, program, run, text};
use std::fs;
use std::path::{Path, PathBuf};

/// The program that firmware starts on a disk that it does not know.
pub const STARTED: &str = "EFI/BOOT/BOOTX64.EFI";

/// The menu of [`with_grub`], with a place for the kernel's arguments.
const GRUB_MENU: &str = include_str!("../programs/grub-disk.cfg");

/// A disk, made in `dir`, that has these files by their names.
pub fn with_files(dir: &Path, files: &[(&Path, &str)]) -> PathBuf {
    let tree = tempfile::tempdir().expect("a directory");
    for (from, name) in files {
        let to = tree.path().join(name);
        fs::create_dir_all(to.parent().expect("a file is in a directory")).expect("a directory");
        fs::copy(from, to).expect("copying a file of the disk");
    }

    let disk = dir.join("esp");
    run(dir, &program("make-esp"), &[&text(tree.path()), &text(&disk)]);
    disk
}

/// A disk, made in `dir`, with GRUB, its `tpm` module, and an entry that starts InetBoot with `arguments`.
/// The entry uses the kernel's EFI stub: with Debian's plain `linux` command and no Secure Boot the stub
/// does not run, so the firmware would not be asked for its log.
pub fn with_grub(dir: &Path, arguments: &str) -> PathBuf {
    let (menu, grub) = (dir.join("grub.cfg"), dir.join("grub.efi"));
    fs::write(&menu, GRUB_MENU.replace("@ARGUMENTS@", arguments)).expect("writing GRUB's menu");
    let image = ["-O", "x86_64-efi", "-o", &text(&grub), "--fonts=", "--themes=", "--locales="];
    let contents =
        ["--modules=tpm linuxefi fat search serial", &format!("boot/grub/grub.cfg={}", menu.display())];
    run(dir, "grub-mkstandalone", &[image.as_slice(), &contents].concat());

    let (kernel, initramfs) = (built("vmlinuz"), built("initramfs.img"));
    with_files(dir, &[(&grub, STARTED), (&kernel, "vmlinuz"), (&initramfs, "initramfs.img")])
}
