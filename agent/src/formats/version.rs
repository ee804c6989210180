//! Which version of a file a server has: images are replaced under their name, and must not be mixed. Pure.

use std::fmt;
use ureq::http::header::{ETAG, HeaderMap, LAST_MODIFIED};

/// What identifies one version of the file on the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// How long it is.
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

    /// Whether `other` may be the same file. Servers leave out what they do not know.
    pub fn agrees(&self, other: &Self) -> bool {
        fn same(a: Option<&String>, b: Option<&String>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.length == other.length
            && same(self.etag.as_ref(), other.etag.as_ref())
            && same(self.modified.as_ref(), other.modified.as_ref())
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
}
