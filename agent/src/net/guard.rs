//! The guard of our link. Whatever switches it off or removes its address or a route, the guard puts that
//! back at once: a network manager that does not read drop-ins, `ifdown`, a shutdown that stops the network
//! before the disks, or a card that was unplugged. The kernel reports each change (rtnetlink(7)).

use crate::base::console;
use crate::formats::lease::{Leases, Route};
use crate::net::link::Link;
use crate::net::netlink::Changes;
use crate::net::tables::has_ipv4_route;
use crate::net::{Network, addresses, ipv6};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// The pause after a change: more follow at once. It also slows a program that undoes our repairs.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between failing repairs. It doubles up to this.
const LONGEST: Duration = Duration::from_secs(60);

/// The interval between looks if the kernel cannot be listened to.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The state that the link is kept in.
struct Wanted {
    leases: Leases,
    /// The routes that the kernel accepted. It refuses some that DHCP servers send.
    routes: Vec<Route>,
}

/// Watches the link of `network`, and repairs it, for as long as the machine runs.
pub fn watch(network: &Network) -> ! {
    let changes = Changes::listen();
    let mut link = network.link.clone();
    let routes = network.leases.v4.iter().flat_map(|lease| lease.routes.iter().copied());
    let routes = routes.filter(|route| has_ipv4_route(&link.current_name(), route)).collect();
    let wanted = Wanted { leases: network.leases.clone(), routes };

    let mut pause = PAUSE;
    loop {
        match missing(&link, &wanted) {
            None => {
                pause = PAUSE;
                match &changes {
                    Ok(changes) => changes.wait(),
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
            Some(part) => {
                console::say(&format!("{} lost its {part}; putting it back", link.name));
                match repair(&link, &wanted) {
                    Ok(repaired) => link = repaired,
                    Err(error) => console::say(&format!("{link} cannot be restored: {error}")),
                }
                if missing(&link, &wanted).is_some() {
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
        std::thread::sleep(pause);
    }
}

/// Configures the link again. The result differs from `link` if its card was unplugged and came back.
fn repair(link: &Link, wanted: &Wanted) -> io::Result<Link> {
    let link = link.find_again()?;
    link.configure(&wanted.leases)?;
    if relies_on_routers(&wanted.leases) {
        ipv6::solicit(&link)?;
    }
    Ok(link)
}

/// The first part of its wanted state that `link` is missing.
fn missing(link: &Link, wanted: &Wanted) -> Option<&'static str> {
    if !link.is_up() {
        return Some("power");
    }

    let Leases { v4, v6, .. } = &wanted.leases;
    let v4 = v4.as_ref().map(|lease| IpAddr::from(lease.address));
    let v6_address = v6.as_ref().and_then(|lease| Some(IpAddr::from(lease.address?.0)));
    if v4.into_iter().chain(v6_address).any(|address| !addresses::is_ours(address)) {
        return Some("address");
    }

    if relies_on_routers(&wanted.leases) && !(link.has_ipv6_address() && link.has_ipv6_default_route()) {
        return Some("IPv6 address or route");
    }
    let gateway = v6.as_ref().and_then(|lease| lease.gateway);
    let is_route_missing = wanted.routes.iter().any(|route| !has_ipv4_route(&link.current_name(), route))
        || gateway.is_some() && !link.has_ipv6_default_route();
    is_route_missing.then_some("route")
}

/// True if the link has nothing but the kernel's configuration by router advertisements. Beside IPv4 the
/// guard leaves that to the kernel.
fn relies_on_routers(leases: &Leases) -> bool {
    leases.v4.is_none() && leases.v6.as_ref().is_some_and(|v6| !v6.is_by_hand())
}
