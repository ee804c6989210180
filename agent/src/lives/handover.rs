//! What one life tells the next.

use crate::base::failure::Explain;
use crate::base::step::Journal;
use crate::config::Config;
use crate::formats::eventlog::LogError;
use crate::formats::handoff::{self, Handoff, HandoffError};
use crate::formats::receipt::Cost;
use crate::lives::second::{DEVICE, INIT};
use crate::lives::server::PRIVATE_ROOT;
use crate::medium::MediumError;
use crate::net::Network;
use crate::source::Image;
use crate::source::images::Images;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Why the second life does not get on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The handoff cannot be read.
    #[error("cannot read {}", handoff::PATH)]
    Unreadable(#[source] io::Error),
    /// It makes no sense.
    #[error("{} is not understood", handoff::PATH)]
    Handoff(#[source] HandoffError),
    /// The event log makes no sense.
    #[error("{} is not understood", handoff::EVENTLOG_PATH)]
    Log(#[source] LogError),
    /// Its address cannot be used.
    #[error("{} names no usable address: {why}", handoff::PATH)]
    Url {
        /// Why not.
        why: &'static str,
    },
    /// The server could not be started.
    #[error("cannot start the server")]
    Start(#[source] io::Error),
    /// The server ended.
    #[error("the server ended before the image was there")]
    Ended,
    /// A root of its own could not be made.
    #[error("cannot make the server's root {PRIVATE_ROOT}")]
    Root(#[source] io::Error),
    /// Somebody else has the device.
    #[error("the image is at {got}, but the target looks for it at {DEVICE}")]
    Device {
        /// Where it is.
        got: String,
    },
    /// The image cannot be served.
    #[error(transparent)]
    Medium(MediumError),
    /// The CD cannot be mounted for the target.
    #[error("cannot mount the CD at the target's {dir}")]
    Premount {
        /// Where.
        dir: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The distro's init cannot be started.
    #[error("cannot start the target's {INIT}")]
    Init(#[source] io::Error),
}

impl Explain for ServeError {
    fn hint(&self) -> String {
        match self {
            Self::Unreadable(_) | Self::Handoff(_) | Self::Log(_) | Self::Url { .. } => {
                "Boot again: the overlay was not made by this version of InetBoot".into()
            }
            Self::Start(_) | Self::Root(_) => "Check the machine's memory".into(),
            Self::Ended => "The lines above say why".into(),
            Self::Device { .. } => "Remove loop devices from the target's initrd".into(),
            Self::Medium(error) => error.hint(),
            Self::Premount { .. } => "Use an image whose kernel has the module isofs".into(),
            Self::Init(_) => "Check the image: its initrd has no init".into(),
        }
    }
}

/// Whether this is a target's initrd that the first life prepared.
pub fn is_second_life() -> bool {
    Path::new(handoff::PATH).exists()
}

/// What the second life will need, of what is known before there is a plan.
pub fn handoff(config: &Config, network: &Network, leased: Instant, image: &Image) -> Handoff {
    Handoff {
        url: config.boot.name(),
        proxy: config.access.proxy.as_ref().map(ToString::to_string),
        disk: image.disk().map(|disk| disk.superblock().id),
        localise: config.access.localise,
        tpm: config.tpm,
        recipe: image.recipe(),
        mac: network.link.mac,
        vlan: network.link.vlan.as_ref().map(|(_, id)| *id),
        leases: network.leases.clone(),
        written: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        lease_age: leased.elapsed(),
        modules: Vec::new(),
        premount: None,
        first: Cost::default(),
    }
}

/// What the life before the handoff cost so far.
pub fn cost(images: &Images, journal: &Journal) -> Cost {
    let traffic = images.traffic();
    Cost {
        timings: journal.timings().clone(),
        bytes: traffic.bytes,
        requests: traffic.requests,
        spared: images.iter().map(Image::spared).sum(),
    }
}

pub fn read_handoff() -> Result<Handoff, ServeError> {
    let text = fs::read_to_string(handoff::PATH).map_err(ServeError::Unreadable)?;
    let index = fs::read(handoff::INDEX_PATH).ok();
    let profile = fs::read_to_string(handoff::PROFILE_PATH).ok();
    Handoff::decode(&text, index, profile).map_err(ServeError::Handoff)
}
