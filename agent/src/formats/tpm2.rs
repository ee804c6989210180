//! Commands and responses of a TPM 2.0. Pure.
//!
//! TPM 2.0 Library, part 3: `TPM2_GetCapability` (30.2), `TPM2_PCR_Extend` (22.2) and
//! `TPM2_PCR_Read` (22.4), by the codec of the crate `tpm2-protocol`.

use crate::formats::bank::Bank;
use crate::formats::pcr::Pcr;
use tpm2_protocol::basic::{TpmHandle, TpmUint32};
use tpm2_protocol::constant::TPM_MAX_COMMAND_SIZE;
use tpm2_protocol::data::{
    Tpm2bAuth, Tpm2bNonce, TpmAlgId, TpmCap, TpmRc, TpmRcBase, TpmRh, TpmSt, TpmaSession, TpmlDigestValues,
    TpmlPcrSelection, TpmsAuthCommand, TpmsPcrSelect, TpmsPcrSelection, TpmtHa, TpmuCapabilities, TpmuHa,
};
use tpm2_protocol::frame::{
    TpmFrame, TpmGetCapabilityCommand, TpmGetCapabilityResponse, TpmPcrExtendCommand, TpmPcrExtendResponse,
    TpmPcrReadCommand, TpmPcrReadResponse, TpmUnmarshalBody, tpm_marshal_command,
};
use tpm2_protocol::{TpmError, TpmUnmarshal, TpmWriter};

/// Reasons why a response has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The command has to be sent again later.
    #[error("the TPM is busy")]
    Retry,
    #[error("the TPM answers {0}")]
    Refused(String),
    #[error("the TPM's answer is malformed: {0}")]
    Malformed(String),
}

