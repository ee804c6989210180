//! The value of `inetboot.tpm=`.

use std::fmt;
use std::str::FromStr;

/// The rule for a boot on a machine whose TPM is missing or fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TpmPolicy {
    /// Refuse to boot.
    Require,
    /// Boot anyway, and report that nothing was measured.
    #[default]
    Try,
    /// Do not use the TPM at all.
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
