//! The kernel's tables of addresses and routes, in `/proc/net`.

use crate::formats::lease::Route;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether one of the addresses in the kernel's table (`if6_seq_show`) is global, tried and good.
pub fn has_global_address(table: &str, link: &str) -> bool {
    const GLOBAL: &str = "00";
    const TENTATIVE_OR_FAILED: u8 = 0x40 | 0x08;
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, _, GLOBAL, flags, name] if name == link
            && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE_OR_FAILED == 0))
    })
}

/// Whether the kernel's table (`ipv6_route_seq_show`) has a default route that is no dead end.
pub fn has_way_out(table: &str, link: &str) -> bool {
    const EVERYWHERE: &str = "00000000000000000000000000000000";
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [EVERYWHERE, "00", .., name] if name == link)
    })
}

/// An address as `/proc/net/if_inet6` writes it.
pub fn is_in_table(table: &str, address: Ipv6Addr) -> bool {
    let text: String = address.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    table.lines().any(|line| line.starts_with(&text))
}

pub fn has_route(link: &str, route: &Route) -> bool {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    has_route_line(&table, link, route)
}

/// Whether the kernel's table (`fib_trie.c`, `fib_route_seq_show`) has `route` on the link.
fn has_route_line(table: &str, link: &str, route: &Route) -> bool {
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
    fn ipv6_is_there_with_an_address_that_holds_and_a_way_out() {
        // Captured from Linux 6.1: one address tried and good, one still being tried.
        let good = "fd0000000000000050540012fffe3456 02 40 00 00     eth0\n";
        let tried = "fd0000000000000050540012fffe3456 02 40 00 40     eth0\n";
        let local = "fe80000000000000505400fffe123456 02 40 20 80     eth0\n";
        assert!(has_global_address(&format!("{local}{good}"), "eth0"));
        assert!(!has_global_address(&format!("{local}{tried}"), "eth0"));
        assert!(!has_global_address(good, "eth1"));
        assert!(is_in_table(local, "fe80::5054:ff:fe12:3456".parse().unwrap()));
        let zeros = "0".repeat(32);
        let route = |name| {
            format!(
                "{zeros} 00 {zeros} 00 fe80000000000000005400fffe000001 00000400 00000001 00000000 00450003     {name}\n"
            )
        };
        assert!(has_way_out(&route("eth0"), "eth0"));
        assert!(!has_way_out(&route("lo"), "eth0"));
    }

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
        assert!(has_route_line(table, "eth0", &route([0; 4], 0, [10, 0, 2, 2])));
        assert!(has_route_line(table, "eth0", &route([10, 0, 2, 0], 24, [0; 4])));
        assert!(!has_route_line(table, "eth0", &route([0; 4], 0, [10, 0, 2, 3])));
        assert!(!has_route_line(table, "eth1", &route([0; 4], 0, [10, 0, 2, 2])));
    }
}
