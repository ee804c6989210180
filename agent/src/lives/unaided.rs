//! The life without a first: a boot loader started the target's own kernel with its own initrd and an
//! overlay of `inetbootctl overlay`, since Secure Boot or the machine forbids kexec.
//!
//! It does the first life's steps 1 to 3 from the arguments in the overlay, writes the handoff itself,
//! and the second life follows. Kernel and initrd are not measured here: the boot loader did that.

use crate::base::console;
use crate::base::failure::Failure;
use crate::base::step::{Journal, Step};
use crate::config::{Boot, Config, ConfigError};
use crate::formats::cmdline::{self, Word};
use crate::formats::handoff::{self, Handoff};
use crate::lives::{PATIENCE, handover};
use crate::machine::drivers;
use crate::machine::ledger::Ledger;
use crate::measure::Agent;
use crate::net;
use crate::source::Image;
use crate::source::images::Images;
use std::fs;
use std::time::Instant;

/// Modules that a first life would have chosen for every family.
const MODULES: [&str; 5] = ["fuse", "loop", "isofs", "squashfs", "overlay"];

/// The arguments of the overlay, then those of the boot loader that are ours: the loader may override an
/// overlay, but words for the target reach its kernel without us.
pub fn arguments(loader: &[Word]) -> Vec<Word> {
    let overlay = fs::read_to_string(handoff::ARGUMENTS_PATH).unwrap_or_default();
    let is_ours = |word: &&Word| word.key == "netdir" || word.key.starts_with("inetboot.");
    cmdline::words(&overlay).into_iter().chain(loader.iter().filter(is_ours).cloned()).collect()
}

/// Finds out what a first life would have told, and leaves it where that would have left it.
pub fn prepare(arguments: &[Word], ledger: &mut Ledger) -> Result<(), Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION"), ", without kexec"));
    let mut journal = Journal::default();

    let config = journal.step(Step::Config, || configure(arguments))?;
    drivers::load_drivers();
    MODULES.iter().for_each(|module| drivers::load_module(module));

    // The server of an earlier attempt wrote into the same log.
    let log = handover::read_log().map_err(|error| Failure::at(Step::Config, error))?;
    ledger.begin_again(config.tpm, log)?;
    ledger.measure(Agent::running()?)?;
    let config = ledger.measure(config)?;

    let network = journal.step(Step::Network, || net::up(&config.net))?;
    let leased = Instant::now();

    let images = journal.step(Step::Source, || Images::open(&config.boot, &config.access, PATIENCE))?;
    let images = ledger.measure(images)?;
    let image = images.first();
    console::say(&format!("  {}, {}", image.source(), image.trust()));

    let told = Handoff {
        premount: fs::read_to_string(handoff::PREMOUNT_PATH).ok(),
        first: handover::cost(&images, &journal),
        ..handover::draft(&config, &network, leased, image)
    };
    images.iter().for_each(Image::flush);
    handover::write_all(&told, ledger.log()).map_err(|error| Failure::at(Step::Config, error))?;
    // The server opens the TPM next, and some have room for one user at a time.
    ledger.release();
    Ok(())
}

fn configure(arguments: &[Word]) -> Result<Config, ConfigError> {
    let config = Config::parse(arguments)?;
    match &config.boot {
        Boot::Medium(_) => Ok(config),
        other => Err(ConfigError::Excluded {
            argument: other.name(),
            with: "without kexec",
            instead: "Remove rdinit=: a plain kernel and initrd need no help of ours",
        }),
    }
}
