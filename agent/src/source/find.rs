//! From what the user wants to what is known of the image: which pieces, which places, who vouches.
//! The first life finds it; the second is told ([`Recipe`]).

use crate::base::console;
use crate::base::failure::chain;
use crate::config::{Wanted, WantedProfile};
use crate::formats::index::{self, Index, Place};
use crate::formats::pieces::Pieces;
use crate::formats::profile::{self, Profile};
use crate::formats::recipe::Recipe;
use crate::formats::trust::{Demand, Trust, signature_url};
use crate::formats::url::Url;
use crate::source::fault::{Fault, SourceError};
use crate::source::http::{Client, Glance, Http, OPEN_BUDGET, Opened, Whole};
use std::sync::Arc;
use std::time::Duration;

/// The longest signature that is read.
const SIGNATURE: u64 = 16 * 1024;

/// A recipe, and what finding it has opened already.
pub struct Found {
    pub(super) recipe: Recipe,
    pub(super) pieces: Pieces,
    pub(super) profile: Option<Profile>,
    pub(super) file: Option<Http>,
    pub(super) whole: Option<Whole>,
}

/// Find what is wanted.
pub fn find(client: &Client, wanted: &Wanted) -> Result<Found, SourceError> {
    if let Some(index) = &wanted.index {
        let fetched = fetch_index(client, index, &wanted.demand, OPEN_BUDGET)?;
        let files: Vec<Place> = wanted.urls.iter().map(|url| Place::File(url.to_string())).collect();
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
    let Glance { opened, start, links } = client.open(url.as_str())?;
    if index::is_index(&start) {
        let fetched = fetch_index(client, url, &wanted.demand, OPEN_BUDGET)?;
        return with_index(client, fetched, Vec::new(), others, wanted);
    }
    let demanded = wanted.demand.argument();
    if let Some(metalink) = links.metalink.and_then(|link| url.join(&link)) {
        // A help, unless somebody demands it: nobody waits for it then.
        let patience = if demanded.is_some() { OPEN_BUDGET } else { Duration::ZERO };
        match fetch_index(client, &metalink, &wanted.demand, patience) {
            Ok(mut fetched) if fetched.index.pieces.length() == opened.version().length => {
                // Whoever could have changed the link on its way chose the site that vouches.
                if matches!(fetched.trust, Trust::Site(_)) && !url.as_str().starts_with("https://") {
                    fetched.trust = Trust::Unvouched;
                }
                // Only with an index is it seen whether they have the same.
                let duplicates = links.duplicates.iter().filter_map(|link| url.join(link));
                let files = [url.clone()].into_iter().chain(others.iter().cloned()).chain(duplicates);
                let files = files.map(|url| Place::File(url.to_string())).collect();
                return with_index(client, fetched, files, &[], wanted);
            }
            Ok(_) => console::say(&format!("  {metalink} is of an image of another length")),
            Err(error) if demanded.is_some() => return Err(error),
            Err(error) => console::say(&format!("  without {metalink}: {}", chain(&error))),
        }
    }
    if let Some(demand) = demanded {
        return Err(SourceError::NoIndex { demand, url: url.to_string() });
    }
    Ok(without_index(opened, url, others, client, wanted))
}

fn without_index(opened: Opened, url: &Url, others: &[Url], client: &Client, wanted: &Wanted) -> Found {
    let version = opened.version().clone();
    let (file, whole) = match opened {
        Opened::Ranged(http) => (Some(http), None),
        Opened::Whole(whole) => (None, Some(whole)),
    };
    let pieces = Pieces::unknown(version.length);
    let first = (Place::File(url.to_string()), Some(version.clone()));
    // Other servers have entity tags of their own.
    let rest = others.iter().map(|url| (Place::File(url.to_string()), None));
    let recipe = Recipe {
        length: version.length,
        mirrors: [first].into_iter().chain(rest).collect(),
        wrong: Vec::new(),
        index: None,
        trust: Trust::Unverified,
        profile: fetch_profile(client, wanted, None, &pieces),
    };
    Found { profile: decoded(&recipe, &pieces), recipe, pieces, file, whole }
}

/// An index that meets what is demanded.
struct Fetched {
    url: Url,
    bytes: Arc<[u8]>,
    index: Index,
    trust: Trust,
}

/// The index at `url`; passing troubles are endured for as long as `patience`.
fn fetch_index(
    client: &Client,
    url: &Url,
    demand: &Demand,
    patience: Duration,
) -> Result<Fetched, SourceError> {
    let (bytes, place) = client.small(url.as_str(), index::LARGEST, patience)?;
    let signature = match &demand.key {
        None => None,
        Some(_) => {
            let signature = client.small(&signature_url(url.as_str()), SIGNATURE, patience);
            signature.ok().map(|(bytes, _)| bytes)
        }
    };
    // Nothing of it is read before it is known to be the one that was demanded.
    // An https address that leads to an http one vouches for nothing.
    let both = if place.starts_with("https://") { url.as_str() } else { &place };
    let trust = Trust::of(&bytes, both, demand, signature.as_deref())
        .map_err(|error| SourceError::Trust { url: url.to_string(), error: Box::new(error) })?;
    let index = index::decode(&bytes, url.as_str())
        .map_err(|error| SourceError::Index { url: url.to_string(), error })?;
    Ok(Fetched { url: url.clone(), bytes: bytes.into(), index, trust })
}

/// `files` are places that the user named; `bases` further addresses of the same index, beside
/// which its relative places are too.
fn with_index(
    client: &Client,
    fetched: Fetched,
    files: Vec<Place>,
    bases: &[Url],
    wanted: &Wanted,
) -> Result<Found, SourceError> {
    let Fetched { url, bytes, index, trust } = fetched;
    let mut mirrors = files;
    for base in [&url].into_iter().chain(bases) {
        for place in &index.places {
            let place = absolute(place, base);
            if let Some(place) = place.filter(|place| !mirrors.contains(place)) {
                mirrors.push(place);
            }
        }
    }
    if mirrors.is_empty() {
        return Err(SourceError::NoPlace { url: url.to_string() });
    }
    let profile = fetch_profile(client, wanted, index.profile.as_deref().zip(Some(&url)), &index.pieces);
    let recipe = Recipe {
        length: index.pieces.length(),
        mirrors: mirrors.into_iter().map(|place| (place, None)).collect(),
        wrong: Vec::new(),
        index: Some((url.to_string(), bytes)),
        trust,
        profile,
    };
    Ok(Found {
        profile: decoded(&recipe, &index.pieces),
        recipe,
        pieces: index.pieces,
        file: None,
        whole: None,
    })
}

fn absolute(place: &Place, base: &Url) -> Option<Place> {
    Some(match place {
        Place::File(url) => Place::File(base.join(url)?.to_string()),
        Place::Store { url, form } => {
            let mut url = base.join(url)?.to_string();
            if !url.ends_with('/') {
                url.push('/');
            }
            Place::Store { url, form: *form }
        }
    })
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
        .map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned())
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
    /// What the first life found.
    pub(super) fn again(client: &Client, recipe: Recipe) -> Result<Self, SourceError> {
        let pieces = match &recipe.index {
            None => Pieces::unknown(recipe.length),
            Some((url, bytes)) => {
                index::decode(bytes, url)
                    .map_err(|error| SourceError::Index { url: url.clone(), error })?
                    .pieces
            }
        };
        let profile = decoded(&recipe, &pieces);
        let (mut file, mut whole) = (None, None);
        // A single place's word on ranges and version is needed now.
        if let [(Place::File(url), Some(version))] = recipe.mirrors.as_slice() {
            let opened = client.open(url)?.opened;
            let found = opened.version();
            if !version.agrees(found) {
                let fault = Fault::Changed { was: version.clone(), is: found.to_string() };
                return Err(SourceError::Request { act: format!("cannot go on with {url}"), fault });
            }
            match opened {
                Opened::Ranged(opened) => file = Some(opened),
                Opened::Whole(opened) => whole = Some(opened),
            }
        }
        Ok(Self { recipe, pieces, profile, file, whole })
    }
}
