//! Torrents as indexes: pieces by SHA-1 (BEP 3) or by trees of SHA-256 (version 2 and hybrid ones,
//! BEP 52), web seeds as mirrors (BEP 19). Nothing is ever asked of a tracker or a peer.

use crate::formats::index::{Index, IndexError, Place};
use crate::formats::pieces::{Algorithm, LEAF, Pieces, PiecesError, tree_root};
use crate::formats::url::encode_path;
use std::collections::BTreeMap;

/// Lists in lists: torrents need four, and directories of version 2 one each.
const DEEPEST: usize = 16;

pub fn is(bytes: &[u8]) -> bool {
    // A dictionary whose first key has a length: `d8:announce…`.
    matches!(bytes, [b'd', b'1'..=b'9', b'0'..=b'9' | b':', ..])
}

pub fn decode(bytes: &[u8]) -> Result<Index, IndexError> {
    let lacks = |what: &str| IndexError::Damaged(format!("it has no \"{what}\""));
    let (value, _) =
        Value::parse(bytes, DEEPEST).ok_or_else(|| IndexError::Damaged("it is cut or no bencode".into()))?;
    let info = value.get("info").ok_or_else(|| lacks("info"))?;
    let name = info.get("name").and_then(Value::utf8).ok_or_else(|| lacks("name"))?;
    let number = |key: &str| info.get(key).and_then(Value::number).ok_or_else(|| lacks(key));
    let piece_length = number("piece length")?;
    let (pieces, path) = if let Some(tree) = info.get("file tree") {
        let file = largest(tree, DEEPEST).ok_or_else(|| lacks("file"))?;
        (file.pieces(piece_length, value.get("piece layers"))?, file.path_below(name))
    } else if info.get("files").is_some() {
        return Err(IndexError::Unsupported(
            "it is a torrent of several files whose pieces do not begin where the image does; make an \
             index of the image alone (inetbootctl image index)",
        ));
    } else {
        let digests = info.get("pieces").and_then(Value::text).ok_or_else(|| lacks("pieces"))?;
        (Pieces::every(piece_length, number("length")?, Algorithm::Sha1, digests.to_vec())?, name.to_owned())
    };
    let seeds = match value.get("url-list") {
        Some(Value::List(seeds)) => seeds.iter().filter_map(Value::utf8).collect(),
        Some(seed) => seed.utf8().into_iter().collect(),
        None => Vec::new(),
    };

    // The path is made of file names, which may have spaces and other letters; the seed is an address.
    let encoded = encode_path(&path);
    let place = |seed: &str| match (seed.ends_with('/'), path == name) {
        (true, _) => Place::File(format!("{seed}{encoded}")),
        (false, true) => Place::File(seed.to_owned()),
        (false, false) => Place::File(format!("{seed}/{encoded}")),
    };
    // Web seeds of other schemes (ftp) are none for us.
    let places = seeds.into_iter().filter(|seed| seed.starts_with("http")).map(place).collect();
    Ok(Index { pieces, places, profile: None })
}

/// A file of a torrent of version 2.
struct TreeFile<'a> {
    path: Vec<&'a str>,
    length: u64,
    root: &'a [u8],
}

/// The largest file of a `file tree`: the image, where there are checksums beside it.
fn largest<'a>(tree: &Value<'a>, depth: usize) -> Option<TreeFile<'a>> {
    let Value::Dictionary(entries) = tree else { return None };
    let file = |(name, entry): (&&'a [u8], &Value<'a>)| {
        let name = str::from_utf8(name).ok()?;
        if let Some(file) = entry.get("") {
            let root = file.get("pieces root").and_then(Value::text)?;
            return Some(TreeFile { path: vec![name], length: file.get("length")?.number()?, root });
        }
        let mut inside = largest(entry, depth.checked_sub(1)?)?;
        inside.path.insert(0, name);
        Some(inside)
    };
    entries.iter().filter_map(file).max_by_key(|file| file.length)
}

