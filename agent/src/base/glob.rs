//! Patterns with wildcards. Pure.
//!
//! [`matches()`] takes shell patterns, as depmod's `modules.alias` and our own tables have them: `*`, `?` and
//! `[a-z]`. [`matches_text`] takes text in which `*` alone is special, for patterns that people make of
//! lines they saw: addresses have `?`, `[` and `]` in them.

/// True if the shell pattern `pattern` takes all of `text`.
pub fn matches(pattern: &str, text: &str) -> bool {
    run(pattern.as_bytes(), text.as_bytes(), shell)
}

/// True if `pattern` takes all of `text`; `*` stands for any text, and every other character for itself.
pub fn matches_text(pattern: &str, text: &str) -> bool {
    run(pattern.as_bytes(), text.as_bytes(), literal)
}

/// The place after the element of a pattern at an index, if that element takes a byte.
type Element = fn(&[u8], usize, u8) -> Option<usize>;

/// Goes back to the last star only: whatever an earlier one could take, the last can take too, so the
/// time is at most the product of both lengths.
fn run(pattern: &[u8], text: &[u8], element: Element) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;

    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
        } else if let Some(next) = element(pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((after_star, from)) = retry {
            p = after_star;
            t = from + 1;
            retry = Some((after_star, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

fn literal(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    (*pattern.get(p)? == byte).then_some(p + 1)
}

/// `?`, a set in brackets, or a literal.
fn shell(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let close = p + 1 + pattern[p + 1..].iter().position(|byte| *byte == b']')?;
            let set = &pattern[p + 1..close];

            let mut at = 0;
            while at < set.len() {
                let (low, high, width) = match set[at..] {
                    [low, b'-', high, ..] => (low, high, 3),
                    [only, ..] => (only, only, 1),
                    [] => return None,
                };
                if (low..=high).contains(&byte) {
                    return Some(close + 1);
                }
                at += width;
            }
            None
        }
        _ => literal(pattern, p, byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn device_aliases_match() {
        assert!(matches("virtio:d00000001v*", "virtio:d00000001v00001AF4"));
        assert!(matches(
            "pci:v00008086d0000100Esv*sd*bc*sc*i*",
            "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00"
        ));
        assert!(matches(
            "usb:v0BDAp8152d*dc*dsc*dp*icFFisc*ip*in*",
            "usb:v0BDAp8152d2000dc00dsc00dp00icFFiscFFip00in00"
        ));
        assert!(matches("x[0-9a]?z", "x7yz"));
        assert!(!matches("x[0-9a]?z", "xbyz"));
        assert!(!matches("virtio:d00000002v*", "virtio:d00000001v00001AF4"));
    }

    #[test]
    fn file_names_match() {
        assert!(matches("vmlinuz*", "vmlinuz-6.1.0-56-amd64"));
        assert!(matches("vmlinuz*", "vmlinuz"));
        assert!(!matches("*.squashfs", "filesystem.squashfs.md5"));
    }

    /// Only `*` is special in a text pattern; a shell pattern would take `[…]` for a set.
    #[test]
    fn addresses_match_themselves() {
        let line = "ip=[fd00::2]/64 netdir=http://[fd00::1]/x.iso?a=b";
        assert!(matches_text(line, line) && !matches(line, line));
        assert!(matches_text("*http://[fd00::1]/*?a=*", line));
        assert!(!matches_text("*/x?iso*", line));
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[a-c*?\\[\\]-]{0,12}", text in "[a-c\\[\\]-]{0,12}") {
            matches(&pattern, &text);
            matches_text(&pattern, &text);
        }

        #[test]
        fn text_without_specials_matches_itself(text in "[a-z0-9.]{0,20}") {
            prop_assert!(matches(&text, &text));
            prop_assert!(matches("*", &text));
        }

        #[test]
        fn every_text_matches_itself(text in "\\PC{0,20}") {
            prop_assert!(matches_text(&text, &text));
        }
    }
}
