//! Secure Boot: with an owner's keys and kexec, or with the distribution's signatures and without kexec. In
//! both the Debian ISO logs in, and what is not signed is refused.

use crate::loaders::{log_in_to, type_arguments};
use crate::published::Published;
use crate::{LONG, SOON};
use qemu_tests::boot_disk::{self, STARTED};
use qemu_tests::firmware::{self, Keys};
use qemu_tests::images::{self, Flaw, Witness};
use qemu_tests::machine::{Loader, Machine, arguments};
use qemu_tests::repository::{built, inetbootctl, program, script, text};
use qemu_tests::web::Server;
use qemu_tests::{Opts, boot, promise};
use std::path::{Path, PathBuf};

/// A machine whose firmware trusts `keys` alone, and whose disk has `efi_program`.
fn boot_owned(dir: &Path, keys: &Keys, efi_program: &Path) -> Machine {
    boot(&Opts {
        loader: Loader::Disk(boot_disk::with_files(dir, &[(efi_program, STARTED)])),
        qemu: firmware::owned(dir, keys),
        memory: 768,
        ..Opts::default()
    })
}

/// The firmware trusts the owner's key and the certificate of Debian's kernel. The image is signed, too.
#[test]
fn own_keys() {
    let (image, dir) = (Published::signed_store(), tempfile::tempdir().unwrap());
    let kernel = PathBuf::from(script("kernel")).join("vmlinuz");
    let certificate = dir.path().join("debian.pem");
    firmware::signer(&kernel, &certificate);
    let keys = Keys::enrolled(&[certificate]);

    promise("the firmware refuses our image while it is not signed", || {
        let mut machine = boot_owned(dir.path(), &keys, &built("inetboot.efi"));
        machine.expect("Access Denied", SOON);
    });

    let signed = dir.path().join("signed.efi");
    keys.sign(&built("inetboot.efi"), &signed);
    promise("the firmware starts our signed image, and kexec a kernel whose signer is enrolled", || {
        let mut machine = boot_owned(dir.path(), &keys, &signed);
        machine.expect("Secure boot enabled", SOON);
        log_in_to(&mut machine, &image, "virtio_net");
        assert!(machine.run("cat /sys/kernel/security/lockdown", 60).contains("[integrity]"));
    });

    promise("kexec refuses a forged kernel, and the failure names the ways out", || {
        let forged = Server::of_image(images::witness(&Witness::with_flaw(Flaw::ForgedKernel)));
        let mut machine = boot_owned(dir.path(), &keys, &signed);
        type_arguments(&mut machine, &forged.netdir());
        machine.expect("] kexec failed: ", LONG);
        let sentence = machine.expect("\n", 30);
        for words in ["signature of the target's kernel", "Enrol the certificate", "inetbootctl overlay"] {
            assert!(sentence.contains(words), "\"{words}\" is missing: {sentence}");
        }
    });
}

/// Microsoft vouches for Debian's shim, the shim for GRUB and the kernel; ours is an initrd, which needs no
/// signature.
#[test]
fn debian_signatures_without_kexec() {
    let (server, dir) = (Server::of_image(images::debian()), tempfile::tempdir().unwrap());
    let overlay = dir.path().join("overlay");
    // A fixed address; live-boot must not see it, for it would set it up again.
    let ip = "ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:none";
    let words = format!("{} type=debian console=ttyS0 {ip}", server.netdir());
    let initramfs = text(&built("own/initramfs.img"));
    let make = ["overlay", "--initramfs", &initramfs, "--arguments", &words, "--out", &text(&overlay)];
    inetbootctl(dir.path(), &make);

    let menu = PathBuf::from(program("signed-grub.cfg"));
    let made = |name: &str| overlay.join(name);
    let files = [
        (Path::new("/usr/lib/shim/shimx64.efi.signed"), STARTED),
        (Path::new("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"), "EFI/BOOT/grubx64.efi"),
        (&menu, "EFI/debian/grub.cfg"),
        (&made("grub.cfg"), "entry.cfg"),
        (&made("vmlinuz"), "vmlinuz"),
        (&made("initrd.img"), "initrd.img"),
        (&made("overlay.img"), "overlay.img"),
        (&built("own/vmlinuz"), "own"),
    ];
    let mut machine = boot(&Opts {
        loader: Loader::Disk(boot_disk::with_files(dir.path(), &files)),
        qemu: [firmware::as_sold(dir.path()), arguments(["-vga", "none"])].concat(),
        memory: 768,
        ..Opts::default()
    });

    promise("GRUB refuses our own kernel, which is not signed", || {
        machine.expect("bad shim signature", SOON);
    });
    promise("Debian's kernel boots with our overlay, without kexec", || {
        machine.expect("InetBoot 0.1.0, without kexec", LONG);
        machine.expect("handing over to the target's own /init", LONG);
        machine.log_in(LONG);
        assert!(machine.run("findmnt -n /run/live/medium", 60).contains("/dev/loop0"));
    });
    promise("the kernel is locked down", || {
        assert!(machine.run("cat /sys/kernel/security/lockdown", 60).contains("[integrity]"));
    });
    promise("our arguments are not the target's, and there is a receipt", || {
        assert!(!machine.run("cat /proc/cmdline", 60).contains("ip="));
        assert!(machine.run("cat /run/inetboot/receipt.json", 60).contains("\"version\": 1"));
    });
}
