//! The words of a kernel command line, split and unquoted as the kernel does it (`next_arg` in
//! `lib/cmdline.c`). `config/arguments.rs` gives them their meaning.

use std::fmt;

/// One word of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word as it was written, with its quotes, to be passed on unchanged.
    pub raw: String,
    /// The part before the first `=`, without quotes.
    pub key: String,
    /// The part after it, without quotes; `None` where there is no `=`.
    pub value: Option<String>,
}

impl Word {
    /// The word for `text`, in quotes if blanks would split it. `None` if the kernel cannot read the text as one
    /// word: it knows no escapes.
    pub fn from_text(text: &str) -> Option<Self> {
        let raw = match text.contains('"') {
            false if text.contains(|c: char| c.is_ascii_whitespace()) => format!("\"{text}\""),
            _ => text.to_owned(),
        };
        match words(&raw).as_slice() {
            [word] if word.raw == raw && !word.has_open_quote() => Some(word.clone()),
            _ => None,
        }
    }

    fn parse(raw: &str) -> Self {
        let whole = unquote(raw);
        let (key, value) = match whole.split_once('=') {
            None => (whole, None),
            Some((key, value)) => (key, Some(unquote(value).to_owned())),
        };
        Self { raw: raw.to_owned(), key: key.to_owned(), value }
    }

    /// True if a quote is opened and not closed. The kernel takes all that follows for a part of such a word, so
    /// it must not stand before others.
    pub fn has_open_quote(&self) -> bool {
        has_open_quote(&self.raw)
    }
}

/// The same of a word that was not parsed.
pub fn has_open_quote(word: &str) -> bool {
    word.matches('"').count() % 2 == 1
}

/// Removes quotes that enclose the whole text. The kernel keeps inner ones.
fn unquote(text: &str) -> &str {
    text.strip_prefix('"').map_or(text, |inner| inner.strip_suffix('"').unwrap_or(inner))
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

/// Splits `line` at blanks that are not inside double quotes.
pub fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                word.push(character);
            }
            c if c.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(Word::parse(&word));
                    word.clear();
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(Word::parse(&word));
    }
    words
}

/// Joins `words` by blanks. No word but the last may have an open quote.
pub fn line<'a>(words: impl IntoIterator<Item = &'a Word>) -> String {
    words.into_iter().map(|word| word.raw.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys_and_values(line: &str) -> Vec<(String, Option<String>)> {
        words(line).into_iter().map(|w| (w.key, w.value)).collect()
    }

    /// Blanks inside quotes do not split, and the quotes go.
    #[test]
    fn quotes() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            keys_and_values("quiet  a=b c=\"d e\" \"f=g h\" i= j=k=l\n"),
            [
                ("quiet".into(), None),
                ("a".into(), some("b")),
                ("c".into(), some("d e")),
                ("f".into(), some("g h")),
                ("i".into(), some("")),
                ("j".into(), some("k=l")),
            ]
        );
    }

    /// Words are passed on as they were written.
    #[test]
    fn raw_words() {
        let line = "dyndbg=\"file x.c +p\" splash";
        let raw: Vec<String> = words(line).iter().map(Word::to_string).collect();
        assert_eq!(raw.join(" "), line);
    }

    /// A text is one word or is refused; it never becomes two, and never swallows the next.
    #[test]
    fn words_from_text() {
        let raw = |text: &str| Word::from_text(text).map(|word| word.raw);
        assert_eq!(raw("quiet").as_deref(), Some("quiet"));
        assert_eq!(raw("a=b c").as_deref(), Some("\"a=b c\""));
        assert_eq!(raw("dyndbg=\"file x +p\"").as_deref(), Some("dyndbg=\"file x +p\""));
        for text in ["", "x=\"", "a \"b\"", "a=\"b\" c"] {
            assert_eq!(raw(text), None, "{text}");
        }
    }

    proptest! {
        /// A word that was made from a text does not swallow the word behind it.
        #[test]
        fn neighbours(text in "[a-c=\" ]{0,12}") {
            if let Some(word) = Word::from_text(&text) {
                let line = format!("{word} demanded");
                prop_assert_eq!(words(&line).len(), 2);
            }
        }

        /// Split and joined again, a line has the same words.
        #[test]
        fn split_and_join(line in "[ -~]{0,200}") {
            let joined = words(&line).iter().map(Word::to_string).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&joined), words(&line));
        }
    }
}
