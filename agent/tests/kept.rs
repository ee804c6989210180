//! Stores of pieces: on a disk for the next boot, or of the whole image, so that the network may go.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // helpers of tests stop the test

mod common;

use common::{LENGTH, LONG, ctl, image, serve, site, wanted};
use inetboot::config::{Access, Wanted, WantedDisk};
use inetboot::source::Image;
use qemu_tests::run;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

fn cache(dir: &Path, arguments: &[&str]) -> String {
    run(dir, env!("CARGO_BIN_EXE_inetbootctl"), &[&["cache"], arguments].concat())
}

/// A file of `bytes` bytes in `dir`, as a cache.
fn disk(dir: &Path, bytes: u64) -> Access {
    let path = dir.join("disk");
    File::create(&path).and_then(|file| file.set_len(bytes)).expect("making a disk");
    let said = cache(dir, &["format", "disk", "--label", "test"]);
    assert!(said.contains("inetboot.cache=LABEL=test"), "{said}");
    Access { disk: Some(WantedDisk::File(path)), ..Access::default() }
}

/// Read all of it through `access`.
fn read(wanted: &Wanted, access: &Access) -> Image {
    let opened = Image::open(wanted, access, LONG).expect("opening it");
    assert!(common::read(&opened).expect("reading it") == image(), "wrong bytes");
    opened.flush();
    // The server counts an answer once it has sent it, a moment after we have it.
    std::thread::sleep(Duration::from_millis(300));
    opened
}

#[test]
fn a_second_boot_reads_from_the_disk() {
    for indexed in [true, false] {
        let dir = site();
        ctl(dir.path(), &["index", "x.iso"]);
        let server = serve(dir.path());
        let wanted = wanted(&[server.url(if indexed { "/x.iso.idx" } else { "/x.iso" })]);
        let access = disk(dir.path(), 100 << 20);
        let first = read(&wanted, &access);
        // With digests what is the same within the image is fetched once already.
        assert!(indexed || first.spared() == 0, "{}", first.spared());
        let sent = server.bytes_sent();
        let second = read(&wanted, &access);
        let again = server.bytes_sent() - sent;
        assert!(again * 20 < sent, "{again} bytes after {sent}");
        assert!(second.spared() >= LENGTH as u64 * 9 / 10);
        assert!(!cache(dir.path(), &["info", "disk"]).contains("used: 0 "));
    }
}

#[test]
fn what_the_disk_has_wrong_is_fetched_again() {
    let dir = site();
    let server = serve(dir.path());
    let wanted = wanted(&[server.url("/x.iso")]);
    let access = disk(dir.path(), 100 << 20);
    read(&wanted, &access);
    // A disk that has rotted everywhere but in its superblock.
    let file = File::options().read(true).write(true).open(dir.path().join("disk")).expect("the disk");
    let mut bytes = vec![0; (100 << 20) - 8192];
    file.read_exact_at(&mut bytes, 8192).expect("reading it");
    bytes.iter_mut().step_by(50_000).for_each(|byte| *byte ^= 0x10);
    file.write_all_at(&bytes, 8192).expect("writing it");
    let before = server.bytes_sent();
    read(&wanted, &access);
    assert!(server.bytes_sent() - before > LENGTH as u64 * 9 / 10);
    read(&wanted, &access);
}

#[test]
fn a_disk_that_is_too_small_keeps_what_it_can() {
    let dir = site();
    let server = serve(dir.path());
    let wanted = wanted(&[server.url("/x.iso")]);
    let access = disk(dir.path(), 9 << 20);
    for _ in 0..3 {
        read(&wanted, &access);
    }
}

#[test]
fn another_version_of_the_image_is_another_image() {
    let dir = site();
    let server = serve(dir.path());
    let wanted = wanted(&[server.url("/x.iso")]);
    let access = disk(dir.path(), 100 << 20);
    read(&wanted, &access);
    server.misbehave(|_, _| Some(qemu_tests::web::Fault::OtherEtag("\"second\"".into())));
    assert_eq!(read(&wanted, &access).spared(), 0);
}

#[test]
fn a_disk_that_is_none_of_ours_is_left_alone() {
    let dir = site();
    let server = serve(dir.path());
    let wanted = wanted(&[server.url("/x.iso")]);
    let access = disk(dir.path(), 20 << 20);
    let file = File::options().read(true).write(true).open(dir.path().join("disk")).expect("the disk");
    file.write_all_at(b"somebody's thesis", 4096).expect("writing it");
    assert_eq!(read(&wanted, &access).spared(), 0);
    let mut found = [0; 17];
    file.read_exact_at(&mut found, 4096).expect("reading it");
    assert_eq!(&found, b"somebody's thesis");
    let ctl = env!("CARGO_BIN_EXE_inetbootctl");
    let refused =
        std::process::Command::new(ctl).args(["cache", "format"]).arg(dir.path().join("disk")).output();
    let refused = String::from_utf8_lossy(&refused.expect("running it").stderr).into_owned();
    assert!(refused.contains("is not empty") && refused.contains("--force"), "{refused}");
}

/// The next attempt to boot claims the disk, whatever the last one was waiting for.
#[test]
fn a_closed_image_lets_the_disk_go() {
    let dir = site();
    let server = serve(dir.path());
    let access = disk(dir.path(), 100 << 20);
    let opened = Image::open(&wanted(&[server.url("/x.iso")]), &access, LONG).expect("opening it");
    // The rest of the request that has this piece takes half a minute.
    server.misbehave(|_, _| Some(qemu_tests::web::Fault::Stall(Duration::from_secs(30))));
    opened.source().read_at(0, &mut [0; 10]).expect("reading it");
    drop(opened);

    let path = dir.path().join("disk");
    let is_open = || {
        let files = std::fs::read_dir("/proc/self/fd").expect("our files").flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file == path)
    };
    let deadline = Instant::now() + Duration::from_secs(3);
    while is_open() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!is_open(), "the disk is claimed still");
}

#[test]
fn an_image_that_is_localised_needs_no_network() {
    let dir = site();
    for on_disk in [true, false] {
        let server = serve(dir.path());
        let wanted = wanted(&[server.url("/x.iso")]);
        let access = if on_disk { disk(dir.path(), 100 << 20) } else { Access::default() };
        let found = Image::open(&wanted, &access, LONG).expect("opening it").recipe();
        let access = Access { localise: true, ..access };
        let opened = Image::again(found, &access, LONG).expect("opening it again");
        opened.localise();
        server.set_down(true);
        assert!(common::read(&opened).expect("reading it") == image(), "wrong bytes");
        // A disk is formatted anew for the next round.
        let _ = std::fs::remove_file(dir.path().join("disk"));
    }
}
