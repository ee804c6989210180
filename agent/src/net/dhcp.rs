//! The DHCPv4 conversation (RFC 2131) as a state machine over bytes, without sockets or a clock of its own.
//! The caller passes in the time, sends the messages of [`Conversation::poll`], and gives those that arrive
//! to [`Conversation::receive`]. `dhcproto` encodes and decodes them.

use crate::formats::lease::{Grant, Lease, Route};
use crate::formats::mac::Mac;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Pauses between messages; the last one repeats. Most networks answer at once, so the first tries are quick.
/// A switch port in spanning tree drops everything for 30 to 50 s, so the later ones go on.
pub(super) const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Requests for one offer, before another server is searched.
const REQUESTS: usize = 3;

/// One client's conversation with all DHCP servers of a link.
#[derive(Debug)]
pub struct Conversation {
    mac: Mac,
    xid: u32,
    state: State,
    started: Instant,
    /// The time of the next message.
    next: Instant,
    /// Messages sent in this state.
    sent: usize,
    answers: Answers,
}

#[derive(Debug)]
enum State {
    /// Broadcasts DHCPDISCOVER.
    Selecting,
    /// Asks `server` for `address`.
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    /// Asks for more time for a lease that we hold (RENEWING and REBINDING).
    Renewing { address: Ipv4Addr },
}

/// The answers so far. Without a lease they tell how far the conversation got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub offers: u32,
    /// DHCPNAK.
    pub refusals: u32,
}

impl Conversation {
    /// Begins a conversation for a first lease. `xid` should differ between cards and boots.
    pub fn new(mac: Mac, xid: u32, now: Instant) -> Self {
        let (state, answers) = (State::Selecting, Answers::default());
        Self { mac, xid, state, started: now, next: now, sent: 0, answers }
    }

    /// Begins a conversation for more time for `address`, which the card holds.
    pub(super) fn renewal(mac: Mac, xid: u32, address: Ipv4Addr, now: Instant) -> Self {
        Self { state: State::Renewing { address }, ..Self::new(mac, xid, now) }
    }

    /// Makes the next message due at once, and begins anew with the short pauses.
    pub(super) fn restart_pauses(&mut self, now: Instant) {
        self.next = now;
        self.sent = 0;
    }

    pub(super) fn answers(&self) -> Answers {
        self.answers
    }

    /// The message that is due, if any: the payload of a UDP datagram to port 67.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        if matches!(self.state, State::Requesting { .. }) && self.sent >= REQUESTS {
            self.state = State::Selecting;
            self.sent = 0;
        }
        self.next = now + PAUSES[self.sent.min(PAUSES.len() - 1)];
        self.sent += 1;

        let seconds = now.duration_since(self.started).as_secs();
        let mut bytes = Vec::with_capacity(300);
        // Encoding into memory fails only for over-long options, of which we send none.
        self.message(seconds).encode(&mut Encoder::new(&mut bytes)).ok()?;
        // Some relays drop what is shorter than BOOTP's fixed 300 bytes (RFC 1542, 2.1).
        bytes.resize(bytes.len().max(300), 0);
        Some(bytes)
    }

    fn message(&self, seconds: u64) -> Message {
        let mut message = Message::default();
        message
            .set_opcode(Opcode::BootRequest)
            .set_xid(self.xid)
            .set_secs(seconds.min(u16::MAX.into()) as u16)
            .set_chaddr(self.mac.bytes());

        let kind = match self.state {
            State::Selecting => MessageType::Discover,
            State::Requesting { .. } | State::Renewing { .. } => MessageType::Request,
        };
        match self.state {
            State::Selecting => {}
            State::Requesting { address, server } => {
                message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
                message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
            }
            State::Renewing { address } => {
                message.set_ciaddr(address);
            }
        }
        if !matches!(self.state, State::Renewing { .. }) {
            // We have no address yet, and our socket receives broadcasts on every kernel.
            message.set_flags(Flags::default().set_broadcast());
        }

        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ClientIdentifier([&[1], self.mac.bytes()].concat()));
        options.insert(DhcpOption::MaxMessageSize(1472));
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::ClasslessStaticRoute,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::DomainName,
            OptionCode::DomainSearch,
            OptionCode::InterfaceMtu,
            OptionCode::AddressLeaseTime,
            OptionCode::Renewal,
        ]));
        message
    }

    /// Takes a message that arrived on port 68. Gives the lease if it grants one. Messages that are no answer
    /// to this conversation are ignored.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Option<Lease> {
        let message = Message::decode(&mut Decoder::new(&sanitised(bytes)?)).ok()?;
        let ours = message.opcode() == Opcode::BootReply
            && message.xid() == self.xid
            && message.chaddr().starts_with(self.mac.bytes());
        if !ours {
            return None;
        }

        let kind = match message.opts().get(OptionCode::MessageType) {
            Some(DhcpOption::MessageType(kind)) => *kind,
            _ => return None,
        };
        let server = match message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => *server,
            _ => message.siaddr(),
        };

        match (kind, &self.state) {
            (MessageType::Offer, State::Selecting) => {
                self.answers.offers += 1;
                self.state = State::Requesting { address: message.yiaddr(), server };
                self.sent = 0;
                self.next = now;
                None
            }
            (MessageType::Ack, State::Requesting { .. } | State::Renewing { .. }) => {
                Some(lease(&message, server))
            }
            // The running system cannot change its address, so the caller has to report this.
            (MessageType::Nak, State::Renewing { .. }) => {
                self.answers.refusals += 1;
                None
            }
            (MessageType::Nak, State::Requesting { .. }) => {
                self.answers.refusals += 1;
                self.state = State::Selecting;
                self.sent = 0;
                self.next = now + PAUSES[0];
                None
            }
            _ => None,
        }
    }
}

