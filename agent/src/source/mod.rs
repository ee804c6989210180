//! Step 3: where the image's bytes come from.
//!
//! A [`Source`] is a length, `read_at` and a `Display` that is the user's message. Behind it stand
//! a cache ([`cache`]), the places that have the image ([`mirrors`]), and single requests to them
//! ([`http`]); none of that is anybody else's business.

pub mod ahead;
pub mod cache;
pub mod cloop;
pub mod disk;
mod eyeballs;
pub mod fault;
pub mod file;
mod find;
pub mod http;
pub mod images;
pub mod keep;
pub mod mirrors;
mod schedule;
pub mod tls;
pub mod wire;

use crate::base::console;
use crate::config::{Access, Wanted, WantedDisk};
use crate::formats::profile::Profile;
use crate::formats::receipt::Report;
use crate::formats::recipe::Recipe;
use crate::formats::url::Url;
use crate::formats::{index, trust, version};
use crate::machine::memory::{self, Memory};
use crate::source::cache::Cache;
use crate::source::disk::Disk;
use crate::source::fault::SourceError;
use crate::source::file::File;
use crate::source::find::Found;
use crate::source::http::Client;
use crate::source::keep::{Kept, Localised};
use crate::source::mirrors::{Mirror, Mirrors, Patience};
use crate::source::wire::{Traffic, Wire};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError>;

    /// Why the last read failed, for whoever only sees the kernel's "Input/output error".
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// All of a small file, which is no image: at most `limit` bytes, from a server that may be silent for
/// as long as `patience`.
pub fn small(url: &Url, access: &Access, limit: u64, patience: Duration) -> Result<Vec<u8>, SourceError> {
    let ca = tls::read_ca(access).map_err(SourceError::Ca)?;
    let client = Client::new(access, ca.as_deref(), Arc::default())?;
    client.small(url.as_str(), limit, patience).map(|(bytes, _)| bytes)
}

/// Memory the cache may use: a sixteenth of the machine's, within these.
const LEAST_CACHE: u64 = 16 << 20;
const LARGEST_CACHE: u64 = 64 << 20;

/// Memory that must stay free beside an image that is held whole.
const BESIDE_WHOLE: u64 = 256 << 20;

/// Attempts at an image that can only be read whole: a cut connection starts it over.
const WHOLE_TRIES: usize = 3;

/// An image, opened.
#[derive(Clone)]
pub struct Image {
    source: Arc<dyn Source>,
    cached: Option<Arc<Cache<Kept>>>,
    wire: Arc<Wire>,
    recipe: Recipe,
    ca: Option<Vec<u8>>,
}

impl Image {
    /// Find and open the image that is wanted, to read a little of it: its profile is not used.
    pub fn open(wanted: &Wanted, access: &Access, patience: Patience) -> Result<Self, SourceError> {
        Self::with(access, patience, false, |client| {
            find::find(client, wanted).map(|found| Found { profile: None, ..found })
        })
    }

    /// Find and open the image that is wanted, and fetch it ahead of need by its profile.
    pub fn open_ahead(wanted: &Wanted, access: &Access, patience: Patience) -> Result<Self, SourceError> {
        Self::with(access, patience, false, |client| find::find(client, wanted))
    }

    /// Open the image that the first life found, and fetch it ahead of need.
    pub fn again(recipe: Recipe, access: &Access, patience: Patience) -> Result<Self, SourceError> {
        Self::with(access, patience, access.localise, |client| Found::again(client, recipe))
    }

