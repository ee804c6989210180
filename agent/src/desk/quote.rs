//! Quotes: statements on its PCRs that a TPM 2.0 signed, as tpm2-tools write them. Pure.
//!
//! TPM 2.0 Library, part 2: `TPMS_ATTEST` (10.12.12), `TPMT_SIGNATURE` (11.3.4), `TPM2B_PUBLIC`
//! (12.2.5); what `tpm2_quote -m -s` and `tpm2_createak -u` leave in files.

use crate::formats::bank::Bank;
use crate::formats::pcr::Pcr;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use tpm2_protocol::data::{
    Tpm2bPublic, TpmAlgId, TpmaObject, TpmsAttest, TpmsSignatureEcc, TpmtPublic, TpmtSignature, TpmuAttest,
    TpmuPublicId, TpmuPublicParms, TpmuSignature,
};
use tpm2_protocol::{TpmResult, TpmUnmarshal};

/// A quote whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The value that the TPM was asked to put in, which tells the answer from an old one.
    pub nonce: Vec<u8>,
    /// The quoted PCRs of each bank.
    pub selection: Vec<(Bank, Vec<Pcr>)>,
    /// The digest of their values, one after the other.
    pub digest: Vec<u8>,
    /// The algorithm of the digest.
    pub by: Bank,
}