/// The offset of a message's options: behind BOOTP's fixed part and the magic cookie.
const OPTIONS_AT: usize = 240;

/// The message with only those options that we read, each of a valid length; `None` if it is not for an
/// Ethernet card. dhcproto 0.15 panics on a hardware address that claims more than 16 bytes, and in debug
/// builds on odd lengths of options that we do not use. A message from the network must not stop process 1.
fn sanitised(bytes: &[u8]) -> Option<Vec<u8>> {
    /// The option, a number that must divide its length, and its least length.
    const READ: [(u8, usize, usize); 11] = [
        (1, 4, 4),   // subnet mask
        (3, 4, 4),   // routers
        (6, 4, 4),   // name servers
        (15, 1, 1),  // domain name
        (26, 2, 2),  // MTU
        (51, 4, 4),  // lease time
        (53, 1, 1),  // message type
        (54, 4, 4),  // server identifier
        (58, 4, 4),  // renewal time
        (119, 1, 1), // search list
        (121, 1, 5), // classless routes
    ];
    const PAD: u8 = 0;
    const END: u8 = 255;

    let hardware_length = *bytes.get(2)?;
    if hardware_length != 6 {
        return None;
    }

    let mut kept = bytes.get(..OPTIONS_AT)?.to_vec();
    let mut rest = &bytes[OPTIONS_AT..];
    while let [code, tail @ ..] = rest {
        match *code {
            PAD => rest = tail,
            END => break,
            code => {
                let [length, tail @ ..] = tail else { break };
                let length = usize::from(*length);
                let Some(value) = tail.get(..length) else { break };
                let fits = |&(read, multiple, least): &(u8, usize, usize)| {
                    read == code && length >= least && length.is_multiple_of(multiple)
                };
                if READ.iter().any(fits) {
                    kept.extend_from_slice(&[code, length as u8]);
                    kept.extend_from_slice(value);
                }
                rest = &tail[length..];
            }
        }
    }
    kept.push(END);
    Some(kept)
}

