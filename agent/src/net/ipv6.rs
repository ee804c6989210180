//! IPv6 on one link. A router is asked to advertise itself (RFC 4861), the kernel makes an address from its
//! prefix (RFC 4862), and DHCPv6 (RFC 8415) is asked for the things that the router says a server has.

use crate::formats::lease::Lease6;
use crate::net::advert::{Advert, SOLICIT};
use crate::net::dhcp6::{Ask, Conversation6};
use crate::net::link::Link;
use crate::net::waiting::batch;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, recvfrom, sendto,
    setsockopt, socket, sockopt,
};
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;

/// All routers of a link, and all DHCPv6 servers and relays.
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// The interval between solicitations: half of `RTR_SOLICITATION_INTERVAL` (RFC 4861, 10).
const SOLICIT_EVERY: Duration = Duration::from_secs(2);

/// The time for a DHCPv6 server to answer if the address does not depend on it. Its name servers are not
/// worth a longer wait.
const INFORMATION_BOUND: Duration = Duration::from_secs(4);

/// One link on its way to IPv6.
pub struct Ipv6 {
    link: Link,
    xid: u32,
    icmp: io::Result<OwnedFd>,
    solicited_at: Option<Instant>,
    router: Option<Router>,
    dhcp: Option<(Conversation6, UdpSocket)>,
    dhcp_answer: Option<Lease6>,
}

/// The routers of the link, with all of their advertisements in one.
struct Router {
    advert: Advert,
    first_heard: Instant,
}

impl Ipv6 {
    pub fn start(link: Link, xid: u32) -> Self {
        let icmp = icmp_socket(&link);
        Self { link, xid, icmp, solicited_at: None, router: None, dhcp: None, dhcp_answer: None }
    }

    /// The socket to wait for. Without a cable there is none: [`advance`](Self::advance) would not read it.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        let icmp = self.icmp.as_ref().ok()?;
        self.link.has_carrier().then(|| icmp.as_fd())
    }

    /// The first thing that the link is missing for IPv6.
    pub fn obstacle(&self) -> String {
        match (&self.icmp, &self.router) {
            (Err(error), _) => format!("cannot use IPv6: {error}"),
            (Ok(_), None) => "has a cable, but no IPv6 router answered".into(),
            (Ok(_), Some(router)) if router.advert.managed => {
                "has an IPv6 router, but got no address by DHCPv6".into()
            }
            (Ok(_), Some(_)) => "has an IPv6 router, but got no address from its advertisements".into(),
        }
    }

    /// Sends the messages that are due and reads those that arrived. Once the link is on the network, gives
    /// the part of its configuration that the kernel does not do by itself.
    pub fn advance(&mut self, now: Instant) -> Option<Lease6> {
        if self.icmp.is_err() || !self.link.has_carrier() {
            return None;
        }
        self.solicit(now);
        self.read_advertisements(now);
        let Router { advert, first_heard } = self.router.as_ref()?;
        let (advert, first_heard) = (advert.clone(), *first_heard);

        let needs_dhcp = advert.managed || advert.other;
        if needs_dhcp && self.dhcp_answer.is_none() {
            let ask = if advert.managed { Ask::Address } else { Ask::Information };
            self.dhcp_answer = self.ask_dhcp(ask, now);
        }
        if let Some(lease) = self.dhcp_answer.as_ref().filter(|lease| lease.address.is_some()) {
            return Some(with_advert(lease.clone(), &advert));
        }

        // Without an address by DHCPv6 the kernel's own is enough.
        let is_patience_over = now - first_heard >= INFORMATION_BOUND;
        let may_finish = !needs_dhcp || self.dhcp_answer.is_some() || is_patience_over;
        (may_finish && self.link.has_ipv6_address() && self.link.has_ipv6_default_route())
            .then(|| with_advert(self.dhcp_answer.clone().unwrap_or_default(), &advert))
    }

    /// Asks routers to advertise themselves, until one does.
    fn solicit(&mut self, now: Instant) {
        let Ok(icmp) = &self.icmp else { return };
        let is_due = self.solicited_at.is_none_or(|last| now - last >= SOLICIT_EVERY);
        if self.router.is_none() && is_due {
            self.solicited_at = Some(now);
            // Fails until the link-local address is ready, and is then repeated.
            let _ = send_solicitation(icmp, self.link.index);
        }
    }

    /// Reads the advertisements that arrived.
    fn read_advertisements(&mut self, now: Instant) {
        let Ok(icmp) = &self.icmp else { return };
        let mut buffer = [0; 2048];
        let messages = batch(|| {
            let (length, from) = recvfrom::<SockaddrIn6>(icmp.as_raw_fd(), &mut buffer).ok()?;
            // Routers advertise from their link-local address alone (RFC 4861, 6.1.2).
            let is_near = from.is_some_and(|from| from.ip().is_unicast_link_local());
            Some(Advert::parse(&buffer[..length]).filter(|_| is_near))
        });

        for advert in messages.flatten() {
            let empty = || Router { advert: Advert::default(), first_heard: now };
            self.router.get_or_insert_with(empty).advert.merge(advert);
        }
    }

    /// The answer of a DHCPv6 server, once it is there.
    fn ask_dhcp(&mut self, ask: Ask, now: Instant) -> Option<Lease6> {
        if self.dhcp.is_none() {
            let socket = dhcp_socket(&self.link).ok()?;
            self.dhcp = Some((Conversation6::new(self.link.mac, self.xid, ask, now), socket));
        }
        let (talk, socket) = self.dhcp.as_mut()?;
        exchange(talk, socket, &self.link, now)
    }
}

