//! The catalogue: what there is to boot, as a TOML file that GRUB's, iPXE's and the agent's own menus
//! are made of (its format is in `docs/formats.md`). Pure.

use crate::formats::cmdline;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use toml_span::de_helpers::TableHelper;
use toml_span::{DeserError, Deserialize, Error, ErrorKind, Value};

/// What there is to boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// How long a menu waits before it boots the first entry; `None`: until somebody chooses.
    pub timeout: Option<Duration>,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// One thing to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Letters, digits, `.`, `_` and `-`: the name of its file, where it has one.
    pub name: String,
    /// What people see.
    pub title: String,
    /// The kernel arguments, as they are written on the command line.
    pub words: Vec<String>,
}

/// Why a catalogue cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CatalogueError {
    /// Where.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

/// The keys of an entry that are kernel arguments, in the order in which they are written.
const ARGUMENTS: [(&str, &str); 7] = [
    ("netdir", "netdir"),
    ("kernel", "kernel"),
    ("initrd", "initrd"),
    ("type", "type"),
    ("index", "inetboot.index"),
    ("pin", "inetboot.pin"),
    ("key", "inetboot.key"),
];

impl Catalogue {
    /// Read what is in a catalogue's file.
    pub fn decode(text: &str) -> Result<Self, CatalogueError> {
        let at = |offset: usize| 1 + text.get(..offset).unwrap_or(text).matches('\n').count();
        let failed = |error: &Error| CatalogueError { line: at(error.span.start), what: said(error) };
        let mut value = toml_span::parse(text).map_err(|error| failed(&error))?;
        let catalogue = Self::deserialize(&mut value).map_err(|error| match error.errors.first() {
            Some(first) => failed(first),
            None => CatalogueError { line: 1, what: "it is not understood".into() },
        })?;
        let mut names = BTreeSet::new();
        let what = match catalogue.entries.iter().find(|entry| !names.insert(&entry.name)) {
            Some(twice) => format!("there are two entries called \"{}\"", twice.name),
            None if catalogue.entries.is_empty() => "there is no [[entry]] in it".into(),
            None => return Ok(catalogue),
        };
        Err(CatalogueError { line: 1, what })
    }
}

impl<'de> Deserialize<'de> for Catalogue {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let mut table = TableHelper::new(value)?;
        let seconds: Option<u32> = table.optional("timeout");
        let entries = table.optional("entry").unwrap_or_default();
        table.finalize(None)?;
        Ok(Self { timeout: seconds.map(|seconds| Duration::from_secs(seconds.into())), entries })
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        let span = value.span;
        let mut table = TableHelper::new(value)?;
        let name: String = table.required("name").unwrap_or_default();
        let title: String = table.required("title").unwrap_or_default();
        let mut words = Vec::new();
        for (key, argument) in ARGUMENTS {
            let values = table.optional::<OneOrMore>(key).map(|OneOrMore(values)| values.join(","));
            words.extend(values.map(|value| quoted(&format!("{argument}={value}"))));
        }
        let arguments: Option<String> = table.optional("arguments");
        table.finalize(None)?;
        words.extend(cmdline::words(&arguments.unwrap_or_default()).iter().map(ToString::to_string));
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fits = |text: &str| !text.is_empty() && text.len() <= 60 && !text.contains(char::is_control);
        let wrong = if !fits(&name) || !name.chars().all(is_name) || name.starts_with('.') {
            Some("name has to be of letters, digits, '.', '_' and '-'")
        } else if !fits(&title) {
            Some("title has to be one line of at most 60 bytes")
        } else if words.iter().any(|word| word.contains(char::is_control)) {
            Some("an argument has a line's end in it")
        } else {
            None
        };
        match wrong {
            None => Ok(Self { name, title, words }),
            Some(why) => {
                let kind = ErrorKind::Custom(why.into());
                Err(DeserError { errors: vec![Error { kind, span, line_info: None }] })
            }
        }
    }
}

/// `"a"`, or `["a", "b"]`.
struct OneOrMore(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize(value: &mut Value<'de>) -> Result<Self, DeserError> {
        match value.as_array() {
            Some(_) => Vec::deserialize(value).map(Self),
            None => String::deserialize(value).map(|one| Self(vec![one])),
        }
    }
}

impl fmt::Display for Entry {
    /// Its words, as on a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// As the kernel wants a word with blanks in it.
fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("\"{word}\"") } else { word.to_owned() }
}

fn said(error: &Error) -> String {
    match &error.kind {
        ErrorKind::UnexpectedKeys { keys, expected } => {
            let keys: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
            format!("there is no key {}; there are {}", keys.join(", "), expected.join(", "))
        }
        ErrorKind::MissingField(field) => format!("{field} is missing"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_a_line_of_kernel_arguments() {
        let text = r#"
            timeout = 20
            [[entry]]
            name = "debian"
            title = "Debian live"
            netdir = ["http://a/x.iso", "http://b/x.iso"]
            type = "debian"
            pin = "sha256:00"
            arguments = 'quiet inetboot.xen="dom0_mem=1G smap=0"'
            [[entry]]
            name = "inst-12"
            title = "Debian's installer"
            kernel = "http://a/linux"
            initrd = "http://a/initrd.gz"
        "#;
        let catalogue = Catalogue::decode(text).unwrap();
        assert_eq!(catalogue.timeout, Some(Duration::from_secs(20)));
        let words: Vec<String> = catalogue.entries.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "netdir=http://a/x.iso,http://b/x.iso type=debian inetboot.pin=sha256:00 quiet \
                 inetboot.xen=\"dom0_mem=1G smap=0\"",
                "kernel=http://a/linux initrd=http://a/initrd.gz",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, words) in [
            ("", 1, "there is no [[entry]]"),
            ("timeout = \"soon\"\n", 1, "expected"),
            ("[[entry]]\nname = \"a\"\n", 1, "title is missing"),
            (
                "\n[[entry]]\nname = \"a\"\ntitle = \"A\"\nurl = \"http://a/\"\n",
                2,
                "there is no key url; there are name, title, netdir",
            ),
            ("[[entry]]\nname = \"a/b\"\ntitle = \"A\"\n", 1, "letters, digits"),
            (
                "[[entry]]\nname = \"a\"\ntitle = \"A\"\n[[entry]]\nname = \"a\"\ntitle = \"A\"\n",
                1,
                "two entries called \"a\"",
            ),
            ("[[entry\n", 1, "expected"),
        ] {
            let error = Catalogue::decode(text).unwrap_err();
            assert!(error.what.contains(words), "{text}: {error}");
            assert_eq!(error.line, line, "{text}: {error}");
        }
    }

    #[test]
    fn the_catalogue_in_the_tree_has_ten_entries_that_can_be_booted() {
        let catalogue = Catalogue::decode(include_str!("../../../grub/catalogue.toml")).unwrap();
        assert!(catalogue.entries.len() >= 10);
        for entry in &catalogue.entries {
            Config::parse(&cmdline::words(&entry.to_string()))
                .unwrap_or_else(|error| panic!("{}: {error}", entry.name));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = Catalogue::decode(&text);
        }
    }
}
