//! Pieces of an image on a disk: the cache for the next boot, and images that are fetched whole. That a
//! second boot fetches little is a promise of `loaders::ipxe_bios_then_uefi_with_cache`.

use crate::LONG;
use qemu_tests::images::{self, Witness};
use qemu_tests::machine::arguments;
use qemu_tests::repository::inetbootctl;
use qemu_tests::web::Server;
use qemu_tests::{Opts, boot, promise};
use std::fs::{self, File};
use std::path::Path;

/// QEMU's devices for the disk: a virtio disk, and one of an AHCI controller.
pub const VIRTIO: [&str; 2] = ["-device", "virtio-blk-pci,drive=disk"];
const AHCI: [&str; 4] = ["-device", "ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive=disk"];

/// Makes a disk of so many bytes in `dir`, and gives QEMU's arguments for it as this device.
pub fn disk<const N: usize>(dir: &Path, bytes: u64, device: [&str; N]) -> Vec<String> {
    let path = dir.join("disk");
    File::create(&path).and_then(|file| file.set_len(bytes)).expect("making a disk");
    let drive = format!("if=none,id=disk,format=raw,file={}", path.display());
    [arguments(["-drive", &drive]), arguments(device)].concat()
}

/// Puts an empty cache on the disk in `dir`.
pub fn format(dir: &Path) {
    inetbootctl(dir, &["cache", "format", "disk"]);
}

/// An image that was fetched whole is read from the disk once the server is gone.
#[test]
fn localised_image_outlives_its_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::of_image(images::witness(&Witness::default()));
    // The initrd lacks the driver of this disk, and so does our own kernel: it comes from the target's
    // root, like the card's.
    let qemu = disk(dir.path(), 256 << 20, AHCI);
    format(dir.path());
    let append = format!("{} inetboot.cache=/dev/sda inetboot.localise=yes", server.netdir());
    let mut machine = boot(&Opts { append, qemu, ..Opts::stock() });

    machine.expect("the image is on /dev/sda whole: the network may go", LONG);
    server.set_down(true);
    machine.type_line("");
    machine.run("md5sum /cd/numbers", LONG);
    assert!(!machine.said().contains("waiting for"), "it waited for the server");
}

/// A disk without a cache on it is not written to, and the boot goes on without a cache.
#[test]
fn foreign_disk_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::of_image(images::witness(&Witness::default()));
    let qemu = disk(dir.path(), 64 << 20, VIRTIO);
    let append = format!("{} inetboot.cache=/dev/vda", server.netdir());
    let mut machine = boot(&Opts { append, qemu, ..Opts::default() });

    promise("the boot goes on, and says why there is no cache", || {
        let said = machine.expect("witness: ready", LONG);
        assert!(said.contains("/dev/vda has no cache on it"), "it was not said");
    });
    promise("the disk was not written to", || {
        let disk = fs::read(dir.path().join("disk")).expect("reading the disk");
        assert!(disk.iter().all(|byte| *byte == 0));
    });
}
