//! The catalogue: the entries of a boot menu, as a TOML file. GRUB's, iPXE's and the agent's own menus are
//! made of it; `docs/formats.md` specifies it. Pure.

use crate::formats::cmdline::{self, Word};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use toml_span::de_helpers::TableHelper;
use toml_span::{DeserError, Deserialize, Error, ErrorKind, Span, Spanned, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The time after which a menu boots its first entry by itself; `None`: it waits for ever.
    pub timeout: Option<Duration>,
    /// At least one, each with a name of its own.
    pub entries: Vec<Entry>,
}

/// An entry of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Letters, digits, `.`, `_` and `-`, beginning with a letter or a digit: it becomes a file's name, and an
    /// argument of iPXE's commands.
    pub name: String,
    /// One line, for the menu.
    pub title: String,
    /// The kernel arguments. None of them has a quote without its partner or a control character.
    pub words: Vec<Word>,
}

/// An error in a catalogue.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CatalogueError {
    /// The line's number, from 1.
    pub line: usize,
    /// A sentence without its full stop.
    pub what: String,
}

/// Bytes of a name or a title at most: what fits into a menu on 80 columns.
const LONGEST: usize = 60;

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
    /// Reads the text of a catalogue.
    pub fn decode(text: &str) -> Result<Self, CatalogueError> {
        let failed = |span: Span, what: String| {
            let before = text.get(..span.start).unwrap_or(text);
            CatalogueError { line: 1 + before.matches('\n').count(), what }
        };
        let mut value = toml_span::parse(text).map_err(|error| failed(error.span, sentence(&error)))?;
        let File { timeout, entries } =
            File::deserialize(&mut value).map_err(|error| match error.errors.first() {
                Some(first) => failed(first.span, sentence(first)),
                None => failed(Span::default(), "it is not understood".into()),
            })?;

        if entries.is_empty() {
            return Err(failed(Span::default(), "there is no [[entry]] in it".into()));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = entries.iter().find(|entry| !names.insert(&entry.value.name)) {
            return Err(failed(twice.span, format!("there are two entries called \"{}\"", twice.value.name)));
        }
        Ok(Self { timeout, entries: entries.into_iter().map(|entry| entry.value).collect() })
    }
}

/// A catalogue's file, before its entries are compared.
struct File {
    timeout: Option<Duration>,
    entries: Vec<Spanned<Entry>>,
}

impl<'de> Deserialize<'de> for File {
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
        let mut addresses = Vec::new();
        for (key, argument) in ARGUMENTS {
            let values: Option<Spanned<OneOrMore>> = table.optional_s(key);
            addresses.extend(values.map(|values| (key, argument, values)));
        }
        let arguments: Spanned<String> = table.optional_s("arguments").unwrap_or_default();
        table.finalize(None)?;

        let wrong = |span, what: String| Err(custom(span, format!("entry \"{name}\": {what}")));
        if !is_name(&name) {
            return wrong(
                span,
                "its name has to be of letters, digits, '.', '_' and '-', and begin with a letter or a digit"
                    .into(),
            );
        }
        if title.is_empty() || title.len() > LONGEST || title.contains(char::is_control) {
            return wrong(span, format!("its title has to be one line of at most {LONGEST} bytes"));
        }

        // Every word is whole: whatever a boot loader demands is appended to them, and a quote without its
        // partner would take that for a part of the last one.
        let mut words = Vec::new();
        for (key, argument, Spanned { value: OneOrMore(values), span }) in addresses {
            let text = format!("{argument}={}", values.join(","));
            let is_plain = !text.contains(|c: char| c == '"' || c.is_control());
            match Word::from_text(&text).filter(|_| is_plain) {
                Some(word) => words.push(word),
                None => {
                    return wrong(span, format!("{key} has a quotation mark or a control character in it"));
                }
            }
        }
        if arguments.value.contains(char::is_control) {
            return wrong(arguments.span, "arguments has a line's end or a control character in it".into());
        }
        words.extend(cmdline::words(&arguments.value));
        if words.iter().any(Word::has_open_quote) {
            return wrong(arguments.span, "arguments has a quotation mark without its partner".into());
        }
        Ok(Self { name, title, words })
    }
}

/// `-` at the beginning would be an option of iPXE's `item`, and `.` a hidden file.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= LONGEST && text.chars().all(is_plain)
}

fn custom(span: Span, what: String) -> DeserError {
    DeserError { errors: vec![Error { kind: ErrorKind::Custom(what.into()), span, line_info: None }] }
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
    /// Its kernel arguments, as on a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&cmdline::line(&self.words))
    }
}

fn sentence(error: &Error) -> String {
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
    fn errors_name_the_line() {
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
            ("[[entry]]\nname = \"--key\"\ntitle = \"A\"\n", 1, "entry \"--key\": its name"),
            ("[[entry]]\nname = \".a\"\ntitle = \"A\"\n", 1, "begin with a letter"),
            (
                "[[entry]]\nname = \"a\"\ntitle = \"A\"\n[[entry]]\nname = \"a\"\ntitle = \"A\"\n",
                4,
                "two entries called \"a\"",
            ),
            ("[[entry\n", 1, "expected"),
        ] {
            let error = Catalogue::decode(text).unwrap_err();
            assert!(error.what.contains(words), "{text}: {error}");
            assert_eq!(error.line, line, "{text}: {error}");
        }
    }

    /// No word of an entry can swallow what is appended to it, such as a pin that the boot loader demands.
    #[test]
    fn a_quote_without_its_partner_is_refused() {
        let entry = "[[entry]]\nname = \"a\"\ntitle = \"A\"\n";
        for (line, words) in [
            ("arguments = 'x=\"'", "arguments has a quotation mark without its partner"),
            ("arguments = \"a\\nb\"", "arguments has a line's end"),
            ("arguments = \"a\\tb\"", "arguments has a line's end or a control character"),
            ("netdir = 'http://h/x\"'", "netdir has a quotation mark"),
            ("netdir = ['http://h/x', 'http://h/\"y z\"']", "netdir has a quotation mark"),
            ("pin = \"sha256:0\\n0\"", "pin has a quotation mark or a control character"),
        ] {
            let error = Catalogue::decode(&format!("{entry}{line}\n")).unwrap_err();
            assert_eq!(error.line, 4, "{error}");
            assert!(error.what.starts_with("entry \"a\": ") && error.what.contains(words), "{error}");
        }
        let good = Catalogue::decode(&format!("{entry}arguments = 'x=\"a b\"'\n")).unwrap();
        assert_eq!(good.entries[0].words[0].value.as_deref(), Some("a b"));
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

        #[test]
        fn no_entry_swallows_what_follows(key in "netdir|pin|arguments", value in "[a-c=\" ]{0,12}") {
            let text = format!("[[entry]]\nname = 'a'\ntitle = 'A'\n{key} = '{value}'\n");
            if let Ok(catalogue) = Catalogue::decode(&text) {
                let line = format!("{} inetboot.tpm=require", catalogue.entries[0]);
                let last = cmdline::words(&line).pop().unwrap();
                prop_assert_eq!(last.raw, "inetboot.tpm=require");
            }
        }
    }
}
