//! An image, opened: from the recipe or from what the user wants to bytes that can be read.

use crate::base::console;
use crate::base::failure::chain;
use crate::config::{Access, Wanted, WantedDisk};
use crate::formats::profile::Profile;
use crate::formats::receipt::Report;
use crate::formats::recipe::Recipe;
use crate::formats::trust::Trust;
use crate::machine::memfd;
use crate::machine::meminfo::Memory;
use crate::source::cache::Cache;
use crate::source::disk::Disk;
use crate::source::fault::SourceError;
use crate::source::file::File;
use crate::source::find::{self, Found};
use crate::source::http::{Client, Whole, pause};
use crate::source::mirrors::{Mirror, Mirrors, Patience};
use crate::source::store::{DiskStore, MemoryStore, PieceStore};
use crate::source::supply::StoredSupply;
use crate::source::wire::{Traffic, Wire};
use crate::source::{Source, tls};
use std::sync::Arc;

/// Memory the cache may use: a sixteenth of the machine's, within these.
const LEAST_CACHE: u64 = 16 << 20;
const LARGEST_CACHE: u64 = 64 << 20;

/// Memory that must stay free beside an image that is in memory as a whole.
const BESIDE_WHOLE: u64 = 256 << 20;

/// Attempts at an image that can only be read whole: a cut connection starts it over.
const WHOLE_TRIES: usize = 3;

#[derive(Clone)]
pub struct Image {
    contents: Contents,
    wire: Arc<Wire>,
    recipe: Recipe,
    ca: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Contents {
    /// Read whole into memory, from a server without ranges.
    Whole(Arc<File>),
    Pieces(Arc<Cache<StoredSupply>>),
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
        let Found { recipe, pieces, profile, whole, mut file } = find(&client)?;
        if let Some(whole) = whole {
            let contents = Contents::Whole(Arc::new(read_whole(&whole)?));
            return Ok(Self { contents, wire, recipe, ca });
        }

        // The file that was opened is the first mirror's.
        let list = recipe.mirrors.iter().map(|record| Mirror::new(record, &client, file.take())).collect();
        let mirrors = Arc::new(Mirrors::new(pieces, list, patience));
        recipe.wrong.iter().for_each(|condemned| mirrors.condemn(condemned));
        mirrors.race();

        let memory = Memory::now().map_err(SourceError::Memory)?.total / 16;
        let capacity = memory.clamp(LEAST_CACHE, LARGEST_CACHE);
        let store = store(&mirrors, access, localise);
        let cache = Cache::new(StoredSupply::new(mirrors, store), capacity, profile);
        let contents = Contents::Pieces(Arc::new(cache.map_err(SourceError::Memory)?));
        Ok(Self { contents, wire, recipe, ca })
    }

    pub fn source(&self) -> Arc<dyn Source> {
        match &self.contents {
            Contents::Whole(file) => Arc::<File>::clone(file),
            Contents::Pieces(cache) => Arc::<Cache<_>>::clone(cache),
        }
    }

    fn supply(&self) -> Option<&StoredSupply> {
        match &self.contents {
            Contents::Whole(_) => None,
            Contents::Pieces(cache) => Some(cache.supply()),
        }
    }

    fn store(&self) -> Option<&dyn PieceStore> {
        self.supply().and_then(StoredSupply::store)
    }

    /// Everything the second life needs to open it again, with the faults found since it was opened.
    pub fn recipe(&self) -> Recipe {
        let mut recipe = self.recipe.clone();
        let Some(mirrors) = self.supply().map(StoredSupply::mirrors) else { return recipe };
        recipe.wrong = mirrors.condemned();
        if recipe.index.is_none() {
            let versions = mirrors.list().iter().map(Mirror::version);
            recipe.mirrors.iter_mut().zip(versions).for_each(|(record, version)| record.version = version);
        }
        recipe
    }

    /// The name of the file on its server.
    pub fn file_name(&self) -> &str {
        self.recipe.mirrors.first().map_or("image", |record| record.place.address().file_name())
    }

    /// The guarantee that the image is genuine.
    pub fn trust(&self) -> &Trust {
        &self.recipe.trust
    }

