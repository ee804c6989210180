//! Step 2: links, lease, resolver, clock.
//!
//! All wired links are tried at once and the first lease wins, so that an idle card costs no
//! wait. The bound is long enough for a switch port in spanning tree (up to 50 s of silence). Both
//! kinds of networks are asked; IPv6 alone is enough where IPv4 has not answered a moment later.

pub mod advert;
mod datagram;
pub mod dhcp;
pub mod dhcp6;
pub mod dropins;
pub mod guard;
pub mod link;
pub mod renew;
mod router;
pub mod rtnetlink;

use crate::base::console;
use crate::base::failure::Explain;
use crate::config::{Fixed, LinkName, Method, NetConfig};
use crate::formats::lease::{Lease, Lease6, Leases, Route};
use crate::machine::{clock, drivers};
use crate::net::dhcp::{Conversation, Heard};
use crate::net::link::Link;
use crate::net::router::Runner6;
use crate::sys::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

/// How long links and DHCP servers get.
const BOUND: Duration = Duration::from_secs(60);

/// How often the waiting is said.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// How often further cards are looked for while none has what it takes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long IPv4 has to answer once IPv6 is there (RFC 8305 thinks in fractions of seconds, but DHCP
/// servers look whether an address is taken).
const IPV4_MAY_TAKE: Duration = Duration::from_secs(4);

/// How long to wait for an address of IPv6 to be tried.
const IPV6_MAY_TAKE: Duration = Duration::from_secs(20);