/// Reasons why a quote proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// A file is not of its kind.
    #[error("the {what} is not understood: {why}")]
    Malformed { what: &'static str, why: String },
    /// It is a TPM's statement on something else.
    #[error("the message is not a quote")]
    NoQuote,
    /// The key would sign anything, so that its signature does not prove that a TPM wrote the message.
    #[error("the key is not an attestation key: it may sign other things than its TPM's own statements")]
    Unrestricted,
    #[error("the {0} is by an algorithm that is not supported")]
    Algorithm(&'static str),
    #[error("the signature is not this key's signature of this message")]
    Signature,
}

const MESSAGE: &str = "message";
const SIGNATURE: &str = "signature";
const KEY: &str = "key";

/// The quote in `message`, if `signature` is the signature of `key`, and `key` is an attestation key.
pub fn verified(message: &[u8], signature: &[u8], key: &[u8]) -> Result<Quote, QuoteError> {
    if key.starts_with(b"-----BEGIN") {
        let why = "it is PEM; tpm2_readpublic -c ak.ctx -o ak.pub writes the form that is wanted".into();
        return Err(QuoteError::Malformed { what: KEY, why });
    }
    let attest = whole::<TpmsAttest>(MESSAGE, message)?;
    let signed = whole::<TpmtSignature>(SIGNATURE, signature)?;
    let public = whole::<Tpm2bPublic>(KEY, key)?;
    let by = check(&public, &signed, message)?;

    let TpmuAttest::Quote(info) = attest.attested else { return Err(QuoteError::NoQuote) };
    let mut selection = Vec::new();
    for select in info.pcr_select.iter() {
        // A PCR beyond ours would be missing here, and the digest of the values would not agree.
        let pcrs = Pcr::selected(&select.pcr_select);
        if !pcrs.is_empty() {
            let bank = Bank::from_id(select.hash.value()).ok_or(QuoteError::Algorithm("quoted bank"))?;
            selection.push((bank, pcrs));
        }
    }

    Ok(Quote { nonce: attest.extra_data.to_vec(), selection, digest: info.pcr_digest.to_vec(), by })
}

/// A value that takes all of `bytes`.
fn whole<T: TpmUnmarshal>(what: &'static str, bytes: &[u8]) -> Result<T, QuoteError> {
    let malformed = |why: String| QuoteError::Malformed { what, why };
    let parsed: TpmResult<(T, &[u8])> = T::unmarshal(bytes);
    match parsed {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(malformed("there are bytes after it".into())),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// Checks that `key` signed `message`, and returns the algorithm of the signature, which is also that of the
/// digest in a quote.
fn check(key: &TpmtPublic, signature: &TpmtSignature, message: &[u8]) -> Result<Bank, QuoteError> {
    let needed = TpmaObject::RESTRICTED | TpmaObject::SIGN_ENCRYPT | TpmaObject::FIXED_TPM;
    if !key.object_attributes.contains(needed) {
        return Err(QuoteError::Unrestricted);
    }

    let is_good = match (&signature.signature, &key.unique, &key.parameters) {
        (
            kind @ (TpmuSignature::Rsassa(signed) | TpmuSignature::Rsapss(signed)),
            TpmuPublicId::Rsa(modulus),
            TpmuPublicParms::Rsa(parameters),
        ) => {
            let by = rsa_parameters(signed.hash, matches!(kind, TpmuSignature::Rsapss(_)))?;
            rsa(by, modulus, parameters.exponent.into(), message, &signed.sig)
        }
        (TpmuSignature::Ecdsa(signed), TpmuPublicId::Ecc(point), _) => {
            let (by, size): (&dyn VerificationAlgorithm, usize) = match signed.hash {
                TpmAlgId::Sha256 => (&ECDSA_P256_SHA256_FIXED, 32),
                TpmAlgId::Sha384 => (&ECDSA_P384_SHA384_FIXED, 48),
                _ => return Err(QuoteError::Algorithm(SIGNATURE)),
            };
            let key = [&[4][..], &padded(&point.x, size), &padded(&point.y, size)].concat();
            let TpmsSignatureEcc { signature_r, signature_s, .. } = signed;
            let signature = [padded(signature_r, size), padded(signature_s, size)].concat();
            UnparsedPublicKey::new(by, key).verify(message, &signature).is_ok()
        }
        _ => return Err(QuoteError::Algorithm(SIGNATURE)),
    };
    if is_good { Ok(hash(&signature.signature)?) } else { Err(QuoteError::Signature) }
}

fn hash(signature: &TpmuSignature) -> Result<Bank, QuoteError> {
    let id = match signature {
        TpmuSignature::Rsassa(signed) | TpmuSignature::Rsapss(signed) => signed.hash,
        TpmuSignature::Ecdsa(signed) => signed.hash,
        _ => return Err(QuoteError::Algorithm(SIGNATURE)),
    };
    Bank::from_id(id.value()).ok_or(QuoteError::Algorithm(SIGNATURE))
}

/// The schemes of RSA keys, for each digest: `TPM_ALG_RSASSA`, then `TPM_ALG_RSAPSS`.
const RSA: [(TpmAlgId, [&RsaParameters; 2]); 3] = [
    (TpmAlgId::Sha256, [&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256]),
    (TpmAlgId::Sha384, [&RSA_PKCS1_2048_8192_SHA384, &RSA_PSS_2048_8192_SHA384]),
    (TpmAlgId::Sha512, [&RSA_PKCS1_2048_8192_SHA512, &RSA_PSS_2048_8192_SHA512]),
];

fn rsa_parameters(hash: TpmAlgId, is_pss: bool) -> Result<&'static RsaParameters, QuoteError> {
    let row = RSA.iter().find(|(known, _)| *known == hash);
    row.map(|(_, by)| by[usize::from(is_pss)]).ok_or(QuoteError::Algorithm(SIGNATURE))
}

fn rsa(by: &RsaParameters, modulus: &[u8], exponent: u32, message: &[u8], signature: &[u8]) -> bool {
    // A TPM writes 0 for 65537.
    let exponent = if exponent == 0 { 65537_u32 } else { exponent }.to_be_bytes();
    let leading = exponent.iter().take_while(|byte| **byte == 0).count();
    RsaPublicKeyComponents { n: modulus, e: &exponent[leading..] }.verify(by, message, signature).is_ok()
}

fn padded(number: &[u8], size: usize) -> Vec<u8> {
    [vec![0; size.saturating_sub(number.len())], number.to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Message, signature and key, of `tests/fixtures/tpm/make`.
    macro_rules! fixture {
        ($name:literal) => {
            [
                &include_bytes!(concat!("../../tests/fixtures/tpm/", $name, ".message"))[..],
                &include_bytes!(concat!("../../tests/fixtures/tpm/", $name, ".signature"))[..],
                &include_bytes!(concat!("../../tests/fixtures/tpm/", $name, ".pub"))[..],
            ]
        };
    }

    #[test]
    fn quotes_by_every_kind_of_key_are_understood() {
        for [message, signature, key] in [fixture!("ecdsa"), fixture!("rsassa"), fixture!("rsapss")] {
            let quote = verified(message, signature, key).unwrap();
            assert_eq!(quote.nonce, [0xc0, 0xff, 0xee]);
            assert_eq!(
                quote.selection,
                [
                    (Bank::Sha1, [8, 9].map(|pcr| Pcr::ALL[pcr]).to_vec()),
                    (Bank::Sha256, [0, 8, 9].map(|pcr| Pcr::ALL[pcr]).to_vec())
                ]
            );
            let eight = Bank::Sha256.extend(&[0; 32], &Bank::Sha256.digest(b"arguments: x"));
            let values = [vec![0; 20], vec![0; 20], vec![0; 32], eight, vec![0; 32]].concat();
            assert_eq!((quote.by, quote.digest), (Bank::Sha256, Bank::Sha256.digest(&values)));
        }
    }

    #[test]
    fn a_message_that_was_changed_is_not_what_was_signed() {
        let [message, signature, key] = fixture!("ecdsa");
        for at in 0..message.len() {
            let mut changed = message.to_vec();
            changed[at] ^= 1;
            assert!(verified(&changed, signature, key).is_err(), "byte {at}");
        }
        let [_, others, _] = fixture!("rsassa");
        assert!(verified(message, others, key).is_err());
    }

    #[test]
    fn a_key_that_signs_anything_proves_nothing() {
        let [message, signature, key] = fixture!("free");
        assert_eq!(verified(message, signature, key), Err(QuoteError::Unrestricted));
    }

    #[test]
    fn the_other_form_of_a_key_is_named_with_the_way_out() {
        let [message, signature, _] = fixture!("ecdsa");
        let pem = include_bytes!("../../tests/fixtures/tpm/ecdsa.pem");
        let error = verified(message, signature, pem).unwrap_err().to_string();
        assert!(error.contains("tpm2_readpublic"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(at in 0..72_usize, byte: u8, cut in 0..90_usize) {
            let [message, signature, key] = fixture!("ecdsa");
            let mut changed = signature.to_vec();
            if changed[at] != byte {
                changed[at] = byte;
                prop_assert!(verified(message, &changed, key).is_err());
            }
            prop_assert!(verified(message, signature, &key[..cut.min(key.len() - 1)]).is_err());
        }
    }
}
