//! The first life: from a URL to another kernel.

use crate::base::console;
use crate::base::failure::Failure;
use crate::base::step::{Journal, Step};
use crate::config::Config;
use crate::formats::handoff::Handoff;
use crate::formats::receipt::{Cost, Receipt};
use crate::formats::tpm_policy::TpmPolicy;
use crate::lives::handover;
use crate::machine::drivers::{self, device_chain};
use crate::machine::ledger::{self, Agent, Ledger};
use crate::machine::memory::Memory;
use crate::medium::{self, Cd, Medium};
use crate::miniroot::overlay::{self, Luggage};
use crate::miniroot::{self, Part};
use crate::net::link::Link;
use crate::net::{self, Network};
use crate::person::choose;
use crate::source::images::Images;
use crate::source::mirrors::Patience;
use crate::source::{Image, disk};
use crate::{distro, kexec};
use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the first life waits for a server that stopped delivering before it starts over.
pub const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(120));

/// From a URL on the kernel command line to another kernel, in eight steps. What decides what will
/// run goes through the ledger before it is used.
pub fn boot(arguments: &mut String, ledger: &mut Ledger) -> Result<Infallible, Failure> {
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
    let first = handover::cost(&images, &journal);
    let handoff = Handoff { modules, premount, first, ..handover::handoff(&config, &network, leased, image) };
    let notes = overlay::notes(plan.is_live.then_some(&handoff), ledger.log())
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
        chain: device_chain(Path::new(ledger::SYSFS)),
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
        first: handover::cost(images, journal),
        second: Cost::default(),
    }
}
