//! The addresses of the machine.

use crate::base::console;
use crate::net::netlink::request;
use crate::net::rtnetlink::Request;
use crate::net::tables::is_in_table;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use std::net::IpAddr;
use std::{fs, io};

/// Whether the machine has this address.
pub fn has_address(address: IpAddr) -> bool {
    match address {
        // Something can be bound to it.
        IpAddr::V4(_) => std::net::UdpSocket::bind((address, 0)).is_ok(),
        // To this one not while it is tried.
        IpAddr::V6(address) => {
            is_in_table(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default(), address)
        }
    }
}

/// Take back what the machine's links were given by an attempt before this one: the kernel would go on
/// using it. Routes go with a link's last address.
pub fn take_back_addresses() {
    for given in getifaddrs().into_iter().flatten() {
        let Some((ip, prefix)) = address_of(&given) else { continue };
        let name = given.interface_name.as_str();
        let index = if_nametoindex(name).map_err(io::Error::from);
        if let Err(error) = index.and_then(|index| request(Request::no_address(index, ip, prefix))) {
            console::say(&format!("  {name} keeps {ip}: {error}"));
        }
    }
}

/// The address and its prefix, but for those that every link has by itself.
fn address_of(given: &InterfaceAddress) -> Option<(IpAddr, u8)> {
    let (ip, mask) = (ip_of(given.address.as_ref()?)?, ip_of(given.netmask.as_ref()?)?);
    let is_its_own = ip.is_loopback() || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let bits = match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    (!is_its_own).then_some((ip, bits as u8))
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}
