//! The words that one life leaves for the next: both sides of the files in `/inetboot.d`.
//!
//! The first life puts them into the initrd, a life without a first writes them itself, and process 1
//! and the server read them. Their formats are [`formats::handoff`](crate::formats::handoff)'s.

use crate::base::failure::Explain;
use crate::base::step::Journal;
use crate::config::{Access, Config, WantedDisk};
use crate::formats::eventlog::{EventLog, LogError};
use crate::formats::handoff::{self, Handoff, HandoffError};
use crate::formats::receipt::Cost;
use crate::formats::recipe::Recipe;
use crate::miniroot::overlay;
use crate::net::Network;
use crate::source::Image;
use crate::source::images::Images;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};

/// The reason why a life cannot be told what it needs to know.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("cannot read {}", handoff::PATH)]
    Unreadable(#[source] io::Error),
    #[error("{} is not understood", handoff::PATH)]
    Handoff(#[source] HandoffError),
    #[error("{} is not understood", handoff::EVENTLOG_PATH)]
    Log(#[source] LogError),
    #[error("cannot write {path}")]
    Write {
        path: &'static str,
        #[source]
        error: io::Error,
    },
}

impl Explain for HandoverError {
    fn hint(&self) -> String {
        match self {
            Self::Unreadable(_) | Self::Handoff(_) | Self::Log(_) => {
                "Boot again: the overlay was not made by this version of InetBoot".into()
            }
            Self::Write { .. } => "Check the machine's memory".into(),
        }
    }
}

/// The handoff, as far as it is known before there is a plan.
pub fn draft(config: &Config, network: &Network, leased: Instant, image: &Image) -> Handoff {
    Handoff {
        image: config.boot.name(),
        proxy: config.access.proxy.clone(),
        disk: image.disk().map(|disk| disk.superblock().id),
        localise: config.access.localise,
        tpm: config.tpm,
        recipe: image.recipe(),
        mac: network.link.mac,
        vlan: network.link.vlan.as_ref().map(|vlan| vlan.id),
        leases: network.leases.clone(),
        written: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        lease_age: leased.elapsed(),
        modules: Vec::new(),
        premount: None,
        first: Cost::default(),
    }
}

/// The cost of the life before the handover, so far.
pub fn cost(images: &Images, journal: &Journal) -> Cost {
    let traffic = images.traffic();
    Cost {
        timings: journal.timings().clone(),
        bytes: traffic.bytes,
        requests: traffic.requests,
        spared: images.iter().map(Image::spared).sum(),
    }
}

/// Reads the handoff, with the index and the profile that lie beside it.
pub fn read() -> Result<Handoff, HandoverError> {
    let text = fs::read_to_string(handoff::PATH).map_err(HandoverError::Unreadable)?;
    let index = fs::read(handoff::INDEX_PATH).ok();
    let profile = fs::read_to_string(handoff::PROFILE_PATH).ok();
    Handoff::decode(&text, index, profile).map_err(HandoverError::Handoff)
}

/// Reads the event log, if anything was measured.
pub fn read_log() -> Result<Option<EventLog>, HandoverError> {
    let bytes = fs::read(handoff::EVENTLOG_PATH).ok();
    bytes.map(|bytes| EventLog::decode(&bytes)).transpose().map_err(HandoverError::Log)
}

/// Writes `log` to the initrd at `root`, so that a further attempt continues it.
pub fn write_log(root: &Path, log: &EventLog) -> Result<(), HandoverError> {
    let path = handoff::EVENTLOG_PATH;
    fs::write(root.join(overlay::inside(path)), log.encode())
        .map_err(|error| HandoverError::Write { path, error })
}

/// Writes `told` with its index and profile, and `log`, in place of those of an earlier attempt.
pub fn write_all(told: &Handoff, log: Option<&EventLog>) -> Result<(), HandoverError> {
    let Recipe { index, profile, .. } = &told.recipe;
    let text = told.encode();
    let files = [
        (handoff::INDEX_PATH, index.as_ref().map(|index| &index.bytes[..])),
        (handoff::PROFILE_PATH, profile.as_ref().map(String::as_bytes)),
        (handoff::EVENTLOG_PATH, log.map(EventLog::encode)),
        // Last: once the handoff exists, so does all that belongs to it.
        (handoff::PATH, Some(text.as_bytes())),
    ];
    for (path, contents) in files {
        let written = match contents {
            Some(contents) => fs::write(path, contents),
            None => fs::remove_file(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        written.map_err(|error| HandoverError::Write { path, error })?;
    }
    Ok(())
}

/// The way to the web servers that `told` describes.
pub fn access(told: &Handoff) -> Access {
    let ca = Path::new(handoff::CA_PATH);
    Access {
        ca: ca.exists().then(|| ca.to_owned()),
        proxy: told.proxy.clone(),
        disk: told.disk.map(WantedDisk::Known),
        localise: told.localise,
    }
}
