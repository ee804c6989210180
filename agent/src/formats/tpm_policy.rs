//! `inetboot.tpm=`.

use std::fmt;
use std::str::FromStr;

/// What a boot without a TPM is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TpmPolicy {
    /// Nothing.
    Require,
    /// As much as one with it; but which it was is said.
    #[default]
    Try,
    /// The TPM is left alone.
    Off,
}

impl TpmPolicy {
    const ALL: [(Self, &str); 3] = [(Self::Require, "require"), (Self::Try, "try"), (Self::Off, "off")];
}

impl fmt::Display for TpmPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::ALL[*self as usize];
        f.write_str(name)
    }
}

impl FromStr for TpmPolicy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(policy, _)| *policy).ok_or(())
    }
}
