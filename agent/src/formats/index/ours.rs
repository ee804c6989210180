//! Our own index, version 1; specified in `docs/formats.md`.

use crate::formats::index::{Form, Index, IndexError, Place};
use crate::formats::pieces::{Algorithm, Pieces};

const FIRST_LINE: &str = "inetboot-index 1";

/// The longest header that is read, in bytes; real ones have a few lines.
const HEADER: usize = 64 * 1024;

pub fn is(bytes: &[u8]) -> bool {
    bytes.strip_prefix(FIRST_LINE.as_bytes()).is_some_and(|rest| rest.starts_with(b"\n"))
}

/// The word for blocks that end where their content says.
const BY_CONTENT: &str = "content";

/// Bytes before a digest that say how long such a block is, the highest first.
const LENGTH: usize = 4;

/// The index as a file, of pieces that are checked.
pub fn encode(index: &Index) -> Option<Vec<u8>> {
    let (algorithm, _) = index.pieces.digest(0)?;
    let size = index.pieces.fixed_size();
    let mut text = format!(
        "{FIRST_LINE}\nsize {}\nblock {}\ndigest {}\n",
        index.pieces.length(),
        size.map_or(BY_CONTENT.to_owned(), |size| size.to_string()),
        algorithm.name()
    );

    for place in &index.places {
        match place {
            Place::File(url) => text += &format!("image {url}\n"),
            Place::Store { url, form } => text += &format!("store {} {url}\n", form.name()),
        }
    }
    if let Some(url) = &index.profile {
        text += &format!("profile {url}\n");
    }
    text.push('\n');

    let mut bytes = text.into_bytes();
    for number in 0..index.pieces.count() {
        if size.is_none() {
            bytes.extend_from_slice(&u32::try_from(index.pieces.size(number)).ok()?.to_be_bytes());
        }
        bytes.extend_from_slice(index.pieces.digest(number)?.1);
    }
    Some(bytes)
}

pub fn decode(bytes: &[u8]) -> Result<Index, IndexError> {
    let damaged = |what: &str| IndexError::Damaged(what.to_owned());
    let head = bytes.get(..bytes.len().min(HEADER)).unwrap_or_default();
    let end =
        head.windows(2).position(|pair| pair == b"\n\n").ok_or_else(|| damaged("its header has no end"))?;
    let header =
        str::from_utf8(head.get(..end).unwrap_or_default()).map_err(|_| damaged("its header is no text"))?;
    let table = bytes.get(end + 2..).unwrap_or_default();

    let (mut size, mut block, mut algorithm) = (None, None, None);
    let (mut places, mut profile) = (Vec::new(), None);
    for line in header.split('\n').skip(1) {
        let wrong = || IndexError::Damaged(format!("the line \"{}\" is not understood", line.escape_debug()));
        let printable = Some(line).filter(|line| !line.contains(char::is_control));
        let (key, value) = printable.and_then(|line| line.split_once(' ')).ok_or_else(wrong)?;
        match key {
            "size" => size = Some(value.parse().map_err(|_| wrong())?),
            "block" if value == BY_CONTENT => block = Some(None),
            "block" => block = Some(Some(value.parse().map_err(|_| wrong())?)),
            "digest" => algorithm = Some(Algorithm::from_name(value).ok_or_else(wrong)?),
            "image" => places.push(Place::File(value.into())),
            "store" => {
                let (form, url) = value.split_once(' ').ok_or_else(wrong)?;
                let form = Form::from_name(form).ok_or_else(wrong)?;
                places.push(Place::Store { url: url.into(), form });
            }
            "profile" => profile = Some(value.into()),
            // A later version may add what an earlier one need not know; what it must know
            // changes the first line.
            _ => {}
        }
    }
    let lacks = |what: &str| IndexError::Damaged(format!("it has no line \"{what}\""));
    let block = block.ok_or_else(|| lacks("block"))?;
    let size = size.ok_or_else(|| lacks("size"))?;
    let algorithm: Algorithm = algorithm.ok_or_else(|| lacks("digest"))?;
    let pieces = match block {
        Some(block) => Pieces::every(block, size, algorithm, table.to_vec())?,
        None => by_content(table, size, algorithm)?,
    };
    Ok(Index { pieces, places, profile })
}

