//! The banks of a TPM: one set of PCRs for each digest algorithm. Pure.
//!
//! Numbers: TCG Algorithm Registry, table 3.

use crate::formats::pieces::hex;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// A bank of an algorithm that is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bank {
    /// The only bank of a TPM 1.2.
    Sha1,
    /// Every TPM 2.0 has it.
    Sha256,
    Sha384,
    Sha512,
}

impl Bank {
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm's number, `TPM_ALG_ID`.
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|bank| bank.id() == id)
    }

    /// The usual name of the algorithm, such as `sha256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bank| bank.name() == name)
    }

    /// Bytes of a digest.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    /// The value of a PCR after `digest` was extended into it; it had `value` before.
    pub fn extend(self, value: &[u8], digest: &[u8]) -> Vec<u8> {
        self.digest(&[value, digest].concat())
    }
}

/// `sha1, sha256`
pub fn names(banks: &[Bank]) -> String {
    banks.iter().map(|bank| bank.name()).collect::<Vec<_>>().join(", ")
}

/// `sha256:26f2…`
pub fn tagged(bank: Bank, digest: &[u8]) -> String {
    format!("{}:{}", bank.name(), hex(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_their_sizes_numbers_and_names() {
        for bank in Bank::ALL {
            assert_eq!(bank.digest(b"abc").len(), bank.size());
            assert_eq!(Bank::from_id(bank.id()), Some(bank));
            assert_eq!(Bank::from_name(bank.name()), Some(bank));
        }
        assert_eq!(Bank::from_id(0x12), None);
        // FIPS 180-2, appendix B.1.
        assert!(tagged(Bank::Sha256, &Bank::Sha256.digest(b"abc")).starts_with("sha256:ba7816bf"));
    }

    #[test]
    fn extending_is_a_digest_over_the_old_value_and_the_new_digest() {
        let digest = Bank::Sha1.digest(b"x");
        assert_eq!(
            Bank::Sha1.extend(&[0; 20], &digest),
            Bank::Sha1.digest(&[&[0; 20], &digest[..]].concat())
        );
    }
}
