//! Step 2: links, leases, the resolver's file, the clock.
//!
//! All wired links race for a lease, and the first to get one wins: an idle card costs no time. The bound is
//! longer than the silence of a switch port in spanning tree (up to 50 s). Each link tries IPv4 and IPv6 at
//! once; IPv6 alone is enough if IPv4 does not answer within a few seconds more.

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
mod waiting;

use crate::base::console;
use crate::base::failure::Explain;
use crate::config::{Fixed, LinkName, Method, NetConfig};
use crate::formats::lease::{Lease, Lease6, Leases, Route};
use crate::formats::mac::Mac;
use crate::machine::clock;
use crate::net::cards::{Cards, first_with_carrier, wait_for_links};
use crate::net::link::Link;
use crate::net::race::first_lease;
use crate::net::waiting::{Interval, REMIND_EVERY};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

/// The time for cards to appear and for a lease, together.
const BOUND: Duration = Duration::from_secs(60);

/// The time for an IPv6 address to become usable.
const IPV6_BOUND: Duration = Duration::from_secs(20);

/// A link that is up and has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub link: Link,
    pub leases: Leases,
}

/// The reason why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{wanted} after {} s; this machine has {have}", BOUND.as_secs())]
    NoLink { wanted: String, have: String },
    /// `evidence` says of each link what it is missing.
    #[error("no lease after {} s: {evidence}", BOUND.as_secs())]
    NoLease { evidence: String },
    #[error("cannot configure {link} with {leases}")]
    Configure {
        link: String,
        leases: Box<Leases>,
        #[source]
        error: io::Error,
    },
    #[error("cannot write {path}")]
    Resolver {
        path: String,
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

/// Brings the machine onto the network, as `config` asks for.
pub fn up(config: &NetConfig) -> Result<Network, NetError> {
    clock::raise_to_floor(Duration::ZERO);
    addresses::remove_all();

    let deadline = Instant::now() + BOUND;
    let mut cards = Cards::new(config);
    let links = wait_for_links(&mut cards, deadline)?;
    let mut network = match &config.method {
        Method::Fixed(fixed) => {
            Network { link: first_with_carrier(&mut cards, links, deadline), leases: fixed_leases(fixed) }
        }
        Method::Any | Method::V4 | Method::V6 => first_lease(&mut cards, links, deadline)?,
    };

    network.leases.nameservers.clone_from(&config.nameservers);
    apply(&network, Path::new("/etc"))?;
    console::say(&format!("  {} has {}", network.link, network.leases));
    Ok(network)
}

/// The address of the kernel arguments, in the form of a lease without an end.
fn fixed_leases(fixed: &Fixed) -> Leases {
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

/// Restores the network of the first life in the second: the same card, VLAN and leases. The resolver's file
/// goes to the folder `etc`.
pub fn restore(mac: Mac, vlan: Option<u16>, leases: &Leases, etc: &Path) -> Result<Network, NetError> {
    let config = NetConfig { only: Some(LinkName::Mac(mac)), vlan, ..NetConfig::default() };
    let deadline = Instant::now() + BOUND;
    let mut cards = Cards::new(&config);
    let links = wait_for_links(&mut cards, deadline)?;
    let network = Network { link: first_with_carrier(&mut cards, links, deadline), leases: leases.clone() };
    apply(&network, etc)?;
    Ok(network)
}

/// Gives the link its leases, and writes `resolv.conf`.
fn apply(network: &Network, etc: &Path) -> Result<(), NetError> {
    let Network { link, leases } = network;
    link.configure(leases).map_err(|error| NetError::Configure {
        link: link.to_string(),
        leases: Box::new(leases.clone()),
        error,
    })?;
    if let (None, Some(lease)) = (&leases.v4, &leases.v6) {
        wait_for_ipv6(link, lease);
    }

    let path = etc.join("resolv.conf");
    fs::create_dir_all(etc)
        .and_then(|()| fs::write(&path, leases.resolv_conf(link.index)))
        .map_err(|error| NetError::Resolver { path: path.display().to_string(), error })
}

/// Waits until IPv6 can be used: the kernel first checks that no other machine has the address (RFC 4862,
/// 5.4), and without an address by hand it needs a router to announce a prefix.
fn wait_for_ipv6(link: &Link, lease: &Lease6) {
    let is_usable = || link.has_ipv6_address() && (lease.is_by_hand() || link.has_ipv6_default_route());
    let start = Instant::now();
    let mut reminder = Interval::new(REMIND_EVERY);
    while !is_usable() {
        if start.elapsed() >= IPV6_BOUND {
            console::say(&format!("  {link} has no usable IPv6 address yet; trying without it"));
            return;
        }
        if reminder.is_due() {
            console::say(&format!("  waiting for an IPv6 address on {link}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
