//! Step 1: kernel arguments become one valid value, or one sentence that says which argument is
//! wrong. Later steps see only [`Config`]; what it says is complete and consistent.

pub mod arguments;
mod net;

use crate::formats::disk_layout::Id;
use crate::formats::tpm_policy::TpmPolicy;
use crate::formats::trust::Demand;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use crate::config::net::{Fixed, LinkName, Method, NetConfig, mac_text, parse_mac};
pub use crate::formats::url::Url;

/// Everything the boot was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What to boot from.
    pub boot: Boot,
    /// What to start from it.
    pub target: Target,
    /// How to get on the network.
    pub net: NetConfig,
    /// How to reach web servers.
    pub access: Access,
    /// `inetboot.tpm=`
    pub tpm: TpmPolicy,
    /// The words that all of this was understood from, unchanged and in order.
    pub understood: Vec<String>,
}

/// What to boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The image of a medium.
    Medium(Wanted),
    /// `kernel=`, `initrd=`: these, and nothing else.
    Files {
        /// The kernel.
        kernel: Url,
        /// Its initrd.
        initrd: Url,
    },
    /// `netdir=` of a directory: the kernel and the initrd that lie there.
    Directory(Url),
}

impl Boot {
    /// Its address, as the first that the user gave.
    pub fn name(&self) -> String {
        match self {
            Self::Medium(wanted) => wanted.name(),
            Self::Files { kernel, .. } => kernel.to_string(),
            Self::Directory(url) => url.to_string(),
        }
    }
}

/// What to start from the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `type=`: the family, or `None` to recognise it.
    pub family: Option<String>,
    /// `bootxen=1`: start it under Xen, with these arguments of `inetboot.xen=` behind the menu's.
    pub xen: Option<Vec<String>>,
    /// Words for the target's kernel, unchanged and in order.
    pub pass_on: Vec<String>,
}

/// Which image, and what is demanded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `netdir=`: the image or its index; several are mirrors. At least one.
    pub urls: Vec<Url>,
    /// `inetboot.index=`: the index of the images at `urls`.
    pub index: Option<Url>,
    /// `inetboot.pin=`, `inetboot.key=`.
    pub demand: Demand,
    /// `inetboot.profile=`.
    pub profile: WantedProfile,
}

impl Wanted {
    /// The image's address, as the first that the user gave.
    pub fn name(&self) -> String {
        self.urls.first().map(ToString::to_string).unwrap_or_default()
    }

    /// The image at `url`, without further demands.
    pub fn at(url: Url) -> Self {
        Self { urls: vec![url], index: None, demand: Demand::default(), profile: WantedProfile::Published }
    }
}

/// Which profile to fetch the image by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedProfile {
    /// The one that the index names, if any.
    Published,
    /// This one.
    At(Url),
    /// None.
    Never,
}

/// How web servers are reached, and what is kept of what they give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A PEM file of our initramfs whose certificates alone are trusted; `None`: Mozilla's roots.
    pub ca: Option<PathBuf>,
    /// `proxy=`.
    pub proxy: Option<Url>,
    /// `inetboot.cache=`
    pub disk: Option<WantedDisk>,
    /// `inetboot.localise=`: whether to fetch all of the image in the background, to the disk or else
    /// to memory.
    pub localise: bool,
}

/// Which disk keeps pieces across boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedDisk {
    /// `/dev/vdb`
    Device(PathBuf),
    /// `LABEL=boot-cache`: what it was called when it was formatted.
    Label(String),
    /// The one that the first life used.
    Known(Id),
    /// On a desk: a file, or a device that is there.
    File(PathBuf),
}

impl fmt::Display for WantedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) | Self::File(path) => write!(f, "{}", path.display()),
            Self::Label(label) => write!(f, "LABEL={label}"),
            Self::Known(id) => write!(f, "{id}"),
        }
    }
}

impl FromStr for WantedDisk {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("LABEL=") {
            Some(label) => Ok(Self::Label(label.to_owned())),
            None if text.starts_with("/dev/") => Ok(Self::Device(PathBuf::from(text))),
            None => Err(()),
        }
    }
}

/// What happens after the last words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Try again after a while.
    #[default]
    Wait,
    /// A shell, if there is one.
    Shell,
    /// Reboot after this long (`panic=`).
    Reboot(Duration),
}
