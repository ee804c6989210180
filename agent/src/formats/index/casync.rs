//! casync's blob index (`.caibx`): chunks of changing size by SHA-512/256 or SHA-256, in a store
//! of zstd files. The format is in casync's `src/caformat.h`; nothing else describes it.

use crate::formats::index::{Form, Index, IndexError, Place};
use crate::formats::pieces::{Algorithm, Pieces};

const INDEX: u64 = 0x9682_4d9c_7b12_9ff9;
const TABLE: u64 = 0xe75b_9e11_2f17_417d;
const TAIL: u64 = 0x4b4f_050e_5549_ecd1;
const WITH_SHA512_256: u64 = 0x2000_0000_0000_0000;

/// Bytes of the header: its own length, type, flags, least, usual and largest chunk.
const HEADER: usize = 48;

/// Bytes of an item: where the chunk ends, and its digest.
const ITEM: usize = 40;

/// Bytes of the table's own header.
const TABLE_HEADER: usize = 16;

/// casync's default name, beside the index.
const STORE: &str = "default.castr/";

pub fn is(bytes: &[u8]) -> bool {
    word(bytes, 0) == Some(HEADER as u64) && word(bytes, 8) == Some(INDEX)
}

pub fn decode(bytes: &[u8], url: &str) -> Result<Index, IndexError> {
    let damaged = |what: &str| IndexError::Damaged(what.to_owned());
    let flags = word(bytes, 16).ok_or_else(|| damaged("it is cut"))?;
    let algorithm = if flags & WITH_SHA512_256 == 0 { Algorithm::Sha256 } else { Algorithm::Sha512_256 };
    if word(bytes, HEADER) != Some(u64::MAX) || word(bytes, HEADER + 8) != Some(TABLE) {
        return Err(damaged("it has no table of chunks"));
    }
    let items = bytes.get(HEADER + TABLE_HEADER..).unwrap_or_default();
    let Some((items, tail)) = items.len().checked_sub(ITEM).map(|at| items.split_at(at)) else {
        return Err(damaged("it is cut"));
    };
    if word(tail, 0) != Some(0) || word(tail, 32) != Some(TAIL) || items.len() % ITEM != 0 {
        return Err(damaged("its table has no end"));
    }

    let (mut ends, mut digests) = (Vec::new(), Vec::new());
    for item in items.chunks_exact(ITEM) {
        let (end, digest) = item.split_at(8);
        ends.push(word(end, 0).unwrap_or_default());
        digests.extend_from_slice(digest);
    }
    let pieces = Pieces::ending(ends, algorithm, digests)?;
    Ok(Index { pieces, places: stores(url), profile: None })
}

/// casync's index does not name its store. That is called `default.castr` beside the index, or like the
/// index: `debian.caibx` and `debian.castr`.
fn stores(url: &str) -> Vec<Place<String>> {
    let name = url.split(['?', '#']).next().unwrap_or(url).rsplit('/').next().unwrap_or_default();
    let own = name.strip_suffix(".caibx").map(|name| format!("{name}.castr/"));
    let store = |url: String| Place::Store { url, form: Form::Casync };
    own.into_iter().chain([STORE.to_owned()]).map(store).collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(flags: u64, ends: &[u64]) -> Vec<u8> {
        let mut words = vec![HEADER as u64, INDEX, flags, 16, 64, 256, u64::MAX, TABLE];
        for end in ends {
            words.extend([*end, 1, 2, 3, 4]);
        }
        words.extend([0, 0, 48, 16 + 40 * (ends.len() as u64 + 1), TAIL]);
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn chunks_have_their_own_sizes() {
        let index = decode(&file(WITH_SHA512_256, &[100, 250, 251]), "http://h/a/debian.caibx?x=/").unwrap();
        assert_eq!(index.pieces.count(), 3);
        assert_eq!(index.pieces.size(1), 150);
        assert_eq!(index.pieces.digest(2).unwrap().0, Algorithm::Sha512_256);
        let urls = ["debian.castr/", "default.castr/"];
        assert_eq!(index.places, urls.map(|url| Place::Store { url: url.into(), form: Form::Casync }));
        assert_eq!(decode(&file(0, &[1]), "x").unwrap().pieces.digest(0).unwrap().0, Algorithm::Sha256);
    }

    #[test]
    fn what_is_cut_or_out_of_order_is_refused() {
        let whole = file(0, &[100, 250]);
        for length in [17, 60, 70, whole.len() - 1, whole.len() - 40] {
            assert!(decode(&whole[..length], "x").is_err(), "{length}");
        }
        assert!(matches!(decode(&file(0, &[100, 50]), "x"), Err(IndexError::Pieces(_))));
        assert!(decode(&file(0, &[]), "x").is_err());
    }
}