    fn with(
        access: &Access,
        patience: Patience,
        localise: bool,
        find: impl FnOnce(&Client) -> Result<Found, SourceError>,
    ) -> Result<Self, SourceError> {
        let wire = Arc::new(Wire::default());
        let ca = tls::read_ca(access).map_err(SourceError::Ca)?;
        let client = Client::new(access, ca.as_deref(), Arc::clone(&wire))?;
        let Found { recipe, pieces, profile, whole, file } = find(&client)?;
        if let Some(whole) = whole {
            let source = Arc::new(read_whole(&whole)?);
            return Ok(Self { source, cached: None, wire, recipe, ca });
        }
        let mut file = file;
        let mirror = |(place, version): &(index::Place, Option<version::Version>)| {
            Mirror::new(place.clone(), &client, version.clone(), file.take())
        };
        let list = recipe.mirrors.iter().map(mirror).collect();
        let mirrors = Arc::new(Mirrors::new(pieces, list, patience));
        for (url, why) in &recipe.wrong {
            mirrors.condemn(url, why);
        }
        mirrors.race();
        let memory = Memory::now().map_err(SourceError::Memory)?.total / 16;
        let cache = memory.clamp(LEAST_CACHE, LARGEST_CACHE);
        let kept = keep(mirrors, access, localise);
        let cached = Arc::new(Cache::new(kept, cache, profile).map_err(SourceError::Memory)?);
        Ok(Self { source: Arc::<Cache<_>>::clone(&cached), cached: Some(cached), wire, recipe, ca })
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Everything the second life needs to open it again; with what was found out since.
    pub fn recipe(&self) -> Recipe {
        let wrong = self.reports().into_iter().filter_map(|report| Some((report.url, report.wrong?)));
        let mut recipe = Recipe { wrong: wrong.collect(), ..self.recipe.clone() };
        if let (None, Some(cached)) = (&recipe.index, &self.cached) {
            let found = cached.supply().mirrors().list().iter().map(Mirror::version);
            recipe.mirrors.iter_mut().zip(found).for_each(|((_, version), found)| *version = found);
        }
        recipe
    }

    /// What it is called on its server.
    pub fn file_name(&self) -> String {
        let place = self.recipe.mirrors.first().map(|(place, _)| match place {
            index::Place::File(url) | index::Place::Store { url, .. } => url,
        });
        let url = place.and_then(|url| url.parse::<Url>().ok());
        url.map_or_else(|| "image".to_owned(), |url| url.file_name().to_owned())
    }

    /// What can be said about its being genuine.
    pub fn trust(&self) -> &trust::Trust {
        &self.recipe.trust
    }

    /// The certificates that were trusted for it, as PEM; `None` for Mozilla's roots.
    pub fn ca(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// What crossed the network for it so far.
    pub fn traffic(&self) -> Traffic {
        self.wire.traffic()
    }

    /// What each place did.
    pub fn reports(&self) -> Vec<Report> {
        self.kept().map(|kept| kept.mirrors().reports()).unwrap_or_default()
    }

    fn kept(&self) -> Option<&Kept> {
        self.cached.as_ref().map(|cached| cached.supply())
    }

    /// The disk that keeps its pieces.
    pub fn disk(&self) -> Option<&Disk> {
        self.kept().and_then(Kept::disk)
    }

    /// Bytes of it that were at hand and did not cross the network.
    pub fn spared(&self) -> u64 {
        self.kept().map(Kept::spared).unwrap_or_default()
    }

    /// Wait, for a while, until the disk has what was fetched.
    pub fn settle(&self) {
        self.kept().into_iter().for_each(Kept::settle);
    }

    /// Fetch all that is not at hand, and say how that ended.
    pub fn localise(&self) {
        let Some(kept) = self.kept() else { return };
        let said = match kept.localise() {
            Ok(None) => return,
            Ok(Some(Localised { place, missing: 0 })) => {
                format!("the image is {place} whole: the network may go")
            }
            Ok(Some(Localised { place, missing })) => {
                format!("{missing} pieces of the image are not {place}: the network may not go")
            }
            Err(error) => format!("the image stays remote: {}", crate::base::failure::chain(&error)),
        };
        console::say_loud(&said);
    }

    /// The order in which its pieces were read; none where it is in memory whole.
    pub fn profile(&self) -> Option<Profile> {
        self.cached.as_ref().map(|cached| cached.profile())
    }
}

/// The mirrors, with what is kept of them: on the disk that is wanted, or, where the image is to be
/// localised, in memory. A boot without either goes on.
fn keep(mirrors: Arc<Mirrors>, access: &Access, localise: bool) -> Kept {
    let not = |why: String| console::say_loud(&format!("nothing of the image is kept: {why}"));
    if let Some(wanted) = &access.disk {
        match on_disk(&mirrors, wanted) {
            Ok(kept) => return kept,
            Err(why) => not(why),
        }
    }
    if localise {
        match in_memory(&mirrors) {
            Ok(kept) => return kept,
            Err(why) => not(why),
        }
    }
    Kept::nothing(mirrors)
}

fn on_disk(mirrors: &Arc<Mirrors>, wanted: &WantedDisk) -> Result<Kept, String> {
    let identity = mirrors.identity().ok_or("the server does not say which version of the image it has")?;
    let disk = Disk::find(wanted).map_err(|error| error.to_string())?;
    Kept::on_disk(Arc::clone(mirrors), disk, identity).map_err(|error| error.to_string())
}

fn in_memory(mirrors: &Arc<Mirrors>) -> Result<Kept, String> {
    let available = Memory::now().map_err(|error| error.to_string())?.available;
    let length = mirrors.pieces().length();
    if length + BESIDE_WHOLE > available {
        let (length, available) = (console::size(length), console::size(available));
        return Err(format!("its {length} do not fit into the {available} of free memory"));
    }
    Kept::in_memory(Arc::clone(mirrors)).map_err(|error| error.to_string())
}

fn read_whole(whole: &http::Whole) -> Result<File, SourceError> {
    let available = Memory::now().map_err(SourceError::Memory)?.available;
    if whole.length() + BESIDE_WHOLE > available {
        return Err(SourceError::TooBig { url: whole.url().to_owned(), length: whole.length(), available });
    }
    console::say(&format!(
        "  {} is on a server without ranges: reading all {} into memory, once in each life",
        whole.url(),
        console::size(whole.length()),
    ));
    let mut tries = 0;
    loop {
        let mut file = memory::file("image").map_err(SourceError::Memory)?;
        match whole.read(&mut file) {
            Ok(()) => {
                let name = format!("{} (read whole into memory)", whole.url());
                return Ok(File::new(file, whole.length(), name));
            }
            Err(error) if tries + 1 >= WHOLE_TRIES => return Err(error),
            Err(error) => {
                console::say(&format!("  starting over: {}", crate::base::failure::chain(&error)));
                std::thread::sleep(http::pause(tries + 2));
                tries += 1;
            }
        }
    }
}
