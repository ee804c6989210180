//! `Link:` headers (RFC 8288) as download servers write them (Metalink/HTTP, RFC 6249): other
//! places that have the same file, and the metalink that describes it.

/// Mirrors that are read; longer lists are cut, for so many are never asked.
const MOST: usize = 32;

/// The priority of a mirror without one: the last.
const NO_PRIORITY: u32 = 999_999;

const METALINK: &str = "application/metalink4+xml";

/// The `Link:` headers of a file. Addresses may be relative to the file's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// `rel=duplicate`: mirrors, the preferred first.
    pub duplicates: Vec<String>,
    /// `rel=describedby` of a metalink's type.
    pub metalink: Option<String>,
}

impl Links {
    /// Read the values of all `Link:` headers of an answer.
    pub fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let mut duplicates = Vec::new();
        let mut metalink = None;
        for link in headers.flat_map(links) {
            if link.has("rel", "duplicate") {
                let priority = link.value("pri").and_then(|text| text.parse().ok()).unwrap_or(NO_PRIORITY);
                duplicates.push((priority, link.target));
            } else if link.has("rel", "describedby") && link.has("type", METALINK) {
                metalink.get_or_insert(link.target);
            }
        }
        duplicates.sort_by_key(|(priority, _)| *priority);
        let duplicates = duplicates.into_iter().take(MOST).map(|(_, target)| target.to_owned()).collect();
        Self { duplicates, metalink: metalink.map(str::to_owned) }
    }
}

/// `<target>; name=value; name="value"`
struct Link<'a> {
    target: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Link<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// True where the value of `name`, a list of words, has `word`.
    fn has(&self, name: &str, word: &str) -> bool {
        self.value(name).is_some_and(|value| value.split(' ').any(|one| one.eq_ignore_ascii_case(word)))
    }
}

/// The links of one header; what makes no sense ends it.
fn links(mut header: &str) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    while let Some((target, rest)) = next(header) {
        let mut parameters = Vec::new();
        let mut rest = rest.trim_start();
        while let Some(after) = rest.strip_prefix(';') {
            let (name, value, after) = parameter(after.trim_start());
            parameters.push((name, value));
            rest = after.trim_start();
        }
        links.push(Link { target, parameters });
        header = rest;
    }
    links
}

fn next(header: &str) -> Option<(&str, &str)> {
    header.trim_start_matches([',', ' ', '\t']).strip_prefix('<')?.split_once('>')
}

/// The name and value at the beginning of `text`, and what comes after them.
fn parameter(text: &str) -> (&str, &str, &str) {
    let end = text.find(['=', ';', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let Some(value) = rest.strip_prefix('=') else { return (name.trim(), "", rest) };
    if let Some((quoted, rest)) = value.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
        return (name.trim(), quoted, rest);
    }
    let end = value.find([';', ',']).unwrap_or(value.len());
    let (value, rest) = value.split_at(end);
    (name.trim(), value.trim(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mirrors_and_the_metalink_are_read() {
        // As MirrorBrain writes them.
        let headers = [
            "<http://download.example/x.iso.meta4>; rel=describedby; type=\"application/metalink4+xml\"",
            "<http://b.example/x.iso>; rel=duplicate; pri=2; geo=de, <http://a.example/x,y.iso>; rel=\"duplicate\"; pri=1; geo=fr",
            "<http://c.example/x.iso>; rel=duplicate",
            "<x.iso.asc>; rel=describedby; type=\"application/pgp-signature\"",
        ];
        let links = Links::parse(headers.into_iter());
        let mirrors = ["http://a.example/x,y.iso", "http://b.example/x.iso", "http://c.example/x.iso"];
        assert_eq!(links.duplicates, mirrors);
        assert_eq!(links.metalink.as_deref(), Some("http://download.example/x.iso.meta4"));
    }

    #[test]
    fn other_links_say_nothing() {
        assert_eq!(
            Links::parse(["</style.css>; rel=preload; as=style", "nonsense"].into_iter()),
            Links::default()
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>;=,\" a-z]{0,60}") {
            let _ = Links::parse([text.as_str(), "<a>; rel=duplicate"].into_iter());
        }
    }
}
