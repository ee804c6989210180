//! The DHCPv6 conversation (RFC 8415) as a state machine over bytes, like [`dhcp`](crate::net::dhcp): without
//! sockets or a clock of its own. One client, one card, one address.
//!
//! The messages are encoded and decoded here. dhcproto's code for them is larger than this file, and panics
//! on lengths that it does not expect.

use crate::formats::lease::{Grant6, Lease6};
use crate::formats::mac::Mac;
use crate::net::dhcp::PAUSES;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// Requests for one offer, before another server is searched.
const REQUESTS: usize = 3;

// Messages (RFC 8415, 7.3).
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const INFORMATION: u8 = 11;

// Options (RFC 8415, 21; RFC 3646).
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const WANTED: u16 = 6;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const NAME_SERVERS: u16 = 23;
const SEARCH: u16 = 24;

/// The status by which a server says that it does not know the address (RFC 8415, 21.13).
const NO_BINDING: u16 = 3;

/// The wish of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// An address, name servers and domains.
    Address,
    /// Name servers and domains alone: the address comes from a router's prefix.
    Information,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Soliciting,
    Requesting {
        server: Vec<u8>,
        address: Ipv6Addr,
    },
    /// Asks for more time: `server`, or any without one (RENEW and REBIND).
    Renewing {
        server: Option<Vec<u8>>,
        address: Ipv6Addr,
    },
    Informing,
}

/// One client's conversation with all DHCPv6 servers of a link.
#[derive(Debug)]
pub struct Conversation6 {
    mac: Mac,
    xid: [u8; 3],
    state: State,
    started: Instant,
    /// The time of the next message.
    next: Instant,
    /// Messages sent in this state.
    sent: usize,
}

impl Conversation6 {
    /// Begins a conversation for the card `mac`. `xid` should differ between cards and boots.
    pub fn new(mac: Mac, xid: u32, ask: Ask, now: Instant) -> Self {
        let state = match ask {
            Ask::Address => State::Soliciting,
            Ask::Information => State::Informing,
        };
        let [_, xid @ ..] = xid.to_be_bytes();
        Self { mac, xid, state, started: now, next: now, sent: 0 }
    }

    /// Begins a conversation for more time for `address`. Without a `server`, any may grant it.
    pub(super) fn renewal(
        mac: Mac,
        xid: u32,
        address: Ipv6Addr,
        server: Option<&[u8]>,
        now: Instant,
    ) -> Self {
        let state = State::Renewing { server: server.map(<[u8]>::to_vec), address };
        Self { state, ..Self::new(mac, xid, Ask::Address, now) }
    }

