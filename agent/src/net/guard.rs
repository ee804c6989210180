//! Keeping the link as it is: whatever takes away its address, a route or its carrier (a network
//! manager that was not told, `ifdown`, a shutdown that stops the network before the disks), it is
//! put back at once. The kernel tells of each change (rtnetlink(7), multicast groups).

use super::Network;
use crate::console;
use crate::lease::Route;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE` of `linux/rtnetlink.h`.
const CHANGES: u32 = 0x1 | 0x10 | 0x40;

/// Changes come in swarms; the pause also bounds a quarrel with whoever makes them again.
const SETTLE: Duration = Duration::from_millis(200);

/// How long to wait where the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keep `network` as it is, for ever.
pub fn keep(network: &Network) -> ! {
    let mut changes = listen().ok();
    loop {
        if let Some(lacking) = lacks(network) {
            console::say(&format!("{} lost its {lacking}; putting it back", network.link.name_now()));
            if let Err(error) = network.link.up().and_then(|()| network.link.configure(&network.lease)) {
                console::say(&format!("{} cannot be put back: {error}", network.link));
            }
        }
        match &mut changes {
            // What was said does not matter, nor that something was too much to say.
            Some(socket) => drop(socket.recv_from_full()),
            None => std::thread::sleep(LOOK_EVERY),
        }
        std::thread::sleep(SETTLE);
    }
}

fn listen() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, CHANGES))?;
    Ok(socket)
}

/// What `network` should have and has not.
fn lacks(network: &Network) -> Option<&'static str> {
    if !network.link.is_up() {
        return Some("power");
    }
    // An address is ours if something can be bound to it.
    if UdpSocket::bind((network.lease.address, 0)).is_err() {
        return Some("address");
    }
    let table = fs::read_to_string("/proc/net/route").ok()?;
    let name = network.link.name_now();
    let missing = |route: &Route| !has_route(&table, &name, route);
    network.lease.routes.iter().any(missing).then_some("route")
}

/// Whether the kernel's table (`fib_trie.c`, `fib_route_seq_show`) has `route` on the link.
fn has_route(table: &str, link: &str, route: &Route) -> bool {
    let number = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(route.prefix)).unwrap_or(0));
    let wanted = [number(route.destination), number(route.gateway), number(mask)];
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
