//! The memory that reading a large image takes, from one mirror that misbehaves in every way and one that is
//! slow. The test is alone in its process, so that the memory is its own.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // helpers of tests stop the test

mod common;

use common::{LONG, ctl, wanted};
use inetboot::config::{Access, Wanted};
use inetboot::source::Image;
use qemu_tests::web::{Content, Fault, Server};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// The image's bytes: four times what the cache may hold.
const LENGTH: u64 = 256 << 20;

/// The most memory for the cache, the answers under way, and this program.
const BOUND: u64 = 160 << 20;

/// An image whose bytes differ in every place, so that no piece can be taken for another.
fn image() -> Arc<[u8]> {
    (0..LENGTH / 8).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()).collect()
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("reading it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has it");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

/// Memory stays within its bound, and the bytes are right.
#[test]
fn bounded_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let expected = image();
    fs::write(dir.path().join("x.iso"), &*expected).expect("writing the image");
    ctl(dir.path(), &["index", "x.iso"]);
    fs::remove_file(dir.path().join("x.iso")).expect("removing the image");

    let serve = || {
        let server = Server::builder().file("/x.iso", Content::Bytes(Arc::clone(&expected)));
        let index = Content::File(dir.path().join("x.iso.idx"));
        server.file("/x.iso.idx", index).start().expect("a server")
    };
    let (bad, slow) = (serve(), serve());
    bad.misbehave(|number, path| match number.wrapping_mul(0x9E37_79B9) >> 7 & 7 {
        // It is right at first, so that it counts as the fast one.
        _ if number < 20 || path.ends_with(".idx") => None,
        0 => Some(Fault::Cut),
        1 => Some(Fault::Status(503)),
        2 => Some(Fault::WrongRange),
        3 => Some(Fault::HangUp),
        4 => Some(Fault::Delay(Duration::from_millis(30))),
        5 => Some(Fault::Stall(Duration::from_millis(200))),
        6 => Some(Fault::Corrupt),
        _ => None,
    });
    slow.misbehave(|_, _| Some(Fault::Delay(Duration::from_millis(40))));

    let wanted = Wanted {
        index: Some(slow.url("/x.iso.idx").parse().expect("a URL")),
        ..wanted(&[bad.url("/x.iso"), slow.url("/x.iso")])
    };

    let before = peak();
    let opened = Image::open(&wanted, &Access::default(), LONG).expect("opening it");
    let mut buffer = vec![0; 1 << 20];
    for at in (0..LENGTH as usize).step_by(buffer.len()) {
        opened.source().read_at(at as u64, &mut buffer).expect("an error");
        assert!(buffer == expected[at..at + buffer.len()], "wrong bytes at {at}");
    }

    assert!(bad.log().iter().filter(|request| request.fault.is_some()).count() > 3, "nothing went wrong");
    let grown = peak() - before;
    assert!(grown < BOUND, "it took {} MiB more", grown >> 20);
}
