//! Torrents as indexes: pieces by SHA-1 (BEP 3), web seeds as mirrors (BEP 19). Nothing is ever
//! asked of a tracker or a peer. Hybrid torrents (BEP 52) are read by their version 1 half.

use super::{Index, IndexError, Place};
use crate::source::pieces::{Algorithm, Pieces};
use std::collections::BTreeMap;

/// Lists in lists: torrents need four.
const DEEPEST: usize = 16;

pub(super) fn is(bytes: &[u8]) -> bool {
    // A dictionary whose first key has a length: `d8:announce…`.
    matches!(bytes, [b'd', b'1'..=b'9', b'0'..=b'9' | b':', ..])
}

pub(super) fn decode(bytes: &[u8]) -> Result<Index, IndexError> {
    let lacks = |what: &str| IndexError::Damaged(format!("it has no \"{what}\""));
    let (value, _) =
        Value::parse(bytes, DEEPEST).ok_or_else(|| IndexError::Damaged("it is cut or no bencode".into()))?;
    let info = value.get("info").ok_or_else(|| lacks("info"))?;
    if info.get("files").is_some() {
        return Err(IndexError::Unsupported(
            "it is a torrent of several files, whose pieces do not begin where the image does",
        ));
    }
    if info.get("pieces").is_none() && info.get("meta version").is_some() {
        return Err(IndexError::Unsupported("it is a torrent of version 2 only; publish a hybrid one"));
    }
    let number = |key: &str| info.get(key).and_then(Value::number).ok_or_else(|| lacks(key));
    let digests = info.get("pieces").and_then(Value::text).ok_or_else(|| lacks("pieces"))?;
    let pieces =
        Pieces::every(number("piece length")?, number("length")?, Algorithm::Sha1, digests.to_vec())?;
    let name = info.get("name").and_then(Value::utf8).ok_or_else(|| lacks("name"))?;
    let seeds = match value.get("url-list") {
        Some(Value::List(seeds)) => seeds.iter().filter_map(Value::utf8).collect(),
        Some(seed) => seed.utf8().into_iter().collect(),
        None => Vec::new(),
    };
    let place = |seed: &str| match seed.ends_with('/') {
        true => Place::File(format!("{seed}{name}")),
        false => Place::File(seed.to_owned()),
    };
    // Web seeds of other schemes (ftp) are none for us.
    let places = seeds.into_iter().filter(|seed| seed.starts_with("http")).map(place).collect();
    Ok(Index { pieces, places, profile: None })
}

/// Bencode (BEP 3).
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Text(&'a [u8]),
    List(Vec<Value<'a>>),
    Dictionary(BTreeMap<&'a [u8], Value<'a>>),
}

impl<'a> Value<'a> {
    /// The value at the beginning of `bytes`, and what comes after it.
    fn parse(bytes: &'a [u8], depth: usize) -> Option<(Self, &'a [u8])> {
        let (first, rest) = bytes.split_first()?;
        match first {
            b'i' => {
                let end = rest.iter().position(|byte| *byte == b'e')?;
                // Negative numbers mean nothing in the keys we read.
                let number = str::from_utf8(&rest[..end]).ok()?.parse().unwrap_or(0);
                Some((Self::Number(number), &rest[end + 1..]))
            }
            b'l' => {
                let mut list = Vec::new();
                let mut rest = rest;
                while *rest.first()? != b'e' {
                    let (value, after) = Self::parse(rest, depth.checked_sub(1)?)?;
                    list.push(value);
                    rest = after;
                }
                Some((Self::List(list), &rest[1..]))
            }
            b'd' => {
                let mut dictionary = BTreeMap::new();
                let mut rest = rest;
                while *rest.first()? != b'e' {
                    let (key, after) = text(rest)?;
                    let (value, after) = Self::parse(after, depth.checked_sub(1)?)?;
                    dictionary.insert(key, value);
                    rest = after;
                }
                Some((Self::Dictionary(dictionary), &rest[1..]))
            }
            b'0'..=b'9' => text(bytes).map(|(text, rest)| (Self::Text(text), rest)),
            _ => None,
        }
    }

    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dictionary(dictionary) => dictionary.get(key.as_bytes()),
            _ => None,
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn utf8(&self) -> Option<&'a str> {
        str::from_utf8(self.text()?).ok()
    }
}

/// `4:spam`
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(20).position(|byte| *byte == b':')?;
    let length: usize = str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    bytes[colon + 1..].split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torrent(info: &str, seeds: &str) -> Vec<u8> {
        format!("d8:announce9:udp://t:14:infod{info}e{seeds}e").into_bytes()
    }

    const INFO: &str =
        "6:lengthi5e4:name5:x.iso12:piece lengthi4e6:pieces40:aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn web_seeds_are_mirrors() {
        let one = decode(&torrent(INFO, "8:url-list12:http://h/iso")).unwrap();
        assert_eq!(one.places, [Place::File("http://h/iso".into())]);
        let two = decode(&torrent(INFO, "8:url-listl9:http://h/5:ftp:/10:https://i/e")).unwrap();
        assert_eq!(two.places, [Place::File("http://h/x.iso".into()), Place::File("https://i/x.iso".into())]);
        assert_eq!(two.pieces.length(), 5);
        assert_eq!(two.pieces.digest(1), Some((Algorithm::Sha1, &[b'b'; 20][..])));
        assert_eq!(decode(&torrent(INFO, "")).unwrap().places, []);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let says = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert!(says(&torrent("5:filesle4:name1:x", "")).contains("several files"));
        assert!(says(&torrent("12:meta versioni2e", "")).contains("version 2"));
        assert!(says(&torrent("4:name1:x", "")).contains("no \"pieces\""));
        assert!(says(&torrent(&INFO.replace("i5e", "i9e"), "")).contains("contradicts itself"));
        assert!(says(b"d8:announce99:x").contains("cut"));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = [b"d8:announce".as_slice(), &[b'l'; 100_000]].concat();
        assert!(decode(&deep).is_err());
    }
}
