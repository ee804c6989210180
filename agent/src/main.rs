//! Process 1. Which life is this, and then the boot from top to bottom.
//!
//! The first life runs in our own initramfs and ends in another kernel; the second in that
//! kernel's initrd, and ends in the distro's own init (see `serve.rs`). Which one it is follows
//! from facts, never from a flag.

use inetboot::config::{Config, OnFailure, TpmPolicy};
use inetboot::early::device_chain;
use inetboot::failure::Failure;
use inetboot::measure::{Agent, Ledger};
use inetboot::medium::{Cd, Medium};
use inetboot::memory::Memory;
use inetboot::miniroot::handoff::Handoff;
use inetboot::miniroot::{Luggage, Part};
use inetboot::net::Network;
use inetboot::net::link::Link;
use inetboot::receipt::{Cost, Receipt};
use inetboot::source::images::Images;
use inetboot::source::mirrors::Patience;
use inetboot::source::{Image, disk};
use inetboot::step::{Journal, Step};
use inetboot::{console, distro, early, kexec, measure, medium, miniroot, net, serve};
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the first life waits for a server that stopped delivering before it starts over.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(120));

/// Pause before a boot is tried again; it doubles up to the longest.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Where a shell may be: in our initramfs, or in the target's initrd.
const SHELLS: [&str; 2] = ["/bin/sh", "/bin/busybox"];

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some(serve::SERVER) {
        never_panic();
        console::open();
        let Err(failure) = serve::server();
        console::say_loud(&failure.sentence());
        return ExitCode::FAILURE;
    }
    if std::process::id() != 1 {
        console::say("this is the boot agent: it runs as process 1. On the desk use inetbootctl --help");
        return ExitCode::from(2);
    }
    never_panic();
    early::mount_all(Path::new("/"));
    console::open();
    let mut pause = RETRY_AFTER;
    let mut ledger = Ledger::default();
    loop {
        let Err(failure) = if serve::is_second_life() { serve::run() } else { boot(&mut ledger) };
        last_words(&failure, pause);
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

/// From a URL on the kernel command line to another kernel, in eight steps. What decides what will
/// run goes through the ledger before it is used.
fn boot(ledger: &mut Ledger) -> Result<Infallible, Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION")));
    let mut journal = Journal::default();
    let config = journal.step(Step::Config, || Config::parse(&kernel_arguments()))?;
    early::load_drivers();
    ledger.begin(config.tpm)?;
    let agent = ledger.measure(Agent::running()?)?;
    let config = ledger.measure(config)?;
    let network = journal.step(Step::Network, || net::up(&config))?;
    let leased = Instant::now();
    let images = journal.step(Step::Source, || Images::open(&config.boot, &config.access, PATIENCE))?;
    for image in images.iter() {
        console::say(&format!("  {}, {}", image.source(), image.trust()));
    }
    let images = ledger.measure(images)?;
    let medium = journal.step(Step::Medium, || medium::mount(&images))?;
    let plan = journal.step(Step::Distro, || match &medium {
        Medium::Cd(_) => distro::recognise(medium.dir(), &config.target),
        Medium::Files(_) => distro::plain(medium.dir(), &config.target),
    })?;
    console::say(&format!("  {plan}"));
    let image = images.first();
    let hardware = hardware(&config, &network, image, ledger);
    let recipe = image.recipe();
    let luggage =
        Luggage { agent: agent.bytes(), ca: image.ca(), recipe: &recipe, modules: config.net.modules() };
    let (payload, modules) = journal.step(Step::Miniroot, || {
        miniroot::rebuild(&plan, &medium, &hardware, &luggage, Memory::now().ok())
    })?;
    let payload = journal.step(Step::Measure, || ledger.measure(payload))?;
    let premount = plan.premount.map(str::to_owned);
    let first = cost(&images, &journal);
    let handoff = Handoff { modules, premount, first, ..handoff(&config, &network, leased, image) };
    let notes = miniroot::notes(plan.is_live.then_some(&handoff), ledger.log())
        .map_err(|error| Failure::at(Step::Kexec, error))?;
    journal.step(Step::Kexec, || kexec::load(payload, &notes))?;
    for line in receipt(&config, &images, &journal, ledger).lines() {
        console::say(&line);
    }
    console::say(&format!("  leaving for {}; the screen may stay dark for a moment", plan.title));
    drop(medium);
    images.iter().for_each(Image::settle);
    for link in Link::all() {
        let _ = link.down();
    }
    kexec::leave().map_err(|error| Failure::at(Step::Kexec, error))
}

