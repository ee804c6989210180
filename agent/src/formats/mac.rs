//! The hardware address of a network card (EUI-48).

use std::fmt;

/// Six bytes, as they stand in an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The bytes in the order in which they are sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last four bytes: the three that the maker of the card assigns, and one more. They identify a card.
    pub fn last_four(self) -> [u8; 4] {
        let [_, _, tail @ ..] = self.0;
        tail
    }

    /// Parses six hexadecimal bytes of two digits each, separated by `separator`.
    pub fn parse(text: &str, separator: char) -> Option<Self> {
        let bytes: Vec<u8> = text
            .split(separator)
            .map(|byte| {
                // from_str_radix takes a sign, too.
                let is_hex = byte.len() == 2 && byte.chars().all(|digit| digit.is_ascii_hexdigit());
                u8::from_str_radix(byte, 16).ok().filter(|_| is_hex)
            })
            .collect::<Option<_>>()?;
        bytes.try_into().ok().map(Self)
    }
}

/// `52:54:00:12:34:56`
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address is read with the separator that its source uses, and written with colons.
    #[test]
    fn both_notations() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xff]);
        assert_eq!(Mac::parse("52:54:00:12:34:ff", ':'), Some(mac));
        assert_eq!(Mac::parse("52-54-00-12-34-FF", '-'), Some(mac));
        assert_eq!(mac.to_string(), "52:54:00:12:34:ff");
        for wrong in ["", "52:54:00:12:34", "52:54:00:12:34:ff:00", "5:54:00:12:34:ff", "+2:54:00:12:34:ff"] {
            assert_eq!(Mac::parse(wrong, ':'), None, "{wrong}");
        }
    }
}
