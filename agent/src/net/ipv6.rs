//! One link's part of the race for IPv6: a router is asked to advertise itself (RFC 4861), the kernel
//! makes an address of what it says, and DHCPv6 is asked for what it says is to be had there.

use crate::formats::lease::Lease6;
use crate::net::advert::{Advert, SOLICIT};
use crate::net::dhcp6::{Ask, Conversation6};
use crate::net::link::Link;
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

/// How often a router is asked (RFC 4861, 10: `RTR_SOLICITATION_INTERVAL`, a little less patient).
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long a server of further information gets: names are not worth more.
const INFORMATION: Duration = Duration::from_secs(4);

/// A link on its way to IPv6.
pub(super) struct Runner6 {
    link: Link,
    xid: u32,
    icmp: io::Result<OwnedFd>,
    asked: Option<Instant>,
    advert: Option<(Advert, Instant)>,
    talk: Option<(Conversation6, UdpSocket)>,
    told: Option<Lease6>,
}

impl Runner6 {
    pub(super) fn start(link: Link, xid: u32) -> Self {
        let icmp = icmp_socket(&link);
        Self { link, xid, icmp, asked: None, advert: None, talk: None, told: None }
    }

    /// What to wait for.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.icmp.as_ref().ok().map(AsFd::as_fd)
    }

    /// What kept the link from IPv6.
    pub(super) fn lacked(&self) -> String {
        match (&self.icmp, &self.advert) {
            (Err(error), _) => format!("has no IPv6: {error}"),
            (Ok(_), None) => "has a cable, but no router of IPv6 answered".into(),
            (Ok(_), Some((advert, _))) if advert.managed => {
                "has a router of IPv6, but was given no address by DHCPv6".into()
            }
            (Ok(_), Some(_)) => "has a router of IPv6, but no address by its word".into(),
        }
    }

    /// Ask what is due, read what arrived. Gives what the kernel does not do by itself, once the
    /// link is on the network.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Lease6> {
        let icmp = self.icmp.as_ref().ok()?;
        if !self.link.has_carrier() {
            return None;
        }
        if self.advert.is_none() && self.asked.is_none_or(|asked| now - asked >= ASK_EVERY) {
            self.asked = Some(now);
            // Not before the link has an address of its own; then again.
            let _ = send_solicitation(icmp, self.link.index);
        }
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = recvfrom::<SockaddrIn6>(icmp.as_raw_fd(), &mut buffer) {
            // Routers of this link have no other addresses (RFC 4861, 6.1.2).
            let is_near = from.is_some_and(|from| from.ip().is_unicast_link_local());
            let Some(new) = Advert::parse(&buffer[..length]).filter(|_| is_near) else { continue };
            match &mut self.advert {
                Some((advert, _)) => advert.merge(new),
                None => self.advert = Some((new, now)),
            }
        }
        let (advert, since) = self.advert.clone()?;
        if self.told.is_none() && (advert.managed || advert.other) {
            self.told = self.converse(if advert.managed { Ask::Address } else { Ask::Information }, now);
        }
        if let Some(lease) = &self.told
            && lease.address.is_some()
        {
            return Some(with_advert(lease.clone(), &advert));
        }
        let asks = advert.managed || advert.other;
        let may_go = !asks || self.told.is_some() || now - since >= INFORMATION;
        (may_go && self.link.has_ipv6_address() && self.link.has_ipv6_way_out())
            .then(|| with_advert(self.told.clone().unwrap_or_default(), &advert))
    }

    fn converse(&mut self, ask: Ask, now: Instant) -> Option<Lease6> {
        if self.talk.is_none() {
            let socket = client(&self.link).ok()?;
            self.talk = Some((Conversation6::new(self.link.mac, self.xid, ask, now), socket));
        }
        let (talk, socket) = self.talk.as_mut()?;
        advance(talk, socket, &self.link, now)
    }
}

/// What routers say, too.
fn with_advert(lease: Lease6, advert: &Advert) -> Lease6 {
    let Lease6 { nameservers, search, .. } = lease;
    let mut told = Advert { nameservers, search, ..Advert::default() };
    told.merge(advert.clone());
    Lease6 { nameservers: told.nameservers, search: told.search, ..lease }
}

/// Ask the routers of `link` to advertise themselves: the kernel makes of it what it lacks.
pub(super) fn solicit(link: &Link) -> io::Result<()> {
    send_solicitation(&icmp_socket(link)?, link.index)
}

fn send_solicitation(icmp: &OwnedFd, link: u32) -> io::Result<()> {
    let to = SockaddrIn6::from(SocketAddrV6::new(ROUTERS, 0, 0, link));
    Ok(sendto(icmp.as_raw_fd(), &SOLICIT, &to, MsgFlags::empty()).map(drop)?)
}

/// Send what is due, read what arrived.
pub(super) fn advance(
    talk: &mut Conversation6,
    socket: &UdpSocket,
    link: &Link,
    now: Instant,
) -> Option<Lease6> {
    if let Some(message) = talk.poll(now) {
        // Not before the link has an address of its own; then again.
        let _ = socket.send_to(&message, SocketAddrV6::new(SERVERS, SERVER_PORT, 0, link.index));
    }
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.recv(&mut buffer) {
        if let Some(lease) = talk.receive(&buffer[..length], now) {
            return Some(lease);
        }
    }
    None
}

/// A socket for this link alone, beside those that others may hold for theirs.
pub(super) fn client(link: &Link) -> io::Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &link.name_now().into())?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0)))?;
    let socket = UdpSocket::from(fd);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn icmp_socket(link: &Link) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
    setsockopt(&fd, sockopt::BindToDevice, &link.name_now().into())?;
    // Routers believe nobody farther away (RFC 4861, 6.1.1).
    setsockopt(&fd, sockopt::Ipv6MulticastHops, &255)?;
    Ok(fd)
}
