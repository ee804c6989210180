//! Links: sysfs (`Documentation/ABI/testing/sysfs-class-net`). Their addresses and routes:
//! rtnetlink(7).

use crate::base::console;
use crate::config::LinkName;
use crate::formats::lease::{Leases, Route};
use crate::formats::mac::Mac;
use crate::machine::drivers;
use crate::net::rtnetlink::{Request, verdict};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv,
    sendto, socket,
};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// Where the kernel shows its links.
const SYS_CLASS_NET: &str = "/sys/class/net";

/// `ARPHRD_ETHER` of `if_arp.h`.
const ETHERNET: &str = "1";

/// Of `if.h`: switched on.
const IFF_UP: u32 = 1;

/// A wired card, or a VLAN on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name today; the target may rename it.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its hardware address: what identifies it in both lives.
    pub mac: Mac,
    /// The card that a VLAN is on, by name, and the VLAN's number.
    pub vlan: Option<(String, u16)>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.mac)
    }
}

impl Link {
    /// The wired cards of this machine, by interface index.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(SYS_CLASS_NET) else {
            return Vec::new();
        };
        let mut links: Vec<Self> = entries.flatten().filter_map(|entry| Self::read(&entry.path())).collect();
        links.sort_by_key(|link| link.index);
        links
    }

    fn read(dir: &Path) -> Option<Self> {
        let attribute =
            |name: &str| fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
        // Bridges, tunnels and the loopback have no device behind them.
        if attribute("type")? != ETHERNET || !dir.join("device").exists() || dir.join("wireless").exists() {
            return None;
        }
        Some(Self {
            name: dir.file_name()?.to_str()?.to_owned(),
            index: attribute("ifindex")?.parse().ok()?,
            mac: Mac::parse(&attribute("address")?, ':')?,
            vlan: None,
        })
    }

    /// The VLAN `id` on this card, made if it is not there yet.
    pub fn with_vlan(&self, id: u16) -> io::Result<Self> {
        drivers::load_module("8021q");
        let name = format!("{}.{id}", self.name);
        let dir = Path::new(SYS_CLASS_NET).join(&name);
        if !dir.exists() {
            request(Request::vlan(self.index, &name, id))?;
        }
        let index = fs::read_to_string(dir.join("ifindex"))?;
        let index = index.trim().parse().map_err(io::Error::other)?;
        Ok(Self { name, index, mac: self.mac, vlan: Some((self.name.clone(), id)) })
    }

    /// What it is called now: udev renames links, since Linux 6.2 even while they are up.
    pub fn name_now(&self) -> String {
        let index = self.index.to_string();
        let is_it =
            |dir: &Path| fs::read_to_string(dir.join("ifindex")).is_ok_and(|text| text.trim() == index);
        let links = fs::read_dir(SYS_CLASS_NET).into_iter().flatten().flatten();
        let now = links.map(|entry| entry.path()).find(|dir| is_it(dir));
        let name = now.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.name.clone())
    }

    /// The name of the card.
    pub fn card(&self) -> &str {
        self.vlan.as_ref().map_or(&self.name, |(card, _)| card)
    }

    /// Whether the user meant this link.
    pub fn is(&self, wanted: &LinkName) -> bool {
        match wanted {
            LinkName::Device(name) => *name == self.name,
            LinkName::Mac(mac) => *mac == self.mac,
        }
    }

    /// Whether a cable with somebody at the other end is plugged in. Only known once it is up.
    pub fn has_carrier(&self) -> bool {
        fs::read_to_string(self.sysfs().join("carrier")).is_ok_and(|text| text.trim() == "1")
    }

    /// Its directory in sysfs.
    fn sysfs(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(&self.name)
    }

    /// The card's directory there.
    pub fn card_sysfs(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(self.card())
    }

    /// Whether it has an address of IPv6 that is valid beyond the link and that nobody else has.
    pub fn has_ipv6_address(&self) -> bool {
        let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        has_global_address(&table, &self.name_now())
    }

    /// Whether there is a way out of the link by IPv6.
    pub fn has_ipv6_way_out(&self) -> bool {
        let table = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
        has_way_out(&table, &self.name_now())
    }

    /// The same link again, switched on: its card may have been unplugged and come back, its VLAN
    /// deleted.
    pub fn again(&self) -> io::Result<Self> {
        let same = |card: &Self| card.mac == self.mac;
        let card = Self::all().into_iter().find(same).ok_or(io::ErrorKind::NotFound)?;
        card.up()?;
        match &self.vlan {
            None => Ok(card),
            Some((_, id)) => {
                let link = card.with_vlan(*id)?;
                link.up()?;
                Ok(link)
            }
        }
    }

    /// Whether it is switched on.
    pub fn is_up(&self) -> bool {
        self.flags().is_ok_and(|flags| flags & IFF_UP != 0)
    }

    /// Switch it on.
    pub fn up(&self) -> io::Result<()> {
        self.change_flags(|flags| flags | IFF_UP)
    }

    /// Switch it off, as kexec wants it: a card that still writes to memory is a danger to the
    /// next kernel.
    pub fn down(&self) -> io::Result<()> {
        self.change_flags(|flags| flags & !IFF_UP)
    }

    /// By sysfs, which does what RTM_SETLINK does.
    fn change_flags(&self, change: impl FnOnce(u32) -> u32) -> io::Result<()> {
        let flags = change(self.flags()?);
        fs::write(self.flags_file(), format!("{flags:#x}"))
    }

    fn flags(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.flags_file())?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).map_err(io::Error::other)
    }

    fn flags_file(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(self.name_now()).join("flags")
    }

    /// Give it the leases' addresses, routes and MTU. Safe to repeat.
    pub fn configure(&self, leases: &Leases) -> io::Result<()> {
        if leases.v6.is_some() {
            // Also where somebody makes a router of the machine later: containers do.
            let name = self.name_now();
            let _ = fs::write(Path::new("/proc/sys/net/ipv6/conf").join(name).join("accept_ra"), "2");
        }
        if let Some(lease) = &leases.v4 {
            if let Some(mtu) = lease.mtu {
                // A card that cannot do it keeps its own.
                let path = Path::new(SYS_CLASS_NET).join(self.name_now()).join("mtu");
                let _ = fs::write(path, mtu.to_string());
            }
            request(Request::address(self.index, lease.address.into(), lease.prefix))?;
            lease.routes.iter().for_each(|route| self.add_route(route));
        }
        if let Some(lease) = &leases.v6 {
            if let Some((address, prefix)) = lease.address {
                request(Request::address(self.index, address.into(), prefix))?;
            }
            if let Some(gateway) = lease.gateway {
                self.add_route(&Route::default(gateway.into()));
            }
        }
        Ok(())
    }

    /// One that makes no sense must not take the others along; what is missing shows.
    fn add_route(&self, route: &Route) {
        if let Err(error) = request(Request::route(self.index, route)) {
            let Route { destination, prefix, gateway } = route;
            console::say(&format!("  no route to {destination}/{prefix} by {gateway}: {error}"));
        }
    }
}