    /// The certificates that were trusted for it, as PEM; `None` for Mozilla's roots.
    pub fn ca(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// Bytes and requests that it has cost so far.
    pub fn traffic(&self) -> Traffic {
        self.wire.traffic()
    }

    /// The bytes that each place sent, and its faults.
    pub fn reports(&self) -> Vec<Report> {
        self.supply().map(|supply| supply.mirrors().reports()).unwrap_or_default()
    }

    /// The disk that its pieces are stored on.
    pub fn disk(&self) -> Option<&Disk> {
        self.store().and_then(PieceStore::disk)
    }

    /// Bytes of it that came from the store and did not cross the network.
    pub fn spared(&self) -> u64 {
        self.supply().map(StoredSupply::spared).unwrap_or_default()
    }

    /// Wait, for a while, until the disk has all that was fetched.
    pub fn flush(&self) {
        if let Some(store) = self.store() {
            store.flush();
        }
    }

    /// Fetch all that the store lacks, and report how that ended.
    pub fn localise(&self) {
        let (Some(supply), Some(store)) = (self.supply(), self.store()) else { return };
        let place = store.name();
        let report = match supply.fill(store) {
            Ok(0) => format!("the image is {place} whole: the network may go"),
            Ok(missing) => format!("{missing} pieces of the image are not {place}: the network may not go"),
            Err(error) => format!("the image stays remote: {}", chain(&error)),
        };
        console::say_loud(&report);
    }

    /// The order in which its pieces were read; `None` where it is in memory whole.
    pub fn profile(&self) -> Option<Profile> {
        match &self.contents {
            Contents::Whole(_) => None,
            Contents::Pieces(cache) => Some(cache.profile()),
        }
    }
}

/// The store that is wanted: on a disk or, where the image is to be localised, in memory. A boot goes on
/// without it.
fn store(mirrors: &Mirrors, access: &Access, localise: bool) -> Option<Box<dyn PieceStore>> {
    let without = |why: &String| console::say_loud(&format!("nothing of the image is kept: {why}"));
    let on_disk =
        access.disk.as_ref().and_then(|wanted| disk_store(mirrors, wanted).inspect_err(without).ok());
    if on_disk.is_some() || !localise {
        return on_disk;
    }
    memory_store(mirrors).inspect_err(without).ok()
}

fn disk_store(mirrors: &Mirrors, wanted: &WantedDisk) -> Result<Box<dyn PieceStore>, String> {
    let identity = mirrors.identity().ok_or("the server does not say which version of the image it has")?;
    let disk = Disk::find(wanted).map_err(|error| error.to_string())?;
    let store = DiskStore::new(mirrors.pieces(), disk, identity).map_err(|error| error.to_string())?;
    Ok(Box::new(store))
}

fn memory_store(mirrors: &Mirrors) -> Result<Box<dyn PieceStore>, String> {
    let available = Memory::now().map_err(|error| error.to_string())?.available;
    let length = mirrors.pieces().length();
    if length + BESIDE_WHOLE > available {
        let (length, available) = (console::size(length), console::size(available));
        return Err(format!("its {length} do not fit into the {available} of free memory"));
    }
    let store = MemoryStore::new(mirrors.pieces()).map_err(|error| error.to_string())?;
    Ok(Box::new(store))
}

fn read_whole(whole: &Whole) -> Result<File, SourceError> {
    let available = Memory::now().map_err(SourceError::Memory)?.available;
    if whole.length() + BESIDE_WHOLE > available {
        return Err(SourceError::TooBig { url: whole.url().clone(), length: whole.length(), available });
    }
    console::say(&format!(
        "  {} is on a server without ranges: reading all {} into memory, once in each life",
        whole.url(),
        console::size(whole.length()),
    ));

    let mut tries = 0;
    loop {
        let mut file = memfd::file("image").map_err(SourceError::Memory)?;
        match whole.read(&mut file) {
            Ok(()) => {
                let name = format!("{} (read whole into memory)", whole.url());
                return Ok(File::new(file, whole.length(), name));
            }
            Err(error) if tries + 1 >= WHOLE_TRIES => return Err(error),
            Err(error) => {
                console::say(&format!("  starting over: {}", chain(&error)));
                std::thread::sleep(pause(tries + 2));
                tries += 1;
            }
        }
    }
}
