//! Keeping the lease (RFC 2131, 4.4.5): the second life owns it and asks for more time, because
//! everybody in the target was told to keep hands off.

use super::Network;
use super::dhcp::Conversation;
use crate::console;
use crate::lease::{Grant, Lease};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
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
    let Some(mut grant) = network.lease.grant else { return };
    while let Grant { duration: Some(duration), renew_after, .. } = grant {
        let renew_after = renew_after.unwrap_or(duration / 2).min(duration * 7 / 8).max(AT_LEAST);
        std::thread::sleep(renew_after.saturating_sub(granted.elapsed()));
        loop {
            // After T2 (7/8 of the lease, RFC 2131 4.4.5) any server may answer.
            let rebinding = granted.elapsed() >= duration * 7 / 8;
            let to = if rebinding { Ipv4Addr::BROADCAST } else { grant.server };
            let asked = Instant::now();
            match ask(network, to) {
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
                        network.lease.address
                    ));
                    std::thread::sleep(REFUSED);
                }
                Ok(Answer::Silence) => {
                    console::say(&format!(
                        "lease of {}: {to} does not answer; trying again",
                        network.lease.address
                    ));
                }
                Err(error) => {
                    console::say(&format!("lease of {}: cannot ask {to}: {error}", network.lease.address));
                }
            }
            std::thread::sleep(AT_LEAST);
        }
    }
}

/// What came of one attempt.
enum Answer {
    Granted(Lease),
    Refused,
    Silence,
}

fn ask(network: &Network, server: Ipv4Addr) -> io::Result<Answer> {
    let socket = client(&network.link.name_now())?;
    let start = Instant::now();
    let mut talk =
        Conversation::renewal(network.link.mac, super::xid(&network.link), network.lease.address, start);
    let mut buffer = [0; 2048];
    while start.elapsed() < ATTEMPT {
        if let Some(message) = talk.poll(Instant::now()) {
            socket.send_to(&message, (server, SERVER_PORT))?;
        }
        if let Ok(length) = socket.recv(&mut buffer)
            && let Some(lease) = talk.receive(&buffer[..length], Instant::now())
            && lease.address == network.lease.address
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
