//! The numbers of PCRs, the registers of a TPM that can only be extended.

use std::fmt;

/// A PCR. A PC's TPM has 24 in each bank (TCG PC Client Platform TPM Profile).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pcr(u8);

impl Pcr {
    pub const ALL: [Self; 24] = {
        let mut all = [Self(0); 24];
        let mut number = 0;
        while number < all.len() {
            all[number] = Self(number as u8);
            number += 1;
        }
        all
    };

    /// `None` for a number that no PCR has.
    pub fn new(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    pub fn number(self) -> u32 {
        u32::from(self.0)
    }

    /// The bitmap that selects this PCR alone (`TPMS_PCR_SELECT`, TPM 2.0 Library, part 2, 10.6.2).
    pub fn bitmap(self) -> [u8; 3] {
        let [low, middle, high, _] = (1_u32 << self.0).to_le_bytes();
        [low, middle, high]
    }

    /// The PCRs that `bitmap` selects. Bits behind the last PCR select nothing.
    pub fn selected(bitmap: &[u8]) -> Vec<Self> {
        let is_set = |pcr: &Self| {
            let byte = bitmap.get(usize::from(pcr.0 / 8));
            byte.is_some_and(|byte| byte >> (pcr.0 % 8) & 1 == 1)
        };
        Self::ALL.into_iter().filter(is_set).collect()
    }
}

/// `8`
impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `8`
impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the numbers of PCRs make one.
    #[test]
    fn numbers() {
        assert_eq!(Pcr::new(23).map(Pcr::number), Some(23));
        assert_eq!(Pcr::new(24), None);
        assert_eq!(Pcr::new(u32::MAX), None);
        assert_eq!(format!("{:<2}:", Pcr::ALL[8]), "8 :");
    }

    /// A bitmap of one PCR or of several is read as it is written.
    #[test]
    fn bitmaps() {
        assert_eq!(Pcr::ALL[9].bitmap(), [0, 2, 0]);
        for pcr in Pcr::ALL {
            assert_eq!(Pcr::selected(&pcr.bitmap()), [pcr]);
        }
        assert_eq!(Pcr::selected(&[1, 3, 0, 0xff]), [Pcr::ALL[0], Pcr::ALL[8], Pcr::ALL[9]]);
    }
}
