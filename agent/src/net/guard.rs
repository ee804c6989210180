//! Keeping the link as it is: whatever switches it off or takes away its address or a route (a
//! network manager that was not told, `ifdown`, a shutdown that stops the network before the
//! disks), it is put back at once; also where the card itself was away. The kernel tells of each
//! change (rtnetlink(7), multicast groups).

use crate::base::console;
use crate::formats::lease::{Leases, Route};
use crate::net::addresses::has_address;
use crate::net::link::Link;
use crate::net::netlink::Changes;
use crate::net::tables::has_route;
use crate::net::{Network, ipv6};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Changes come in swarms; the pause also bounds a quarrel with whoever makes them again.
const SETTLE: Duration = Duration::from_millis(200);

/// How long to leave what cannot be put back, at most.
const LONGEST: Duration = Duration::from_secs(60);

/// How long to wait where the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the link should have.
struct Wanted {
    leases: Leases,
    /// The routes that the kernel took: it refuses some that networks tell.
    routes: Vec<Route>,
}

/// Keep `network` as it is, for ever.
pub fn keep(network: &Network) -> ! {
    let changes = Changes::listen();
    let mut link = network.link.clone();
    let routes = network.leases.v4.iter().flat_map(|lease| lease.routes.iter().copied());
    let routes = routes.filter(|route| has_route(&link.name_now(), route)).collect();
    let wanted = Wanted { leases: network.leases.clone(), routes };
    let mut pause = SETTLE;
    loop {
        match lacks(&link, &wanted) {
            None => {
                pause = SETTLE;
                match &changes {
                    Ok(changes) => changes.wait(),
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
            Some(lacking) => {
                console::say(&format!("{} lost its {lacking}; putting it back", link.name));
                match put_back(&link, &wanted) {
                    Ok(again) => link = again,
                    Err(error) => console::say(&format!("{link} cannot be put back: {error}")),
                }
                if lacks(&link, &wanted).is_some() {
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
        std::thread::sleep(pause);
    }
}

/// The link, which may be another one with the same card, with what it lacked.
fn put_back(link: &Link, wanted: &Wanted) -> io::Result<Link> {
    let link = link.again()?;
    link.configure(&wanted.leases)?;
    if relies_on_routers(&wanted.leases) {
        ipv6::solicit(&link)?;
    }
    Ok(link)
}

/// What `link` should have and has not.
fn lacks(link: &Link, wanted: &Wanted) -> Option<&'static str> {
    if !link.is_up() {
        return Some("power");
    }
    let Leases { v4, v6, .. } = &wanted.leases;
    let v4 = v4.as_ref().map(|lease| lease.address.into());
    let addresses = [v4, v6.as_ref().and_then(|lease| Some(lease.address?.0.into()))];
    if addresses.into_iter().flatten().any(|address: IpAddr| !has_address(address)) {
        return Some("address");
    }
    if relies_on_routers(&wanted.leases) && !(link.has_ipv6_address() && link.has_ipv6_way_out()) {
        return Some("address or route of IPv6");
    }
    let gateway = v6.as_ref().and_then(|lease| lease.gateway);
    let is_cut_off = wanted.routes.iter().any(|route| !has_route(&link.name_now(), route))
        || gateway.is_some() && !link.has_ipv6_way_out();
    is_cut_off.then_some("route")
}

/// Whether there is nothing but what routers of IPv6 say. Beside IPv4 it is the kernel's business.
fn relies_on_routers(leases: &Leases) -> bool {
    let by_hand = |address: &Option<_>, grant: &Option<_>| address.is_some() && grant.is_none();
    leases.v4.is_none() && leases.v6.as_ref().is_some_and(|v6| !by_hand(&v6.address, &v6.grant))
}
