//! Process 1. Which life is this, and then the boot from top to bottom.
//!
//! The first life runs in our own initramfs and ends in another kernel; the second in that
//! kernel's initrd, and ends in the distro's own init (see `serve.rs`). Which one it is follows
//! from facts, never from a flag.

use inetboot::base::console;
use inetboot::base::failure::Failure;
use inetboot::base::step::{Journal, Step};
use inetboot::config::{Config, OnFailure, TpmPolicy};
use inetboot::formats::handoff::Handoff;
use inetboot::formats::receipt::{Cost, Receipt};
use inetboot::lives::{last_words, second, shutdown, unaided};
use inetboot::machine::drivers::{self, device_chain};
use inetboot::machine::memory::Memory;
use inetboot::measure::{self, Agent, Ledger};
use inetboot::medium::{self, Cd, Medium};
use inetboot::miniroot::{self, Luggage, Part};
use inetboot::net::link::Link;
use inetboot::net::{self, Network};
use inetboot::person::{choose, shell};
use inetboot::source::images::Images;
use inetboot::source::mirrors::Patience;
use inetboot::source::{Image, disk};
use inetboot::{distro, kexec};
use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the first life waits for a server that stopped delivering before it starts over.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(120));

/// Pause before a boot is tried again; it doubles up to the longest.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some(second::SERVER) {
        never_panic();
        console::open();
        let Err(failure) = second::server();
        console::say_loud(&failure.sentence());
        return ExitCode::FAILURE;
    }
    if std::process::id() != 1 {
        console::say("this is the boot agent: it runs as process 1. On the desk use inetbootctl --help");
        return ExitCode::from(2);
    }
    never_panic();
    if std::env::args().next().as_deref() == Some(shutdown::PROGRAM) {
        console::open();
        shutdown::finish(std::env::args().nth(1).as_deref());
    }
    drivers::mount_all(Path::new("/"));
    console::open();
    let mut pause = RETRY_AFTER;
    let mut ledger = Ledger::default();
    let line = kernel_arguments();
    let given = if unaided::is_so() { unaided::arguments(&line) } else { line };
    let mut arguments = given.clone();
    loop {
        let Err(failure) = if second::is_second_life() {
            second::run()
        } else if unaided::is_so() {
            let told = unaided::prepare(&arguments, &mut ledger, PATIENCE);
            told.and_then(|()| second::run()).inspect_err(|_| unaided::forget())
        } else {
            boot(&mut arguments, &mut ledger)
        };
        last_words::last_words(&failure, pause, &mut arguments, &given);
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

/// From a URL on the kernel command line to another kernel, in eight steps. What decides what will
/// run goes through the ledger before it is used.
fn boot(arguments: &mut String, ledger: &mut Ledger) -> Result<Infallible, Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION")));
    let mut journal = Journal::default();
    let config = journal.step(Step::Config, || choose::boot(arguments))?;
    drivers::load_drivers();
    ledger.begin(config.tpm)?;
    let agent = ledger.measure(Agent::running()?)?;
    let config = ledger.measure(config)?;
    let network = journal.step(Step::Network, || net::up(&config.net))?;
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
    let first = second::cost(&images, &journal);
    let handoff = Handoff { modules, premount, first, ..second::handoff(&config, &network, leased, image) };
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

fn receipt(config: &Config, images: &Images, journal: &Journal, ledger: &Ledger) -> Receipt {
    let image = images.first();
    Receipt {
        image: config.boot.name(),
        image_bytes: images.iter().map(|image| image.source().len()).sum(),
        trust: image.trust().to_string(),
        mirrors: image.reports(),
        measured: ledger.word(),
        first: second::cost(images, journal),
        second: Cost::default(),
    }
}

fn kernel_arguments() -> String {
    // Boot loaders pass on whatever bytes somebody typed.
    String::from_utf8_lossy(&std::fs::read("/proc/cmdline").unwrap_or_default()).into_owned()
}

/// A bug of ours must not be a kernel panic that scrolls its own cause away.
fn never_panic() {
    std::panic::set_hook(Box::new(|panic| {
        console::say_loud(&format!("a bug in InetBoot: {panic}. Please report it with this line"));
        if let OnFailure::Reboot(after) = OnFailure::of(&kernel_arguments()) {
            shell::restart_after(after);
        }
        last_words::wait_for_a_person()
    }));
}
