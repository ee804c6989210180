//! Values of PCRs as text, in the form of `tpm2_pcrread`:
//!
//! ```text
//!   sha256:
//!     8 : 0xF3C1…
//! ```

use crate::formats::bank::Bank;
use crate::formats::pcr::Pcr;
use crate::formats::pieces::{hex, unhex};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Values by bank and PCR.
pub type Values = BTreeMap<(Bank, Pcr), Vec<u8>>;

/// Writes them as `tpm2_pcrread` does.
pub fn encode(values: &Values) -> String {
    let mut text = String::new();
    let mut last = None;
    for ((bank, pcr), value) in values {
        if last != Some(bank) {
            let _ = writeln!(text, "  {}:", bank.name());
            last = Some(bank);
        }
        let _ = writeln!(text, "    {pcr:<2}: 0x{}", hex(value).to_uppercase());
    }
    text
}

/// Reads the output of `tpm2_pcrread`.
///
/// # Errors
/// A sentence that quotes the line that is wrong.
pub fn decode(text: &str) -> Result<Values, String> {
    let mut values = Values::new();
    let mut bank = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let wrong = || format!("the line \"{}\" is not one of tpm2_pcrread's", line.trim());
        let (left, right) = line.trim().split_once(':').ok_or_else(wrong)?;
        if right.trim().is_empty() {
            bank = Bank::from_name(left.trim());
            continue;
        }
        // Values of banks that are not known here are passed over.
        let Some(bank) = bank else { continue };
        let pcr = left.trim().parse().ok().and_then(Pcr::new).ok_or_else(wrong)?;
        let value = right.trim().strip_prefix("0x").and_then(unhex);
        let value = value.filter(|value| value.len() == bank.size()).ok_or_else(wrong)?;
        values.insert((bank, pcr), value);
    }
    if values.is_empty() { Err("it has no values".into()) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_tpm2_pcrread_writes_is_read() {
        let text = format!(
            "  sha1:\n    8 : 0x{}\n    10: 0x{}\n  sm3_256:\n    8 : 0x00\n",
            "AB".repeat(20),
            "00".repeat(20)
        );
        let values = decode(&text).unwrap();
        assert_eq!(
            values,
            Values::from([
                ((Bank::Sha1, Pcr::ALL[8]), vec![0xab; 20]),
                ((Bank::Sha1, Pcr::ALL[10]), vec![0; 20])
            ])
        );
        assert_eq!(decode(&encode(&values)), Ok(values));
        assert!(decode("  sha1:\n    8 : 0xAB\n").unwrap_err().contains("8 : 0xAB"));
        assert!(decode("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(  sha1:\n|    8 : 0x[0-9A-F]{0,44}\n|\\PC{0,20}\n){0,6}") {
            let _ = decode(&text);
        }
    }
}
