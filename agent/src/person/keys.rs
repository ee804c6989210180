//! What a person pressed, from the bytes of a terminal (ECMA-48, and what xterm and Linux's console
//! send). Pure.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The arrow, or `k` in menus.
    Up,
    /// The arrow.
    Down,
    /// The arrow.
    Left,
    /// The arrow.
    Right,
    /// To the first.
    Home,
    /// To the last.
    End,
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// What is before the cursor goes.
    Backspace,
    /// What is at the cursor goes.
    Delete,
    /// Ctrl-U: all goes.
    Clear,
    /// Anything that can be written into an address.
    Char(char),
}

const ESCAPE: u8 = 0x1b;

/// What follows an escape, and the key that it is.
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

/// No sequence is longer; what is, is none of ours.
const LONGEST: usize = 8;

/// The keys in a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
pub struct Keys {
    /// The beginning of a sequence.
    begun: Vec<u8>,
}

impl Keys {
    /// The keys that `bytes` complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    /// Nothing followed for a while: an escape that began nothing was the key.
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
        // A sequence of ECMA-48 ends with its first letter or `~`, but for what introduces it.
        let is_over = inside.len() > 1 && (byte.is_ascii_alphabetic() || byte == b'~');
        let is_none = !matches!(inside[0], b'[' | b'O') || inside.len() > LONGEST;
        if found.is_some() || is_over || is_none {
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
    fn arrows_and_letters_are_told_apart_however_they_arrive() {
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"\x1b[A\x1bOBe\r"), [Key::Up, Key::Down, Key::Char('e'), Key::Enter]);
        assert_eq!(keys.feed(b"\x1b"), []);
        assert_eq!(keys.feed(b"[3"), []);
        assert_eq!(keys.pause(), None, "half a sequence is no key");
        assert_eq!(keys.feed(b"\x1b[3~\x7f"), [Key::Delete, Key::Backspace]);
    }

    #[test]
    fn an_escape_alone_is_a_key_once_nothing_follows() {
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"\x1b"), []);
        assert_eq!(keys.pause(), Some(Key::Escape));
        assert_eq!(keys.pause(), None);
        assert_eq!(keys.feed(b"\x1b[15~x"), [Key::Char('x')], "a function key is nothing to us");
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_state_that_reads_on(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut keys = Keys::default();
            keys.feed(&bytes);
            keys.pause();
            prop_assert_eq!(keys.feed(b"\x1b[A"), [Key::Up]);
        }
    }
}
