//! Who vouches for an image: nobody, the site its index came from, a pin, a signature. Pure; the
//! words here are what the screen, the receipt and the measured event say.

use crate::formats::pieces::{Algorithm, hex, unhex};
use minisign_verify::{PublicKey, Signature};
use std::fmt;
use std::str::FromStr;

/// `sha256:HEX`: what the digest of an index has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin(Vec<u8>);

impl FromStr for Pin {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digest = text.strip_prefix("sha256:").and_then(unhex).ok_or(())?;
        if digest.len() == Algorithm::Sha256.length() { Ok(Self(digest)) } else { Err(()) }
    }
}

impl Pin {
    /// The form of a pin, as an error says it.
    pub const WANTED: &str = "sha256: and 64 hexadecimal digits are wanted";

    /// The pin of an index.
    pub fn of(index: &[u8]) -> Self {
        Self(Algorithm::Sha256.digest(index))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

/// A minisign public key, as its second line writes it: `RW…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    text: String,
    key: PublicKey,
}

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let key = PublicKey::from_base64(text).map_err(|_| ())?;
        Ok(Self { text: text.to_owned(), key })
    }
}

impl Key {
    /// The form of a key, as an error says it.
    pub const WANTED: &str = "the second line of a minisign public key is wanted, RW...";
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the user demands of an image's index. Nothing demanded: any index will do, and none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// `inetboot.pin=`
    pub pin: Option<Pin>,
    /// `inetboot.key=`
    pub key: Option<Key>,
}

impl Demand {
    /// The argument that demands something, where one does.
    pub fn argument(&self) -> Option<&'static str> {
        let pin = self.pin.as_ref().map(|_| "inetboot.pin=");
        pin.or(self.key.as_ref().map(|_| "inetboot.key="))
    }
}

/// Why an index does not meet a demand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Another digest.
    #[error("its digest is {is}, and inetboot.pin= demands {pin}")]
    Pin {
        /// What was demanded.
        pin: Pin,
        /// What it is.
        is: Pin,
    },
    /// No signature.
    #[error("inetboot.key= demands a signature, and {url} cannot be had")]
    Unsigned {
        /// Where it was looked for.
        url: String,
    },
    /// A signature that is none, or of somebody else.
    #[error("its signature is not good for inetboot.key={key}: {why}")]
    Signature {
        /// Whose it should be.
        key: Key,
        /// What is wrong with it.
        why: String,
    },
}

impl TrustError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Pin { .. } => {
                "Do not boot it unless you know why it changed; inetbootctl image info prints an index's pin"
            }
            Self::Unsigned { .. } => "Publish the .minisig beside the index (inetbootctl image sign)",
            Self::Signature { .. } => {
                "Do not boot it unless you know why; sign it with the right key (inetbootctl image sign)"
            }
        }
    }
}

/// What can be said about an image's being genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// There is no index.
    Unverified,
    /// There is one, from anybody: damage is found, deceit is not.
    Unvouched,
    /// It came over HTTPS.
    Site(String),
    /// It is the one that was demanded.
    Pinned,
    /// It is signed by the key that was demanded.
    Signed(String),
}

impl Trust {
    /// What may be said of `index`, which came from `url`. The signature, where one is demanded,
    /// is what was found at [`signature_url`].
    pub fn of(
        index: &[u8],
        url: &str,
        demand: &Demand,
        signature: Option<&[u8]>,
    ) -> Result<Self, TrustError> {
        if let Some(pin) = &demand.pin {
            let is = Pin::of(index);
            if is != *pin {
                return Err(TrustError::Pin { pin: pin.clone(), is });
            }
        }
        if let Some(key) = &demand.key {
            let Some(signature) = signature else {
                return Err(TrustError::Unsigned { url: signature_url(url) });
            };
            let bad = |why: String| TrustError::Signature { key: key.clone(), why };
            let text = str::from_utf8(signature).map_err(|_| bad("it is no text".into()))?;
            let signature = Signature::decode(text).map_err(|error| bad(error.to_string()))?;
            key.key.verify(index, &signature, false).map_err(|error| bad(error.to_string()))?;
            return Ok(Self::Signed(key.text.clone()));
        }
        if demand.pin.is_some() {
            return Ok(Self::Pinned);
        }
        match url.strip_prefix("https://").and_then(|rest| rest.split('/').next()) {
            Some(host) => Ok(Self::Site(host.to_owned())),
            None => Ok(Self::Unvouched),
        }
    }