/// Whether one of the addresses in the kernel's table (`if6_seq_show`) is global, tried and good.
fn has_global_address(table: &str, link: &str) -> bool {
    const GLOBAL: &str = "00";
    const TENTATIVE_OR_FAILED: u8 = 0x40 | 0x08;
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, _, GLOBAL, flags, name] if name == link
            && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE_OR_FAILED == 0))
    })
}

/// Whether the kernel's table (`ipv6_route_seq_show`) has a default route that is no dead end.
fn has_way_out(table: &str, link: &str) -> bool {
    const EVERYWHERE: &str = "00000000000000000000000000000000";
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [EVERYWHERE, "00", .., name] if name == link)
    })
}

/// An address as `/proc/net/if_inet6` writes it.
fn is_in_table(table: &str, address: Ipv6Addr) -> bool {
    let text: String = address.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    table.lines().any(|line| line.starts_with(&text))
}

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

fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// One request, one answer: the kernel answers before the sending returns.
fn request(request: Request) -> io::Result<()> {
    let fd = netlink(0)?;
    sendto(fd.as_raw_fd(), &request.bytes(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    verdict(&answer[..length])
}

/// News from the kernel that a link, an address or a route has changed.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Listen from now on.
    pub fn listen() -> io::Result<Self> {
        // RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
        // of linux/rtnetlink.h.
        netlink(0x1 | 0x10 | 0x40 | 0x100 | 0x400).map(Self)
    }

    /// Wait for the next. What it is does not matter, nor that there was too much to say.
    pub fn wait(&self) {
        let _ = recv(self.0.as_raw_fd(), &mut [0; 4096], MsgFlags::empty());
    }
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
}
