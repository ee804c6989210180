//! The DHCPv4 conversation (RFC 2131) as a state machine over bytes: no sockets, no clock of its
//! own. The caller says what time it is, sends what [`Conversation::poll`] gives and feeds what
//! arrives to [`Conversation::receive`]. Messages are coded by `dhcproto`.

use crate::formats::lease::{Grant, Lease, Route};
use crate::formats::mac::Mac;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Pauses between messages. A switch port may swallow everything for the 30 to 50 s in which
/// spanning tree listens and learns, so the first tries are quick and the later ones go on.
pub(super) const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Requests for one offer before we look for another server.
const REQUESTS: usize = 3;

/// One client's talk with whatever servers there are.
#[derive(Debug)]
pub struct Conversation {
    mac: Mac,
    xid: u32,
    state: State,
    started: Instant,
    next: Instant,
    sent: usize,
    heard: Heard,
}

#[derive(Debug)]
enum State {
    /// Broadcasting DHCPDISCOVER.
    Selecting,
    /// Asking `server` for `address`.
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    /// Asking the server of a lease we hold for more time (RENEWING and REBINDING).
    Renewing { address: Ipv4Addr },
}

/// What the servers said so far: the evidence where there is no lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Offers received.
    pub offers: u32,
    /// Refusals (DHCPNAK) received.
    pub refusals: u32,
}

impl Conversation {
    /// A first lease is wanted for the card `mac`. `xid` should differ between cards and boots.
    pub fn new(mac: Mac, xid: u32, now: Instant) -> Self {
        Self { mac, xid, state: State::Selecting, started: now, next: now, sent: 0, heard: Heard::default() }
    }

    /// More time is wanted for `address`, which this card holds.
    pub fn renewal(mac: Mac, xid: u32, address: Ipv4Addr, now: Instant) -> Self {
        Self { state: State::Renewing { address }, ..Self::new(mac, xid, now) }
    }

    /// Ask again at once, and quickly: somebody is there now.
    pub fn hurry(&mut self, now: Instant) {
        self.next = now;
        self.sent = 0;
    }

    /// What was heard so far.
    pub fn heard(&self) -> Heard {
        self.heard
    }

    /// The message to send now, if any: the payload of a UDP datagram to port 67.
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
            // We have no address yet and our socket hears broadcasts on every kernel.
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

    /// `bytes` arrived on port 68. Gives the lease once a server has granted it; anything that
    /// is not an answer to us is passed over.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Option<Lease> {
        let message = Message::decode(&mut Decoder::new(&sieve(bytes)?)).ok()?;
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
                self.heard.offers += 1;
                self.state = State::Requesting { address: message.yiaddr(), server };
                self.sent = 0;
                self.next = now;
                None
            }
            (MessageType::Ack, State::Requesting { .. } | State::Renewing { .. }) => {
                Some(lease(&message, server))
            }
            // Whoever runs under this address cannot take another: the caller has to know.
            (MessageType::Nak, State::Renewing { .. }) => {
                self.heard.refusals += 1;
                None
            }
            (MessageType::Nak, State::Requesting { .. }) => {
                self.heard.refusals += 1;
                self.state = State::Selecting;
                self.sent = 0;
                self.next = now + PAUSES[0];
                None
            }
            _ => None,
        }
    }
}

/// Where a message's options begin, behind BOOTP's fixed part and the magic cookie.
const OPTIONS_AT: usize = 240;