/// A link that is up and has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The card, or the VLAN on it.
    pub link: Link,
    /// Its addresses and what goes with them.
    pub leases: Leases,
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No card at all, or not the one that was asked for.
    #[error("{wanted} after {} s; this machine has {have}", BOUND.as_secs())]
    NoLink {
        /// What was looked for.
        wanted: String,
        /// What is there.
        have: String,
    },
    /// Cards, but no lease.
    #[error("no lease after {} s: {evidence}", BOUND.as_secs())]
    NoLease {
        /// Each link and what it lacked.
        evidence: String,
    },
    /// The kernel refused an address or a route.
    #[error("cannot configure {link} with {leases}")]
    Configure {
        /// The link.
        link: String,
        /// What it was to be given.
        leases: Box<Leases>,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// `/etc/resolv.conf` cannot be written.
    #[error("cannot write {path}")]
    Resolver {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

impl Explain for NetError {
    fn hint(&self) -> String {
        match self {
            Self::NoLink { .. } => {
                "Plug in a wired network card that Linux knows, or correct ip= or BOOTIF=".into()
            }
            Self::NoLease { .. } => {
                "Check the cable and the DHCP server, or give an address: ip=ADDRESS::GATEWAY:NETMASK::DEVICE:none".into()
            }
            Self::Configure { .. } => "Check ip=, or the options of the DHCP server".into(),
            Self::Resolver { .. } => "Check that the initramfs is complete".into(),
        }
    }
}

/// Bring the machine onto the network.
pub fn up(config: &NetConfig) -> Result<Network, NetError> {
    clock::raise_to_floor(Duration::ZERO);
    link::take_back_addresses();
    let deadline = Instant::now() + BOUND;
    let mut cards = Cards::new(config);
    let links = wait_for_links(&mut cards, deadline)?;
    let mut network = match &config.method {
        Method::Fixed(fixed) => {
            Network { link: first_with_carrier(&mut cards, links, deadline), leases: by_hand(fixed) }
        }
        _ => first_lease(&mut cards, links, deadline)?,
    };
    network.leases.nameservers.clone_from(&config.nameservers);
    apply(&network, Path::new("/etc"))?;
    console::say(&format!("  {} has {}", network.link, network.leases));
    Ok(network)
}

fn by_hand(fixed: &Fixed) -> Leases {
    let Fixed { address, prefix, gateway } = *fixed;
    match address {
        IpAddr::V4(address) => {
            let routes = gateway.map(Route::default).into_iter().collect();
            let (nameservers, search) = (Vec::new(), Vec::new());
            let lease = Lease { address, prefix, routes, nameservers, search, mtu: None, grant: None };
            Leases { v4: Some(lease), ..Leases::default() }
        }
        IpAddr::V6(address) => {
            let gateway = gateway.and_then(|gateway| match gateway {
                IpAddr::V6(gateway) => Some(gateway),
                IpAddr::V4(_) => None,
            });
            let lease = Lease6 { address: Some((address, prefix)), gateway, ..Lease6::default() };
            Leases { v6: Some(lease), ..Leases::default() }
        }
    }
}

/// The network of the first life again, in the second: same card, same VLAN, same lease.
pub fn again(mac: [u8; 6], vlan: Option<u16>, leases: &Leases, etc: &Path) -> Result<Network, NetError> {
    let config = NetConfig { only: Some(LinkName::Mac(mac)), vlan, ..NetConfig::default() };
    let deadline = Instant::now() + BOUND;
    let mut cards = Cards::new(&config);
    let links = wait_for_links(&mut cards, deadline)?;
    let network = Network { link: first_with_carrier(&mut cards, links, deadline), leases: leases.clone() };
    apply(&network, etc)?;
    Ok(network)
}

fn apply(network: &Network, etc: &Path) -> Result<(), NetError> {
    let Network { link, leases } = network;
    link.configure(leases).map_err(|error| NetError::Configure {
        link: link.to_string(),
        leases: Box::new(leases.clone()),
        error,
    })?;
    if let (None, Some(lease)) = (&leases.v4, &leases.v6) {
        wait_until_tried(link, lease);
    }
    let path = etc.join("resolv.conf");
    fs::create_dir_all(etc)
        .and_then(|()| fs::write(&path, leases.resolv_conf(link.index)))
        .map_err(|error| NetError::Resolver { path: path.display().to_string(), error })
}

/// An address of IPv6 cannot be used before the kernel knows that nobody else has it; nor is there
/// one before a router has said which.
fn wait_until_tried(link: &Link, lease: &Lease6) {
    let by_hand = lease.address.is_some() && lease.grant.is_none();
    let is_there = || link.has_ipv6_address() && (by_hand || link.has_ipv6_way_out());
    let start = Instant::now();
    while !is_there() {
        if start.elapsed() >= IPV6_MAY_TAKE {
            console::say(&format!("  {link} has no address of IPv6 yet; going on"));
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The links that were asked for, switched on. Drivers may need seconds to show their cards, USB
/// ones above all, so new devices are looked for as long as there is none.
fn wait_for_links(cards: &mut Cards<'_>, deadline: Instant) -> Result<Vec<Link>, NetError> {
    let mut said = Instant::now();
    loop {
        let links = cards.newcomers();
        if !links.is_empty() {
            return Ok(links);
        }
        if Instant::now() >= deadline {
            let mut have: Vec<String> = Link::all().iter().map(ToString::to_string).collect();
            have.append(&mut cards.refused);
            let have = have.join(", ");
            return Err(NetError::NoLink {
                wanted: match &cards.config.only {
                    Some(name) => format!("there is no wired link {name}"),
                    None => "there is no wired link".into(),
                },
                have: if have.is_empty() { "none that a driver here knows".into() } else { have },
            });
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            console::say("  waiting for a network card to appear");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The cards that were asked for, as they show up.
struct Cards<'a> {
    config: &'a NetConfig,
    /// The interface indexes of those that were seen.
    seen: Vec<u32>,
    /// Those that could not be used, and why not.
    refused: Vec<String>,
}

impl<'a> Cards<'a> {
    fn new(config: &'a NetConfig) -> Self {
        Self { config, seen: Vec::new(), refused: Vec::new() }
    }

    /// Links that were not there before, switched on. A card behind a bus that needs a driver itself
    /// (USB, virtio) shows up only after that one is loaded.
    fn newcomers(&mut self) -> Vec<Link> {
        drivers::load_drivers();
        let wanted = |link: &Link| self.config.only.as_ref().is_none_or(|only| link.is(only));
        let new = |link: &Link| wanted(link) && !self.seen.contains(&link.index);
        let cards: Vec<Link> = Link::all().into_iter().filter(new).collect();
        self.seen.extend(cards.iter().map(|card| card.index));
        cards.into_iter().filter_map(|card| self.switch_on(card)).collect()
    }

    fn switch_on(&mut self, card: Link) -> Option<Link> {
        let up = |link: &Link| {
            if let Err(error) = link.up() {
                console::say(&format!("  {link} cannot be switched on: {error}"));
            }
        };
        up(&card);
        let Some(id) = self.config.vlan else { return Some(card) };
        match card.with_vlan(id) {
            Ok(link) => {
                up(&link);
                Some(link)
            }
            Err(error) => {
                let refused = format!("{card} cannot carry VLAN {id}: {error}");
                console::say(&format!("  {refused}"));
                self.refused.push(refused);
                None
            }
        }
    }
}

/// The first link to have carrier, or simply the first: a static address may be on a card whose
/// driver never tells.
fn first_with_carrier(cards: &mut Cards<'_>, mut links: Vec<Link>, deadline: Instant) -> Link {
    let (mut said, mut looked) = (Instant::now(), Instant::now());
    while Instant::now() < deadline {
        if let Some(link) = links.iter().find(|link| link.has_carrier()) {
            return link.clone();
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            console::say(&format!("  waiting for a cable in {}", names(&links)));
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            links.extend(cards.newcomers());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    links.swap_remove(0)
}

fn names(links: &[Link]) -> String {
    links.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// One link's part of the race for a lease.
struct Runner {
    link: Link,
    v4: Option<(PacketSocket, Conversation)>,
    v6: Option<Runner6>,
    trouble: Option<io::Error>,
    /// What IPv6 has come to, and since when.
    on_ipv6: Option<(Lease6, Instant)>,
}

impl Runner {
    fn start(link: Link, method: &Method) -> Self {
        let now = Instant::now();
        let xid = xid(&link);
        let mut runner = Self { v4: None, v6: None, trouble: None, on_ipv6: None, link };
        let link = &runner.link;
        if *method != Method::V6 {
            match PacketSocket::open(link.index as i32) {
                Ok(socket) => runner.v4 = Some((socket, Conversation::new(link.mac, xid, now))),
                Err(error) => runner.trouble = Some(error),
            }
        }
        if *method != Method::V4 {
            runner.v6 = Some(Runner6::start(link.clone(), xid));
        }
        runner
    }

    /// Send what is due, read what arrived. Gives what there is, once that is enough.
    fn advance(&mut self) -> Option<Leases> {
        let now = Instant::now();
        if let (None, Some(runner)) = (&self.on_ipv6, &mut self.v6) {
            self.on_ipv6 = runner.advance(now).map(|lease| (lease, now));
            // Its last question may have been lost in a switch that let nothing through yet.
            if let (Some(_), Some((_, talk))) = (&self.on_ipv6, &mut self.v4) {
                talk.hurry(now);
            }
        }
        let v4 = self.advance_v4();
        let enough = match &self.on_ipv6 {
            Some((_, since)) => v4.is_some() || self.v4.is_none() || now - *since >= IPV4_MAY_TAKE,
            None => v4.is_some(),
        };
        enough.then(|| self.leases(v4))
    }

    fn leases(&self, v4: Option<Lease>) -> Leases {
        let v6 = self.on_ipv6.as_ref().map(|(lease, _)| lease.clone());
        Leases { v4, v6, nameservers: Vec::new() }
    }

    fn advance_v4(&mut self) -> Option<Lease> {
        let (socket, talk) = self.v4.as_mut()?;
        if !self.link.has_carrier() {
            return None; // A message sent now is lost, and the pauses should start with the cable.
        }
        if let Some(message) = talk.poll(Instant::now()) {
            self.trouble = socket.broadcast(&datagram::wrap(&message)).err();
        }
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.receive(&mut buffer) {
            let lease =
                datagram::unwrap(&buffer[..length]).and_then(|message| talk.receive(message, Instant::now()));
            if lease.is_some() {
                return lease;
            }
        }
        None
    }

    /// What kept this link from a lease.
    fn lacked(&self) -> String {
        let heard = self.v4.as_ref().map(|(_, talk)| talk.heard());
        let lacked = match (&self.trouble, self.link.has_carrier(), heard) {
            (Some(error), ..) => format!("cannot send: {error}"),
            (None, false, _) => "no cable, or nobody at its other end".into(),
            (None, true, None) => self.v6.as_ref().map(Runner6::lacked).unwrap_or_default(),
            (None, true, Some(Heard { offers: 0, .. })) => "has a cable, but no DHCP server answered".into(),
            (None, true, Some(Heard { refusals: 0, .. })) => {
                "was offered an address that was then not granted".into()
            }
            (None, true, Some(_)) => "was refused by the DHCP server".into(),
        };
        format!("{} {lacked}", self.link)
    }
}

/// Differs between cards and between boots; a clash only costs a retry.
fn xid(link: &Link) -> u32 {
    let mac = u32::from_be_bytes([link.mac[2], link.mac[3], link.mac[4], link.mac[5]]);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    mac ^ time.subsec_nanos() ^ (time.as_secs() as u32).rotate_left(16)
}

fn first_lease(cards: &mut Cards<'_>, links: Vec<Link>, deadline: Instant) -> Result<Network, NetError> {
    let config = cards.config;
    console::say(&format!("  asking for a lease on {}", names(&links)));
    let start = |link: &Link| Runner::start(link.clone(), &config.method);
    let mut runners: Vec<Runner> = links.iter().map(start).collect();
    let (mut said, mut looked) = (Instant::now(), Instant::now());
    while Instant::now() < deadline {
        for runner in &mut runners {
            if let Some(leases) = runner.advance() {
                return Ok(Network { link: runner.link.clone(), leases });
            }
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            let new = cards.newcomers();
            if !new.is_empty() {
                console::say(&format!("  and on {}", names(&new)));
            }
            runners.extend(new.iter().map(start));
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let left = deadline.saturating_duration_since(said).as_secs();
            let lacks = runners.iter().map(Runner::lacked).collect::<Vec<_>>().join("; ");
            console::say(&format!("  still without a lease ({left} s left): {lacks}"));
        }
        wait_for_datagrams(&runners);
    }
    if let Some(runner) = runners.iter().find(|runner| runner.on_ipv6.is_some()) {
        return Ok(Network { link: runner.link.clone(), leases: runner.leases(None) });
    }
    let evidence = runners.iter().map(Runner::lacked).collect::<Vec<_>>().join("; ");
    Err(NetError::NoLease { evidence })
}

/// Sleep until something arrives, for a tenth of a second at most: carrier comes unannounced.
fn wait_for_datagrams(runners: &[Runner]) {
    let v4 = runners.iter().filter_map(|runner| runner.v4.as_ref()).map(|(socket, _)| socket.as_fd());
    // What is on IPv6 is read no more.
    let v6 = runners.iter().filter(|runner| runner.on_ipv6.is_none());
    let v6 = v6.filter_map(|runner| runner.v6.as_ref()?.socket());
    let mut fds: Vec<PollFd<'_>> =
        v4.chain(v6).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // Interrupted or not, the caller looks again.
    let _ = poll(&mut fds, Some(&tick));
}
