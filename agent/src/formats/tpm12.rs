//! Commands and responses of a TPM 1.2. Pure.
//!
//! TPM Main 1.2, part 3: `TPM_Extend` (16.1) and `TPM_PCRRead` (16.2). Neither needs a session.

use crate::formats::bank::Bank;
use crate::formats::pcr::Pcr;
use crate::formats::tpm2::ResponseError;

const TAG_COMMAND: u16 = 0x00c1;
const TAG_RESPONSE: u16 = 0x00c4;
const EXTEND: u32 = 0x14;
const PCR_READ: u32 = 0x15;

/// `TPM_RETRY` and `TPM_DOING_SELFTEST`.
const BUSY: [u32; 2] = [0x800, 0x802];

/// Bytes before the parameters: tag, length, result.
const HEADER: usize = 10;

/// The command that extends `pcr` by a SHA-1 digest.
pub fn extend(pcr: Pcr, digest: &[u8]) -> Vec<u8> {
    command(EXTEND, &[&pcr.number().to_be_bytes(), digest].concat())
}

/// The command that reads `pcr`.
pub fn read(pcr: Pcr) -> Vec<u8> {
    command(PCR_READ, &pcr.number().to_be_bytes())
}

/// The PCR's value, from the response to either command.
pub fn value(response: &[u8]) -> Result<Vec<u8>, ResponseError> {
    let malformed = |why: &str| ResponseError::Malformed(why.to_owned());
    let (header, value) = response.split_at_checked(HEADER).ok_or_else(|| malformed("it is too short"))?;
    let number =
        |at: std::ops::Range<usize>| header[at].iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
    if number(0..2) != u32::from(TAG_RESPONSE) || number(2..6) as usize != response.len() {
        return Err(malformed("its head is not that of an answer"));
    }
    match number(6..10) {
        0 if value.len() == Bank::Sha1.size() => Ok(value.to_vec()),
        0 => Err(malformed("it has no value")),
        busy if BUSY.contains(&busy) => Err(ResponseError::Retry),
        refused => Err(ResponseError::Refused(format!("{refused:#x}"))),
    }
}

fn command(ordinal: u32, parameters: &[u8]) -> Vec<u8> {
    let length = (HEADER + parameters.len()) as u32;
    [&TAG_COMMAND.to_be_bytes()[..], &length.to_be_bytes(), &ordinal.to_be_bytes(), parameters].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(result: u32, value: &[u8]) -> Vec<u8> {
        let length = (HEADER + value.len()) as u32;
        [&TAG_RESPONSE.to_be_bytes()[..], &length.to_be_bytes(), &result.to_be_bytes(), value].concat()
    }

    #[test]
    fn an_extend_has_34_bytes() {
        let command = extend(Pcr::ALL[9], &[0xaa; 20]);
        assert_eq!(command.len(), 34);
        assert_eq!(command[..14], [0, 0xc1, 0, 0, 0, 34, 0, 0, 0, 0x14, 0, 0, 0, 9]);
        assert_eq!(read(Pcr::ALL[8]), [0, 0xc1, 0, 0, 0, 14, 0, 0, 0, 0x15, 0, 0, 0, 8]);
    }

    #[test]
    fn every_kind_of_answer_is_understood() {
        assert_eq!(value(&response(0, &[7; 20])), Ok(vec![7; 20]));
        assert_eq!(value(&response(0x802, &[])), Err(ResponseError::Retry));
        assert_eq!(value(&response(9, &[])), Err(ResponseError::Refused("0x9".into())));
        assert!(matches!(value(&response(0, &[7; 19])), Err(ResponseError::Malformed(_))));
        assert!(matches!(value(&response(0, &[7; 20])[1..]), Err(ResponseError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = value(&bytes);
        }
    }
}
