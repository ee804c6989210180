//! Promises, kept in virtual machines: a room each. All in one program, so that those that wait for
//! minutes wait side by side; libtest begins with the first names, which are theirs.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)] // these are tests

mod artefacts;
mod debian;
mod families;
mod kept;
mod loaders;
mod measured;
mod networks;
mod poweroff;
mod published;
mod says_why_it_fails;
mod secure_boot;
mod witness;
