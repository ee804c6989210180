//! `inetbootctl mount`, which makes a remote image a local file. Needs /dev/fuse.
#![allow(clippy::expect_used)] // helpers of tests stop the test

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use qemu_tests::web::{Content, Server};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

const LENGTH: usize = 8 << 20;

fn image() -> Vec<u8> {
    (0..LENGTH as u32 / 4).flat_map(u32::to_be_bytes).collect()
}

fn ctl(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_inetbootctl"))
        .arg("mount")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting inetbootctl")
}

/// The file has the image's bytes, of which only those that are read are fetched. Ctrl-C unmounts it.
#[test]
fn mounted_image() {
    let server = Server::builder().file("/x.iso", Content::Bytes(image().into())).start().expect("a server");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("its name is text");
    let mut ctl = ctl(&[&server.url("/x.iso"), path]);
    let mut said = BufReader::new(ctl.stdout.take().expect("it was piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("reading what it says");
    assert!(line.contains("x.iso (8.4 MB, unverified) is at"), "{line}");

    // A part of it.
    let file = File::open(dir.path().join("x.iso")).expect("the image is a file");
    assert_eq!(file.metadata().expect("it has a size").len(), LENGTH as u64);
    let mut piece = vec![0; 10_000];
    file.read_exact_at(&mut piece, 5_000_001).expect("reading in the middle");
    assert_eq!(piece, image()[5_000_001..5_010_001]);
    assert!(server.bytes_sent() < LENGTH as u64 / 2, "only what is read is fetched");

    // All of it.
    let mut all = Vec::new();
    (&file).read_to_end(&mut all).expect("reading all of it");
    assert!(all == image(), "the bytes are the server's");
    assert!(File::options().write(true).open(dir.path().join("x.iso")).is_err(), "it is read-only");
    drop(file);

    kill(Pid::from_raw(ctl.id() as i32), Signal::SIGINT).expect("Ctrl-C");
    assert!(ctl.wait().expect("it ends").success());
    line.clear();
    said.read_line(&mut line).expect("reading its last words");
    assert!(line.starts_with("unmounted; 8."), "{line}");
    assert!(!dir.path().join("x.iso").exists());
}

/// An image that the server lacks, a directory that is none, and a wrong address are named in the error.
#[test]
fn refusals() {
    let server = Server::builder().start().expect("a server");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("its name is text");
    for (arguments, parts) in [
        ([server.url("/y.iso").as_str(), path], ["/y.iso", "404"]),
        ([server.url("/y.iso").as_str(), "/nowhere"], ["/nowhere", "is not a directory"]),
        (["ftp://h/x.iso", path], ["ftp://h/x.iso", "write http://"]),
    ] {
        let output = ctl(&arguments).wait_with_output().expect("it ends");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}
