//! The harness: virtual machines, a web server that misbehaves, and images to boot.
//!
//! A boot test is ten lines: [`Opts`] say what machine and which arguments, [`boot`] starts it,
//! [`Machine::expect`] waits for what its serial line should say. The tests are named after the
//! promise they keep.
//!
//! `web` and `pki` are also used by the agent's own tests, which need no machine.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A test harness fails by panicking.

pub mod dns;
pub mod firmware;
pub mod images;
pub mod lan;
pub mod machine;
pub mod pki;
pub mod publish;
pub mod switch;
pub mod tpm;
mod turn;
pub mod web;

pub use machine::{Machine, Opts, boot};

/// End a program that has a process group of its own, and all that it started.
fn end(child: &mut std::process::Child) {
    let _ =
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGKILL);
    let _ = child.wait();
}

/// A program in `dir`, which has to succeed; what it prints.
pub fn run(dir: &std::path::Path, program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (scripts/setup installs it)"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
