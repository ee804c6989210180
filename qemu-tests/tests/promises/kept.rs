//! What is kept of an image: on a disk for the next boot, or whole, so that the network may go.

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
fn disk(dir: &Path, bytes: u64, device: &[&str]) -> Vec<String> {
    let path = dir.join("disk");
    File::create(&path).and_then(|file| file.set_len(bytes)).expect("making a disk");
    let drive = format!("if=none,id=disk,format=raw,file={}", path.display());
    let device = device.iter().map(|word| (*word).to_owned());
    ["-drive".to_owned(), drive].into_iter().chain(device).collect()
}

fn format(dir: &Path) {
    run(dir, built("inetbootctl").to_str().expect("a path"), &["cache", "format", "disk"]);
}

const VIRTIO: [&str; 2] = ["-device", "virtio-blk-pci,drive=disk"];
const AHCI: [&str; 4] = ["-device", "ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive=disk"];

#[test]
fn a_second_boot_of_debian_fetches_less_than_a_twentieth() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = serve(&images::debian());
    let qemu = disk(dir.path(), 512 << 20, &VIRTIO);
    format(dir.path());
    let append = format!("netdir={} inetboot.cache=LABEL=inetboot", server.guest_url("/x.iso"));
    let opts = Opts { append, qemu, ..Opts::default() };
    let boot_once = || {
        let before = server.bytes_sent();
        let mut machine = boot(&opts);
        machine.log_in(LONG, Some(&server));
        machine.run("sync", LONG, Some(&server));
        let said: Vec<String> =
            machine.said().lines().filter(|line| line.contains("inetboot:")).map(str::to_owned).collect();
        (server.bytes_sent() - before, said.join("\n"))
    };
    let ((first, _), (second, said)) = (boot_once(), boot_once());
    println!("first boot {first} bytes, second {second} ({:.2} %)", second as f64 * 100.0 / first as f64);
    assert!(second * 20 < first, "{second} bytes after {first}:\n{said}");
}

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
