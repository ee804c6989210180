//! From the user's words to the image: its pieces, its places and its trust. The first life finds them;
//! the second gets them in a [`Recipe`].

use crate::base::console;
use crate::base::failure::chain;
use crate::config::{Wanted, WantedProfile};
use crate::formats::index::{self, Index, Place};
use crate::formats::pieces::Pieces;
use crate::formats::profile::{self, Profile};
use crate::formats::recipe::{IndexFile, MirrorRecord, Recipe};
use crate::formats::trust::{Demand, Trust, signature_url};
use crate::formats::url::Url;
use crate::source::fault::{Refusal, SourceError};
use crate::source::http::{Client, Http, OPEN_BUDGET, Opened, Peek, Whole};
use std::time::Duration;

/// The longest signature that is read.
const SIGNATURE: u64 = 16 * 1024;

/// A recipe, and the files that were opened to find it.
pub struct Found {
    pub(super) recipe: Recipe,
    pub(super) pieces: Pieces,
    pub(super) profile: Option<Profile>,
    /// The first mirror's file.
    pub(super) file: Option<Http>,
    /// The image on a server without ranges.
    pub(super) whole: Option<Whole>,
}

/// Find the image that is wanted.
pub fn find(client: &Client, wanted: &Wanted) -> Result<Found, SourceError> {
    if let Some(index) = &wanted.index {
        let fetched = fetch_index(client, index, &wanted.demand, OPEN_BUDGET)?;
        let files = wanted.urls.iter().cloned().map(Place::File).collect();
        return with_index(client, fetched, files, &[], wanted);
    }

    let mut failed = None;
    for (number, url) in wanted.urls.iter().enumerate() {
        let others = wanted.urls.get(number + 1..).unwrap_or_default();
        match find_at(client, url, others, wanted) {
            Ok(found) => return Ok(found),
            Err(error) => {
                if !others.is_empty() {
                    console::say_loud(&format!("{}; trying the next address", chain(&error)));
                }
                failed.get_or_insert(error);
            }
        }
    }
    Err(failed.unwrap_or_else(|| SourceError::NoPlace { url: "netdir=".into() }))
}

fn find_at(client: &Client, url: &Url, others: &[Url], wanted: &Wanted) -> Result<Found, SourceError> {
    let Peek { opened, start, links, .. } = client.open(url)?;
    if index::is_index(&start) {
        let fetched = fetch_index(client, url, &wanted.demand, OPEN_BUDGET)?;
        return with_index(client, fetched, Vec::new(), others, wanted);
    }

    let demanded = wanted.demand.argument();
    if let Some(metalink) = links.metalink.and_then(|link| url.join(&link)) {
        // It is a help, so the boot does not wait for it, unless a pin or a key demands it.
        let patience = if demanded.is_some() { OPEN_BUDGET } else { Duration::ZERO };
        match fetch_index(client, &metalink, &wanted.demand, patience) {
            Ok(mut fetched) if fetched.index.pieces.length() == opened.version().length => {
                // A link that came in the clear may have been changed on its way, to a site of the
                // attacker's choice.
                if matches!(fetched.trust, Trust::Site(_)) && !url.is_https() {
                    fetched.trust = Trust::Unvouched;
                }
                // Only an index shows whether the duplicates have the same image.
                let duplicates = links.duplicates.iter().filter_map(|link| url.join(link));
                let files = [url.clone()].into_iter().chain(others.iter().cloned()).chain(duplicates);
                return with_index(client, fetched, files.map(Place::File).collect(), &[], wanted);
            }
            Ok(_) => console::say(&format!("  {metalink} is of an image of another length")),
            Err(error) if demanded.is_some() => return Err(error),
            Err(error) => console::say(&format!("  without {metalink}: {}", chain(&error))),
        }
    }

    if let Some(demand) = demanded {
        return Err(SourceError::NoIndex { demand, url: url.clone() });
    }
    Ok(without_index(opened, url, others, client, wanted))
}

fn without_index(opened: Opened, url: &Url, others: &[Url], client: &Client, wanted: &Wanted) -> Found {
    let version = opened.version().clone();
    let length = version.length;
    let (file, whole) = match opened {
        Opened::Ranged(http) => (Some(http), None),
        Opened::Whole(whole) => (None, Some(whole)),
    };
    let pieces = Pieces::unknown(length);

    // The versions of the others are compared with the first one's when they are opened. An image that is read
    // as a whole comes from one place, also in the second life.
    let first = MirrorRecord { place: Place::File(url.clone()), version: Some(version) };
    let others = if whole.is_some() { &[] } else { others };
    let rest = others.iter().map(|url| MirrorRecord { place: Place::File(url.clone()), version: None });
    let recipe = Recipe {
        length,
        mirrors: [first].into_iter().chain(rest).collect(),
        wrong: Vec::new(),
        index: None,
        trust: Trust::Unverified,
        profile: fetch_profile(client, wanted, None, &pieces),
    };
    Found { profile: decoded(&recipe, &pieces), recipe, pieces, file, whole }
}

