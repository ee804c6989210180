//! The second life: first process of the target's initrd (`rdinit=/inetboot`).
//!
//! Process 1 loads the modules that the first life chose, starts the server, waits until the
//! image is a block device, and becomes the distro's own init, which finds everything as it
//! expects it. The server goes on for the life of the machine:
//!
//! * its argv\[0\] begins with `@`, so that systemd leaves it alone at switch-root and shutdown
//!   (systemd's "Storage Daemons for the Root File System");
//! * its root is a tmpfs of its own, in a mount namespace of its own, so that it opens nothing on the
//!   disk it serves, and run-init, which empties the initrd, does not find it;
//! * memory pressure cannot kill it nor swap it out.

use crate::base::console;
use crate::base::failure::{Explain, Failure};
use crate::base::step::{Journal, Step};
use crate::config::{Access, Config, WantedDisk};
use crate::formats::eventlog::{EventLog, LogError};
use crate::formats::handoff::{self, Handoff, HandoffError};
use crate::formats::receipt::{Cost, Receipt};
use crate::formats::statement::{Evidence, Statement, of_serving};
use crate::lives::shutdown;
use crate::machine::{clock, drivers};
use crate::measure::Ledger;
use crate::medium::{self, MediumError};
use crate::net::dropins::{self, DropIn};
use crate::net::{self, Network, guard, renew};
use crate::source::Image;
use crate::source::images::Images;
use crate::source::mirrors::Patience;
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{StatFs, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The server's argv\[0\].
pub const SERVER: &str = "@inetboot";

/// The distro's own init.
const INIT: &str = "/init";

/// The server's root, before it moves there.
const PRIVATE_ROOT: &str = "/inetboot.d/server";

/// What families are told to look for: nothing used a loop device before us.
const DEVICE: &str = "/dev/loop0";

/// What the server says to process 1 when the device is there.
const READY: &str = "ready";

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;

/// When the rest of the image is fetched.
const LOCALISE_AFTER: Duration = Duration::from_secs(30);

/// How often the receipt in the target is brought up to date.
const RECEIPT_EVERY: Duration = Duration::from_secs(2);

/// How long the target takes to come up, and how often it is looked after until then.
const SETTLING: Duration = Duration::from_secs(120);
const SETTLING_EVERY: Duration = Duration::from_millis(200);

/// How long somebody else in the target has to make a `resolv.conf`.
const RESOLVER_FOR: Duration = Duration::from_secs(600);

/// The target's root, seen from ours: through process 1.
const TARGET: &str = "/proc/1/root";

/// There, as in its initrd.
const RESOLV_CONF: &str = "etc/resolv.conf";

/// Why the second life does not get on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The handoff cannot be read.
    #[error("cannot read {}", handoff::PATH)]
    Unreadable(#[source] io::Error),
    /// It makes no sense.
    #[error("{} is not understood", handoff::PATH)]
    Handoff(#[source] HandoffError),
    /// The event log makes no sense.
    #[error("{} is not understood", handoff::EVENTLOG_PATH)]
    Log(#[source] LogError),
    /// Its address cannot be used.
    #[error("{} names no usable address: {why}", handoff::PATH)]
    Url {
        /// Why not.
        why: &'static str,
    },
    /// The server could not be started.
    #[error("cannot start the server")]
    Start(#[source] io::Error),
    /// The server ended.
    #[error("the server ended before the image was there")]
    Ended,
    /// A root of its own could not be made.
    #[error("cannot make the server's root {PRIVATE_ROOT}")]
    Root(#[source] io::Error),
    /// Somebody else has the device.
    #[error("the image is at {got}, but the target looks for it at {DEVICE}")]
    Device {
        /// Where it is.
        got: String,
    },
    /// The image cannot be served.
    #[error(transparent)]
    Medium(MediumError),
    /// The CD cannot be mounted for the target.
    #[error("cannot mount the CD at the target's {dir}")]
    Premount {
        /// Where.
        dir: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The distro's init cannot be started.
    #[error("cannot start the target's {INIT}")]
    Init(#[source] io::Error),
}

impl Explain for ServeError {
    fn hint(&self) -> String {
        match self {
            Self::Unreadable(_) | Self::Handoff(_) | Self::Log(_) | Self::Url { .. } => {
                "Boot again: the overlay was not made by this version of InetBoot".into()
            }
            Self::Start(_) | Self::Root(_) => "Check the machine's memory".into(),
            Self::Ended => "The lines above say why".into(),
            Self::Device { .. } => "Remove loop devices from the target's initrd".into(),
            Self::Medium(error) => error.hint(),
            Self::Premount { .. } => "Use an image whose kernel has the module isofs".into(),
            Self::Init(_) => "Check the image: its initrd has no init".into(),
        }
    }
}

impl Evidence for Handoff {
    fn statements(&self) -> Vec<Statement> {
        vec![of_serving(&self.recipe)]
    }
}

/// Whether this is a target's initrd that the first life prepared.
pub fn is_second_life() -> bool {
    Path::new(handoff::PATH).exists()
}

/// What the second life will need, of what is known before there is a plan.
pub fn handoff(config: &Config, network: &Network, leased: Instant, image: &Image) -> Handoff {
    Handoff {
        url: config.boot.name(),
        proxy: config.access.proxy.as_ref().map(ToString::to_string),
        disk: image.disk().map(|disk| disk.superblock().id),
        localise: config.access.localise,
        tpm: config.tpm,
        recipe: image.recipe(),
        mac: network.link.mac,
        vlan: network.link.vlan.as_ref().map(|(_, id)| *id),
        leases: network.leases.clone(),
        written: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        lease_age: leased.elapsed(),
        modules: Vec::new(),
        premount: None,
        first: Cost::default(),
    }
}

/// What the life before the handoff cost so far.
pub fn cost(images: &Images, journal: &Journal) -> Cost {
    let traffic = images.traffic();
    Cost {
        timings: journal.timings().clone(),
        bytes: traffic.bytes,
        requests: traffic.requests,
        spared: images.iter().map(Image::spared).sum(),
    }
}

/// Process 1: from the handoff to the distro's own init.
pub fn run() -> Result<Infallible, Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION"), ", second life"));
    let handoff = read_handoff().map_err(|error| Failure::at(Step::Config, error))?;
    for module in &handoff.modules {
        if let Err(error) = drivers::insert(Path::new(module)) {
            console::say(&format!("  module {module} cannot be loaded: {error}"));
        }
    }
    let mut server = start_server().map_err(|error| Failure::at(Step::Medium, error))?;
    wait_until_ready(&mut server).map_err(|error| Failure::at(Step::Medium, error))?;
    let init = premount(handoff.premount.as_deref()).and_then(|()| become_init());
    init.map_err(|error| {
        if let Some(dir) = &handoff.premount {
            let _ = unmount(dir, UnmountFlags::DETACH);
        }
        // The next attempt starts its own, and needs the device.
        let _ = server.kill().and_then(|()| server.wait());
        Failure::at(Step::Kexec, error)
    })
}

fn read_handoff() -> Result<Handoff, ServeError> {
    let text = fs::read_to_string(handoff::PATH).map_err(ServeError::Unreadable)?;
    let index = fs::read(handoff::INDEX_PATH).ok();
    let profile = fs::read_to_string(handoff::PROFILE_PATH).ok();
    Handoff::decode(&text, index, profile).map_err(ServeError::Handoff)
}

fn start_server() -> Result<Child, ServeError> {
    Command::new("/proc/self/exe")
        .arg0(SERVER)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(ServeError::Start)
}

/// The server says what it waits for, and each of its steps is bounded.
fn wait_until_ready(server: &mut Child) -> Result<(), ServeError> {
    if let Some(stdout) = server.stdout.take()
        && BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.trim_end() == READY)
    {
        return Ok(());
    }
    let _ = server.kill().and_then(|()| server.wait());
    Err(ServeError::Ended)
}

/// Mount the CD where the target's init looks before it looks anywhere else.
fn premount(dir: Option<&str>) -> Result<(), ServeError> {
    let Some(dir) = dir else { return Ok(()) };
    let failed = |error| ServeError::Premount { dir: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(failed)?;
    match mount(DEVICE, dir, "iso9660", MountFlags::RDONLY, None) {
        // An earlier attempt did it.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

fn become_init() -> Result<Infallible, ServeError> {
    console::say(&format!("handing over to the target's own {INIT}"));
    drivers::unmount_all();
    // Arguments that the kernel did not know are init's; the environment goes along untouched.
    let error = Command::new(INIT).args(std::env::args_os().skip(1)).exec();
    drivers::mount_all(Path::new("/"));
    Err(ServeError::Init(error))
}

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
    shutdown::watch(image.source());
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
    drivers::mount_all(Path::new(PRIVATE_ROOT));
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

/// The target's initrd knows the name servers: live-boot copies this into a root that has none.
fn tell_resolver(network: &Network) {
    let path = Path::new(TARGET).join(RESOLV_CONF);
    let written = fs::create_dir_all(path.parent().unwrap_or(&path))
        .and_then(|()| fs::write(&path, network.leases.resolv_conf(network.link.index)));
    if let Err(error) = written {
        console::say(&format!("  the target will not know its name servers: {error}"));
    }
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

/// Those that never sleep: the lease is renewed, the link stays as it is, and the target learns of
/// the name servers where nobody else tells it.
fn keep_network(network: &Arc<Network>, held: Duration) {
    let now = Instant::now();
    let held_since = now.checked_sub(held).unwrap_or(now);
    let start = |name: &str, work: Box<dyn FnOnce(Arc<Network>) + Send>| {
        let network = Arc::clone(network);
        let thread = std::thread::Builder::new().name(name.into());
        if let Err(error) = thread.spawn(move || work(network)) {
            console::say_loud(&format!("nobody keeps the {name}: {error}"));
        }
    };
    start("lease", Box::new(move |network| renew::keep(&network, held_since)));
    start("lease of IPv6", Box::new(move |network| renew::keep6(&network, held_since)));
    start("link", Box::new(|network| guard::keep(&network)));
    start("resolver", Box::new(|network| keep_resolver(&network)));
}

/// A root that has no `resolv.conf`, or an empty one, and nobody who makes it, gets ours. This may
/// wait for the disk like anybody else.
fn keep_resolver(network: &Network) {
    let path = Path::new(TARGET).join(RESOLV_CONF);
    let start = Instant::now();
    while start.elapsed() < RESOLVER_FOR {
        let is_empty = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                fs::read_to_string(&path).is_ok_and(|text| !text.contains("nameserver"))
            }
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_empty {
            // Where it cannot be written, somebody wants it so.
            let _ = fs::write(&path, network.leases.resolv_conf(network.link.index));
        }
        std::thread::sleep(RECEIPT_EVERY);
    }
}

fn localise(image: &Image) {
    let image = image.clone();
    let localiser = std::thread::Builder::new().name("localise".into());
    let work = move || {
        // The boot itself comes first.
        std::thread::sleep(LOCALISE_AFTER);
        image.localise();
    };
    if let Err(error) = localiser.spawn(work) {
        console::say_loud(&format!("the image stays remote: {error}"));
    }
}

/// Keep the receipt, the profile and the event log in the target's `/run/inetboot` up to date, and
/// what tells its network managers to leave our link alone where they look for it, for ever. Other
/// threads serve the image; this one may wait for the disk like anybody else.
fn keep_notes(mut receipt: Receipt, image: &Image, log: Option<EventLog>, network: &Network) -> ! {
    let (mut json, mut profile) = (Note::new("inetboot/receipt.json"), Note::new("inetboot/profile"));
    let (mut events, mut readable) = (Note::new("inetboot/eventlog"), Note::new("inetboot/eventlog.txt"));
    let mut dropins: Vec<(Note, String)> =
        dropins::for_link(network.link.mac, network.link.index, &network.leases)
            .into_iter()
            .map(|DropIn { path, text }| (Note::new(path), text))
            .chain(shutdown::UNITS.map(|(path, text)| (Note::new(path), text.to_owned())))
            .collect();
    let start = Instant::now();
    loop {
        // They have to be there before the managers are, and some inits mount /run anew.
        for (note, text) in &mut dropins {
            note.keep(text.as_str());
        }
        update(&mut receipt, image);
        json.keep(receipt.json());
        if let Some(read) = image.profile() {
            profile.keep(read.encode());
        }
        if let Some(log) = &log {
            events.keep(log.encode());
            readable.keep(log.to_string());
        }
        std::thread::sleep(if start.elapsed() < SETTLING { SETTLING_EVERY } else { RECEIPT_EVERY });
    }
}

/// A small file in the target's `/run`.
struct Note {
    path: &'static str,
    written: Vec<u8>,
}

impl Note {
    fn new(path: &'static str) -> Self {
        Self { path, written: Vec::new() }
    }

    fn keep(&mut self, contents: impl Into<Vec<u8>>) {
        let contents = contents.into();
        let run = Path::new(TARGET).join("run");
        let path = run.join(self.path);
        if (contents == self.written && path.exists()) || !is_tmpfs(&run) {
            return;
        }
        let new = path.with_extension("new");
        let dir = path.parent().unwrap_or(&run);
        let done = fs::create_dir_all(dir)
            .and_then(|()| fs::write(&new, &contents))
            .and_then(|()| fs::rename(&new, &path));
        if done.is_ok() {
            self.written = contents;
        }
    }
}

fn update(receipt: &mut Receipt, image: &Image) {
    let traffic = image.traffic();
    receipt.second.bytes = traffic.bytes;
    receipt.second.requests = traffic.requests;
    receipt.second.spared = image.spared();
    receipt.mirrors = image.reports();
}

/// Writing anywhere else could wait for the disk that we serve.
fn is_tmpfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|StatFs { f_type, .. }| f_type == TMPFS)
}
