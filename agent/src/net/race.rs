//! The race of the cards for a lease.

use crate::base::console;
use crate::config::Method;
use crate::formats::lease::{Lease, Lease6, Leases};
use crate::net::cards::{Cards, LOOK_EVERY, names};
use crate::net::dhcp::{Conversation, Heard};
use crate::net::ipv6::Runner6;
use crate::net::link::Link;
use crate::net::{NetError, Network, SAY_EVERY, datagram};
use crate::sys::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long IPv4 has to answer once IPv6 is there (RFC 8305 thinks in fractions of seconds, but DHCP
/// servers look whether an address is taken).
const IPV4_MAY_TAKE: Duration = Duration::from_secs(4);

/// One link's part of the race for a lease.
struct Runner {
    link: Link,
    v4: Option<(PacketSocket, Conversation)>,
    v6: Option<Runner6>,
    trouble: Option<io::Error>,
    /// What IPv6 has come to, and since when.
    on_ipv6: Option<(Lease6, Instant)>,
}

impl Runner {
    fn start(link: Link, method: &Method) -> Self {
        let now = Instant::now();
        let xid = xid(&link);
        let mut runner = Self { v4: None, v6: None, trouble: None, on_ipv6: None, link };
        let link = &runner.link;
        if *method != Method::V6 {
            match PacketSocket::open(link.index as i32) {
                Ok(socket) => runner.v4 = Some((socket, Conversation::new(link.mac, xid, now))),
                Err(error) => runner.trouble = Some(error),
            }
        }
        if *method != Method::V4 {
            runner.v6 = Some(Runner6::start(link.clone(), xid));
        }
        runner
    }

    /// Send what is due, read what arrived. Gives what there is, once that is enough.
    fn advance(&mut self) -> Option<Leases> {
        let now = Instant::now();
        if let (None, Some(runner)) = (&self.on_ipv6, &mut self.v6) {
            self.on_ipv6 = runner.advance(now).map(|lease| (lease, now));
            // Its last question may have been lost in a switch that let nothing through yet.
            if let (Some(_), Some((_, talk))) = (&self.on_ipv6, &mut self.v4) {
                talk.hurry(now);
            }
        }
        let v4 = self.advance_v4();
        let enough = match &self.on_ipv6 {
            Some((_, since)) => v4.is_some() || self.v4.is_none() || now - *since >= IPV4_MAY_TAKE,
            None => v4.is_some(),
        };
        enough.then(|| self.leases(v4))
    }

    fn leases(&self, v4: Option<Lease>) -> Leases {
        let v6 = self.on_ipv6.as_ref().map(|(lease, _)| lease.clone());
        Leases { v4, v6, nameservers: Vec::new() }
    }

    fn advance_v4(&mut self) -> Option<Lease> {
        let (socket, talk) = self.v4.as_mut()?;
        if !self.link.has_carrier() {
            return None; // A message sent now is lost, and the pauses should start with the cable.
        }
        if let Some(message) = talk.poll(Instant::now()) {
            self.trouble = socket.broadcast(&datagram::wrap(&message)).err();
        }
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.receive(&mut buffer) {
            let lease =
                datagram::unwrap(&buffer[..length]).and_then(|message| talk.receive(message, Instant::now()));
            if lease.is_some() {
                return lease;
            }
        }
        None
    }

    /// What kept this link from a lease.
    fn lacked(&self) -> String {
        let heard = self.v4.as_ref().map(|(_, talk)| talk.heard());
        let lacked = match (&self.trouble, self.link.has_carrier(), heard) {
            (Some(error), ..) => format!("cannot send: {error}"),
            (None, false, _) => "no cable, or nobody at its other end".into(),
            (None, true, None) => self.v6.as_ref().map(Runner6::lacked).unwrap_or_default(),
            (None, true, Some(Heard { offers: 0, .. })) => "has a cable, but no DHCP server answered".into(),
            (None, true, Some(Heard { refusals: 0, .. })) => {
                "was offered an address that was then not granted".into()
            }
            (None, true, Some(_)) => "was refused by the DHCP server".into(),
        };
        format!("{} {lacked}", self.link)
    }
}

/// Differs between cards and between boots; a clash only costs a retry.
pub fn xid(link: &Link) -> u32 {
    let mac = u32::from_be_bytes(link.mac.last_four());
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    mac ^ time.subsec_nanos() ^ (time.as_secs() as u32).rotate_left(16)
}

pub fn first_lease(cards: &mut Cards<'_>, links: Vec<Link>, deadline: Instant) -> Result<Network, NetError> {
    let config = cards.config;
    console::say(&format!("  asking for a lease on {}", names(&links)));
    let start = |link: &Link| Runner::start(link.clone(), &config.method);
    let mut runners: Vec<Runner> = links.iter().map(start).collect();
    let (mut said, mut looked) = (Instant::now(), Instant::now());
    while Instant::now() < deadline {
        for runner in &mut runners {
            if let Some(leases) = runner.advance() {
                return Ok(Network { link: runner.link.clone(), leases });
            }
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            let new = cards.newcomers();
            if !new.is_empty() {
                console::say(&format!("  and on {}", names(&new)));
            }
            runners.extend(new.iter().map(start));
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let left = deadline.saturating_duration_since(said).as_secs();
            let lacks = runners.iter().map(Runner::lacked).collect::<Vec<_>>().join("; ");
            console::say(&format!("  still without a lease ({left} s left): {lacks}"));
        }
        wait_for_datagrams(&runners);
    }
    if let Some(runner) = runners.iter().find(|runner| runner.on_ipv6.is_some()) {
        return Ok(Network { link: runner.link.clone(), leases: runner.leases(None) });
    }
    let evidence = runners.iter().map(Runner::lacked).collect::<Vec<_>>().join("; ");
    Err(NetError::NoLease { evidence })
}

/// Sleep until something arrives, for a tenth of a second at most: carrier comes unannounced.
fn wait_for_datagrams(runners: &[Runner]) {
    let v4 = runners.iter().filter_map(|runner| runner.v4.as_ref()).map(|(socket, _)| socket.as_fd());
    // What is on IPv6 is read no more.
    let v6 = runners.iter().filter(|runner| runner.on_ipv6.is_none());
    let v6 = v6.filter_map(|runner| runner.v6.as_ref()?.socket());
    let mut fds: Vec<PollFd<'_>> =
        v4.chain(v6).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // Interrupted or not, the caller looks again.
    let _ = poll(&mut fds, Some(&tick));
}
