//! What is kept of an image: on a disk for the next boot, or whole, so that the network may go. That the
//! next boot fetches little is seen where two machines are started by iPXE, in `loaders`.

use qemu_tests::images::{self, Witness};
use qemu_tests::machine::built;
use qemu_tests::web::{Content, Server};
use qemu_tests::{Opts, boot, run};
use std::fs::File;
use std::path::Path;

/// Seconds for one stretch of a boot under TCG on a busy machine.
const LONG: u64 = 600;

fn serve(iso: &Path) -> Server {
    Server::builder().file("/x.iso", Content::File(iso.to_owned())).start().expect("a server")
}

/// A disk of `bytes` bytes in `dir`, and QEMU's arguments for it behind the controller `device`.
pub fn disk(dir: &Path, bytes: u64, device: &[&str]) -> Vec<String> {
    let path = dir.join("disk");
    File::create(&path).and_then(|file| file.set_len(bytes)).expect("making a disk");
    let drive = format!("if=none,id=disk,format=raw,file={}", path.display());
    let device = device.iter().map(|word| (*word).to_owned());
    ["-drive".to_owned(), drive].into_iter().chain(device).collect()
}

/// Makes it one to keep pieces on.
pub fn format(dir: &Path) {
    run(dir, built("inetbootctl").to_str().expect("a path"), &["cache", "format", "disk"]);
}

pub const VIRTIO: [&str; 2] = ["-device", "virtio-blk-pci,drive=disk"];
const AHCI: [&str; 4] = ["-device", "ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive=disk"];

#[test]
fn an_image_that_is_localised_outlives_its_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = serve(&images::witness(&Witness::default()));
    // Its driver is not in the initrd: it comes from the target's root, like the card's. Nor is it in
    // our own kernel.
    let qemu = disk(dir.path(), 256 << 20, &AHCI);
    format(dir.path());
    let netdir = format!("netdir={}", server.guest_url("/x.iso"));
    let append = format!("{netdir} inetboot.cache=/dev/sda inetboot.localise=yes");
    let mut machine = boot(&Opts { append, qemu, ..Opts::stock() });
    machine.expect("the image is on /dev/sda whole: the network may go", LONG, Some(&server));
    server.set_down(true);
    machine.type_line("");
    machine.run("md5sum /cd/numbers", LONG, Some(&server));
    assert!(!machine.said().contains("waiting for"), "it waited for the server");
}

#[test]
fn a_disk_that_is_none_of_ours_is_left_alone_and_the_boot_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = serve(&images::witness(&Witness::default()));
    let qemu = disk(dir.path(), 64 << 20, &VIRTIO);
    let append = format!("netdir={} inetboot.cache=/dev/vda", server.guest_url("/x.iso"));
    let mut machine = boot(&Opts { append, qemu, ..Opts::default() });
    let said = machine.expect("witness: ready", LONG, Some(&server));
    assert!(said.contains("/dev/vda has no cache on it"), "it was not said");
    let disk = std::fs::read(dir.path().join("disk")).expect("reading the disk");
    assert!(disk.iter().all(|byte| *byte == 0), "it was written to");
}
