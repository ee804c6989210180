//! The messages of rtnetlink(7) as bytes: four requests, and the kernel's answer to them. No I/O.
//!
//! The crates for it have types for all messages. They made the agent 250 KB larger, or 45 KB with care.

use crate::formats::lease::Route;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

// linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_DHCP: u8 = 16;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const IFA_LOCAL: u16 = 2;

/// The length of the header, `struct nlmsghdr`.
const HEADER: usize = 16;

/// A request to the kernel: its header, its body and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, body: &[&[u8]]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST_ACK | flags).to_ne_bytes());
        bytes.extend(body.concat());
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(attribute(kind, value));
        self
    }

    /// The bytes to send.
    pub fn bytes(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }

    /// Gives the link `index` an address, unless it has it already.
    pub fn address(index: u32, ip: IpAddr, prefix: u8) -> Self {
        const IFA_ADDRESS: u16 = 1;
        const IFA_BROADCAST: u16 = 4;
        let body = [family(ip), prefix, 0, 0];
        let request = Self::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &[&body, &index.to_ne_bytes()])
            .attribute(IFA_LOCAL, &octets(ip))
            .attribute(IFA_ADDRESS, &octets(ip));
        let IpAddr::V4(ip) = ip else { return request };
        // A network of two addresses has no broadcast (RFC 3021).
        if prefix >= 31 {
            return request;
        }
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        request.attribute(IFA_BROADCAST, &Ipv4Addr::from(u32::from(ip) | host_bits).octets())
    }

    /// Removes an address from the link `index`.
    pub fn no_address(index: u32, ip: IpAddr, prefix: u8) -> Self {
        let body = [family(ip), prefix, 0, 0];
        Self::new(RTM_DELADDR, 0, &[&body, &index.to_ne_bytes()]).attribute(IFA_LOCAL, &octets(ip))
    }

    /// Adds a route through the link `index`, or replaces it.
    pub fn route(index: u32, route: &Route) -> Self {
        const RTA_DST: u16 = 1;
        const RTA_OIF: u16 = 4;
        const RTA_GATEWAY: u16 = 5;
        let Route { destination, prefix, gateway } = *route;
        let on_link = gateway.is_unspecified();
        let scope = if on_link { RT_SCOPE_LINK } else { 0 };
        // Clouds lease a /32 and a gateway outside of it, which is on this link all the same.
        let flags = if on_link { 0 } else { RTNH_F_ONLINK };

        let body = [family(destination), prefix, 0, 0, RT_TABLE_MAIN, RTPROT_DHCP, scope, RTN_UNICAST];
        let mut request =
            Self::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &[&body, &flags.to_ne_bytes()])
                .attribute(RTA_OIF, &index.to_ne_bytes());
        if prefix > 0 {
            request = request.attribute(RTA_DST, &octets(destination));
        }
        if !on_link {
            request = request.attribute(RTA_GATEWAY, &octets(gateway));
        }
        request
    }

    /// Makes the link `name` for the frames of VLAN `id` on the card `index` (`linux/if_vlan.h`).
    pub fn vlan(index: u32, name: &str, id: u16) -> Self {
        const IFLA_IFNAME: u16 = 3;
        const IFLA_LINK: u16 = 5;
        const IFLA_LINKINFO: u16 = 18;
        const IFLA_INFO_KIND: u16 = 1;
        const IFLA_INFO_DATA: u16 = 2;
        const IFLA_VLAN_ID: u16 = 1;
        let data = attribute(IFLA_VLAN_ID, &id.to_ne_bytes());
        let info = [attribute(IFLA_INFO_KIND, b"vlan"), attribute(IFLA_INFO_DATA, &data)].concat();
        Self::new(RTM_NEWLINK, NLM_F_CREATE, &[&[0; 16]])
            .attribute(IFLA_LINK, &index.to_ne_bytes())
            .attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat())
            .attribute(IFLA_LINKINFO, &info)
    }
}

/// `struct rtattr`. Zeros fill its value up to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = [(length as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The result in an acknowledgement: `struct nlmsghdr`, then a negative errno or zero (netlink(7)).
pub fn verdict(answer: &[u8]) -> io::Result<()> {
    let field = |at: usize, length: usize| answer.get(at..at + length).unwrap_or_default();
    let kind = <[u8; 2]>::try_from(field(4, 2)).map(u16::from_ne_bytes);
    let code = <[u8; 4]>::try_from(field(HEADER, 4)).map(i32::from_ne_bytes);
    match (kind, code) {
        (Ok(NLMSG_ERROR), Ok(0)) => Ok(()),
        (Ok(NLMSG_ERROR), Ok(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests are those of iproute2, byte by byte.
    #[test]
    fn requests_equal_iproute2s() {
        // strace -e trace=sendmsg -xx ip address replace 10.0.0.2/8 dev lo, without its broadcast.
        let address = Request::address(1, [10, 0, 0, 2].into(), 8).bytes();
        assert_eq!(address[..8], [48, 0, 0, 0, 20, 0, 5, 5]);
        assert_eq!(
            address[16..40],
            [2, 8, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 2, 8, 0, 1, 0, 10, 0, 0, 2]
        );
        assert_eq!(address[40..], [8, 0, 4, 0, 10, 255, 255, 255]);

        // ip address delete 10.0.0.2/8 dev lo, which says the address twice
        let gone = Request::no_address(1, [10, 0, 0, 2].into(), 8).bytes();
        assert_eq!(gone[..8], [32, 0, 0, 0, 21, 0, 5, 0]);
        assert_eq!(gone[16..], address[16..32]);

        // ip link add link eth0 name eth0.7 type vlan id 7
        let vlan = Request::vlan(2, "eth0.7", 7).bytes();
        let info = [28, 0, 18, 0, 8, 0, 1, 0, b'v', b'l', b'a', b'n', 12, 0, 2, 0, 6, 0, 1, 0, 7, 0, 0, 0];
        assert_eq!(vlan[32..40], [8, 0, 5, 0, 2, 0, 0, 0]);
        assert_eq!(vlan[40..52], [11, 0, 3, 0, b'e', b't', b'h', b'0', b'.', b'7', 0, 0]);
        assert_eq!(vlan[52..54], [24, 0]);
        assert_eq!(vlan[56..], info[4..]);
        assert_eq!(vlan.len(), usize::from(vlan[0]));
    }

    /// A default route has a gateway and no destination.
    #[test]
    fn default_routes() {
        let route =
            Route { destination: Ipv4Addr::UNSPECIFIED.into(), prefix: 0, gateway: [10, 0, 0, 1].into() };
        let bytes = Request::route(2, &route).bytes();
        assert_eq!(bytes[16..28], [2, 0, 0, 0, 254, 16, 0, 1, 4, 0, 0, 0]);
        assert_eq!(bytes[28..], [8, 0, 4, 0, 2, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1]);
    }

    /// The kernel's answer is success or an errno. No number in it makes the parser panic.
    #[test]
    fn verdicts_are_read() {
        // Captured from Linux 6.18: `lo` switched on, and a link that does not exist.
        let ok = [36, 0, 0, 0, 2, 0, 0, 1, 7, 0, 0, 0, 56, 127, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0];
        let refused = [52, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 56, 127, 0, 0, 237, 255, 255, 255, 32, 0, 0, 0];
        assert!(verdict(&ok).is_ok());
        assert_eq!(verdict(&refused).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(verdict(&ok[..10]).is_err());

        let mut lowest = refused;
        lowest[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert!(verdict(&lowest).is_err());
    }
}