    /// The message that is due, if any: the payload of a UDP datagram to port 547.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        if matches!(self.state, State::Requesting { .. }) && self.sent >= REQUESTS {
            self.state = State::Soliciting;
            self.sent = 0;
        }
        self.next = now + PAUSES[self.sent.min(PAUSES.len() - 1)];
        self.sent += 1;
        Some(self.message(now))
    }

    fn message(&self, now: Instant) -> Vec<u8> {
        let (kind, server, address) = match &self.state {
            State::Soliciting => (SOLICIT, None, Some(None)),
            State::Requesting { server, address } => (REQUEST, Some(server), Some(Some(address))),
            State::Renewing { server: Some(server), address } => (RENEW, Some(server), Some(Some(address))),
            State::Renewing { server: None, address } => (REBIND, None, Some(Some(address))),
            State::Informing => (INFORMATION, None, None),
        };

        let mut message = vec![kind];
        message.extend_from_slice(&self.xid);
        option(&mut message, CLIENT_ID, &self.client_id());
        if let Some(server) = server {
            option(&mut message, SERVER_ID, server);
        }

        let hundredths = now.duration_since(self.started).as_millis() / 10;
        option(&mut message, ELAPSED, &(hundredths.min(0xffff) as u16).to_be_bytes());
        option(&mut message, WANTED, &[NAME_SERVERS.to_be_bytes(), SEARCH.to_be_bytes()].concat());

        if let Some(address) = address {
            let mut association = [self.association().as_slice(), &[0; 8]].concat();
            if let Some(address) = address {
                option(&mut association, IA_ADDRESS, &[address.octets().as_slice(), &[0; 8]].concat());
            }
            option(&mut message, IA_NA, &association);
        }
        message
    }

    /// A DUID of type 3, by the card's Ethernet address (RFC 8415, 11.4).
    fn client_id(&self) -> Vec<u8> {
        [&[0, 3, 0, 1], self.mac.bytes()].concat()
    }

    /// The identifier of our only address association.
    fn association(&self) -> [u8; 4] {
        self.mac.last_four()
    }

    /// Takes a message that arrived on port 546. Gives the lease if it grants one. Messages that are no
    /// answer to this conversation are ignored.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Option<Lease6> {
        let (kind, rest) = bytes.split_first()?;
        let options = rest.strip_prefix(self.xid.as_slice())?;
        if find(options, CLIENT_ID) != Some(self.client_id().as_slice()) {
            return None;
        }
        let server = find(options, SERVER_ID)?.to_vec();

        if let State::Renewing { address, .. } = self.state
            && *kind == REPLY
            && self.refusal(options) == Some(NO_BINDING)
        {
            // The server has forgotten the lease, and is asked for it anew (RFC 8415, 18.2.10.1).
            self.state = State::Requesting { server, address };
            self.sent = 0;
            self.next = now;
            return None;
        }

        let granted = self.granted(options, &server);
        match (kind, &self.state) {
            (&ADVERTISE, State::Soliciting) => {
                let (address, _) = granted?;
                self.state = State::Requesting { server, address };
                self.sent = 0;
                self.next = now;
                None
            }
            (&REPLY, State::Requesting { .. } | State::Renewing { .. }) => {
                let (address, grant) = granted?;
                // The prefix of the network comes from routers, not from DHCPv6.
                Some(Lease6 { address: Some((address, 128)), grant: Some(grant), ..information(options) })
            }
            (&REPLY, State::Informing) => Some(information(options)),
            _ => None,
        }
    }

    /// The status by which the server refuses an address, if it does.
    fn refusal(&self, options: &[u8]) -> Option<u16> {
        let inner = find(options, IA_NA)?.strip_prefix(self.association().as_slice())?.get(8..)?;
        let status = find(inner, STATUS).or_else(|| find(options, STATUS))?;
        Some(u16::from_be_bytes(status.get(..2)?.try_into().ok()?)).filter(|code| *code != 0)
    }

    /// The address that the server grants, with its terms; `None` if it refuses.
    fn granted(&self, options: &[u8], server: &[u8]) -> Option<(Ipv6Addr, Grant6)> {
        let refuses =
            |options: &[u8]| find(options, STATUS).is_some_and(|status| !status.starts_with(&[0, 0]));
        let association = find(options, IA_NA)?.strip_prefix(self.association().as_slice())?;
        let (times, inner) = association.split_at_checked(8)?;
        if refuses(options) || refuses(inner) {
            return None;
        }

        let (address, lives) = find(inner, IA_ADDRESS)?.split_at_checked(16)?;
        let address: [u8; 16] = address.try_into().ok()?;
        let (preferred, valid) = (seconds(lives, 0)?, seconds(lives, 4)?);
        if refuses(lives.get(8..)?) || valid.is_zero() {
            return None;
        }
        let renew_after = seconds(times, 0).filter(|time| !time.is_zero()).unwrap_or(preferred / 2);
        Some((address.into(), Grant6 { server: server.to_vec(), valid, renew_after }))
    }
}

fn seconds(bytes: &[u8], at: usize) -> Option<Duration> {
    let number = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    Some(Duration::from_secs(number.into()))
}

/// The name servers and domains among `options`.
fn information(options: &[u8]) -> Lease6 {
    let servers = find(options, NAME_SERVERS).unwrap_or_default();
    let servers = servers.chunks_exact(16).filter_map(|bytes| <[u8; 16]>::try_from(bytes).ok());
    Lease6 {
        address: None,
        gateway: None,
        nameservers: servers.map(Ipv6Addr::from).collect(),
        search: names(find(options, SEARCH).unwrap_or_default()),
        grant: None,
    }
}