    /// The trust that [`fmt::Display`] wrote, for the second life.
    pub fn from_text(text: &str) -> Option<Self> {
        let all = [Self::Unverified, Self::Unvouched, Self::Pinned];
        all.into_iter().find(|trust| trust.to_string() == text).or_else(|| {
            let site = text.strip_prefix(SITE).map(|host| Self::Site(host.to_owned()));
            site.or_else(|| text.strip_prefix(SIGNED).map(|key| Self::Signed(key.to_owned())))
        })
    }
}

const SITE: &str = "verified against the site ";
const SIGNED: &str = "verified, signed by ";

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unverified => f.write_str("unverified"),
            Self::Unvouched => f.write_str("unverified: nobody vouches for its index"),
            Self::Site(host) => write!(f, "{SITE}{host}"),
            Self::Pinned => f.write_str("verified, pinned"),
            Self::Signed(key) => write!(f, "{SIGNED}{key}"),
        }
    }
}

/// Where the signature of the index at `url` lies.
pub fn signature_url(url: &str) -> String {
    format!("{url}.minisig")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisign::KeyPair;

    fn pair() -> (KeyPair, Key) {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let key = pair.pk.to_base64().parse().unwrap();
        (pair, key)
    }

    fn sign(pair: &KeyPair, bytes: &[u8]) -> Vec<u8> {
        minisign::sign(None, &pair.sk, bytes, None, None).unwrap().into_string().into_bytes()
    }

    #[test]
    fn a_pin_is_the_digest_of_the_index() {
        let demand = Demand { pin: Some(Pin::of(b"index")), key: None };
        assert_eq!(Trust::of(b"index", "http://h/x", &demand, None), Ok(Trust::Pinned));
        let error = Trust::of(b"other", "https://h/x", &demand, None).unwrap_err().to_string();
        assert!(error.contains(&Pin::of(b"index").to_string()), "{error}");
        assert!("sha256:00".parse::<Pin>().is_err() && "md5:00".parse::<Pin>().is_err());
        assert_eq!(Pin::of(b"x").to_string().parse(), Ok(Pin::of(b"x")));
    }

    #[test]
    fn a_signature_is_of_this_index_by_this_key() {
        let (pair, key) = pair();
        let demand = Demand { pin: None, key: Some(key.clone()) };
        let signature = sign(&pair, b"index");
        let of = |index: &[u8], signature: Option<&[u8]>| Trust::of(index, "http://h/x", &demand, signature);
        assert_eq!(of(b"index", Some(&signature)), Ok(Trust::Signed(key.to_string())));
        assert!(matches!(of(b"other", Some(&signature)), Err(TrustError::Signature { .. })));
        assert!(matches!(of(b"index", Some(b"nonsense")), Err(TrustError::Signature { .. })));
        assert_eq!(of(b"index", None), Err(TrustError::Unsigned { url: "http://h/x.minisig".into() }));
        let (stranger, _) = self::pair();
        assert!(of(b"index", Some(&sign(&stranger, b"index"))).is_err());
    }

    #[test]
    fn without_a_demand_the_way_it_came_is_said() {
        let of = |url| Trust::of(b"index", url, &Demand::default(), None).unwrap();
        assert_eq!(of("https://mirror.example/x").to_string(), "verified against the site mirror.example");
        assert_eq!(of("http://h/x"), Trust::Unvouched);
    }

    #[test]
    fn the_words_are_understood_by_the_second_life() {
        let (_, key) = pair();
        for trust in [
            Trust::Unverified,
            Trust::Unvouched,
            Trust::Pinned,
            Trust::Site("h:8443".into()),
            Trust::Signed(key.to_string()),
        ] {
            assert_eq!(Trust::from_text(&trust.to_string()), Some(trust));
        }
        assert_eq!(Trust::from_text("verified, honestly"), None);
    }
}
