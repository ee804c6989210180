//! Step 2: links, lease, resolver, clock.
//!
//! All wired links are tried at once and the first lease wins, so that an idle card costs no
//! wait. The bound is long enough for a switch port in spanning tree (up to 50 s of silence).

pub mod clock;
mod datagram;
pub mod dhcp;
pub mod dropins;
pub mod guard;
pub mod link;
pub mod renew;

use crate::config::{Config, NetConfig};
use crate::console;
use crate::early;
use crate::failure::Explain;
use crate::lease::{Lease, Route};
use crate::measure::Measured;
use crate::sys::packet::PacketSocket;
use dhcp::{Conversation, Heard};
use link::Link;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long links and DHCP servers get.
const BOUND: Duration = Duration::from_secs(60);

/// How often the waiting is said.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// How often further cards are looked for while none has what it takes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A link that is up and has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The card.
    pub link: Link,
    /// Its address and what goes with it.
    pub lease: Lease,
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
    #[error("cannot configure {link} with {lease}")]
    Configure {
        /// The link.
        link: String,
        /// What it was to be given.
        lease: Box<Lease>,
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
pub fn up(config: &Measured<Config>) -> Result<Network, NetError> {
    let config = &config.net;
    clock::raise_to_floor(Duration::ZERO);
    let deadline = Instant::now() + BOUND;
    let links = wait_for_links(config, deadline)?;
    let mut network = match &config.fixed {
        Some(fixed) => {
            let link = first_with_carrier(config, links, deadline);
            let routes =
                fixed.gateway.map(|gateway| Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway });
            let lease = Lease {
                address: fixed.address,
                prefix: fixed.prefix,
                routes: routes.into_iter().collect(),
                nameservers: Vec::new(),
                search: Vec::new(),
                mtu: None,
                grant: None,
            };
            Network { link, lease }
        }
        None => first_lease(config, links, deadline)?,
    };
    network.lease.nameservers.splice(0..0, config.nameservers.iter().copied());
    apply(&network, Path::new("/etc"))?;
    console::say(&format!("  {} has {}", network.link, network.lease));
    Ok(network)
}

/// The network of the first life again, in the second: same card, same lease.
pub fn again(mac: [u8; 6], lease: &Lease, etc: &Path) -> Result<Network, NetError> {
    let wanted = crate::config::LinkName::Mac(mac);
    let config = NetConfig { only: Some(wanted), ..NetConfig::default() };
    let deadline = Instant::now() + BOUND;
    let links = wait_for_links(&config, deadline)?;
    let network = Network { link: first_with_carrier(&config, links, deadline), lease: lease.clone() };
    apply(&network, etc)?;
    Ok(network)
}

fn apply(network: &Network, etc: &Path) -> Result<(), NetError> {
    network.link.configure(&network.lease).map_err(|error| NetError::Configure {
        link: network.link.to_string(),
        lease: Box::new(network.lease.clone()),
        error,
    })?;
    let path = etc.join("resolv.conf");
    fs::create_dir_all(etc)
        .and_then(|()| fs::write(&path, network.lease.resolv_conf()))
        .map_err(|error| NetError::Resolver { path: path.display().to_string(), error })
}

