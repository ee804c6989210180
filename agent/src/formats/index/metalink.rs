//! Metalink 4 as an index (RFC 5854): pieces and mirrors of the first file that has pieces.

use crate::formats::index::{Index, IndexError, Place};
use crate::formats::pieces::{Algorithm, Pieces, unhex};
use roxmltree::{Document, Node, ParsingOptions};

const NAMESPACE: &str = "urn:ietf:params:xml:ns:metalink";

/// Elements of all kinds; a piece is one.
const MOST_NODES: u32 = 4_000_000;

/// The priority of a mirror without one (RFC 5854, 4.2.16.1): the last.
const NO_PRIORITY: u32 = 999_999;

pub fn is(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let head = start.get(..start.len().min(1024)).unwrap_or_default();
    start.starts_with(b"<") && head.windows(9).any(|window| window == b"<metalink")
}

pub fn decode(bytes: &[u8]) -> Result<Index, IndexError> {
    let text = str::from_utf8(bytes).map_err(|_| IndexError::Damaged("it is no UTF-8".into()))?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| IndexError::Damaged(error.to_string()))?;
    let file = children(document.root_element(), "file").find(|file| pieces_of(*file).is_some());
    let Some((file, (pieces, algorithm))) = file.and_then(|file| Some((file, pieces_of(file)?))) else {
        return Err(IndexError::Unsupported(
            "it is a metalink without <pieces> by sha-256 or sha-1, so that only the whole image could be checked",
        ));
    };

    let lacks = |what: &str| IndexError::Damaged(format!("it has no usable {what}"));
    let length = children(file, "size").find_map(|size| size.text()?.trim().parse().ok());
    let size = pieces.attribute("length").and_then(|length| length.parse().ok());
    let mut digests = Vec::new();
    for hash in children(pieces, "hash") {
        let digest = hash.text().and_then(|text| unhex(text.trim())).ok_or_else(|| lacks("<hash>"))?;
        digests.extend(digest);
    }
    let pieces = Pieces::every(
        size.ok_or_else(|| lacks("length of its pieces"))?,
        length.ok_or_else(|| lacks("<size>"))?,
        algorithm,
        digests,
    )?;
    Ok(Index { pieces, places: mirrors(file), profile: None })
}

/// The strongest pieces that a file has.
fn pieces_of<'a, 'input>(file: Node<'a, 'input>) -> Option<(Node<'a, 'input>, Algorithm)> {
    [("sha-256", Algorithm::Sha256), ("sha-1", Algorithm::Sha1)].into_iter().find_map(|(name, algorithm)| {
        let found = children(file, "pieces").find(|pieces| pieces.attribute("type") == Some(name));
        found.map(|pieces| (pieces, algorithm))
    })
}

fn mirrors(file: Node<'_, '_>) -> Vec<Place<String>> {
    let mut urls: Vec<(u32, &str)> = children(file, "url")
        .filter_map(|url| {
            let priority =
                url.attribute("priority").and_then(|text| text.parse().ok()).unwrap_or(NO_PRIORITY);
            url.text().map(|text| (priority, text.trim()))
        })
        .filter(|(_, url)| url.starts_with("http://") || url.starts_with("https://"))
        .collect();
    urls.sort_by_key(|(priority, _)| *priority);
    urls.into_iter().map(|(_, url)| Place::File(url.to_owned())).collect()
}

fn children<'a, 'input: 'a>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name((NAMESPACE, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metalink(inside: &str) -> Result<Index, IndexError> {
        decode(format!("<?xml version=\"1.0\"?>\n<metalink xmlns=\"{NAMESPACE}\"><file name=\"x.iso\">{inside}</file></metalink>").as_bytes())
    }

    fn pieces(kind: &str, digits: usize) -> String {
        let hash = format!("<hash>{}</hash>", "ab".repeat(digits));
        format!("<pieces length=\"4\" type=\"{kind}\">{hash}{hash}</pieces>")
    }

    #[test]
    fn mirrors_are_sorted_by_priority() {
        let urls = "<url>ftp://f/x</url><url>http://last/x</url><url priority=\"2\"> http://b/x </url><url priority=\"1\" location=\"jp\">https://a/x</url>";
        let index = metalink(&format!("<size>7</size>{}{urls}", pieces("sha-256", 32))).unwrap();
        let places: Vec<Place<String>> =
            ["https://a/x", "http://b/x", "http://last/x"].map(|url| Place::File(url.into())).into();
        assert_eq!(index.places, places);
        assert_eq!(index.pieces.digest(1), Some((Algorithm::Sha256, &[0xab; 32][..])));
        assert_eq!(index.pieces.length(), 7);
    }

    #[test]
    fn the_strongest_pieces_are_taken() {
        let both = format!("<size>7</size>{}{}", pieces("sha-1", 20), pieces("sha-256", 32));
        assert_eq!(metalink(&both).unwrap().pieces.digest(0).unwrap().0, Algorithm::Sha256);
        let old = format!("<size>7</size>{}", pieces("sha-1", 20));
        assert_eq!(metalink(&old).unwrap().pieces.digest(0).unwrap().0, Algorithm::Sha1);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let says = |inside: &str| metalink(inside).unwrap_err().to_string();
        assert!(says("<size>7</size><hash type=\"sha-256\">ab</hash>").contains("without <pieces>"));
        assert!(says(&pieces("sha-256", 32)).contains("no usable <size>"));
        assert!(says(&format!("<size>99</size>{}", pieces("sha-256", 32))).contains("contradicts itself"));
        assert!(says(&format!("<size>7</size>{}", pieces("sha-256", 0))).contains("no usable <hash>"));
        assert!(decode(b"<metalink").is_err());
        let bomb = format!("<!DOCTYPE x [<!ENTITY a \"{}\">]><metalink>&a;&a;</metalink>", "a".repeat(999));
        assert!(decode(bomb.as_bytes()).is_err());
    }
}
