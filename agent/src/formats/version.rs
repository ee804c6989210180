//! The version of a file on a server. Images are replaced under their name, and versions must not be mixed.

use std::fmt;
use ureq::http::header::{ETAG, HeaderMap, LAST_MODIFIED};

/// The marks of one version of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Bytes of the file.
    pub length: u64,
    /// Its entity tag, as sent.
    pub etag: Option<String>,
    /// When it was modified, as sent.
    pub modified: Option<String>,
}

impl Version {
    pub fn of(headers: &HeaderMap, length: u64) -> Self {
        // One with a tab in it could not be handed on.
        let text = |name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.filter(|value| !value.contains(char::is_control)).map(str::to_owned)
        };
        Self { length, etag: text(ETAG), modified: text(LAST_MODIFIED) }
    }

    /// Only a strong entity tag may be used with If-Range (RFC 9110, 13.1.5).
    pub fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }

    /// True where `other`, of the same server, may be the same file. Servers leave out what they do not know.
    pub fn agrees(&self, other: &Self) -> bool {
        fn same(a: Option<&String>, b: Option<&String>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.length == other.length
            && same(self.etag.as_ref(), other.etag.as_ref())
            && same(self.modified.as_ref(), other.modified.as_ref())
    }

    /// True where `other` may be the file of this version, which was opened before. An answer of another server
    /// (`is_elsewhere`) has to prove it, if this version has a mark by which it can.
    pub fn allows(&self, other: &Self, is_elsewhere: bool) -> bool {
        let can_be_proven = self.strong_etag().is_some() || self.modified.is_some();
        self.agrees(other) && (!is_elsewhere || !can_be_proven || self.is_proof_of(other))
    }

    /// This version with the marks that only `other` has. Servers leave marks out of some answers.
    pub fn completed_by(&self, other: &Self) -> Self {
        Self {
            length: self.length,
            etag: self.etag.clone().or_else(|| other.etag.clone()),
            modified: self.modified.clone().or_else(|| other.modified.clone()),
        }
    }

    /// True where `other`, of another server, proves that both have the same file: equal strong entity tags,
    /// or, where one of them has none, the same second of modification. Tags of different programs differ
    /// for the same file; such servers are no proof of each other.
    pub fn is_proof_of(&self, other: &Self) -> bool {
        let same = match (self.strong_etag(), other.strong_etag()) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.modified.is_some() && self.modified == other.modified,
        };
        self.length == other.length && same
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.length)?;
        match (&self.etag, &self.modified) {
            (Some(tag), _) => write!(f, ", ETag {tag}"),
            (None, Some(date)) => write!(f, ", of {date}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another server has to prove the version that was opened; marks that an answer lacks are kept.
    #[test]
    fn another_server_has_to_prove_it() {
        let silent = Version { length: 5, ..Version::default() };
        let tagged = Version { etag: Some("\"a\"".into()), ..silent.clone() };
        assert!(tagged.allows(&silent, false) && tagged.allows(&tagged, true));
        assert!(!tagged.allows(&silent, true));
        assert!(silent.allows(&tagged, true), "it has no mark to be proven by");
        assert_eq!(tagged.completed_by(&silent), tagged);
        assert_eq!(silent.completed_by(&tagged), tagged);
    }

    #[test]
    fn only_what_both_say_can_disagree() {
        let version = |etag: Option<&str>, modified: Option<&str>| Version {
            length: 5,
            etag: etag.map(str::to_owned),
            modified: modified.map(str::to_owned),
        };
        assert!(version(Some("\"a\""), None).agrees(&version(None, Some("Monday"))));
        assert!(!version(Some("\"a\""), None).agrees(&version(Some("\"b\""), None)));
        assert!(!version(None, Some("Monday")).agrees(&version(None, Some("Tuesday"))));
        assert!(!version(None, None).agrees(&Version { length: 6, ..Version::default() }));
        assert_eq!(version(Some("W/\"a\""), None).strong_etag(), None);
    }

    /// Silence proves nothing, and a tag outweighs a date.
    #[test]
    fn two_servers_have_to_prove_it() {
        let version = |etag: &str, modified: &str| Version {
            length: 5,
            etag: Some(etag.to_owned()).filter(|tag| !tag.is_empty()),
            modified: Some(modified.to_owned()).filter(|date| !date.is_empty()),
        };
        let proves = |one: (&str, &str), other: (&str, &str)| {
            version(one.0, one.1).is_proof_of(&version(other.0, other.1))
        };
        assert!(proves(("\"a\"", ""), ("\"a\"", "Monday")));
        assert!(proves(("\"a\"", "Monday"), ("", "Monday")));
        assert!(proves(("W/\"a\"", "Monday"), ("W/\"b\"", "Monday")));
        assert!(!proves(("", ""), ("", "")));
        assert!(!proves(("\"a\"", "Monday"), ("\"b\"", "Monday")));
        assert!(!proves(("", "Monday"), ("", "Tuesday")));
        assert!(!proves(("W/\"a\"", ""), ("W/\"a\"", "")));
    }
}