/// The links that were asked for, switched on. Drivers may need seconds to show their cards, USB
/// ones above all, so new devices are looked for as long as there is none.
fn wait_for_links(config: &NetConfig, deadline: Instant) -> Result<Vec<Link>, NetError> {
    let mut said = Instant::now();
    loop {
        let links = newcomers(config, &[]);
        if !links.is_empty() {
            return Ok(links);
        }
        if Instant::now() >= deadline {
            let have = Link::all().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(NetError::NoLink {
                wanted: match &config.only {
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

/// Links that were asked for and are not among `known`, switched on. A card behind a bus that
/// needs a driver itself (USB, virtio) shows up only after that one is loaded.
fn newcomers(config: &NetConfig, known: &[Link]) -> Vec<Link> {
    early::load_drivers();
    let wanted = |link: &Link| config.only.as_ref().is_none_or(|only| link.is(only));
    let new = |link: &Link| wanted(link) && !known.iter().any(|known| known.index == link.index);
    let links: Vec<Link> = Link::all().into_iter().filter(new).collect();
    for link in &links {
        if let Err(error) = link.up() {
            console::say(&format!("  {link} cannot be switched on: {error}"));
        }
    }
    links
}

/// The first link to have carrier, or simply the first: a static address may be on a card whose
/// driver never tells.
fn first_with_carrier(config: &NetConfig, mut links: Vec<Link>, deadline: Instant) -> Link {
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
            links.extend(newcomers(config, &links));
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
    socket: Option<PacketSocket>,
    talk: Conversation,
    trouble: Option<io::Error>,
}

impl Runner {
    fn start(link: Link) -> Self {
        let now = Instant::now();
        let index = link.index as i32;
        let talk = Conversation::new(link.mac, xid(&link), now);
        let mut runner = Self { link, socket: None, talk, trouble: None };
        match PacketSocket::open(index) {
            Ok(socket) => runner.socket = Some(socket),
            Err(error) => runner.trouble = Some(error),
        }
        runner
    }

    /// Send what is due, read what arrived.
    fn advance(&mut self) -> Option<Lease> {
        let socket = self.socket.as_ref()?;
        if !self.link.has_carrier() {
            return None; // A message sent now is lost, and the pauses should start with the cable.
        }
        if let Some(message) = self.talk.poll(Instant::now()) {
            self.trouble = socket.broadcast(&datagram::wrap(&message)).err();
        }
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.receive(&mut buffer) {
            let lease = datagram::unwrap(&buffer[..length])
                .and_then(|message| self.talk.receive(message, Instant::now()));
            if lease.is_some() {
                return lease;
            }
        }
        None
    }

    /// What kept this link from a lease.
    fn lacked(&self) -> String {
        let lacked = match (&self.trouble, self.link.has_carrier(), self.talk.heard()) {
            (Some(error), ..) => format!("cannot send: {error}"),
            (None, false, _) => "no cable, or nobody at its other end".into(),
            (None, true, Heard { offers: 0, .. }) => "has a cable, but no DHCP server answered".into(),
            (None, true, Heard { refusals: 0, .. }) => {
                "was offered an address that was then not granted".into()
            }
            (None, true, _) => "was refused by the DHCP server".into(),
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

fn first_lease(config: &NetConfig, mut links: Vec<Link>, deadline: Instant) -> Result<Network, NetError> {
    console::say(&format!("  asking for a lease on {}", names(&links)));
    let mut runners: Vec<Runner> = links.iter().cloned().map(Runner::start).collect();
    let (mut said, mut looked) = (Instant::now(), Instant::now());
    while Instant::now() < deadline {
        for runner in &mut runners {
            if let Some(lease) = runner.advance() {
                return Ok(Network { link: runner.link.clone(), lease });
            }
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            let new = newcomers(config, &links);
            if !new.is_empty() {
                console::say(&format!("  and on {}", names(&new)));
            }
            runners.extend(new.iter().cloned().map(Runner::start));
            links.extend(new);
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let left = deadline.saturating_duration_since(said).as_secs();
            let lacks = runners.iter().map(Runner::lacked).collect::<Vec<_>>().join("; ");
            console::say(&format!("  still without a lease ({left} s left): {lacks}"));
        }
        wait_for_datagrams(&runners);
    }
    let evidence = runners.iter().map(Runner::lacked).collect::<Vec<_>>().join("; ");
    Err(NetError::NoLease { evidence })
}

/// Sleep until something arrives, for a tenth of a second at most: carrier comes unannounced.
fn wait_for_datagrams(runners: &[Runner]) {
    let mut fds: Vec<PollFd<'_>> = runners
        .iter()
        .filter_map(|runner| runner.socket.as_ref())
        .map(|socket| PollFd::new(socket, PollFlags::IN))
        .collect();
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // Interrupted or not, the caller looks again.
    let _ = poll(&mut fds, Some(&tick));
}