impl From<TpmError> for ResponseError {
    fn from(error: TpmError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The command that asks for the active banks.
pub fn ask_banks() -> Result<Vec<u8>, ResponseError> {
    let command = TpmGetCapabilityCommand {
        cap: TpmCap::Pcrs,
        property: TpmUint32::from(0),
        property_count: TpmUint32::from(1),
        handles: [],
    };
    marshal(&command, &[])
}

/// The algorithms, by number, of the active banks: those that have any PCR.
pub fn banks(response: &[u8]) -> Result<Vec<u16>, ResponseError> {
    let response: TpmGetCapabilityResponse = unmarshal(response)?;
    let TpmuCapabilities::Pcrs(selections) = &response.capability_data.data else {
        return Err(ResponseError::Malformed("it is not about banks".into()));
    };
    let active = selections.iter().filter(|selection| selection.pcr_select.iter().any(|byte| *byte != 0));
    Ok(active.map(|selection| selection.hash.value()).collect())
}

/// The command that extends `pcr` by a digest for each of several banks.
pub fn extend(pcr: Pcr, digests: &[(Bank, Vec<u8>)]) -> Result<Vec<u8>, ResponseError> {
    let mut values = TpmlDigestValues::default();
    for (bank, digest) in digests {
        let digest = TpmuHa::Digest(digest.as_slice().try_into()?);
        values.try_push(TpmtHa { hash_alg: algorithm(*bank)?, digest })?;
    }
    let command = TpmPcrExtendCommand { handles: [TpmHandle::new(pcr.number())], digests: values };
    // PCRs have an empty password.
    let password = TpmsAuthCommand {
        session_handle: TpmHandle::new(TpmRh::Pw.value()),
        nonce: Tpm2bNonce::default(),
        session_attributes: TpmaSession::default(),
        hmac: Tpm2bAuth::default(),
    };
    marshal(&command, &[password])
}

/// Succeeds if the response says that [`extend`] was done.
pub fn extended(response: &[u8]) -> Result<(), ResponseError> {
    unmarshal::<TpmPcrExtendResponse>(response).map(|_| ())
}

/// The command that reads `pcr` of `bank`.
pub fn read(pcr: Pcr, bank: Bank) -> Result<Vec<u8>, ResponseError> {
    let pcr_select = TpmsPcrSelect::try_from(&pcr.bitmap()[..])?;
    let select = TpmsPcrSelection { hash: algorithm(bank)?, pcr_select };
    let mut selection = TpmlPcrSelection::default();
    selection.try_push(select)?;
    marshal(&TpmPcrReadCommand { handles: [], pcr_selection_in: selection }, &[])
}

/// The PCR's value, from the response to [`read`].
pub fn value(response: &[u8]) -> Result<Vec<u8>, ResponseError> {
    let response: TpmPcrReadResponse = unmarshal(response)?;
    let value = response.pcr_values.iter().next();
    value.map(|value| value.to_vec()).ok_or_else(|| ResponseError::Malformed("it has no value".into()))
}

fn algorithm(bank: Bank) -> Result<TpmAlgId, ResponseError> {
    TpmAlgId::try_from(bank.id()).map_err(|_| ResponseError::Malformed(bank.name().into()))
}

fn marshal(command: &impl TpmFrame, sessions: &[TpmsAuthCommand]) -> Result<Vec<u8>, ResponseError> {
    let mut buffer = [0; TPM_MAX_COMMAND_SIZE];
    let mut writer = TpmWriter::new(&mut buffer);
    let tag = if sessions.is_empty() { TpmSt::NoSessions } else { TpmSt::Sessions };
    tpm_marshal_command(command, tag, sessions, &mut writer)?;
    Ok(writer.as_bytes().to_vec())
}

/// Reads the body of a response without handles. The crate's own function for this has a table of all commands,
/// which would add 80 KB to the agent.
fn unmarshal<R: TpmUnmarshalBody>(response: &[u8]) -> Result<R, ResponseError> {
    let (tag, rest) = TpmSt::unmarshal(response)?;
    let (length, rest) = TpmUint32::unmarshal(rest)?;
    let (code, body) = TpmUint32::unmarshal(rest)?;
    if u32::from(length) as usize != response.len() {
        return Err(ResponseError::Malformed("it has another length than it says".into()));
    }
    match TpmRc::try_from(u32::from(code))? {
        TpmRc::Fmt0(TpmRcBase::Success) => {}
        TpmRc::Warn(TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing) => {
            return Err(ResponseError::Retry);
        }
        refused => return Err(ResponseError::Refused(refused.to_string())),
    }

    if tag != TpmSt::Sessions {
        return Ok(R::unmarshal_body(&[], body)?);
    }
    // The sessions follow the parameters.
    let (length, body) = TpmUint32::unmarshal(body)?;
    let parameters = body.get(..u32::from(length) as usize);
    let parameters = parameters.ok_or_else(|| ResponseError::Malformed("it is cut".into()))?;
    Ok(R::unmarshal_body(&[], parameters)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
        let length = (10 + body.len()) as u32;
        [&tag.to_be_bytes()[..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat()
    }

    #[test]
    fn commands_have_the_specified_bytes() {
        let extend = extend(Pcr::ALL[9], &[(Bank::Sha1, vec![0xaa; 20])]).unwrap();
        let head = [0x80, 2, 0, 0, 0, 53, 0, 0, 1, 0x82, 0, 0, 0, 9, 0, 0, 0, 9, 0x40, 0, 0, 9];
        assert_eq!(extend[..22], head);
        assert_eq!(extend[22..33], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4]);
        assert_eq!(extend.len(), 53);
        let read = [0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 0xb, 3, 0, 1, 0];
        assert_eq!(super::read(Pcr::ALL[8], Bank::Sha256).unwrap(), read);
    }

    #[test]
    fn banks_without_a_pcr_are_not_active() {
        // Of swtpm with two banks of four.
        let selections =
            [0, 4, 3, 0xff, 0xff, 0xff, 0, 0xb, 3, 0xff, 0xff, 0xff, 0, 0xc, 3, 0, 0, 0, 0, 0xd, 3, 0, 0, 0];
        let body = [&[0, 0, 0, 0, 5, 0, 0, 0, 4][..], &selections].concat();
        assert_eq!(banks(&response(0x8001, 0, &body)), Ok(vec![4, 0xb]));
    }

    #[test]
    fn every_kind_of_answer_is_understood() {
        let select = [0, 0, 0, 7, 0, 0, 0, 1, 0, 0xb, 3, 0, 1, 0];
        let body = [&select[..], &[0, 0, 0, 1, 0, 32], &[7; 32]].concat();
        assert_eq!(value(&response(0x8001, 0, &body)), Ok(vec![7; 32]));
        assert_eq!(extended(&response(0x8002, 0, &[0, 0, 0, 0, 0, 0, 1, 0, 0])), Ok(()));
        assert_eq!(extended(&response(0x8001, 0x922, &[])), Err(ResponseError::Retry));
        assert_eq!(
            extended(&response(0x8001, 0x101, &[])),
            Err(ResponseError::Refused("TPM_RC_FAILURE".into()))
        );
        for cut in 0..body.len() + 10 {
            assert!(value(&response(0x8001, 0, &body)[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..80), sessions: bool) {
            let response = response(if sessions { 0x8002 } else { 0x8001 }, 0, &body);
            let _ = (banks(&response), extended(&response), value(&response), banks(&body));
        }
    }
}