/// Blocks whose lengths stand before their digests.
fn by_content(table: &[u8], size: u64, algorithm: Algorithm) -> Result<Pieces, IndexError> {
    let damaged = |what: &str| IndexError::Damaged(what.to_owned());
    let (mut end, mut ends, mut digests) = (0_u64, Vec::new(), Vec::new());
    let entries = table.chunks_exact(LENGTH + algorithm.length());
    if !entries.remainder().is_empty() {
        return Err(damaged("its table is cut"));
    }
    for entry in entries {
        let (length, digest) = entry.split_first_chunk().ok_or_else(|| damaged("its table is cut"))?;
        end += u64::from(u32::from_be_bytes(*length));
        ends.push(end);
        digests.extend_from_slice(digest);
    }
    let pieces = Pieces::ending(ends, algorithm, digests)?;
    if pieces.length() == size { Ok(pieces) } else { Err(damaged("its blocks are not as long as the image")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(length: u64, block: u64, algorithm: Algorithm) -> Index {
        let digests = vec![7; (length.div_ceil(block)) as usize * algorithm.length()];
        Index {
            pieces: Pieces::every(block, length, algorithm, digests).unwrap(),
            places: vec![
                Place::File("debian.iso".into()),
                Place::Store { url: "store/".into(), form: Form::Zstd },
            ],
            profile: Some("debian.profile".into()),
        }
    }

    #[test]
    fn it_is_text_and_then_digests() {
        let bytes = encode(&index(300, 256, Algorithm::Sha1)).unwrap();
        assert!(bytes.starts_with(
            b"inetboot-index 1\nsize 300\nblock 256\ndigest sha1\nimage debian.iso\nstore zstd store/\nprofile debian.profile\n\n\x07"
        ));
        assert!(is(&bytes));
    }

    #[test]
    fn what_is_cut_or_contradicts_itself_is_refused() {
        let bytes = encode(&index(300, 256, Algorithm::Sha256)).unwrap();
        assert!(matches!(decode(&bytes[..bytes.len() - 1]), Err(IndexError::Pieces(_))));
        assert!(matches!(decode(&bytes[..30]), Err(IndexError::Damaged(_))));
        let text = |text: &str| decode(text.as_bytes()).unwrap_err().to_string();
        assert!(text("inetboot-index 1\nsize 9\n\n").contains("no line \"block\""));
        assert!(text("inetboot-index 1\nsize many\n\n").contains("\"size many\" is not understood"));
        assert!(text("inetboot-index 1\ndigest md5\n\n").contains("digest md5"));
        // Found by the fuzzer: what is not written as it was read.
        assert!(text("inetboot-index 1\nimage x\r\n\n").contains("image x\\r"));
        let content = encode(&by_content_of(&[100, 200])).unwrap();
        assert!(matches!(decode(&content[..content.len() - 1]), Err(IndexError::Damaged(_))));
        let shorter = content.len() - LENGTH - Algorithm::Sha256.length();
        assert!(decode(&content[..shorter]).unwrap_err().to_string().contains("not as long as the image"));
    }

    fn by_content_of(lengths: &[u64]) -> Index {
        let ends: Vec<u64> = lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end)
            })
            .collect();
        let digests = vec![5; lengths.len() * Algorithm::Sha256.length()];
        let pieces = Pieces::ending(ends, Algorithm::Sha256, digests).unwrap();
        Index { pieces, places: Vec::new(), profile: None }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(length in 1u64..5000, block in 1u64..3000, sha1 in any::<bool>()) {
            let algorithm = if sha1 { Algorithm::Sha1 } else { Algorithm::Sha256 };
            let index = index(length, block, algorithm);
            prop_assert_eq!(decode(&encode(&index).unwrap()), Ok(index));
        }

        #[test]
        fn what_is_cut_by_content_is_read(lengths in proptest::collection::vec(1u64..5000, 1..30)) {
            let index = by_content_of(&lengths);
            prop_assert_eq!(decode(&encode(&index).unwrap()), Ok(index));
        }
    }
}
