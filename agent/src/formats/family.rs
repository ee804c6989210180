//! The names of the families of live media, which are the words that `type=` takes.

use std::fmt;
use std::str::FromStr;

/// A family of live media. `distro/` has a row of data for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyName {
    Debian,
    Fedora,
    Casper,
    Knoppix,
}

impl FamilyName {
    /// In the order in which a medium is compared with them.
    pub const ALL: [Self; 4] = [Self::Debian, Self::Fedora, Self::Casper, Self::Knoppix];

    /// The word for `type=`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Fedora => "fedora",
            Self::Casper => "casper",
            Self::Knoppix => "knoppix",
        }
    }
}

impl fmt::Display for FamilyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for FamilyName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|family| family.word() == text).ok_or(())
    }
}