/// The message with those options only that we read, each of a length it may have; `None` for
/// what is no message for an Ethernet card. dhcproto 0.15 panics on a hardware address that claims
/// more than 16 bytes and, in debug builds, on odd lengths of options nobody asked for; nobody on
/// the network may stop process 1.
fn sieve(bytes: &[u8]) -> Option<Vec<u8>> {
    /// Option, the multiple its length must be of, and the least that it may be.
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

fn lease(message: &Message, server: Ipv4Addr) -> Lease {
    let options = message.opts();
    let address = message.yiaddr();
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => u32::from(*mask).leading_ones() as u8,
        _ => 24,
    };
    let routes = match options.get(OptionCode::ClasslessStaticRoute) {
        // RFC 3442: with this option the router option is to be ignored.
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
    let search = match (options.get(OptionCode::DomainSearch), options.get(OptionCode::DomainName)) {
        (Some(DhcpOption::DomainSearch(domains)), _) => domains.iter().map(ToString::to_string).collect(),
        (_, Some(DhcpOption::DomainName(domain))) => vec![domain.clone()],
        _ => Vec::new(),
    };
    let mtu = match options.get(OptionCode::InterfaceMtu) {
        // 576 is the least that IPv4 hosts must take; some servers send nonsense below it.
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
    // A name with a blank or a newline would write further lines into resolv.conf.
    let search = search
        .into_iter()
        .map(|domain| domain.trim_end_matches(['\0', '.']).to_owned())
        .filter(|domain| !domain.is_empty() && domain.chars().all(|c| c.is_ascii_graphic()))
        .collect();
    Lease {
        address,
        prefix,
        routes,
        nameservers,
        search,
        mtu,
        grant: Some(Grant { server, duration, renew_after }),
    }
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

    #[test]
    fn discover_offer_request_ack_give_a_lease() {
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

    #[test]
    fn a_refusal_starts_over_and_is_remembered() {
        let now = Instant::now();
        let mut talk = Conversation::new(MAC, 7, now);
        let discover = talk.poll(now).unwrap();
        talk.receive(&answer(&discover, MessageType::Offer, usual()), now);
        let request = talk.poll(now).unwrap();
        assert!(talk.receive(&answer(&request, MessageType::Nak, vec![]), now).is_none());
        let again = talk.poll(now + PAUSES[0]).unwrap();
        assert_eq!(kind(&decode(&again)), MessageType::Discover);
        assert_eq!(talk.heard(), Heard { offers: 1, refusals: 1 });
    }

    #[test]
    fn a_server_that_falls_silent_is_given_up_for_another() {
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

    #[test]
    fn answers_to_others_are_passed_over() {
        let now = Instant::now();
        let mut talk = Conversation::new(MAC, 7, now);
        let discover = talk.poll(now).unwrap();
        let mut other = Conversation::new(Mac([2; 6]), 7, now);
        let foreign = answer(&other.poll(now).unwrap(), MessageType::Offer, usual());
        assert!(talk.receive(&foreign, now).is_none());
        assert_eq!(talk.heard().offers, 0);
        // An ACK nobody asked for grants nothing.
        assert!(talk.receive(&answer(&discover, MessageType::Ack, usual()), now).is_none());
    }

    #[test]
    fn a_renewal_asks_for_the_address_it_holds() {
        let now = Instant::now();
        let mut talk = Conversation::renewal(MAC, 9, US, now);
        let request = decode(&talk.poll(now).unwrap());
        assert_eq!((kind(&request), request.ciaddr()), (MessageType::Request, US));
        assert!(request.opts().get(OptionCode::ServerIdentifier).is_none(), "RFC 2131, 4.3.6");
    }

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

    #[test]
    fn a_search_domain_cannot_smuggle_a_line_into_resolv_conf() {
        let now = Instant::now();
        let mut talk = Conversation::renewal(MAC, 9, US, now);
        let request = talk.poll(now).unwrap();
        let evil = vec![DhcpOption::DomainName("a\nnameserver 6.6.6.6".into())];
        let lease = talk.receive(&answer(&request, MessageType::Ack, evil), now).unwrap();
        assert!(lease.search.is_empty());
    }

    #[test]
    fn a_hardware_address_that_is_too_long_is_passed_over() {
        let now = Instant::now();
        let mut talk = Conversation::new(MAC, 7, now);
        let discover = talk.poll(now).unwrap();
        let mut offer = answer(&discover, MessageType::Offer, usual());
        offer[2] = 255;
        assert!(talk.receive(&offer, now).is_none());
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let now = Instant::now();
            let mut talk = Conversation::new(MAC, 7, now);
            talk.receive(&bytes, now);
        }

        #[test]
        fn no_options_make_it_panic(options in proptest::collection::vec(any::<u8>(), 0..300)) {
            let now = Instant::now();
            let mut talk = Conversation::renewal(MAC, 9, US, now);
            let mut reply = answer(&talk.poll(now).unwrap(), MessageType::Ack, vec![]);
            reply.pop();
            reply.extend(options);
            talk.receive(&reply, now);
        }

        #[test]
        fn no_broken_answer_makes_it_panic(at in 0usize..400, byte: u8) {
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
