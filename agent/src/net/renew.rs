//! Renewal of the leases (RFC 2131, 4.4.5; RFC 8415, 18.2.4). The second life owns them: the target's network
//! managers are told to leave our link alone.

use crate::base::console;
use crate::formats::lease::{Grant6, Lease};
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

/// The time for one attempt to get an answer.
const ATTEMPT: Duration = Duration::from_secs(15);

/// The shortest time between attempts, however short the lease is.
const AT_LEAST: Duration = Duration::from_secs(5);

/// The additional pause after a refusal.
const REFUSED: Duration = Duration::from_secs(60);

/// The time after which any server may renew a lease of `duration`: T2, 7/8 of it (RFC 2131, 4.4.5).
fn rebind_after(duration: Duration) -> Duration {
    duration / 8 * 7
}

/// The time after which its own server is asked to renew a lease: T1, but before T2, and not at once.
fn renew_after(wanted: Duration, duration: Duration) -> Duration {
    wanted.min(rebind_after(duration)).max(AT_LEAST)
}

/// Renews the DHCP lease for as long as the machine runs. Returns if there is none that ends.
pub fn renew_ipv4(network: &Network, held_since: Instant) {
    let mut granted = held_since;
    let Some(lease) = &network.leases.v4 else { return };
    let (address, Some(mut grant)) = (lease.address, lease.grant) else { return };

    while let Some(duration) = grant.duration {
        let wait = renew_after(grant.renew_after.unwrap_or(duration / 2), duration);
        std::thread::sleep(wait.saturating_sub(granted.elapsed()));

        let asked = Instant::now();
        let is_rebinding = granted.elapsed() >= rebind_after(duration);
        let to = if is_rebinding { Ipv4Addr::BROADCAST } else { grant.server };
        match ask(network, address, to) {
            Ok(Answer::Granted(new)) => (granted, grant) = (asked, new.grant.unwrap_or(grant)),
            Ok(Answer::Refused) => {
                console::say_loud(&format!(
                    "the DHCP server refuses to renew {address} and may give it to another machine. \
                     Restart this machine soon"
                ));
                std::thread::sleep(REFUSED);
            }
            Ok(Answer::Silence) => {
                console::say(&format!("lease of {address}: {to} does not answer; trying again"));
            }
            Err(error) => console::say(&format!("lease of {address}: cannot ask {to}: {error}")),
        }
        std::thread::sleep(AT_LEAST);
    }
}

/// Renews the DHCPv6 lease for as long as the machine runs. Returns if there is none that ends.
pub fn renew_ipv6(network: &Network, held_since: Instant) {
    let mut granted = held_since;
    let Some(lease) = &network.leases.v6 else { return };
    let (Some((address, _)), Some(mut grant)) = (lease.address, lease.grant.clone()) else { return };

    // A lifetime of all ones never ends (RFC 8415, 7.7).
    while grant.valid.as_secs() != u64::from(u32::MAX) {
        let wait = renew_after(grant.renew_after, grant.valid);
        std::thread::sleep(wait.saturating_sub(granted.elapsed()));

        let asked = Instant::now();
        let is_rebinding = granted.elapsed() >= rebind_after(grant.valid);
        match ask6(network, address, (!is_rebinding).then_some(grant.server.as_slice())) {
            Ok(Some(new)) => (granted, grant) = (asked, new),
            Ok(None) if granted.elapsed() > grant.valid => console::say_loud(&format!(
                "the lease of {address} has ended, and no server renews it: another machine may be given the address"
            )),
            Ok(None) => console::say(&format!("lease of {address}: no server renews it; trying again")),
            Err(error) => console::say(&format!("lease of {address}: cannot ask: {error}")),
        }
        std::thread::sleep(AT_LEAST);
    }
}

/// One attempt to renew `address`. Without a `server`, any may answer.
fn ask6(network: &Network, address: Ipv6Addr, server: Option<&[u8]>) -> io::Result<Option<Grant6>> {
    let socket = ipv6::dhcp_socket(&network.link)?;
    let start = Instant::now();
    let xid = race::xid(&network.link);
    let mut talk = Conversation6::renewal(network.link.mac, xid, address, server, start);

    while start.elapsed() < ATTEMPT {
        let lease = ipv6::exchange(&mut talk, &socket, &network.link, Instant::now());
        if let Some(lease) = lease.filter(|lease| lease.address.is_some_and(|(new, _)| new == address)) {
            return Ok(lease.grant);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(None)
}

/// The result of one attempt.
enum Answer {
    Granted(Lease),
    Refused,
    Silence,
}

/// One attempt to renew `address`, by `server` or by broadcast.
fn ask(network: &Network, address: Ipv4Addr, server: Ipv4Addr) -> io::Result<Answer> {
    let socket = dhcp_socket(&network.link.current_name())?;
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
        if talk.answers().refusals > 0 {
            return Ok(Answer::Refused);
        }
    }
    Ok(Answer::Silence)
}

/// A DHCP client's socket on `link` alone. Services of the target may hold the port on other links, so the
/// socket is bound to the device before the address: the other way round the two would collide.
fn dhcp_socket(link: &str) -> io::Result<UdpSocket> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &link.into())?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, CLIENT_PORT))?;
    let socket = UdpSocket::from(fd);
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease is renewed before T2, after AT_LEAST, and no duration overflows.
    #[test]
    fn renewal_times() {
        let seconds = Duration::from_secs;
        assert_eq!(renew_after(seconds(43_200), seconds(86_400)), seconds(43_200));
        assert_eq!(renew_after(seconds(86_400), seconds(86_400)), seconds(75_600));
        assert_eq!(renew_after(seconds(0), seconds(0)), AT_LEAST);
        assert_eq!(renew_after(Duration::MAX, Duration::MAX), rebind_after(Duration::MAX));
    }
}
