//! Step 2: links, lease, resolver, clock.
//!
//! All wired links are tried at once and the first lease wins, so that an idle card costs no
//! wait. The bound is long enough for a switch port in spanning tree (up to 50 s of silence). Both
//! kinds of networks are asked; IPv6 alone is enough where IPv4 has not answered a moment later.

mod addresses;
pub mod advert;
mod cards;
mod datagram;
pub mod dhcp;
pub mod dhcp6;
pub mod dropins;
pub mod guard;
mod ipv6;
pub mod link;
mod netlink;
mod race;
pub mod renew;
mod rtnetlink;
mod tables;

use crate::base::console;
use crate::base::failure::Explain;
use crate::config::{Fixed, LinkName, Method, NetConfig};
use crate::formats::lease::{Lease, Lease6, Leases, Route};
use crate::formats::mac::Mac;
use crate::machine::clock;
use crate::net::cards::{Cards, first_with_carrier, wait_for_links};
use crate::net::link::Link;
use crate::net::race::first_lease;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

/// How long links and DHCP servers get.
const BOUND: Duration = Duration::from_secs(60);

/// How often the waiting is said.
pub const SAY_EVERY: Duration = Duration::from_secs(10);

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
    addresses::take_back_addresses();
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
pub fn again(mac: Mac, vlan: Option<u16>, leases: &Leases, etc: &Path) -> Result<Network, NetError> {
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
