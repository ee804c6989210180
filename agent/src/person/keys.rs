//! Keys, from the bytes of a terminal: ECMA-48, and the sequences of xterm and of Linux's console. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Up,
    Down,
    Left,
    Right,
    /// The key, or Ctrl-A.
    Home,
    /// The key, or Ctrl-E.
    End,
    Enter,
    Escape,
    /// Deletes the letter before the cursor.
    Backspace,
    /// Deletes the letter at the cursor.
    Delete,
    /// Ctrl-U, which deletes the whole text.
    Clear,
    /// A printable ASCII character.
    Char(char),
}

const ESCAPE: u8 = 0x1b;

/// The bytes after an escape, and the key that they stand for.
const SEQUENCES: [(&[u8], Key); 15] = [
    (b"[A", Key::Up),
    (b"[B", Key::Down),
    (b"[C", Key::Right),
    (b"[D", Key::Left),
    (b"[H", Key::Home),
    (b"[F", Key::End),
    (b"OA", Key::Up),
    (b"OB", Key::Down),
    (b"OC", Key::Right),
    (b"OD", Key::Left),
    (b"OH", Key::Home),
    (b"OF", Key::End),
    (b"[1~", Key::Home),
    (b"[4~", Key::End),
    (b"[3~", Key::Delete),
];

/// Bytes after which a sequence is given up.
const LONGEST: usize = 8;

/// Decodes a stream of bytes that arrives in parts.
#[derive(Debug, Default)]
pub struct Keys {
    /// The beginning of a sequence, its escape included.
    begun: Vec<u8>,
}

impl Keys {
    /// The keys that `bytes` complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    /// To be called when nothing followed for a while: an escape that began no sequence was the key.
    pub fn pause(&mut self) -> Option<Key> {
        let begun = std::mem::take(&mut self.begun);
        (begun == [ESCAPE]).then_some(Key::Escape)
    }

    fn byte(&mut self, byte: u8) -> Option<Key> {
        if byte == ESCAPE {
            let before = self.pause();
            self.begun.push(byte);
            return before;
        }
        if self.begun.is_empty() {
            return plain(byte);
        }

        self.begun.push(byte);
        let inside = &self.begun[1..];
        let found = SEQUENCES.iter().find(|(sequence, _)| *sequence == inside).map(|(_, key)| *key);
        // A sequence of ECMA-48 ends with its first letter or `~` after the one that introduces it.
        let is_over = inside.len() > 1 && (byte.is_ascii_alphabetic() || byte == b'~');
        let is_unknown = !matches!(inside[0], b'[' | b'O') || inside.len() > LONGEST;
        if found.is_some() || is_over || is_unknown {
            self.begun.clear();
        }
        found
    }
}

fn plain(byte: u8) -> Option<Key> {
    match byte {
        b'\r' | b'\n' => Some(Key::Enter),
        0x08 | 0x7f => Some(Key::Backspace),
        0x01 => Some(Key::Home),
        0x05 => Some(Key::End),
        0x15 => Some(Key::Clear),
        b' '..=b'~' => Some(Key::Char(byte.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_arrive_in_parts() {
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"\x1b[A\x1bOBe\r"), [Key::Up, Key::Down, Key::Char('e'), Key::Enter]);
        assert_eq!(keys.feed(b"\x1b"), []);
        assert_eq!(keys.feed(b"[3"), []);
        assert_eq!(keys.pause(), None, "half a sequence is no key");
        assert_eq!(keys.feed(b"\x1b[3~\x7f"), [Key::Delete, Key::Backspace]);
    }

    #[test]
    fn an_escape_alone_is_a_key() {
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"\x1b"), []);
        assert_eq!(keys.pause(), Some(Key::Escape));
        assert_eq!(keys.pause(), None);
        assert_eq!(keys.feed(b"\x1b[15~x"), [Key::Char('x')], "a function key is nothing to us");
    }

    proptest! {
        #[test]
        fn a_pause_ends_any_sequence(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut keys = Keys::default();
            keys.feed(&bytes);
            keys.pause();
            prop_assert_eq!(keys.feed(b"\x1b[A"), [Key::Up]);
        }
    }
}
