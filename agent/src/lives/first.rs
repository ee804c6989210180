//! The first life: from an address on the kernel command line to another kernel, in eight steps.
//!
//! Read [`boot`] as a table of contents. Each step takes the values of the steps before it and gives one
//! of its own; everything that decides what will run passes through the ledger before it is used.

use crate::base::console;
use crate::base::failure::Failure;
use crate::base::step::{Journal, Step};
use crate::config::{Asked, Config};
use crate::formats::cmdline::Word;
use crate::formats::handoff::Handoff;
use crate::formats::receipt::{Cost, Receipt};
use crate::formats::tpm_policy::TpmPolicy;
use crate::lives::{PATIENCE, handover};
use crate::machine::drivers::{self, device_chain};
use crate::machine::ledger::{self, Ledger};
use crate::machine::meminfo::Memory;
use crate::measure::Agent;
use crate::medium::{self, Directory, Medium};
use crate::miniroot::overlay::{self, Contents};
use crate::miniroot::{self, Hardware, Rebuilt};
use crate::net::link::Link;
use crate::net::{self, Network};
use crate::person::choose::{self, ChooseError};
use crate::source::images::Images;
use crate::source::{Image, disk};
use crate::{distro, kexec};
use std::convert::Infallible;
use std::path::Path;
use std::time::Instant;

/// The boot. Comes back only if it failed; `arguments` then say what was chosen in a menu, and the ledger
/// goes over its record again in the next attempt.
pub fn boot(arguments: &mut Vec<Word>, ledger: &mut Ledger) -> Result<Infallible, Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION")));
    let mut journal = Journal::default();

    // 1. The kernel arguments, or a menu, say what to boot. From here on all that decides is measured.
    let config = journal.step(Step::Config, || configure(arguments))?;
    drivers::load_drivers();
    ledger.begin(config.tpm)?;
    let agent = ledger.measure(Agent::running()?)?;
    let config = ledger.measure(config)?;

    // 2. A card, an address, name servers, the time.
    let network = journal.step(Step::Network, || net::up(&config.net))?;
    let leased = Instant::now();

    // 3. The image is found on its servers, with its index if it has one.
    let images = journal.step(Step::Source, || Images::open(&config.boot, &config.access, PATIENCE))?;
    for image in images.iter() {
        console::say(&format!("  {}, {}", image.source(), image.trust()));
    }
    let images = ledger.measure(images)?;
    let image = images.first();

    // 4. It becomes a mounted CD. Its bytes cross the network as they are read.
    let medium = journal.step(Step::Medium, || medium::mount(&images))?;

    // 5. The medium's own menu says which kernel, initrd and arguments; its family says what to add.
    let plan = journal.step(Step::Distro, || {
        medium.blame(match &medium {
            Medium::Cd(_) => distro::recognise(medium.dir(), &config.target),
            Medium::Files(_) => distro::plain(medium.dir(), &config.target),
        })
    })?;
    console::say(&format!("  {plan}"));

    // 6. The target's initrd gets this program, the index, and the drivers that it lacks.
    let hardware = hardware(&config, &network, image, ledger);
    let recipe = image.recipe();
    let contents =
        Contents { agent: agent.bytes(), ca: image.ca(), recipe: &recipe, modules: config.net.modules() };
    let Rebuilt { payload, modules } = journal.step(Step::Miniroot, || {
        medium.blame(miniroot::rebuild(&plan, &medium, &hardware, &contents, Memory::now().ok()))
    })?;

    // 7. Kernel, initrd and command line, file by file.
    let payload = journal.step(Step::Measure, || ledger.measure(payload))?;

    // 8. Load them, with a note for the second life behind the initrd, and leave.
    let handoff = plan.is_live.then(|| Handoff {
        modules,
        premount: plan.premount.map(str::to_owned),
        first: handover::cost(&images, &journal),
        ..handover::draft(&config, &network, leased, image)
    });
    let notes =
        overlay::notes(handoff.as_ref(), ledger.log()).map_err(|error| Failure::at(Step::Kexec, error))?;
    journal.step(Step::Kexec, || kexec::load(payload, &notes))?;

    receipt(&config, &images, &journal, ledger).lines().iter().for_each(|line| console::say(line));
    console::say(&format!("  leaving for {}; the screen may stay dark for a moment", plan.title));
    leave_quietly(medium, &images);
    kexec::leave().map_err(|error| Failure::at(Step::Kexec, error))
}

/// The configuration that `arguments` ask for. Where they do not say what to boot, the person at the
/// console does, and the choice joins them.
fn configure(arguments: &mut Vec<Word>) -> Result<Config, ChooseError> {
    match Asked::parse(arguments)? {
        Asked::Boot(config) => Ok(*config),
        Asked::Menu(question) => {
            *arguments = choose::choose(&question)?;
            Ok(Config::parse(arguments)?)
        }
    }
}

/// The hardware that the target has to drive: the card that brings the image; and, where it can, the disk
/// that keeps it and the TPM that was measured into.
fn hardware(config: &Config, network: &Network, image: &Image, ledger: &Ledger) -> Vec<Hardware> {
    let card = Hardware {
        kind: "network card",
        name: network.link.to_string(),
        chain: device_chain(&network.link.card_sysfs()),
        is_optional: false,
    };
    let disk = image.disk().and_then(|disk| disk::sysfs(disk.path())).map(|sysfs| Hardware {
        kind: "disk with the cache",
        name: String::new(),
        chain: device_chain(&sysfs),
        is_optional: true,
    });
    let tpm = ledger.log().map(|_| Hardware {
        kind: "TPM",
        name: String::new(),
        chain: device_chain(Path::new(ledger::SYSFS)),
        is_optional: config.tpm != TpmPolicy::Require,
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

/// The next kernel must find quiet devices: nothing mounted, the cache written, no card that still writes
/// arriving packets into memory.
fn leave_quietly(medium: Medium, images: &Images) {
    drop(medium);
    images.iter().for_each(Image::settle);
    for link in Link::all() {
        let _ = link.down();
    }
}
