//! The addresses of the machine, on all of its links.

use crate::base::console;
use crate::net::netlink::request;
use crate::net::rtnetlink::Request;
use crate::net::tables;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use std::io;
use std::net::{IpAddr, UdpSocket};

/// True if the machine has `address`.
pub fn is_ours(address: IpAddr) -> bool {
    match address {
        // Only an address of this machine can be bound to.
        IpAddr::V4(_) => UdpSocket::bind((address, 0)).is_ok(),
        // One of IPv6 cannot be bound to while the kernel checks that no other machine has it.
        IpAddr::V6(address) => tables::has_ipv6_address(address),
    }
}

/// Removes the addresses that an earlier attempt gave to the links: the kernel would go on using them. Routes
/// go with the last address of their link.
pub fn remove_all() {
    for given in getifaddrs().into_iter().flatten() {
        let Some((ip, prefix)) = address_and_prefix(&given) else { continue };
        let name = given.interface_name.as_str();
        let index = if_nametoindex(name).map_err(io::Error::from);
        if let Err(error) = index.and_then(|index| request(Request::no_address(index, ip, prefix))) {
            console::say(&format!("  cannot remove {ip} from {name}: {error}"));
        }
    }
}

/// The address and the length of its prefix; `None` for the addresses that every link has by itself.
fn address_and_prefix(given: &InterfaceAddress) -> Option<(IpAddr, u8)> {
    let (ip, mask) = (ip(given.address.as_ref()?)?, ip(given.netmask.as_ref()?)?);
    let is_its_own = ip.is_loopback() || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let bits = match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    (!is_its_own).then_some((ip, bits as u8))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}
