//! Router advertisements (RFC 4861, 4.2; name servers: RFC 8106), as far as the kernel does not act
//! on them by itself: it makes addresses and routes of them, but leaves names to programs. Pure.

use crate::net::dhcp6::names;
use std::net::Ipv6Addr;

/// An ICMPv6 message of this type asks for one, and of that type is one.
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

/// A request for an advertisement; the kernel adds the checksum.
pub const SOLICIT: [u8; 8] = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];

/// What a router says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advert {
    /// Addresses are to be had by DHCPv6.
    pub managed: bool,
    /// Other things are.
    pub other: bool,
    /// Name servers.
    pub nameservers: Vec<Ipv6Addr>,
    /// Domains to complete short names with.
    pub search: Vec<String>,
}

impl Advert {
    /// What another router of the link says beside this.
    pub fn merge(&mut self, other: Self) {
        self.managed |= other.managed;
        self.other |= other.other;
        for server in other.nameservers {
            if !self.nameservers.contains(&server) {
                self.nameservers.push(server);
            }
        }
        for domain in other.search {
            if !self.search.contains(&domain) {
                self.search.push(domain);
            }
        }
    }

    /// Read the ICMPv6 message `bytes`; `None` for anything else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        const SERVERS: u8 = 25;
        const DOMAINS: u8 = 31;
        let (head, mut options) = bytes.split_at_checked(16)?;
        if head[0] != ADVERTISEMENT || head[1] != 0 {
            return None;
        }
        let mut advert = Self { managed: head[5] & 0x80 != 0, other: head[5] & 0x40 != 0, ..Self::default() };
        // Type, length in eights of bytes, and then two reserved bytes and a lifetime.
        while let [kind, eights, _, _, lifetime @ ..] = options
            && *eights > 0
        {
            // Nothing lives as long as that: it is withdrawn.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn name_servers_and_flags_are_read() {
        // As dnsmasq 2.90 sends it with --enable-ra and ra-stateless, and a server of our own.
        let mut advert = vec![134, 0, 0, 0, 64, 0x40, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advert.extend_from_slice(&[1, 1, 0x52, 0x54, 0, 1, 2, 3]); // the router's card
        advert.extend_from_slice(&[25, 3, 0, 0, 0, 0, 7, 8]);
        advert.extend_from_slice(&"fd00::53".parse::<Ipv6Addr>().unwrap().octets());
        advert.extend_from_slice(&[31, 3, 0, 0, 0, 0, 7, 8]);
        advert.extend_from_slice(b"\x07example\x03org\0\0\0\0");
        let advert = Advert::parse(&advert).unwrap();
        assert_eq!((advert.managed, advert.other), (false, true));
        assert_eq!(advert.nameservers, ["fd00::53".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(advert.search, ["example.org"]);
        assert_eq!(Advert::parse(&SOLICIT), None);

        let mut withdrawn =
            vec![134, 0, 0, 0, 64, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 25, 3, 0, 0, 0, 0, 0, 0];
        withdrawn.extend_from_slice(&[1; 16]);
        let other = Advert::parse(&withdrawn).unwrap();
        assert_eq!(other.nameservers, [] as [Ipv6Addr; 0]);
        let mut both = advert.clone();
        both.merge(other);
        both.merge(advert);
        assert_eq!((both.managed, both.other, both.nameservers.len()), (true, true, 1));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = bytes;
            Advert::parse(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = ADVERTISEMENT;
            }
            Advert::parse(&bytes);
        }
    }
}
