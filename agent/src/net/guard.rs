//! Keeping the link as it is: whatever takes away its address, a route or its carrier (a network
//! manager that was not told, `ifdown`, a shutdown that stops the network before the disks), it is
//! put back at once. The kernel tells of each change (rtnetlink(7), multicast groups).

use super::Network;
use super::link::{Changes, has_address};
use crate::console;
use crate::lease::Route;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Changes come in swarms; the pause also bounds a quarrel with whoever makes them again.
const SETTLE: Duration = Duration::from_millis(200);

/// How long to wait where the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keep `network` as it is, for ever.
pub fn keep(network: &Network) -> ! {
    let changes = Changes::listen();
    loop {
        if let Some(lacking) = lacks(network) {
            console::say(&format!("{} lost its {lacking}; putting it back", network.link.name_now()));
            if let Err(error) = network.link.up().and_then(|()| network.link.configure(&network.leases)) {
                console::say(&format!("{} cannot be put back: {error}", network.link));
            }
        }
        match &changes {
            Ok(changes) => changes.wait(),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
        std::thread::sleep(SETTLE);
    }
}

/// What `network` should have and has not. Addresses and routes that the kernel makes of what
/// routers advertise it makes again by itself.
fn lacks(network: &Network) -> Option<&'static str> {
    if !network.link.is_up() {
        return Some("power");
    }
    let v4 = network.leases.v4.as_ref();
    let v6 = network.leases.v6.as_ref().and_then(|lease| lease.address);
    let addresses = [v4.map(|lease| lease.address.into()), v6.map(|(address, _)| address.into())];
    if addresses.into_iter().flatten().any(|address: IpAddr| !has_address(address)) {
        return Some("address");
    }
    let table = fs::read_to_string("/proc/net/route").ok()?;
    let name = network.link.name_now();
    let missing = |route: &Route| !has_route(&table, &name, route);
    v4?.routes.iter().any(missing).then_some("route")
}

/// Whether the kernel's table (`fib_trie.c`, `fib_route_seq_show`) has `route` on the link.
fn has_route(table: &str, link: &str, route: &Route) -> bool {
    let (IpAddr::V4(destination), IpAddr::V4(gateway)) = (route.destination, route.gateway) else {
        return true; // It is in another table.
    };
    let number = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(route.prefix)).unwrap_or(0));
    let wanted = [number(destination), number(gateway), number(mask)];
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [name, destination, gateway, _, _, _, _, mask, ..]
            if name == link && [destination, gateway, mask] == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_in_the_kernels_table() {
        // Captured from Linux 6.1.
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let route = |destination: [u8; 4], prefix, gateway: [u8; 4]| Route {
            destination: destination.into(),
            prefix,
            gateway: gateway.into(),
        };
        assert!(has_route(table, "eth0", &route([0; 4], 0, [10, 0, 2, 2])));
        assert!(has_route(table, "eth0", &route([10, 0, 2, 0], 24, [0; 4])));
        assert!(!has_route(table, "eth0", &route([0; 4], 0, [10, 0, 2, 3])));
        assert!(!has_route(table, "eth1", &route([0; 4], 0, [10, 0, 2, 2])));
    }
}
