//! Links: sysfs (`Documentation/ABI/testing/sysfs-class-net`). Their addresses and routes:
//! rtnetlink(7).

use crate::config::{LinkName, mac_text, parse_mac};
use crate::console;
use crate::lease::{Lease, Route};
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_ERROR, NetlinkHeader,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Where the kernel shows its links.
const SYS_CLASS_NET: &str = "/sys/class/net";

/// `ARPHRD_ETHER` of `if_arp.h`.
const ETHERNET: &str = "1";

/// Of `if.h`: switched on.
const IFF_UP: u32 = 1;

/// The main routing table, `RT_TABLE_MAIN`.
const MAIN_TABLE: u8 = 254;

/// A wired card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name today; the target may rename it.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its hardware address: what identifies it in both lives.
    pub mac: [u8; 6],
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, mac_text(self.mac))
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
            mac: parse_mac(&attribute("address")?, ':')?,
        })
    }

    /// What it is called now: udev renames links, since Linux 6.2 even while they are up.
    pub fn name_now(&self) -> String {
        let now = Self::all().into_iter().find(|link| link.index == self.index);
        now.map_or_else(|| self.name.clone(), |link| link.name)
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

    /// The card's directory in sysfs.
    pub fn sysfs(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(&self.name)
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

    /// By sysfs, which does what RTM_SETLINK does: that message's codec weighs 45 KB.
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

    /// Give it the lease's address, routes and MTU. Safe to repeat.
    pub fn configure(&self, lease: &Lease) -> io::Result<()> {
        if let Some(mtu) = lease.mtu {
            // A card that cannot do it keeps its own.
            let _ = fs::write(Path::new(SYS_CLASS_NET).join(self.name_now()).join("mtu"), mtu.to_string());
        }
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = lease.prefix;
        message.header.index = self.index;
        let host_bits = u32::MAX.checked_shr(lease.prefix.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from(u32::from(lease.address) | host_bits);
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(lease.address)),
            AddressAttribute::Address(IpAddr::V4(lease.address)),
            AddressAttribute::Broadcast(broadcast),
        ];
        request(libc::RTM_NEWADDR, &message, NLM_F_CREATE | NLM_F_REPLACE)?;
        for route in &lease.routes {
            // One that makes no sense must not take the others along; what is missing shows.
            if let Err(error) = self.add_route(route) {
                let Route { destination, prefix, gateway } = route;
                console::say(&format!("  no route to {destination}/{prefix} by {gateway}: {error}"));
            }
        }
        Ok(())
    }

    fn add_route(&self, route: &Route) -> io::Result<()> {
        let mut message = RouteMessage::default();
        let on_link = route.gateway.is_unspecified();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: route.prefix,
            table: MAIN_TABLE,
            protocol: RouteProtocol::Dhcp,
            scope: if on_link { RouteScope::Link } else { RouteScope::Universe },
            kind: RouteType::Unicast,
            // Clouds give a /32 and a gateway outside of it; it is on this link all the same.
            flags: if on_link { RouteFlags::empty() } else { RouteFlags::Onlink },
            ..RouteHeader::default()
        };
        message.attributes = vec![RouteAttribute::Oif(self.index)];
        if route.prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(route.destination)));
        }
        if !on_link {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(route.gateway)));
        }
        request(libc::RTM_NEWROUTE, &message, NLM_F_CREATE | NLM_F_REPLACE)
    }
}

/// One request, one answer. The message goes out behind a header of our own and the answer is
/// read by hand: netlink-packet-route's enum of all messages would link the codec of each of them
/// (250 kB) for an errno.
fn request(kind: u16, message: &impl Emitable, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.length = (header.buffer_len() + message.buffer_len()) as u32;
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut bytes = vec![0; header.length as usize];
    let (head, body) = bytes.split_at_mut(header.buffer_len());
    header.emit(head);
    message.emit(body);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    // The kernel answers before send returns; this does not wait.
    let (answer, _) = socket.recv_from_full()?;
    verdict(&answer)
}

/// What an acknowledgement says: `struct nlmsghdr`, then a negative errno or zero (netlink(7)).
fn verdict(answer: &[u8]) -> io::Result<()> {
    let field = |at: usize, length: usize| answer.get(at..at + length).unwrap_or_default();
    let kind = <[u8; 2]>::try_from(field(4, 2)).map(u16::from_ne_bytes);
    let code = <[u8; 4]>::try_from(field(16, 4)).map(i32::from_ne_bytes);
    match (kind, code) {
        (Ok(NLMSG_ERROR), Ok(0)) => Ok(()),
        (Ok(NLMSG_ERROR), Ok(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_verdict_is_read() {
        // Captured from Linux 6.18: `lo` switched on, and a link that does not exist.
        let ok = [36, 0, 0, 0, 2, 0, 0, 1, 7, 0, 0, 0, 56, 127, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0];
        let refused = [52, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 56, 127, 0, 0, 237, 255, 255, 255, 32, 0, 0, 0];
        assert!(verdict(&ok).is_ok());
        assert_eq!(verdict(&refused).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(verdict(&ok[..10]).is_err());
    }
}
