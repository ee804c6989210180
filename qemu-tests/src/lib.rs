//! The harness: virtual machines, a web server that misbehaves, and images to boot.
//!
//! A boot test is ten lines: [`Opts`] describe the machine and its kernel arguments, [`boot`] starts it,
//! [`Machine::expect`] waits for words on its serial line, [`Machine::menu`] uses a menu there, and
//! [`promise`] names what one part of a shared boot is to show. A test that fails prints the ends of the
//! serial lines and of the request logs of its machines and servers.
//!
//! `web`, `pki` and `publish` are also used by the agent's own tests, which need no machine.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A test harness fails by panicking.
#![allow(clippy::print_stdout)] // libtest shows it for a test that fails.

pub mod boot_disk;
pub mod dns;
pub mod firmware;
pub mod images;
pub mod initrd;
pub mod lan;
pub mod machine;
pub mod menu;
pub mod pki;
pub mod publish;
pub mod repository;
pub mod switch;
pub mod tpm;
pub mod web;

mod promise;
mod serial;
mod terminal;
mod turn;

pub use machine::{Machine, Opts, boot};
pub use promise::promise;
pub use repository::run;

/// Ends a program that has a process group of its own, and all that it started.
fn end(child: &mut std::process::Child) {
    let _ =
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGKILL);
    let _ = child.wait();
}
