//! Step 1, where the arguments do not say what to boot: a menu of the catalogue at `inetboot.menu=`, or of
//! the one in our initramfs. The choice becomes kernel arguments, and is measured as those are.

use crate::base::console;
use crate::base::failure::Explain;
use crate::config::{ConfigError, OnFailure, Question};
use crate::formats::catalogue::{Catalogue, CatalogueError};
use crate::formats::cmdline::{self, Word};
use crate::formats::url::Url;
use crate::machine::drivers;
use crate::net::{self, NetError};
use crate::person::menu::{self, Item, Menu};
use crate::person::screen::Screen;
use crate::person::shell;
use crate::source;
use crate::source::fault::SourceError;
use std::fs;
use std::time::Duration;

/// The catalogue in our initramfs.
const BUILT_IN: &str = "/catalogue.toml";

const HEADING: &str = concat!("InetBoot ", env!("CARGO_PKG_VERSION"), ": what shall be booted?");

/// The item for an image that is not in the catalogue.
const OTHER: &str = "Another address";

/// Larger catalogues are refused, in bytes.
const LARGEST: u64 = 1 << 20;

/// The longest silence of the catalogue's server.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reason why nothing was chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot fetch the menu {url}")]
    Network {
        url: String,
        #[source]
        error: NetError,
    },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the menu {from} is not understood")]
    Catalogue {
        from: String,
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
            // It may be corrected on its server meanwhile.
            Self::Catalogue { .. } => true,
        }
    }
}

/// Lets the person at the console choose from the catalogue that `question` names. Gives the chosen
/// words, with the other arguments behind them.
pub fn choose(question: &Question) -> Result<Vec<Word>, ChooseError> {
    let catalogue = catalogue(question)?.ok_or(ConfigError::NoNetdir)?;
    let Chosen { title, mut words } = ask(&catalogue).ok_or(ConfigError::NoNetdir)?;
    console::say(&format!("  {title}: {}", cmdline::line(&words)));
    if let Some(open) = words.iter().find(|word| word.has_open_quote()) {
        return Err(ConfigError::OpenQuote { word: open.raw.clone() }.into());
    }

    // The last word with a name wins: a demand of the boot loader holds whatever the catalogue says. They
    // are joined as words, since in a text an open quote would swallow what follows.
    words.extend(question.others.iter().cloned());
    Ok(words)
}

/// The catalogue to choose from; `None` where no menu is wanted.
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

/// A catalogue on a server needs the network before its step. Step 2 releases these addresses, and asks
/// again as the choice demands.
fn fetch(url: &Url, question: &Question) -> Result<String, ChooseError> {
    drivers::load_drivers();
    net::up(&question.net).map_err(|error| ChooseError::Network { url: url.to_string(), error })?;
    let bytes = source::small(url, &question.access, LARGEST, PATIENCE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An entry that was chosen.
struct Chosen {
    title: String,
    words: Vec<Word>,
}

/// Shows the menu until an entry is chosen. Without a console to ask on, the first entry is taken after
/// the catalogue's timeout; `None` if it has none.
fn ask(catalogue: &Catalogue) -> Option<Chosen> {
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
            None => without_console(&mut menu, catalogue.timeout?)?,
        };
        if let Some(line) = chosen.text {
            let title = entries.get(chosen.item).map_or(OTHER, |entry| &entry.title);
            return Some(Chosen { title: title.to_owned(), words: cmdline::words(&line) });
        }
        if let Some(way) = chosen.item.checked_sub(entries.len() + 1).and_then(|number| ways.get(number)) {
            way.go();
        }
    }
}

fn without_console(menu: &mut Menu, timeout: Duration) -> Option<menu::Chosen> {
    console::say(&format!(
        "  there is no console to ask on: booting the first entry in {} s",
        timeout.as_secs()
    ));
    std::thread::sleep(timeout);
    menu.tick(timeout)
}
