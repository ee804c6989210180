//! InetBoot boots any live Linux straight from a web server.
//!
//! A folder says what its code may do. It imports only folders above it in this table; `tests/layers.rs` checks
//! that. Values flow the same way: bytes become types in [`formats`], each step makes a value from those of the
//! steps before it, and [`lives`] calls the steps in order.
//!
//! | folder | its code |
//! |---|---|
//! | [`base`] | names the steps, reports failures, writes to the console |
//! | [`sys`] | calls the kernel by the only `unsafe` code, one interface a file |
//! | [`formats`] | turns bytes into values and back, without I/O; each file is fuzzed |
//! | [`machine`] | uses the running kernel, whatever is booted: mounts, drivers, memory, clock, loop devices, the TPM and its ledger |
//! | [`config`] | step 1: understands the kernel arguments |
//! | [`net`] | step 2: finds a card, an address and routes, and keeps them |
//! | [`source`] | step 3: opens the image on its web servers, and reads it there |
//! | [`medium`] | step 4: makes it a file, a block device and a mounted CD |
//! | [`distro`] | step 5: recognises it and makes the plan |
//! | [`miniroot`] | step 6: prepares the target's initrd |
//! | [`measure`] | step 7: says which value becomes which measured event |
//! | [`kexec`] | step 8: loads the target's kernel and leaves |
//! | [`person`] | asks the person at the console: menu, keys, screen, shell |
//! | [`lives`] | puts the steps in order, and handles failures; start to read at [`lives::first`] |
//! | [`desk`] | has the verbs of `inetbootctl`; the agent never runs it |
//!
//! Three questions find the place of new code. Does it no I/O? Then [`formats`]. Is it about the machine
//! rather than the boot? Then [`machine`]. Is it the order of things? Then [`lives`]. Otherwise it belongs to
//! its step; and a file that two steps import lies in neither.
//!
//! All but [`desk`] runs as process 1 or serves the root file system, so nothing there may panic or exit.

pub mod base;
pub mod sys;

pub mod formats;

pub mod machine;

pub mod config;
pub mod net;
pub mod source;
pub mod medium;
pub mod distro;
pub mod miniroot;
pub mod measure;
pub mod kexec;

pub mod person;

pub mod lives;

pub mod desk;