impl TreeFile<'_> {
    /// The path below a web seed: a file with the torrent's name stands alone, others below that name.
    fn path_below(&self, name: &str) -> String {
        let path = self.path.join("/");
        if path == name { path } else { format!("{name}/{path}") }
    }

    fn pieces(&self, piece_length: u64, layers: Option<&Value<'_>>) -> Result<Pieces, IndexError> {
        if piece_length < LEAF || !piece_length.is_power_of_two() {
            return Err(PiecesError::Size(piece_length).into());
        }
        let leaves = u32::try_from(piece_length / LEAF).map_err(|_| PiecesError::Size(piece_length))?;
        if self.length <= piece_length {
            let leaves = self.length.div_ceil(LEAF).next_power_of_two() as u32;
            let one = self.root.to_vec();
            return Ok(Pieces::every(piece_length, self.length, Algorithm::Tree(leaves), one)?);
        }

        let layer = match layers {
            Some(Value::Dictionary(layers)) => layers.get(self.root).and_then(Value::text),
            _ => None,
        };
        let layer =
            layer.ok_or_else(|| IndexError::Damaged("it has no layer of pieces for its file".into()))?;
        let pieces = Pieces::every(piece_length, self.length, Algorithm::Tree(leaves), layer.to_vec())?;

        // The layer is outside of the torrent's hashed part: only its root proves it.
        let nodes: Vec<[u8; 32]> = layer.as_chunks().0.to_vec();
        let (count, filler) =
            (nodes.len().next_power_of_two(), tree_root(Vec::new(), [0; 32], leaves as usize));
        if tree_root(nodes, filler, count) != self.root {
            return Err(IndexError::Damaged("its layer of pieces is of another file".into()));
        }
        Ok(pieces)
    }
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

    /// Names of files are no addresses: they are encoded (RFC 3986, 2.1).
    #[test]
    fn names_are_encoded() {
        let info = INFO.replace("5:x.iso", "12:x 100%#?.iso");
        let seeds = "8:url-list9:http://h/";
        let index = decode(&torrent(&info, seeds)).unwrap();
        let base = "http://i/x.torrent".parse().unwrap();
        let urls = index.places.iter().map(|place| place.beside(&base).unwrap().address().to_string());
        assert_eq!(urls.collect::<Vec<_>>(), ["http://h/x%20100%25%23%3F.iso"]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let says = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert!(says(&torrent("5:filesle4:name1:x12:piece lengthi4e", "")).contains("several files"));
        assert!(says(&torrent("4:name1:x12:piece lengthi4e", "")).contains("no \"pieces\""));
        assert!(says(&torrent(&INFO.replace("i5e", "i9e"), "")).contains("contradicts itself"));
        assert!(says(b"d8:announce99:x").contains("cut"));
    }

    /// A torrent of version 2 of `dir/x.iso`, three and a half leaves in pieces of two, and a note.
    fn second(layer: &[u8], root: &[u8]) -> Vec<u8> {
        let head = b"d4:infod9:file treed3:dird5:x.isod0:d6:lengthi57344e11:pieces root32:".as_slice();
        let note = b"eee1:zd0:d6:lengthi1e11:pieces root32:zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzeee12:meta versioni2e4:name1:t12:piece lengthi32768ee12:piece layersd32:";
        let tail = b"e8:url-list9:http://h/e";
        let length = format!("{}:", layer.len());
        [head, root, note, root, length.as_bytes(), layer, tail].concat()
    }

    #[test]
    fn the_largest_file_of_version_2_is_the_image() {
        let image = vec![9; 57344];
        let layer: Vec<u8> = image.chunks(32768).flat_map(|piece| Algorithm::Tree(2).digest(piece)).collect();
        let root = Algorithm::Tree(4).digest(&image);
        let index = decode(&second(&layer, &root)).unwrap();
        assert_eq!(index.places, [Place::File("http://h/t/dir/x.iso".into())]);
        assert!(index.pieces.accept(0, &image[..32768]) && index.pieces.accept(1, &image[32768..]));
        assert!(!index.pieces.accept(1, &image[..32768]));
        let mut other = layer.clone();
        other[0] ^= 1;
        assert!(decode(&second(&other, &root)).unwrap_err().to_string().contains("of another file"));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = [b"d8:announce".as_slice(), &[b'l'; 100_000]].concat();
        assert!(decode(&deep).is_err());
    }
}
