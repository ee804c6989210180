//! Step 1, where the arguments do not say what to boot: a menu, made of the catalogue in our
//! initramfs or of the one at `inetboot.menu=`. What is chosen becomes kernel arguments, and is
//! measured as those are.

use crate::base::console;
use crate::base::failure::Explain;
use crate::config::arguments::{Asked, ConfigError, Question};
use crate::config::{Config, OnFailure};
use crate::formats::catalogue::{Catalogue, CatalogueError};
use crate::formats::url::Url;
use crate::machine::drivers;
use crate::net::{self, NetError};
use crate::person::menu::{Item, Menu};
use crate::person::screen::Screen;
use crate::person::shell;
use crate::source;
use crate::source::fault::SourceError;
use std::fs;
use std::time::Duration;

/// The catalogue in our initramfs.
const BUILT_IN: &str = "/catalogue.toml";

/// What the menu says first, and what it says for what is not in the catalogue.
const HEADING: &str = concat!("InetBoot ", env!("CARGO_PKG_VERSION"), ": what shall be booted?");
const OTHER: &str = "Another address";

/// No catalogue is larger.
const LARGEST: u64 = 1 << 20;

/// How long its server may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nothing was chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The arguments are not valid, or nobody can be asked.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The catalogue is on the network, and that is not there.
    #[error("cannot fetch the menu {url}")]
    Network {
        /// Where it is.
        url: String,
        /// Why not.
        #[source]
        error: NetError,
    },
    /// The catalogue cannot be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It makes no sense.
    #[error("the menu {from} is not understood")]
    Catalogue {
        /// Where it is.
        from: String,
        /// Why not.
        #[source]
        error: CatalogueError,
    },
}

impl Explain for ChooseError {
    fn hint(&self) -> String {
        match self {
            Self::Config(error) => error.hint(),
            Self::Network { error, .. } => error.hint(),
            Self::Source(error) => error.hint(),
            Self::Catalogue { .. } => "Correct it: inetbootctl catalogue check FILE".into(),
        }
    }

    fn may_heal(&self) -> bool {
        match self {
            Self::Config(error) => error.may_heal(),
            Self::Network { error, .. } => error.may_heal(),
            Self::Source(error) => error.may_heal(),
            // Whoever corrects it on the server does not come here for that.
            Self::Catalogue { .. } => true,
        }
    }
}

/// What to boot: what the `arguments` say, or what somebody chooses, which they say afterwards.
pub fn boot(arguments: &mut String) -> Result<Config, ChooseError> {
    let question = match Asked::parse(arguments)? {
        Asked::Boot(config) => return Ok(*config),
        Asked::Menu(question) => question,
    };
    let Some(catalogue) = catalogue(&question)? else { return Err(ConfigError::NoNetdir.into()) };
    let (title, words) = ask(&catalogue).ok_or(ConfigError::NoNetdir)?;
    console::say(&format!("  {title}: {words}"));
    // The last word wins: what the boot loader demanded stays demanded, whoever wrote the catalogue.
    *arguments = format!("{words} {}", question.others);
    Ok(Config::parse(arguments)?)
}

/// The one to choose from, if there is one.
fn catalogue(question: &Question) -> Result<Option<Catalogue>, ChooseError> {
    let (from, text) = match &question.menu {
        Some(url) => (url.to_string(), fetch(url, question)?),
        None if question.on_failure != OnFailure::Wait => return Ok(None),
        None => match fs::read_to_string(BUILT_IN) {
            Ok(text) => (BUILT_IN.to_owned(), text),
            Err(_) => return Ok(None),
        },
    };
    let decoded = Catalogue::decode(&text);
    decoded.map(Some).map_err(|error| ChooseError::Catalogue { from, error })
}

fn fetch(url: &Url, question: &Question) -> Result<String, ChooseError> {
    drivers::load_drivers();
    net::up(&question.net).map_err(|error| ChooseError::Network { url: url.to_string(), error })?;
    let bytes = source::small(url, &question.access, LARGEST, PATIENCE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What somebody chooses: what it is called, and the words that say it; the first where nobody can, and
/// the catalogue says how long to wait for it.
fn ask(catalogue: &Catalogue) -> Option<(String, String)> {
    let entries = &catalogue.entries;
    let mut items: Vec<Item> =
        entries.iter().map(|entry| Item::with_text(&entry.title, entry.to_string())).collect();
    items.push(Item::to_type(OTHER, "netdir=http://"));
    let ways = shell::all();
    items.extend(ways.iter().map(|way| Item::new(way.label())));
    let mut menu = Menu::new(HEADING, items, catalogue.timeout);
    loop {
        let chosen = match Screen::open() {
            Some(mut screen) => screen.ask(&mut menu),
            None => {
                let timeout = catalogue.timeout?;
                console::say(&format!(
                    "  there is no console to ask on: the first in {} s",
                    timeout.as_secs()
                ));
                std::thread::sleep(timeout);
                menu.tick(timeout)?
            }
        };
        if let Some(words) = chosen.text {
            let title = entries.get(chosen.item).map_or(OTHER, |entry| &entry.title);
            return Some((title.to_owned(), words));
        }
        if let Some(way) = chosen.item.checked_sub(entries.len() + 1).and_then(|number| ways.get(number)) {
            way.go();
        }
    }
}
