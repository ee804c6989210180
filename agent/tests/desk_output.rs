//! The output of `inetbootctl`: no verb panics where a pipe is closed, lost output is an error, and errors end with
//! the hint of the step that they came from.
#![allow(clippy::expect_used, clippy::unwrap_used)] // tests

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tpm/ovmf-2.0.eventlog");

/// Verbs that print, and need nothing but the files of [`site`].
const PRINTING: [&[&str]; 9] = [
    &["--help"],
    &["image", "--help"],
    &["log", "show", LOG],
    &["log", "replay", LOG],
    &["image", "index", "x.iso"],
    &["catalogue", "grub", "catalogue.toml"],
    &["catalogue", "check", "catalogue.toml"],
    &["completions", "bash"],
    &["manual", "man"],
];

fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.iso"), b"an image").unwrap();
    let entry = "[[entry]]\nname = \"a\"\ntitle = \"A\"\nnetdir = \"http://h/a.iso\"\n";
    fs::write(dir.path().join("catalogue.toml"), entry).unwrap();
    dir
}

fn ctl(dir: &Path, arguments: &[&str], out: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inetbootctl"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    command.spawn().and_then(std::process::Child::wait_with_output).expect("starting inetbootctl")
}

/// A pipe whose reader has gone ends the output, and nothing else.
#[test]
fn a_closed_pipe_ends_quietly() {
    let dir = site();
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = ctl(dir.path(), arguments, writer);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaint.is_empty(), "{arguments:?}: {output:?}");
    }
    assert!(dir.path().join("x.iso.idx").exists(), "the work was done");
}

/// Standard error may be closed too.
#[test]
fn a_closed_standard_error_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_inetbootctl"));
    let status = command.args(["log", "show", "/nowhere"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// A menu that was lost on a full disk must not pass for one that was written.
#[test]
fn a_full_disk_is_an_error() {
    let dir = site();
    for arguments in PRINTING.iter().filter(|arguments| arguments.last() != Some(&"--help")) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = ctl(dir.path(), arguments, full);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(complaint.contains("writing to standard output: No space left"), "{complaint}");
    }
}

/// Each verb that parses kernel arguments gives the boot's own hint.
#[test]
fn errors_end_with_the_way_out() {
    let dir = site();
    let bad = "[[entry]]\nname = \"a\"\ntitle = \"A\"\narguments = \"quiet\"\n";
    fs::write(dir.path().join("bad.toml"), bad).unwrap();
    let verbs: [&[&str]; 3] = [
        &["predict", "--initramfs", "i", "--arguments", "quiet"],
        &["overlay", "--initramfs", "i", "--arguments", "quiet", "--out", "o"],
        &["catalogue", "check", "bad.toml"],
    ];
    for arguments in verbs {
        let output = ctl(dir.path(), arguments, Stdio::null());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains("there is no netdir="), "{complaint}");
        assert!(complaint.contains(". Add netdir=URL of a live ISO"), "{complaint}");
    }
}
