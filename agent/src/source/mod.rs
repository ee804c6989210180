//! Step 3: where the image's bytes come from.
//!
//! A [`Source`] is a length, `read_at` and a `Display` that is the user's message. What stands
//! behind it (ranges of a web server's file, memory, a cache around either) is nobody else's
//! business.

pub mod cache;
pub mod http;
pub mod ram;
pub mod tls;
pub mod wire;

use crate::config::{Access, Url};
use crate::console;
use crate::memory::{self, Memory};
use cache::Cached;
use http::{Client, HttpError, Opened, Patience, Version};
use ram::Ram;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use wire::{Traffic, Wire};

/// An immutable run of bytes somewhere.
pub trait Source: fmt::Display + Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fill `buffer` from `offset`; the range must lie inside the image.
    ///
    /// # Errors
    /// When the bytes cannot be had within the source's patience. A patient source blocks instead.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), HttpError>;

    /// Why the last read failed, for whoever only sees the kernel's "Input/output error".
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// How long opening an image may take where its server has passing troubles.
const OPEN_BUDGET: Duration = Duration::from_secs(20);

/// Memory the cache may use: enough for what eight readers ask for at once, twice.
const CACHE: u64 = 16 << 20;

/// Memory that must stay free beside an image that is held whole.
const BESIDE_WHOLE: u64 = 256 << 20;

/// Attempts at an image that can only be read whole: a cut connection starts it over.
const WHOLE_TRIES: usize = 3;

/// What can be said about an image that nothing vouches for.
pub const UNVERIFIED: &str = "unverified";

/// An image, opened.
#[derive(Clone)]
pub struct Image {
    source: Arc<dyn Source>,
    wire: Arc<Wire>,
    version: Version,
    ca: Option<Vec<u8>>,
}

impl Image {
    /// Open `url`. With `pinned`, insist on that version of it.
    pub fn open(
        url: &Url,
        access: &Access,
        patience: Patience,
        pinned: Option<&Version>,
    ) -> Result<Self, HttpError> {
        let wire = Arc::new(Wire::default());
        let ca = tls::read_ca(access).map_err(HttpError::Ca)?;
        let client = Client::new(access, ca.as_deref(), Arc::clone(&wire))?;
        match http::open(&client, url.as_str(), patience, OPEN_BUDGET)? {
            Opened::Ranged(file) => {
                let version = file.version().clone();
                if let Some(pinned) = pinned {
                    pinned.insist(url.as_str(), &version)?;
                }
                Ok(Self { source: Arc::new(Cached::new(file, CACHE)), wire, version, ca })
            }
            Opened::Whole(whole) => {
                let version = whole.version().clone();
                if let Some(pinned) = pinned {
                    pinned.insist(url.as_str(), &version)?;
                }
                Ok(Self { source: Arc::new(read_whole(&whole)?), wire, version, ca })
            }
        }
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Which version of the file it is.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The certificates that were trusted for it, as PEM; `None` for Mozilla's roots.
    pub fn ca(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// What crossed the network for it so far.
    pub fn traffic(&self) -> Traffic {
        self.wire.traffic()
    }
}

fn read_whole(whole: &http::Whole) -> Result<Ram, HttpError> {
    let available = Memory::now().map_err(HttpError::Memory)?.available;
    if whole.length() + BESIDE_WHOLE > available {
        return Err(HttpError::TooBig { url: whole.url().to_owned(), length: whole.length(), available });
    }
    console::say(&format!(
        "  {} is on a server without ranges: reading all {} into memory, once in each life",
        whole.url(),
        console::size(whole.length()),
    ));
    let mut tries = 0;
    loop {
        let mut file = memory::file("image").map_err(HttpError::Memory)?;
        match whole.read(&mut file) {
            Ok(()) => return Ok(Ram::new(file, whole.length(), whole.url().to_owned())),
            Err(error) if tries + 1 >= WHOLE_TRIES => return Err(error),
            Err(error) => {
                tries += 1;
                console::say(&format!("  starting over: {}", crate::failure::chain(&error)));
            }
        }
    }
}