/// `lease`, with the name servers and domains of the routers behind its own.
fn with_advert(lease: Lease6, advert: &Advert) -> Lease6 {
    let Lease6 { nameservers, search, .. } = lease;
    let mut all = Advert { nameservers, search, ..Advert::default() };
    all.merge(advert.clone());
    Lease6 { nameservers: all.nameservers, search: all.search, ..lease }
}

/// Asks the routers of `link` to advertise themselves. The kernel configures the link by their answers.
pub fn solicit(link: &Link) -> io::Result<()> {
    send_solicitation(&icmp_socket(link)?, link.index)
}

fn send_solicitation(icmp: &OwnedFd, link: u32) -> io::Result<()> {
    let to = SockaddrIn6::from(SocketAddrV6::new(ROUTERS, 0, 0, link));
    Ok(sendto(icmp.as_raw_fd(), &SOLICIT, &to, MsgFlags::empty()).map(drop)?)
}

/// Sends the message that is due in `talk`, and reads those that arrived. Gives the lease once it is granted.
pub fn exchange(talk: &mut Conversation6, socket: &UdpSocket, link: &Link, now: Instant) -> Option<Lease6> {
    if let Some(message) = talk.poll(now) {
        // Fails until the link-local address is ready, and is then repeated.
        let _ = socket.send_to(&message, SocketAddrV6::new(SERVERS, SERVER_PORT, 0, link.index));
    }
    let mut buffer = [0; 2048];
    batch(|| {
        let length = socket.recv(&mut buffer).ok()?;
        Some(talk.receive(&buffer[..length], now))
    })
    .find_map(|lease| lease)
}

/// A DHCPv6 client's socket on `link` alone. Services of the target may hold the port on other links.
pub fn dhcp_socket(link: &Link) -> io::Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &link.current_name().into())?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0)))?;
    let socket = UdpSocket::from(fd);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn icmp_socket(link: &Link) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
    setsockopt(&fd, sockopt::BindToDevice, &link.current_name().into())?;
    // Routers drop solicitations with a smaller hop limit: those crossed a router (RFC 4861, 6.1.1).
    setsockopt(&fd, sockopt::Ipv6MulticastHops, &255)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::mac::Mac;
    use std::os::unix::net::UnixStream;

    /// A message that waits on a link without a cable is not waited for: nothing would read it.
    #[test]
    fn no_cable_no_socket() {
        let link = Link { name: "unplugged".into(), index: 0, mac: Mac([2; 6]), vlan: None };
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let v6 = Ipv6 { icmp: Ok(ours.into()), ..Ipv6::start(link, 1) };
        assert!(v6.socket().is_none());
    }
}
