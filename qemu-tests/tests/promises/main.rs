//! Promises, kept in virtual machines: a module for each kind. All are in one program, so that tests that
//! wait for minutes wait side by side. libtest begins with the first names, and the slow modules have those.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)] // these are tests

use qemu_tests::Machine;
use qemu_tests::web::{IMAGE, Server};

mod artefacts;
mod cache;
mod debian;
mod families;
mod live_build;
mod loaders;
mod measured;
mod networks;
mod poweroff;
mod published;
mod says_why_it_fails;
mod secure_boot;
mod witness;

/// Seconds for a boot to a menu or to the witness; on an idle machine under TCG it takes 20 to 30.
const SOON: u64 = 300;

/// Seconds for one stretch of a Debian's boot under TCG on a busy machine.
const LONG: u64 = 600;

/// Checks that less than `percent` of the image has crossed the network.
fn check_budget(machine: &Machine, server: &Server, percent: u64) {
    let (sent, length) = (server.bytes_sent(), server.length(IMAGE));
    let share = sent * 100 / length;
    println!("{sent} of {length} bytes ({share} %) after {:?}", machine.age());
    assert!(share < percent, "{share} % of the image crossed the network");
}
