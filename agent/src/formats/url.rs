//! Web addresses (RFC 3986): their scheme, their host, the name of the file, and references relative to them.

use std::fmt;
use std::str::FromStr;

/// An `http` or `https` address with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component of the path, or `image` if that is empty.
    pub fn file_name(&self) -> &str {
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        let after_host = path.splitn(4, '/').nth(3).unwrap_or_default();
        match after_host.rsplit('/').next() {
            Some(name) if !name.is_empty() => name,
            _ => "image",
        }
    }

    /// The address that `reference` stands for in a document at this address (RFC 3986, 5.2). Of relative
    /// references, those are supported that indexes write: a path, absolute or not, without `..`.
    pub fn join(&self, reference: &str) -> Option<Self> {
        if reference.contains("://") {
            return reference.parse().ok();
        }

        // An absolute path replaces all behind the host; another one, all behind the last slash of the path.
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        let host_end = path.match_indices('/').nth(2).map_or(path.len(), |(at, _)| at);
        let base_end = match reference.starts_with('/') {
            true => host_end,
            false => path.rfind('/').filter(|at| *at >= host_end).map_or(path.len(), |at| at + 1),
        };
        let base = path.get(..base_end)?;
        let slash = if reference.starts_with('/') || base.ends_with('/') { "" } else { "/" };
        format!("{base}{slash}{reference}").parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains("://") {
            return Err("it lacks http:// or https://");
        }
        let uri: ureq::http::Uri = text.parse().map_err(|_| "it is not a URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("only http:// and https:// can be read by ranges");
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err("it names no host");
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reference is relative to the directory of its index, or to the server, or to nothing.
    #[test]
    fn references() {
        let base: Url = "https://h:8443/a/b.idx?x=/y".parse().unwrap();
        let join = |reference| base.join(reference).unwrap().to_string();
        assert_eq!(join("store/"), "https://h:8443/a/store/");
        assert_eq!(join("/c.iso"), "https://h:8443/c.iso");
        assert_eq!(join("http://i/c.iso"), "http://i/c.iso");
        let bare: Url = "http://h".parse().unwrap();
        assert_eq!(bare.join("x").unwrap().as_str(), "http://h/x");
        assert_eq!(bare.join("/x").unwrap().as_str(), "http://h/x");
        assert_eq!(base.join("ftp://h/x"), None);
    }

    #[test]
    fn file_names() {
        let name = |text: &str| text.parse::<Url>().unwrap().file_name().to_owned();
        assert_eq!(name("http://h/a/b.iso?x=/y"), "b.iso");
        assert_eq!(name("http://h"), "image");
    }
}