/// The lease that a DHCPACK grants. Options that are missing or make no sense get defaults.
fn lease(message: &Message, server: Ipv4Addr) -> Lease {
    let options = message.opts();
    let address = message.yiaddr();
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => u32::from(*mask).leading_ones() as u8,
        _ => 24,
    };

    let routes = match options.get(OptionCode::ClasslessStaticRoute) {
        // With this option the router option is ignored (RFC 3442).
        Some(DhcpOption::ClasslessStaticRoute(routes)) => routes
            .iter()
            .map(|(net, gateway)| Route {
                destination: net.network().into(),
                prefix: net.prefix_len(),
                gateway: (*gateway).into(),
            })
            .collect(),
        _ => match options.get(OptionCode::Router) {
            Some(DhcpOption::Router(routers)) => {
                routers.first().map(|gateway| Route::default((*gateway).into())).into_iter().collect()
            }
            _ => Vec::new(),
        },
    };

    let nameservers = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => servers.clone(),
        _ => Vec::new(),
    };
    let search: Vec<String> =
        match (options.get(OptionCode::DomainSearch), options.get(OptionCode::DomainName)) {
            (Some(DhcpOption::DomainSearch(domains)), _) => domains.iter().map(ToString::to_string).collect(),
            (_, Some(DhcpOption::DomainName(domain))) => vec![domain.clone()],
            _ => Vec::new(),
        };
    // A name with a blank or a newline would add lines to resolv.conf.
    let search = search
        .into_iter()
        .map(|domain| domain.trim_end_matches(['\0', '.']).to_owned())
        .filter(|domain| !domain.is_empty() && domain.chars().all(|c| c.is_ascii_graphic()))
        .collect();

    let mtu = match options.get(OptionCode::InterfaceMtu) {
        // 576 is the least that IPv4 hosts must accept. Some servers send nonsense below it.
        Some(DhcpOption::InterfaceMtu(mtu)) if *mtu >= 576 => Some(*mtu),
        _ => None,
    };

    let duration = match options.get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) if *seconds != u32::MAX => {
            Some(Duration::from_secs((*seconds).into()))
        }
        _ => None,
    };
    let renew_after = match options.get(OptionCode::Renewal) {
        Some(DhcpOption::Renewal(seconds)) => Some(Duration::from_secs((*seconds).into())),
        _ => duration.map(|duration| duration / 2),
    };
    let grant = Some(Grant { server, duration, renew_after });
    Lease { address, prefix, routes, nameservers, search, mtu, grant }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    fn decode(bytes: &[u8]) -> Message {
        Message::decode(&mut Decoder::new(bytes)).unwrap()
    }

    fn kind(message: &Message) -> MessageType {
        match message.opts().get(OptionCode::MessageType) {
            Some(DhcpOption::MessageType(kind)) => *kind,
            other => panic!("{other:?}"),
        }
    }

    /// A server's answer to `request`.
    fn answer(request: &[u8], kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
        let request = decode(request);
        let mut reply = Message::default();
        reply
            .set_opcode(Opcode::BootReply)
            .set_xid(request.xid())
            .set_chaddr(request.chaddr())
            .set_yiaddr(US);
        reply.opts_mut().insert(DhcpOption::MessageType(kind));
        reply.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
        for option in options {
            reply.opts_mut().insert(option);
        }

        let mut bytes = Vec::new();
        reply.encode(&mut Encoder::new(&mut bytes)).unwrap();
        bytes
    }

    fn usual() -> Vec<DhcpOption> {
        vec![
            DhcpOption::SubnetMask([255, 255, 255, 0].into()),
            DhcpOption::Router(vec![SERVER]),
            DhcpOption::DomainNameServer(vec![[10, 0, 2, 3].into(), [10, 0, 2, 4].into()]),
            DhcpOption::DomainName("example.org".into()),
            DhcpOption::AddressLeaseTime(86400),
        ]
    }

    /// DISCOVER, OFFER, REQUEST and ACK lead to a lease with the server's options.
    #[test]
    fn four_messages_give_a_lease() {
        let now = Instant::now();
        let mut talk = Conversation::new(MAC, 7, now);
        let discover = talk.poll(now).unwrap();
        assert_eq!(kind(&decode(&discover)), MessageType::Discover);
        assert!(talk.poll(now).is_none(), "it waits for an answer");

        assert!(talk.receive(&answer(&discover, MessageType::Offer, usual()), now).is_none());
        let request = talk.poll(now).unwrap();
        assert_eq!(kind(&decode(&request)), MessageType::Request);
        let lease = talk.receive(&answer(&request, MessageType::Ack, usual()), now).unwrap();

        assert_eq!((lease.address, lease.prefix), (US, 24));
        assert_eq!(lease.routes, [Route::default(SERVER.into())]);
        assert_eq!(lease.nameservers.len(), 2);
        assert_eq!(lease.search, ["example.org"]);
        let grant = lease.grant.unwrap();
        assert_eq!((grant.server, grant.renew_after), (SERVER, Some(Duration::from_secs(43200))));
    }

    /// Tries begin quickly and go on through the minute in which a switch port may drop everything.
    #[test]
    fn tries_outlast_spanning_tree() {
        let start = Instant::now();
        let mut talk = Conversation::new(MAC, 7, start);
        let mut sent = Vec::new();
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            if talk.poll(now).is_some() {
                sent.push(second);
            }
        }
        assert_eq!(sent, [0, 1, 3, 7, 15, 23, 31, 39, 47, 55]);
    }

    /// After a refusal the conversation starts over, and the refusal is counted.
    #[test]
    fn refusals_start_over() {
        let now = Instant::now();
        let mut talk = Conversation::new(MAC, 7, now);
        let discover = talk.poll(now).unwrap();
        talk.receive(&answer(&discover, MessageType::Offer, usual()), now);
        let request = talk.poll(now).unwrap();
        assert!(talk.receive(&answer(&request, MessageType::Nak, vec![]), now).is_none());
        let again = talk.poll(now + PAUSES[0]).unwrap();
        assert_eq!(kind(&decode(&again)), MessageType::Discover);
        assert_eq!(talk.answers(), Answers { offers: 1, refusals: 1 });
    }

    /// A server that made an offer and falls silent is given up for another.
    #[test]
    fn silent_servers_are_given_up() {
        let start = Instant::now();
        let mut talk = Conversation::new(MAC, 7, start);
        let discover = talk.poll(start).unwrap();
        talk.receive(&answer(&discover, MessageType::Offer, usual()), start);
        let kinds: Vec<MessageType> = (0..20)
            .filter_map(|second| talk.poll(start + Duration::from_secs(second)))
            .map(|bytes| kind(&decode(&bytes)))
            .collect();
        assert_eq!(kinds[..3], [MessageType::Request; 3]);
        assert_eq!(kinds[3], MessageType::Discover);
    }

    /// Answers to other clients, and an ACK without a request, grant nothing.
    #[test]
    fn others_are_ignored() {
        let now = Instant::now();
        let mut talk = Conversation::new(MAC, 7, now);
        let discover = talk.poll(now).unwrap();
        let mut other = Conversation::new(Mac([2; 6]), 7, now);
        let foreign = answer(&other.poll(now).unwrap(), MessageType::Offer, usual());
        assert!(talk.receive(&foreign, now).is_none());
        assert_eq!(talk.answers().offers, 0);
        assert!(talk.receive(&answer(&discover, MessageType::Ack, usual()), now).is_none());
    }

    /// A renewal names its address as the client's own, and no server (RFC 2131, 4.3.6).
    #[test]
    fn renewals_ask_for_their_address() {
        let now = Instant::now();
        let mut talk = Conversation::renewal(MAC, 9, US, now);
        let request = decode(&talk.poll(now).unwrap());
        assert_eq!((kind(&request), request.ciaddr()), (MessageType::Request, US));
        assert!(request.opts().get(OptionCode::ServerIdentifier).is_none(), "RFC 2131, 4.3.6");
    }

    /// With classless routes the router option is ignored (RFC 3442).
    #[test]
    fn classless_routes_replace_the_router() {
        let now = Instant::now();
        let mut talk = Conversation::renewal(MAC, 9, US, now);
        let request = talk.poll(now).unwrap();
        let mut options = usual();
        let net = "192.168.0.0/16".parse().unwrap();
        options.push(DhcpOption::ClasslessStaticRoute(vec![(net, Ipv4Addr::new(10, 0, 2, 9))]));
        let lease = talk.receive(&answer(&request, MessageType::Ack, options), now).unwrap();
        assert_eq!(lease.routes.len(), 1);
        assert_eq!(lease.routes[0].prefix, 16);
    }

    /// A search domain cannot add a line to resolv.conf.
    #[test]
    fn domains_are_one_word() {
        let now = Instant::now();
        let mut talk = Conversation::renewal(MAC, 9, US, now);
        let request = talk.poll(now).unwrap();
        let evil = vec![DhcpOption::DomainName("a\nnameserver 6.6.6.6".into())];
        let lease = talk.receive(&answer(&request, MessageType::Ack, evil), now).unwrap();
        assert!(lease.search.is_empty());
    }

    /// A message with a hardware address that is too long is ignored.
    #[test]
    fn long_hardware_addresses_are_ignored() {
        let now = Instant::now();
        let mut talk = Conversation::new(MAC, 7, now);
        let discover = talk.poll(now).unwrap();
        let mut offer = answer(&discover, MessageType::Offer, usual());
        offer[2] = 255;
        assert!(talk.receive(&offer, now).is_none());
    }

    proptest! {
        /// No message makes it panic.
        #[test]
        fn takes_any_message(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let now = Instant::now();
            let mut talk = Conversation::new(MAC, 7, now);
            talk.receive(&bytes, now);
        }

        /// No options make it panic.
        #[test]
        fn takes_any_options(options in proptest::collection::vec(any::<u8>(), 0..300)) {
            let now = Instant::now();
            let mut talk = Conversation::renewal(MAC, 9, US, now);
            let mut reply = answer(&talk.poll(now).unwrap(), MessageType::Ack, vec![]);
            reply.pop();
            reply.extend(options);
            talk.receive(&reply, now);
        }

        /// No damage to a valid answer makes it panic.
        #[test]
        fn takes_damaged_answers(at in 0usize..400, byte: u8) {
            let now = Instant::now();
            let mut talk = Conversation::new(MAC, 7, now);
            let discover = talk.poll(now).unwrap();
            let mut offer = answer(&discover, MessageType::Offer, usual());
            let at = at % offer.len();
            offer[at] = byte;
            talk.receive(&offer, now);
        }
    }
}
