//! Secure Boot: with keys of one's own and kexec, or with the distribution's signatures and without
//! kexec; each lets the Debian ISO log in, and refuses what nobody signed.

use crate::loaders::{LONG, SOON, boots, netdir, site, type_address};
use crate::published::Published;
use qemu_tests::firmware::{self, Keys};
use qemu_tests::images::{self, STARTED, Witness, esp};
use qemu_tests::machine::{Loader, Machine, built, script};
use qemu_tests::web::{Content, Server};
use qemu_tests::{Opts, boot, run};
use std::fs;
use std::path::{Path, PathBuf};

/// A machine with these keys that starts `program` from its disk.
fn owned(dir: &Path, keys: &Keys, program: &Path) -> Machine {
    let disk = esp(dir, &[(program, STARTED)]).unwrap();
    boot(&Opts {
        loader: Loader::Disk(disk),
        qemu: firmware::owned(dir, keys),
        memory: 768,
        ..Opts::default()
    })
}

/// The owner's key is enrolled, and the certificate of whoever signed Debian's kernel; the image is signed,
/// too.
#[test]
fn own_keys_start_our_image_and_kexec_takes_the_kernel_of_a_signed_store_and_refuses_a_forged_one() {
    let (image, dir) = (Published::signed_store(), tempfile::tempdir().unwrap());
    let kernel = PathBuf::from(script("kernel")).join("vmlinuz");
    let certificate = dir.path().join("debian.pem");
    firmware::signer(&kernel, &certificate);
    let keys = Keys::enrolled(&[certificate]);

    // The firmware starts nothing that is not signed.
    let mut machine = owned(dir.path(), &keys, &built("inetboot.efi"));
    machine.expect("Access Denied", SOON, None);
    drop(machine);

    let signed = dir.path().join("signed.efi");
    keys.sign(&built("inetboot.efi"), &signed);
    let mut machine = owned(dir.path(), &keys, &signed);
    machine.expect("Secure boot enabled", SOON, Some(image.web()));
    boots(&mut machine, &image, "virtio_net");
    assert!(machine.run("cat /sys/kernel/security/lockdown", 60, None).contains("[integrity]"));
    drop(machine);

    let witness = images::witness(&Witness { forged_kernel: true, ..Witness::default() });
    let forged = Server::builder().file("/live.iso", Content::File(witness)).start().unwrap();
    let mut machine = owned(dir.path(), &keys, &signed);
    type_address(&mut machine, &forged, &netdir(&forged));
    machine.expect("] kexec failed: ", LONG, Some(&forged));
    let sentence = machine.expect("\n", 30, Some(&forged));
    assert!(sentence.contains("signature of the target's kernel"), "{sentence}");
    assert!(
        sentence.contains("Enrol the certificate") && sentence.contains("inetbootctl overlay"),
        "{sentence}"
    );
}

/// Microsoft vouches for Debian's shim, that for GRUB and the kernel; ours is an initrd, which nobody
/// signs.
#[test]
fn debians_own_signatures_suffice_without_kexec() {
    let (server, dir) = (site(), tempfile::tempdir().unwrap());
    let overlay = dir.path().join("overlay");
    let (initramfs, out) = (built("own/initramfs.img"), overlay.to_string_lossy());
    // A fixed address, which live-boot must not be told of: it would make it its own.
    let ip = "ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:none";
    let arguments = format!("{} type=debian console=ttyS0 {ip}", netdir(&server));
    let verb =
        ["overlay", "--initramfs", &initramfs.to_string_lossy(), "--arguments", &arguments, "--out", &out];
    run(dir.path(), &built("inetbootctl").to_string_lossy(), &verb);

    let menu = dir.path().join("grub.cfg");
    let text = "search --no-floppy --set=root --file /overlay.img\nset inetboot=\nset timeout=0\n\
                echo -n 'our own kernel: '\nlinux /own\nsource /entry.cfg\n";
    fs::write(&menu, text).unwrap();
    let made = |name: &str| overlay.join(name);
    let disk = esp(
        dir.path(),
        &[
            (Path::new("/usr/lib/shim/shimx64.efi.signed"), STARTED),
            (Path::new("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"), "EFI/BOOT/grubx64.efi"),
            (&menu, "EFI/debian/grub.cfg"),
            (&made("grub.cfg"), "entry.cfg"),
            (&made("vmlinuz"), "vmlinuz"),
            (&made("initrd.img"), "initrd.img"),
            (&made("overlay.img"), "overlay.img"),
            (&built("own/vmlinuz"), "own"),
        ],
    )
    .unwrap();
    let opts = Opts {
        loader: Loader::Disk(disk),
        qemu: [firmware::as_sold(dir.path()), ["-vga", "none"].map(String::from).to_vec()].concat(),
        memory: 768,
        ..Opts::default()
    };
    let mut machine = boot(&opts);
    machine.expect("bad shim signature", SOON, Some(&server));
    machine.expect("InetBoot 0.1.0, without kexec", LONG, Some(&server));
    machine.expect("handing over to the target's own /init", LONG, Some(&server));
    machine.log_in(LONG, Some(&server));
    assert!(machine.run("cat /sys/kernel/security/lockdown", 60, None).contains("[integrity]"));
    assert!(machine.run("findmnt -n /run/live/medium", 60, None).contains("/dev/loop0"));
    assert!(!machine.run("cat /proc/cmdline", 60, None).contains("ip="));
    assert!(machine.run("cat /run/inetboot/receipt.json", 60, None).contains("\"version\": 1"));
}
