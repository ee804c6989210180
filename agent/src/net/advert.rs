//! Router advertisements (RFC 4861, 4.2; name servers: RFC 8106): the part of them that the kernel leaves to
//! programs. It makes addresses and routes by itself. No I/O.

use crate::net::dhcp6::names;
use std::net::Ipv6Addr;

/// The ICMPv6 types of a solicitation and of an advertisement.
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

/// A solicitation, to which routers answer by an advertisement. The kernel fills in the checksum.
pub(super) const SOLICIT: [u8; 8] = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];

/// The most name servers, and the most domains, that are kept. RFC 8106 (5.3.1) asks for three at least;
/// without a limit a flood of advertisements would fill the memory.
const MOST: usize = 16;

/// The contents of one advertisement, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advert {
    /// Addresses come by DHCPv6.
    pub managed: bool,
    /// Other settings come by DHCPv6, such as name servers.
    pub other: bool,
    pub nameservers: Vec<Ipv6Addr>,
    /// Domains to complete short names with.
    pub search: Vec<String>,
}

impl Advert {
    /// Adds the contents of another advertisement, by this router or another one of the link.
    pub(super) fn merge(&mut self, other: Self) {
        self.managed |= other.managed;
        self.other |= other.other;
        add_new(&mut self.nameservers, other.nameservers);
        add_new(&mut self.search, other.search);
    }

    /// Parses an ICMPv6 message; `None` if it is no advertisement.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        const SERVERS: u8 = 25;
        const DOMAINS: u8 = 31;
        let (head, mut options) = bytes.split_at_checked(16)?;
        if head[0] != ADVERTISEMENT || head[1] != 0 {
            return None;
        }

        let mut advert = Self { managed: head[5] & 0x80 != 0, other: head[5] & 0x40 != 0, ..Self::default() };
        // Each option has a type, its length in units of eight bytes, two reserved bytes, and a lifetime.
        while let [kind, eights, _, _, lifetime @ ..] = options
            && *eights > 0
        {
            // A lifetime of zero withdraws the option's contents (RFC 8106, 5.1).
            let is_withdrawn = lifetime.starts_with(&[0; 4]);
            let Some((option, rest)) = options.split_at_checked(usize::from(*eights) * 8) else { break };
            options = rest;
            let value = option.get(8..).unwrap_or_default();
            match *kind {
                _ if is_withdrawn && matches!(*kind, SERVERS | DOMAINS) => {}
                SERVERS => {
                    let servers = value.chunks_exact(16).filter_map(|bytes| <[u8; 16]>::try_from(bytes).ok());
                    advert.nameservers.extend(servers.map(Ipv6Addr::from));
                }
                DOMAINS => advert.search.extend(names(value)),
                _ => {}
            }
        }
        Some(advert)
    }
}

/// Adds those of `new` that `all` lacks, up to [`MOST`].
fn add_new<T: PartialEq>(all: &mut Vec<T>, new: Vec<T>) {
    for item in new {
        if all.len() < MOST && !all.contains(&item) {
            all.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An advertisement as dnsmasq 2.90 sends it with --enable-ra and ra-stateless, and with a name server.
    fn stateless() -> Advert {
        let mut bytes = vec![134, 0, 0, 0, 64, 0x40, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&[1, 1, 0x52, 0x54, 0, 1, 2, 3]); // the router's card
        bytes.extend_from_slice(&[25, 3, 0, 0, 0, 0, 7, 8]);
        bytes.extend_from_slice(&"fd00::53".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend_from_slice(&[31, 3, 0, 0, 0, 0, 7, 8]);
        bytes.extend_from_slice(b"\x07example\x03org\0\0\0\0");
        Advert::parse(&bytes).unwrap()
    }

    /// An advertisement has flags, name servers and domains. Other messages are ignored.
    #[test]
    fn adverts_are_read() {
        let advert = stateless();
        assert_eq!((advert.managed, advert.other), (false, true));
        assert_eq!(advert.nameservers, ["fd00::53".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(advert.search, ["example.org"]);
        assert_eq!(Advert::parse(&SOLICIT), None);
    }

    /// A name server with a lifetime of zero is none.
    #[test]
    fn withdrawn_servers_are_left_out() {
        let mut bytes = vec![134, 0, 0, 0, 64, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 25, 3, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&[1; 16]);
        let advert = Advert::parse(&bytes).unwrap();
        assert_eq!(advert.nameservers, [] as [Ipv6Addr; 0]);

        let mut both = stateless();
        both.merge(advert);
        both.merge(stateless());
        assert_eq!((both.managed, both.other, both.nameservers.len()), (true, true, 1));
    }

    /// A flood of advertisements, each with other servers and domains, does not fill the memory.
    #[test]
    fn floods_are_bounded() {
        let mut all = Advert::default();
        for n in 0..1000_u16 {
            let server = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
            all.merge(Advert { nameservers: vec![server], search: vec![n.to_string()], ..Advert::default() });
        }
        assert_eq!((all.nameservers.len(), all.search.len()), (MOST, MOST));
    }

    proptest! {
        /// No message makes the parser panic.
        #[test]
        fn parses_anything(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = bytes;
            Advert::parse(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = ADVERTISEMENT;
            }
            Advert::parse(&bytes);
        }
    }
}
