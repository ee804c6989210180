//! The kernel's tables of addresses and routes in `/proc/net`.

use crate::formats::lease::Route;
use crate::formats::pieces::hex;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn read(table: &str) -> String {
    fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default()
}

/// True if `link` has a usable IPv6 address that is valid beyond the link: the kernel has checked that no
/// other machine has it.
pub fn has_global_ipv6_address(link: &str) -> bool {
    is_global_in(&read("if_inet6"), link)
}

/// True if `link` has a default route for IPv6.
pub fn has_ipv6_default_route(link: &str) -> bool {
    is_default_in(&read("ipv6_route"), link)
}

/// True if the machine has `address`, usable or not yet.
pub fn has_ipv6_address(address: Ipv6Addr) -> bool {
    is_address_in(&read("if_inet6"), address)
}

/// True if `link` has `route`. A route for IPv6 is taken for granted: it would be in another table.
pub fn has_ipv4_route(link: &str, route: &Route) -> bool {
    is_route_in(&read("route"), link, route)
}

/// `/proc/net/if_inet6` is written by `if6_seq_show` of `net/ipv6/addrconf.c`: address, interface index,
/// prefix length, scope, flags, name.
fn is_global_in(table: &str, link: &str) -> bool {
    const GLOBAL: &str = "00";
    // IFA_F_TENTATIVE and IFA_F_DADFAILED of linux/if_addr.h.
    const UNUSABLE: u8 = 0x40 | 0x08;
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, _, GLOBAL, flags, name] if name == link
            && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & UNUSABLE == 0))
    })
}

fn is_address_in(table: &str, address: Ipv6Addr) -> bool {
    let text = hex(&address.octets());
    table.lines().any(|line| line.starts_with(&text))
}

/// `/proc/net/ipv6_route` is written by `ipv6_route_seq_show` of `net/ipv6/route.c`. The kernel's own route
/// for unreachable destinations is on the loopback.
fn is_default_in(table: &str, link: &str) -> bool {
    const EVERYWHERE: &str = "00000000000000000000000000000000";
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [EVERYWHERE, "00", .., name] if name == link)
    })
}

/// `/proc/net/route` is written by `fib_route_seq_show` of `net/ipv4/fib_trie.c`, its addresses as numbers of
/// this machine's byte order.
fn is_route_in(table: &str, link: &str, route: &Route) -> bool {
    let (IpAddr::V4(destination), IpAddr::V4(gateway)) = (route.destination, route.gateway) else {
        return true;
    };
    let host_bits = u32::MAX.checked_shr(route.prefix.into()).unwrap_or(0);
    let number = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let wanted = [number(destination), number(gateway), number(Ipv4Addr::from(!host_bits))];

    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [name, destination, gateway, _, _, _, _, mask, ..]
            if name == link && [destination, gateway, mask] == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from Linux 6.1: a usable address, one that the kernel still checks, and a link-local one.
    const USABLE: &str = "fd0000000000000050540012fffe3456 02 40 00 00     eth0\n";
    const TENTATIVE: &str = "fd0000000000000050540012fffe3456 02 40 00 40     eth0\n";
    const LOCAL: &str = "fe80000000000000505400fffe123456 02 40 20 80     eth0\n";

    /// Only a checked address that is valid beyond the link is usable.
    #[test]
    fn usable_ipv6_addresses_are_found() {
        assert!(is_global_in(&format!("{LOCAL}{USABLE}"), "eth0"));
        assert!(!is_global_in(&format!("{LOCAL}{TENTATIVE}"), "eth0"));
        assert!(!is_global_in(USABLE, "eth1"));
        assert!(is_address_in(LOCAL, "fe80::5054:ff:fe12:3456".parse().unwrap()));
    }

    /// A default route counts on its own link. The kernel's dead end is on the loopback.
    #[test]
    fn ipv6_default_routes_are_found() {
        let zeros = "0".repeat(32);
        let route = |name| {
            format!(
                "{zeros} 00 {zeros} 00 fe80000000000000005400fffe000001 00000400 00000001 00000000 00450003     {name}\n"
            )
        };
        assert!(is_default_in(&route("eth0"), "eth0"));
        assert!(!is_default_in(&route("lo"), "eth0"));
    }

    /// A route of IPv4 is known by its destination, gateway and link. A prefix that is too long matches none.
    #[test]
    fn ipv4_routes_are_found() {
        // Captured from Linux 6.1.
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let route = |destination: [u8; 4], prefix, gateway: [u8; 4]| Route {
            destination: destination.into(),
            prefix,
            gateway: gateway.into(),
        };
        assert!(is_route_in(table, "eth0", &route([0; 4], 0, [10, 0, 2, 2])));
        assert!(is_route_in(table, "eth0", &route([10, 0, 2, 0], 24, [0; 4])));
        assert!(!is_route_in(table, "eth0", &route([0; 4], 0, [10, 0, 2, 3])));
        assert!(!is_route_in(table, "eth1", &route([0; 4], 0, [10, 0, 2, 2])));
        assert!(!is_route_in(table, "eth0", &route([10, 0, 2, 0], 33, [0; 4])));
    }
}
