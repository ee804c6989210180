//! The race of the cards for a lease. It ends with the first link that has enough.

use crate::base::console;
use crate::config::Method;
use crate::formats::lease::{Lease, Lease6, Leases};
use crate::net::cards::{Cards, SEARCH_EVERY, names};
use crate::net::dhcp::{Answers, Conversation};
use crate::net::ipv6::Ipv6;
use crate::net::link::Link;
use crate::net::waiting::{Interval, REMIND_EVERY, batch};
use crate::net::{NetError, Network, datagram};
use crate::sys::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time for IPv4 to answer once IPv6 is there. RFC 8305 thinks in fractions of seconds, but DHCP servers
/// first check that an address is free.
const IPV4_BOUND: Duration = Duration::from_secs(4);

/// One link in the race.
struct Racer {
    link: Link,
    /// `None` if the kernel arguments forbid it, or without a socket.
    v4: Option<Ipv4>,
    /// `None` if the kernel arguments forbid it.
    v6: Option<Ipv6>,
    /// The latest failure to open a socket or to send.
    error: Option<io::Error>,
    /// The result of IPv6, and the time when it was there.
    v6_done: Option<(Lease6, Instant)>,
}

/// DHCP on one link.
struct Ipv4 {
    socket: PacketSocket,
    talk: Conversation,
}

impl Racer {
    fn start(link: Link, method: &Method) -> Self {
        let now = Instant::now();
        let xid = xid(&link);
        let mut racer = Self { v4: None, v6: None, error: None, v6_done: None, link };

        let link = &racer.link;
        if *method != Method::V6 {
            match PacketSocket::open(link.index as i32) {
                Ok(socket) => racer.v4 = Some(Ipv4 { socket, talk: Conversation::new(link.mac, xid, now) }),
                Err(error) => racer.error = Some(error),
            }
        }
        if *method != Method::V4 {
            racer.v6 = Some(Ipv6::start(link.clone(), xid));
        }
        racer
    }

    /// Sends the messages that are due and reads those that arrived. Gives the leases once they are enough.
    fn advance(&mut self) -> Option<Leases> {
        let now = Instant::now();
        if let (None, Some(v6)) = (&self.v6_done, &mut self.v6) {
            self.v6_done = v6.advance(now).map(|lease| (lease, now));
            // The network works. An earlier DHCP message may have been lost in a switch port that did not
            // forward yet, so send another at once.
            if let (Some(_), Some(v4)) = (&self.v6_done, &mut self.v4) {
                v4.talk.restart_pauses(now);
            }
        }

        let v4 = self.advance_v4();
        let is_enough = match &self.v6_done {
            Some((_, since)) => v4.is_some() || self.v4.is_none() || now - *since >= IPV4_BOUND,
            None => v4.is_some(),
        };
        is_enough.then(|| self.leases(v4))
    }

    fn advance_v4(&mut self) -> Option<Lease> {
        let Ipv4 { socket, talk } = self.v4.as_mut()?;
        if !self.link.has_carrier() {
            // A message would be lost now, and the short pauses should begin with the cable.
            return None;
        }

        if let Some(message) = talk.poll(Instant::now()) {
            self.error = socket.broadcast(&datagram::wrap(&message)).err();
        }
        let mut buffer = [0; 2048];
        batch(|| {
            let length = socket.receive(&mut buffer).ok()?;
            Some(
                datagram::unwrap(&buffer[..length]).and_then(|message| talk.receive(message, Instant::now())),
            )
        })
        .find_map(|lease| lease)
    }

    /// `v4`, and the result of IPv6.
    fn leases(&self, v4: Option<Lease>) -> Leases {
        let v6 = self.v6_done.as_ref().map(|(lease, _)| lease.clone());
        Leases { v4, v6, nameservers: Vec::new() }
    }

    /// The link, and the first thing that it is missing for a lease.
    fn obstacle(&self) -> String {
        let answers = self.v4.as_ref().map(|v4| v4.talk.answers());
        let obstacle = match (&self.error, self.link.has_carrier(), answers) {
            (Some(error), ..) => format!("cannot send: {error}"),
            (None, false, _) => "has no cable, or the other end is switched off".into(),
            (None, true, None) => self.v6.as_ref().map(Ipv6::obstacle).unwrap_or_default(),
            (None, true, Some(Answers { offers: 0, .. })) => {
                "has a cable, but no DHCP server answered".into()
            }
            (None, true, Some(Answers { refusals: 0, .. })) => {
                "was offered an address by a DHCP server, which then did not grant it".into()
            }
            (None, true, Some(_)) => "was refused an address by the DHCP server".into(),
        };
        format!("{} {obstacle}", self.link)
    }
}

/// A transaction number that differs between cards and between boots. A clash only costs a retry.
pub fn xid(link: &Link) -> u32 {
    let mac = u32::from_be_bytes(link.mac.last_four());
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    mac ^ time.subsec_nanos() ^ (time.as_secs() as u32).rotate_left(16)
}

/// Lets `links` race, and the cards that appear meanwhile. At the deadline a link with IPv6 alone wins.
pub fn first_lease(cards: &mut Cards<'_>, links: Vec<Link>, deadline: Instant) -> Result<Network, NetError> {
    let config = cards.config;
    console::say(&format!("  asking for a lease on {}", names(&links)));
    let start = |link: &Link| Racer::start(link.clone(), &config.method);
    let mut racers: Vec<Racer> = links.iter().map(start).collect();

    let (mut reminder, mut search) = (Interval::new(REMIND_EVERY), Interval::new(SEARCH_EVERY));
    while Instant::now() < deadline {
        for racer in &mut racers {
            if let Some(leases) = racer.advance() {
                return Ok(Network { link: racer.link.clone(), leases });
            }
        }

        if search.is_due() {
            let new = cards.newcomers();
            if !new.is_empty() {
                console::say(&format!("  asking on {}, too", names(&new)));
            }
            racers.extend(new.iter().map(start));
        }
        if reminder.is_due() {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs();
            console::say(&format!("  still without a lease ({left} s left): {}", obstacles(&racers)));
        }
        wait_for_datagrams(&racers);
    }

    match racers.iter().find(|racer| racer.v6_done.is_some()) {
        Some(racer) => Ok(Network { link: racer.link.clone(), leases: racer.leases(None) }),
        None => Err(NetError::NoLease { evidence: obstacles(&racers) }),
    }
}

fn obstacles(racers: &[Racer]) -> String {
    racers.iter().map(Racer::obstacle).collect::<Vec<_>>().join("; ")
}

/// Sleeps until a datagram arrives, for a tenth of a second at most: no socket tells of a cable.
fn wait_for_datagrams(racers: &[Racer]) {
    const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // Sockets that nothing reads now would end the sleep at once: those of links without a cable, and of racers
    // that are done with IPv6.
    let v4 = racers.iter().filter(|racer| racer.link.has_carrier());
    let v4 = v4.filter_map(|racer| racer.v4.as_ref()).map(|v4| v4.socket.as_fd());
    let v6 = racers.iter().filter(|racer| racer.v6_done.is_none());
    let v6 = v6.filter_map(|racer| racer.v6.as_ref()?.socket());

    let mut fds: Vec<PollFd<'_>> =
        v4.chain(v6).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    // The caller looks at everything again, whatever ended the sleep.
    let _ = poll(&mut fds, Some(&TICK));
}
