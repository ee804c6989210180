//! The server: it lives as long as the machine.

use crate::base::console;
use crate::base::failure::Failure;
use crate::base::step::{Journal, Step};
use crate::config::{Access, WantedDisk};
use crate::formats::eventlog::EventLog;
use crate::formats::handoff::{self, Handoff};
use crate::formats::receipt::{Cost, Receipt};
use crate::lives::handover::{ServeError, read_handoff};
use crate::lives::second::{DEVICE, READY};
use crate::lives::upkeep::{keep_network, keep_notes, localise, tell_resolver, update};
use crate::machine::ledger::Ledger;
use crate::machine::{clock, mounts};
use crate::medium;
use crate::net;
use crate::source::Image;
use crate::source::mirrors::Patience;
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::{SigSet, Signal};
use rustix::mount::{MountFlags, mount};
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The server's argv\[0\].
pub const SERVER: &str = "@inetboot";

/// The server's root, before it moves there.
pub const PRIVATE_ROOT: &str = "/inetboot.d/server";

/// The server: from the handoff to a block device, then for the life of the machine.
pub fn server() -> Result<Infallible, Failure> {
    let mut journal = Journal::default();
    let handoff = journal.step(Step::Config, read_handoff)?;
    let mut ledger = resume_ledger(&handoff)?;
    let handoff = ledger.measure(handoff)?;
    keep_ledger(&ledger);
    settle_down().map_err(|error| Failure::at(Step::Config, error))?;
    clock::raise_to_floor(handoff.written);
    let since_handoff = SystemTime::now().duration_since(UNIX_EPOCH + handoff.written).unwrap_or_default();
    let network = journal
        .step(Step::Network, || net::again(handoff.mac, handoff.vlan, &handoff.leases, Path::new("/etc")))?;
    let handoff = handoff.into_inner();
    let access = access_of(&handoff).map_err(|error| Failure::at(Step::Source, error))?;
    let image =
        journal.step(Step::Source, || Image::again(handoff.recipe.clone(), &access, Patience::Endless))?;
    console::say(&format!("  {}", image.source()));
    // The file is served by threads of its own, and the device is there, until these are dropped:
    // for ever.
    let _serving = journal.step(Step::Medium, || {
        let (file, device) = medium::attach(image.source(), Path::new("/")).map_err(ServeError::Medium)?;
        if device.path() != DEVICE {
            return Err(ServeError::Device { got: device.path().to_owned() });
        }
        Ok((file, device))
    })?;

    ledger.close()?;
    let mut receipt = Receipt {
        image: handoff.url,
        image_bytes: handoff.recipe.length,
        trust: handoff.recipe.trust.to_string(),
        mirrors: Vec::new(),
        measured: ledger.word(),
        first: with_kexec(handoff.first, since_handoff),
        second: Cost { timings: journal.timings().clone(), ..Cost::default() },
    };
    update(&mut receipt, &image);
    receipt.lines().iter().for_each(|line| console::say(line));
    tell_resolver(&network);
    hand_over();
    let network = Arc::new(network);
    keep_network(&network, since_handoff + handoff.lease_age);
    if access.localise {
        localise(&image);
    }
    keep_notes(receipt, &image, ledger.into_log(), &network)
}

/// The record that the first life began, and handed on in the notes.
fn resume_ledger(handoff: &Handoff) -> Result<Ledger, Failure> {
    let bytes = fs::read(handoff::EVENTLOG_PATH).ok();
    let log = bytes.map(|bytes| EventLog::decode(&bytes)).transpose();
    let log = log.map_err(|error| Failure::at(Step::Config, ServeError::Log(error)))?;
    Ok(Ledger::resume(handoff.tpm, log)?)
}

/// A further attempt goes on where this one ends.
fn keep_ledger(ledger: &Ledger) {
    if let Some(log) = ledger.log()
        && let Err(error) = fs::write(handoff::EVENTLOG_PATH, log.encode())
    {
        console::say(&format!("  the event log cannot be kept: {error}"));
    }
}

/// Make this process one that can stay: see the module's head.
fn settle_down() -> Result<(), ServeError> {
    let _ = rustix::process::setsid();
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        signals.add(signal);
    }
    let _ = signals.thread_block();

    // Nobody else sees what is mounted here: klibc's run-init gives up where anything is mounted
    // deeper than at the top.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| ServeError::Root(error.into()))?;
    fs::create_dir_all(PRIVATE_ROOT).map_err(ServeError::Root)?;
    mount("inetboot", PRIVATE_ROOT, "tmpfs", MountFlags::NOSUID, Some(c"mode=0700,size=16m"))
        .map_err(|error| ServeError::Root(error.into()))?;
    if Path::new(handoff::CA_PATH).exists() {
        let copy = format!("{PRIVATE_ROOT}{}", handoff::CA_PATH);
        fs::create_dir_all(format!("{PRIVATE_ROOT}{}", handoff::DIR))
            .and_then(|()| fs::copy(handoff::CA_PATH, copy))
            .map_err(ServeError::Root)?;
    }
    mounts::mount_all(Path::new(PRIVATE_ROOT));
    rustix::process::chroot(PRIVATE_ROOT)
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| ServeError::Root(error.into()))
}

fn access_of(handoff: &Handoff) -> Result<Access, ServeError> {
    let proxy = handoff.proxy.as_deref().map(str::parse).transpose();
    let ca = Path::new(handoff::CA_PATH);
    Ok(Access {
        ca: ca.exists().then(|| ca.to_owned()),
        proxy: proxy.map_err(|why| ServeError::Url { why })?,
        disk: handoff.disk.map(WantedDisk::Known),
        localise: handoff.localise,
    })
}

/// Tell process 1 that the device is there, and let go of the screen.
fn hand_over() {
    // With ONFAULT the FUSE workers' large, mostly untouched buffers cost nothing.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault);
    console::leave_to_kernel_log();
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{READY}").and_then(|()| stdout.flush());
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// What the first life could not know when it wrote the handoff: how long it then took to load and
/// start this kernel.
fn with_kexec(mut first: Cost, since_handoff: Duration) -> Cost {
    first.timings.push((Step::Kexec, since_handoff));
    first
}
