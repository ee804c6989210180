//! Keeping the leases (RFC 2131, 4.4.5; RFC 8415, 18.2.4): the second life owns them and asks for more
//! time, because everybody in the target was told to keep hands off.

use crate::base::console;
use crate::formats::lease::{Grant, Grant6, Lease};
use crate::net::dhcp::Conversation;
use crate::net::dhcp6::Conversation6;
use crate::net::{Network, ipv6, race};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// How long one attempt listens before the next is tried.
const ATTEMPT: Duration = Duration::from_secs(15);

/// The shortest time between attempts, however short the lease is.
const AT_LEAST: Duration = Duration::from_secs(5);

/// How long to leave a server alone that has refused.
const REFUSED: Duration = Duration::from_secs(60);

/// Renew for ever. Returns only for a lease that never ends.
pub fn keep(network: &Network, held_since: Instant) {
    let mut granted = held_since;
    let Some(lease) = &network.leases.v4 else { return };
    let Some(mut grant) = lease.grant else { return };
    while let Grant { duration: Some(duration), renew_after, .. } = grant {
        let renew_after = renew_after.unwrap_or(duration / 2).min(duration * 7 / 8).max(AT_LEAST);
        std::thread::sleep(renew_after.saturating_sub(granted.elapsed()));
        loop {
            // After T2 (7/8 of the lease, RFC 2131 4.4.5) any server may answer.
            let rebinding = granted.elapsed() >= duration * 7 / 8;
            let to = if rebinding { Ipv4Addr::BROADCAST } else { grant.server };
            let asked = Instant::now();
            match ask(network, lease.address, to) {
                Ok(Answer::Granted(lease)) => {
                    granted = asked;
                    if let Some(new) = lease.grant {
                        grant = new;
                    }
                    break;
                }
                Ok(Answer::Refused) => {
                    console::say_loud(&format!(
                        "the DHCP server refuses to renew {}: another machine may be given it. Restart this one soon",
                        lease.address
                    ));
                    std::thread::sleep(REFUSED);
                }
                Ok(Answer::Silence) => {
                    console::say(&format!("lease of {}: {to} does not answer; trying again", lease.address));
                }
                Err(error) => {
                    console::say(&format!("lease of {}: cannot ask {to}: {error}", lease.address));
                }
            }
            std::thread::sleep(AT_LEAST);
        }
    }
}

/// The same for an address of IPv6.
pub fn keep6(network: &Network, held_since: Instant) {
    let mut granted = held_since;
    let Some(lease) = &network.leases.v6 else { return };
    let (Some((address, _)), Some(mut grant)) = (lease.address, lease.grant.clone()) else { return };
    // All ones are for ever (RFC 8415, 7.7).
    while grant.valid.as_secs() != u64::from(u32::MAX) {
        let renew_after = grant.renew_after.min(grant.valid * 7 / 8).max(AT_LEAST);
        std::thread::sleep(renew_after.saturating_sub(granted.elapsed()));
        let asked = Instant::now();
        let any = granted.elapsed() >= grant.valid * 7 / 8;
        match ask6(network, address, (!any).then_some(grant.server.as_slice())) {
            Ok(Some(new)) => (granted, grant) = (asked, new),
            Ok(None) if granted.elapsed() > grant.valid => console::say_loud(&format!(
                "the lease of {address} has ended, and no server grants it again: another machine may be given it"
            )),
            Ok(None) => console::say(&format!("lease of {address}: no server grants it; trying again")),
            Err(error) => console::say(&format!("lease of {address}: cannot ask: {error}")),
        }
        std::thread::sleep(AT_LEAST);
    }
}

fn ask6(network: &Network, address: Ipv6Addr, server: Option<&[u8]>) -> io::Result<Option<Grant6>> {
    let socket = ipv6::client(&network.link)?;
    let start = Instant::now();
    let xid = race::xid(&network.link);
    let mut talk = Conversation6::renewal(network.link.mac, xid, address, server, start);
    while start.elapsed() < ATTEMPT {
        let lease = ipv6::advance(&mut talk, &socket, &network.link, Instant::now());
        if let Some(lease) = lease.filter(|lease| lease.address.is_some_and(|(new, _)| new == address)) {
            return Ok(lease.grant);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(None)
}

/// What came of one attempt.
enum Answer {
    Granted(Lease),
    Refused,
    Silence,
}

fn ask(network: &Network, address: Ipv4Addr, server: Ipv4Addr) -> io::Result<Answer> {
    let socket = client(&network.link.name_now())?;
    let start = Instant::now();
    let mut talk = Conversation::renewal(network.link.mac, race::xid(&network.link), address, start);
    let mut buffer = [0; 2048];
    while start.elapsed() < ATTEMPT {
        if let Some(message) = talk.poll(Instant::now()) {
            socket.send_to(&message, (server, SERVER_PORT))?;
        }
        if let Ok(length) = socket.recv(&mut buffer)
            && let Some(lease) = talk.receive(&buffer[..length], Instant::now())
            && lease.address == address
        {
            return Ok(Answer::Granted(lease));
        }
        if talk.heard().refusals > 0 {
            return Ok(Answer::Refused);
        }
    }
    Ok(Answer::Silence)
}

/// A socket for this link alone, beside those that the target's network services may hold for
/// others: the device comes before the address, or it would collide with theirs.
fn client(link: &str) -> io::Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &link.into())?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, CLIENT_PORT))?;
    let socket = UdpSocket::from(fd);
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}