/// What the target has to drive: the card that brings the image; and, where it can, the disk that
/// keeps it and the TPM that was measured into.
fn hardware(config: &Config, network: &Network, image: &Image, ledger: &Ledger) -> Vec<Part> {
    let card = Part {
        kind: "network card",
        name: network.link.to_string(),
        chain: device_chain(&network.link.card_sysfs()),
        is_help: false,
    };
    let disk = image.disk().and_then(|disk| disk::sysfs(disk.path())).map(|sysfs| Part {
        kind: "disk with the cache",
        name: String::new(),
        chain: device_chain(&sysfs),
        is_help: true,
    });
    let tpm = ledger.log().map(|_| Part {
        kind: "TPM",
        name: String::new(),
        chain: device_chain(Path::new(measure::SYSFS)),
        is_help: config.tpm != TpmPolicy::Require,
    });
    [Some(card), disk, tpm].into_iter().flatten().collect()
}

/// What the second life will need, of what is known before there is a plan.
fn handoff(config: &Config, network: &Network, leased: Instant, image: &Image) -> Handoff {
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

fn cost(images: &Images, journal: &Journal) -> Cost {
    let traffic = images.traffic();
    Cost {
        timings: journal.timings().clone(),
        bytes: traffic.bytes,
        requests: traffic.requests,
        spared: images.iter().map(Image::spared).sum(),
    }
}

fn receipt(config: &Config, images: &Images, journal: &Journal, ledger: &Ledger) -> Receipt {
    let image = images.first();
    Receipt {
        image: config.boot.name(),
        image_bytes: images.iter().map(|image| image.source().len()).sum(),
        trust: image.trust().to_string(),
        mirrors: image.reports(),
        measured: ledger.word(),
        first: cost(images, journal),
        second: Cost::default(),
    }
}

fn kernel_arguments() -> String {
    // Boot loaders pass on whatever bytes somebody typed.
    String::from_utf8_lossy(&std::fs::read("/proc/cmdline").unwrap_or_default()).into_owned()
}

/// The one way to fail: say it, then do what `inetboot.onfail=` asks for. Returns to try again.
fn last_words(failure: &Failure, pause: Duration) {
    console::say_loud(&failure.sentence());
    match OnFailure::of(&kernel_arguments()) {
        OnFailure::Reboot(after) => reboot_after(after),
        OnFailure::Shell if shell() => return,
        OnFailure::Shell => {}
        OnFailure::Wait => {}
    }
    if failure.may_heal() {
        console::say(&format!("  trying again in {} s", pause.as_secs()));
        std::thread::sleep(pause);
    } else {
        wait_for_a_person();
    }
}

fn reboot_after(after: Duration) {
    console::say(&format!("  rebooting in {} s", after.as_secs()));
    std::thread::sleep(after);
    if let Err(error) = rustix::system::reboot(rustix::system::RebootCommand::Restart) {
        console::say(&format!("  cannot reboot: {error}"));
    }
}

/// A shell on the console, until it ends; whether there was one.
fn shell() -> bool {
    let Some(path) = SHELLS.into_iter().find(|path| Path::new(path).exists()) else {
        console::say("  there is no shell in this initramfs (mkinitramfs --add /bin/busybox=/bin/sh)");
        return false;
    };
    let terminal = || OpenOptions::new().read(true).write(true).open("/dev/console");
    let (Ok(stdin), Ok(stdout), Ok(stderr)) = (terminal(), terminal(), terminal()) else {
        console::say("  there is no console for a shell");
        return false;
    };
    console::say("  a shell; leave it with exit to try again");
    let shell = Command::new(path).arg0("sh").stdin(stdin).stdout(stdout).stderr(stderr).status();
    if let Err(error) = shell {
        console::say(&format!("  cannot start {path}: {error}"));
        return false;
    }
    true
}

/// The arguments will not change by themselves, and process 1 must not end.
fn wait_for_a_person() -> ! {
    loop {
        console::say("  nothing will change by itself: correct it and restart this machine (Ctrl-Alt-Del)");
        std::thread::sleep(Duration::from_secs(300));
    }
}

/// A bug of ours must not be a kernel panic that scrolls its own cause away.
fn never_panic() {
    std::panic::set_hook(Box::new(|panic| {
        console::say_loud(&format!("a bug in InetBoot: {panic}. Please report it with this line"));
        if let OnFailure::Reboot(after) = OnFailure::of(&kernel_arguments()) {
            reboot_after(after);
        }
        wait_for_a_person()
    }));
}
