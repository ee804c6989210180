//! The second life without a first: a boot loader started the target's own kernel with its own initrd
//! and our overlay (`inetbootctl overlay`), as where Secure Boot or a machine forbids kexec.
//!
//! What a first life would have told is found out here, from the arguments in the overlay and those of
//! the kernel's line that begin with `inetboot.` or `netdir=`; then it is as if that had been told.
//! Neither kernel nor initrd is measured: the boot loader did that.

use crate::base::console;
use crate::base::failure::{Explain, Failure};
use crate::base::step::{Journal, Step};
use crate::config::{Boot, Config, ConfigError};
use crate::formats::cmdline::{self, Word};
use crate::formats::handoff::{self, Handoff};
use crate::formats::recipe::Recipe;
use crate::lives::second;
use crate::machine::drivers;
use crate::measure::{Agent, Ledger};
use crate::net;
use crate::source::images::Images;
use crate::source::mirrors::Patience;
use std::path::Path;
use std::time::Instant;
use std::{fs, io};

/// What a first life would have chosen from the target's modules, where they are modules.
const MODULES: [&str; 5] = ["fuse", "loop", "isofs", "squashfs", "overlay"];

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
enum AloneError {
    /// The arguments are not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was found out cannot be kept.
    #[error("cannot write {path}")]
    Write {
        path: &'static str,
        #[source]
        error: io::Error,
    },
}

impl Explain for AloneError {
    fn hint(&self) -> String {
        match self {
            Self::Config(error) => error.hint(),
            Self::Write { .. } => "Check the machine's memory".into(),
        }
    }

    fn may_heal(&self) -> bool {
        match self {
            Self::Config(error) => error.may_heal(),
            Self::Write { .. } => true,
        }
    }
}

/// Whether this is a target's initrd with our overlay, and no first life prepared it.
pub fn is_so() -> bool {
    Path::new(handoff::ARGUMENTS_PATH).exists() && !second::is_second_life()
}

/// What was told has led nowhere: the next attempt finds it out anew.
pub fn forget() {
    let _ = fs::remove_file(handoff::PATH);
}

/// What is asked for: the kernel's line may say something else than the overlay, where the target would
/// not obey it.
pub fn arguments(given: &str) -> String {
    let overlay = fs::read_to_string(handoff::ARGUMENTS_PATH).unwrap_or_default();
    let is_ours = |word: &&Word| word.key == "netdir" || word.key.starts_with("inetboot.");
    format!("{overlay} {}", cmdline::line(cmdline::words(given).iter().filter(is_ours)))
}

/// Find out what a first life would have told, and leave it where it would be.
pub fn prepare(arguments: &str, ledger: &mut Ledger, patience: Patience) -> Result<(), Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION"), ", without kexec"));
    let mut journal = Journal::default();
    let config = journal.step(Step::Config, || medium_only(arguments))?;
    drivers::load_drivers();
    MODULES.iter().for_each(|module| drivers::load_module(module));
    ledger.begin(config.tpm)?;
    ledger.measure(Agent::running()?)?;
    let config = ledger.measure(config)?;
    let network = journal.step(Step::Network, || net::up(&config.net))?;
    let leased = Instant::now();
    let images = journal.step(Step::Source, || Images::open(&config.boot, &config.access, patience))?;
    let images = ledger.measure(images)?;
    let image = images.first();
    console::say(&format!("  {}, {}", image.source(), image.trust()));
    let first = second::cost(&images, &journal);
    let premount = fs::read_to_string(handoff::PREMOUNT_PATH).ok();
    let told = Handoff { premount, first, ..second::handoff(&config, &network, leased, image) };
    image.flush();
    leave(&told, ledger).map_err(|error| Failure::at(Step::Config, error))?;
    // The server opens the TPM next, and there may be room for one at a time.
    std::mem::take(ledger);
    Ok(())
}

fn medium_only(arguments: &str) -> Result<Config, AloneError> {
    let config = Config::parse(arguments)?;
    let instead = "Leave rdinit= out: a kernel and an initrd need no help of ours";
    match &config.boot {
        Boot::Medium(_) => Ok(config),
        other => Err(ConfigError::NotYet { argument: other.name(), instead }.into()),
    }
}

/// The handoff last: that it is there says that all is.
fn leave(told: &Handoff, ledger: &Ledger) -> Result<(), AloneError> {
    let Recipe { index, profile, .. } = &told.recipe;
    let text = told.encode();
    let log = ledger.log().map(|log| log.encode());
    let files = [
        (handoff::INDEX_PATH, index.as_ref().map(|index| &index.bytes[..])),
        (handoff::PROFILE_PATH, profile.as_ref().map(String::as_bytes)),
        (handoff::EVENTLOG_PATH, log),
        (handoff::PATH, Some(text.as_bytes())),
    ];
    for (path, contents) in files {
        if let Some(contents) = contents {
            fs::write(path, contents).map_err(|error| AloneError::Write { path, error })?;
        }
    }
    Ok(())
}
