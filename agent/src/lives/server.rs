//! The server: it makes the image a block device, and serves it for as long as the machine runs.
//!
//! It must outlive the initrd that it starts in, and need nothing of the disk that it serves:
//!
//! * its name begins with `@`, so that systemd leaves it alone at switch-root and shutdown
//!   (systemd's "Storage Daemons for the Root File System");
//! * its root is a tmpfs in a mount namespace of its own, so that it opens nothing on the disk, and
//!   run-init, which empties the initrd, does not find it;
//! * memory pressure neither kills it nor swaps it out.

use crate::base::console;
use crate::base::failure::{Explain, Failure, chain};
use crate::base::step::{Journal, Step};
use crate::formats::handoff;
use crate::formats::receipt::{Cost, Receipt};
use crate::lives::{TARGET, handover, shutdown, upkeep};
use crate::machine::ledger::Ledger;
use crate::machine::{clock, mounts};
use crate::medium::{self, MediumError};
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The server's `argv[0]`.
pub const NAME: &str = "@inetboot";

/// The line on its standard output by which it tells process 1 that the device is there.
pub const READY: &str = "ready";

/// The device that families are told to look for. Nothing uses a loop device before us.
pub const DEVICE: &str = "/dev/loop0";

/// The server's root, before it moves there.
const PRIVATE_ROOT: &str = "/inetboot.d/server";

/// Set once process 1 hands over to a target that needs the image.
static SERVING: AtomicBool = AtomicBool::new(false);

/// True once a target needs the image.
pub fn is_serving() -> bool {
    SERVING.load(Ordering::Relaxed)
}

/// The reason why the image is not served.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error("cannot make the server's root {PRIVATE_ROOT}")]
    Root(#[source] io::Error),
    #[error("the image is at {got}, but the target looks for it at {DEVICE}")]
    Device { got: String },
    #[error(transparent)]
    Medium(#[from] MediumError),
}

impl Explain for ServerError {
    fn hint(&self) -> String {
        match self {
            Self::Root(_) => "Check the machine's memory".into(),
            Self::Device { .. } => "Remove loop devices from the target's initrd".into(),
            Self::Medium(error) => error.hint(),
        }
    }
}

/// From the handoff to a block device, then for ever.
pub fn serve() -> Result<Infallible, Failure> {
    let mut journal = Journal::default();

    // 1. The handoff joins the record of measurements. A further attempt continues that from its file.
    let handoff = journal.step(Step::Config, handover::read)?;
    let log = handover::read_log().map_err(|error| Failure::at(Step::Config, error))?;
    let mut ledger = Ledger::resume(handoff.tpm, log)?;
    let handoff = ledger.measure(handoff)?;
    leave_log(&ledger, "/");
    detach_from_the_initrd().map_err(|error| Failure::at(Step::Config, error))?;

    // 2. The same card, VLAN and lease as in the first life.
    clock::raise_to_floor(handoff.written);
    let since_handoff = SystemTime::now().duration_since(UNIX_EPOCH + handoff.written).unwrap_or_default();
    let network = journal.step(Step::Network, || {
        net::restore(handoff.mac, handoff.vlan, &handoff.leases, Path::new("/etc"))
    })?;

    // 3. The same image, now with endless patience: a root file system must not see an error.
    let handoff = handoff.into_inner();
    let access = handover::access(&handoff);
    let image =
        journal.step(Step::Source, || Image::again(handoff.recipe.clone(), &access, Patience::Endless))?;
    console::say(&format!("  {}", image.source()));

    // 4. The block device. Threads of its own serve it until both values are dropped, which is never.
    let _serving = journal.step(Step::Medium, || {
        let (file, device) = medium::attach(&image.source(), Path::new("/"))?;
        if device.path() != DEVICE {
            return Err(ServerError::Device { got: device.path().to_owned() });
        }
        Ok((file, device))
    })?;

    // The record is complete, and process 1 may go on.
    ledger.close()?;
    leave_log(&ledger, TARGET);
    let mut receipt = Receipt {
        image: handoff.image,
        image_bytes: handoff.recipe.length,
        trust: handoff.recipe.trust.to_string(),
        mirrors: Vec::new(),
        measured: ledger.word(),
        first: with_kexec(handoff.first, since_handoff),
        second: Cost { timings: journal.timings().clone(), ..Cost::default() },
    };
    upkeep::update(&mut receipt, &image);
    receipt.lines().iter().for_each(|line| console::say(line));
    upkeep::write_resolv_conf(&network);
    SERVING.store(true, Ordering::Relaxed);
    tell_process_1();

    shutdown::watch(&image.source());
    upkeep::for_ever(upkeep::Kept {
        receipt,
        image,
        log: ledger.into_log(),
        network,
        lease_age: since_handoff + handoff.lease_age,
        localise: access.localise,
    })
}

/// Leaves the event log for a further attempt, in the initrd whose root is `root` here.
fn leave_log(ledger: &Ledger, root: &str) {
    let written = ledger.log().map(|log| handover::write_log(Path::new(root), log));
    if let Some(Err(error)) = written {
        console::say(&format!("  the event log cannot be kept: {}", chain(&error)));
    }
}

/// Makes this a process that can stay: see the head of this file.
fn detach_from_the_initrd() -> Result<(), ServerError> {
    let _ = rustix::process::setsid();
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        signals.add(signal);
    }
    let _ = signals.thread_block();

    // Only this process sees its mounts: klibc's run-init gives up where anything is mounted deeper than
    // at the top.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| ServerError::Root(error.into()))?;
    fs::create_dir_all(PRIVATE_ROOT).map_err(ServerError::Root)?;
    mount("inetboot", PRIVATE_ROOT, "tmpfs", MountFlags::NOSUID, Some(c"mode=0700,size=16m"))
        .map_err(|error| ServerError::Root(error.into()))?;

    if Path::new(handoff::CA_PATH).exists() {
        let copy = format!("{PRIVATE_ROOT}{}", handoff::CA_PATH);
        fs::create_dir_all(format!("{PRIVATE_ROOT}{}", handoff::DIR))
            .and_then(|()| fs::copy(handoff::CA_PATH, copy))
            .map_err(ServerError::Root)?;
    }
    mounts::mount_all(Path::new(PRIVATE_ROOT));
    rustix::process::chroot(PRIVATE_ROOT)
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| ServerError::Root(error.into()))
}

/// Tell process 1 that the device is there, and leave the screen to the target.
fn tell_process_1() {
    // With ONFAULT the large and mostly untouched buffers of the FUSE workers cost nothing.
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

/// Adds the time that the first life could not know when it wrote the handoff: that of loading and
/// starting this kernel.
fn with_kexec(mut first: Cost, since_handoff: Duration) -> Cost {
    first.timings.push((Step::Kexec, since_handoff));
    first
}