/// The domains in a list of DNS names without compression (RFC 1035, 3.1). Those that would add lines to
/// resolv.conf are left out.
pub(super) fn names(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut name: Vec<String> = Vec::new();
    while let [length, rest @ ..] = bytes {
        let Some((label, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        bytes = rest;

        if !label.is_empty() {
            name.push(String::from_utf8_lossy(label).into_owned());
            continue;
        }
        let whole = std::mem::take(&mut name).join(".");
        if !whole.is_empty() && whole.chars().all(|c| c.is_ascii_graphic()) {
            names.push(whole);
        }
    }
    names
}

fn option(message: &mut Vec<u8>, code: u16, value: &[u8]) {
    message.extend_from_slice(&code.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
}

/// The value of the first option with the code `wanted`.
fn find(mut options: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (head, rest) = options.split_at_checked(4)?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        if head[..2] == wanted.to_be_bytes() {
            return Some(value);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const US: &str = "fd00::77";

    fn talk(ask: Ask) -> (Conversation6, Instant) {
        let now = Instant::now();
        (Conversation6::new(MAC, 0x0077_8899, ask, now), now)
    }

    /// A server's answer to `message`, with an address if the message asks for one.
    fn answer(message: &[u8], kind: u8, status: u16) -> Vec<u8> {
        let mut answer = vec![kind];
        answer.extend_from_slice(&message[1..4]);
        option(&mut answer, CLIENT_ID, find(&message[4..], CLIENT_ID).unwrap());
        option(&mut answer, SERVER_ID, b"the server");
        option(&mut answer, NAME_SERVERS, &"fd00::53".parse::<Ipv6Addr>().unwrap().octets());
        option(&mut answer, SEARCH, b"\x07example\x03org\0\x03a b\0");
        if let Some(association) = find(&message[4..], IA_NA) {
            let mut granted = association[..4].to_vec();
            granted.extend_from_slice(&[0, 0, 0, 30, 0, 0, 0, 45]);
            let address = US.parse::<Ipv6Addr>().unwrap().octets();
            option(&mut granted, IA_ADDRESS, &[address.as_slice(), &[0, 0, 0, 60, 0, 0, 0, 90]].concat());
            option(&mut granted, STATUS, &status.to_be_bytes());
            option(&mut answer, IA_NA, &granted);
        }
        answer
    }

    /// SOLICIT, ADVERTISE, REQUEST and REPLY lead to a lease. RENEW names its server, REBIND none.
    #[test]
    fn four_messages_give_a_lease() {
        let (mut talk, now) = talk(Ask::Address);
        let solicit = talk.poll(now).unwrap();
        assert_eq!(solicit[0], SOLICIT);
        assert_eq!(talk.poll(now), None, "not twice at once");
        assert_eq!(talk.receive(&answer(&solicit, ADVERTISE, 0), now), None);
        let request = talk.poll(now).unwrap();
        assert_eq!(request[0], REQUEST);
        assert_eq!(find(&request[4..], SERVER_ID), Some(b"the server".as_slice()));
        let lease = talk.receive(&answer(&request, REPLY, 0), now).unwrap();

        assert_eq!(lease.address, Some((US.parse().unwrap(), 128)));
        assert_eq!(lease.nameservers, ["fd00::53".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(lease.search, ["example.org"]);
        let grant = lease.grant.unwrap();
        assert_eq!((grant.valid.as_secs(), grant.renew_after.as_secs()), (90, 30));

        let renew = Conversation6::renewal(MAC, 1, US.parse().unwrap(), Some(&grant.server), now).poll(now);
        assert_eq!(renew.unwrap()[0], RENEW);
        let rebind = Conversation6::renewal(MAC, 1, US.parse().unwrap(), None, now).poll(now);
        assert_eq!(rebind.unwrap()[0], REBIND);
    }

    /// A client that asks for information alone gets name servers and no address.
    #[test]
    fn information_has_no_address() {
        let (mut talk, now) = talk(Ask::Information);
        let request = talk.poll(now).unwrap();
        assert_eq!(request[0], INFORMATION);
        let lease = talk.receive(&answer(&request, REPLY, 0), now).unwrap();
        assert_eq!((lease.address, lease.nameservers.len()), (None, 1));
    }

    /// Neither a refusal nor an answer to another client is an offer.
    #[test]
    fn refusals_and_others_are_no_offers() {
        let (mut talk, now) = talk(Ask::Address);
        let solicit = talk.poll(now).unwrap();
        const NO_ADDRESSES: u16 = 2;
        talk.receive(&answer(&solicit, ADVERTISE, NO_ADDRESSES), now);
        assert_eq!(talk.state, State::Soliciting);

        let mut other = answer(&solicit, ADVERTISE, 0);
        other[1] ^= 1;
        talk.receive(&other, now);
        assert_eq!(talk.state, State::Soliciting);
    }

    /// A server that has forgotten the lease is asked for the same address anew.
    #[test]
    fn forgotten_leases_are_requested() {
        let now = Instant::now();
        let mut talk = Conversation6::renewal(MAC, 1, US.parse().unwrap(), Some(b"the server"), now);
        let renew = talk.poll(now).unwrap();
        assert_eq!(talk.receive(&answer(&renew, REPLY, NO_BINDING), now), None);
        let request = talk.poll(now).unwrap();
        assert_eq!(request[0], REQUEST);
        assert!(talk.receive(&answer(&request, REPLY, 0), now).is_some());
    }

    proptest! {
        /// No message makes it panic, nor any damage to a valid answer.
        #[test]
        fn takes_any_message(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200, byte: u8) {
            let (mut talk, now) = talk(Ask::Address);
            let solicit = talk.poll(now).unwrap();
            talk.receive(&bytes, now);
            let mut damaged = answer(&solicit, ADVERTISE, 0);
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            talk.receive(&damaged, now);
        }
    }
}