/// An index that meets the demands.
struct Fetched {
    file: IndexFile,
    index: Index,
    trust: Trust,
}

/// The index at `url`; passing faults are endured for `patience`.
fn fetch_index(
    client: &Client,
    url: &Url,
    demand: &Demand,
    patience: Duration,
) -> Result<Fetched, SourceError> {
    let file = client.small(url.as_str(), index::LARGEST, patience)?;
    let signature = match &demand.key {
        None => None,
        Some(_) => client.small(&signature_url(url.as_str()), SIGNATURE, patience).ok(),
    };
    let signature = signature.as_ref().map(|file| &file.bytes[..]);

    // Nothing of it is read before it is known to be the one that was demanded.
    let trust = Trust::of(&file.bytes, url, file.over_https, demand, signature)
        .map_err(|error| SourceError::Trust { url: url.clone(), error: Box::new(error) })?;
    let index = index::decode(&file.bytes, url.as_str())
        .map_err(|error| SourceError::Index { url: url.clone(), error })?;
    Ok(Fetched { file: IndexFile { url: url.clone(), bytes: file.bytes.into() }, index, trust })
}

/// `files` are places that the user named; `bases` further addresses of the same index, beside which its
/// relative places are too.
fn with_index(
    client: &Client,
    fetched: Fetched,
    files: Vec<Place>,
    bases: &[Url],
    wanted: &Wanted,
) -> Result<Found, SourceError> {
    let Fetched { file, index, trust } = fetched;
    let mut places = files;
    for base in [&file.url].into_iter().chain(bases) {
        for place in &index.places {
            match place.beside(base) {
                Some(place) if places.contains(&place) => {}
                Some(place) => places.push(place),
                None => console::say_loud(&format!("the index names no address: {}", place.address())),
            }
        }
    }
    if places.is_empty() {
        return Err(SourceError::NoPlace { url: file.url.to_string() });
    }

    let published = index.profile.as_deref().zip(Some(&file.url));
    let recipe = Recipe {
        length: index.pieces.length(),
        mirrors: places.into_iter().map(|place| MirrorRecord { place, version: None }).collect(),
        wrong: Vec::new(),
        profile: fetch_profile(client, wanted, published, &index.pieces),
        index: Some(file),
        trust,
    };
    let profile = decoded(&recipe, &index.pieces);
    Ok(Found { profile, recipe, pieces: index.pieces, file: None, whole: None })
}

/// A profile is a help, never a condition.
fn fetch_profile(
    client: &Client,
    wanted: &Wanted,
    published: Option<(&str, &Url)>,
    pieces: &Pieces,
) -> Option<String> {
    let url = match &wanted.profile {
        WantedProfile::Never => return None,
        WantedProfile::At(url) => url.clone(),
        WantedProfile::Published => {
            let (url, base) = published?;
            base.join(url)?
        }
    };

    let text = client
        .small(url.as_str(), profile::LARGEST, Duration::ZERO)
        .map(|file| String::from_utf8_lossy(&file.bytes).into_owned())
        .map_err(|error| chain(&error));
    let usable = text.and_then(|text| match Profile::decode(&text, pieces.count()) {
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    });
    usable.inspect_err(|why| console::say(&format!("  without the profile {url}: {why}"))).ok()
}

fn decoded(recipe: &Recipe, pieces: &Pieces) -> Option<Profile> {
    recipe.profile.as_ref().and_then(|text| Profile::decode(text, pieces.count()).ok())
}

impl Found {
    /// The image that the first life found.
    pub(super) fn again(client: &Client, recipe: Recipe) -> Result<Self, SourceError> {
        let pieces = match &recipe.index {
            None => Pieces::unknown(recipe.length),
            Some(IndexFile { url, bytes }) => {
                index::decode(bytes, url.as_str())
                    .map_err(|error| SourceError::Index { url: url.clone(), error })?
                    .pieces
            }
        };
        let profile = decoded(&recipe, &pieces);
        let (mut file, mut whole) = (None, None);

        // Of a single place it has to be known now whether it serves ranges, and which version it has.
        if let [MirrorRecord { place: Place::File(url), version: Some(version) }] = recipe.mirrors.as_slice()
        {
            let Peek { opened, is_elsewhere, .. } = client.open(url)?;
            let found = opened.version();
            if !version.allows(found, is_elsewhere) {
                let fault = Refusal::Changed { was: version.to_string(), is: found.to_string() }.into();
                return Err(SourceError::Request { act: format!("cannot go on with {url}"), fault });
            }
            match opened {
                Opened::Ranged(opened) => file = Some(opened.of_version(version)),
                Opened::Whole(opened) => whole = Some(opened),
            }
        }
        Ok(Self { recipe, pieces, profile, file, whole })
    }
}
