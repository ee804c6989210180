//! Step 1: the kernel arguments become one valid [`Config`], or one sentence that names the wrong one.
//!
//! [`arguments`] reads them; this file says what they mean. Later steps see the meaning alone, and it is
//! complete: a step never looks at an argument again.

pub mod arguments;
mod net;

use crate::formats::cmdline::Word;
use crate::formats::disk_layout::Id;
use crate::formats::family::FamilyName;
use crate::formats::tpm_policy::TpmPolicy;
use crate::formats::trust::Demand;
use crate::formats::url::Url;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use crate::config::arguments::ConfigError;
pub use crate::config::net::{Fixed, LinkName, Method, NetConfig};

/// The meaning of the kernel arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Boot(Box<Config>),
    /// They do not say what to boot: the person at the console chooses.
    Menu(Box<Question>),
}

/// The arguments of a boot whose image is still to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `inetboot.menu=`: the catalogue to choose from; `None` for the built-in one.
    pub menu: Option<Url>,
    pub net: NetConfig,
    pub access: Access,
    /// All arguments but `inetboot.menu=`. They follow those of the chosen entry.
    pub others: Vec<Word>,
    /// With `inetboot.onfail=shell` or `reboot` there is no built-in menu: no one may be at the console.
    pub on_failure: OnFailure,
}

/// Everything that the boot was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub boot: Boot,
    pub target: Target,
    pub net: NetConfig,
    pub access: Access,
    pub tpm: TpmPolicy,
    /// The words that this was read from, in order, as they were written: they are measured.
    pub understood: Vec<Word>,
}

/// The thing to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// A live medium.
    Medium(Wanted),
    /// `kernel=` and `initrd=`.
    Files { kernel: Url, initrd: Url },
    /// `netdir=` of a directory that holds a kernel and an initrd.
    Directory(Url),
}

impl Boot {
    /// The first address that the user gave.
    pub fn name(&self) -> String {
        match self {
            Self::Medium(wanted) => wanted.name(),
            Self::Files { kernel, .. } => kernel.to_string(),
            Self::Directory(url) => url.to_string(),
        }
    }
}

/// The system to start from the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `type=`; `None` to recognise it.
    pub family: Option<FamilyName>,
    /// `bootxen=1`, with the hypervisor's arguments from `inetboot.xen=`.
    pub xen: Option<Vec<String>>,
    /// Words for the target's kernel, in order, as they were written.
    pub pass_on: Vec<String>,
}

/// The image that is wanted, and what is demanded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `netdir=`: the image or its index; several are mirrors. Never empty.
    pub urls: Vec<Url>,
    /// `inetboot.index=`
    pub index: Option<Url>,
    /// `inetboot.pin=` and `inetboot.key=`
    pub demand: Demand,
    pub profile: WantedProfile,
}

impl Wanted {
    /// The first address that the user gave.
    pub fn name(&self) -> String {
        self.urls.first().map(ToString::to_string).unwrap_or_default()
    }

    /// The image at `url`, without further demands.
    pub fn at(url: Url) -> Self {
        Self { urls: vec![url], index: None, demand: Demand::default(), profile: WantedProfile::Published }
    }
}

/// `inetboot.profile=`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedProfile {
    /// The one that the index names, if any.
    Published,
    At(Url),
    Never,
}

/// The way to web servers, and the places that keep what they send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `inetboot.ca=`: a PEM file whose certificates alone are trusted; `None` for Mozilla's roots.
    pub ca: Option<PathBuf>,
    pub proxy: Option<Url>,
    /// `inetboot.cache=`
    pub disk: Option<WantedDisk>,
    /// `inetboot.localise=`: fetch all of the image in the background.
    pub localise: bool,
}

/// The disk that keeps pieces of images from one boot to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedDisk {
    /// `/dev/vdb`
    Device(PathBuf),
    /// `LABEL=boot-cache`, the name that it was formatted with.
    Label(String),
    /// The one that the first life used.
    Known(Id),
    /// For `inetbootctl`: a file, or a device that needs no driver.
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

/// The answer to a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Retry after a pause.
    #[default]
    Wait,
    /// Open a shell, if there is one.
    Shell,
    /// Restart after this pause.
    Reboot(Duration),
}
