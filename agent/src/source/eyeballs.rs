//! The choice between a server's addresses (RFC 8305, "Happy Eyeballs"). Where it has some of IPv4 and some
//! of IPv6, connections to them race, each a moment behind the one before, and for a while the winner is
//! tried first. A network that is broken for one kind costs that moment, once.

use crate::base::lock::lock;
use crate::base::thread;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The time between the start of two connections ("Connection Attempt Delay").
const DELAY: Duration = Duration::from_millis(250);

/// The longest race.
const RACE: Duration = Duration::from_secs(4);

/// The time for which the winner of a race is believed, and the time for which a race without one is.
const BELIEVED: Duration = Duration::from_secs(120);
const HOPELESS: Duration = Duration::from_secs(10);

/// The winner of a race, if any, and the end of the time for which that is believed.
type Outcome = (Option<SocketAddr>, Instant);

/// A resolver whose first address is the best one.
#[derive(Debug, Default)]
pub(super) struct Eyeballs {
    resolver: DefaultResolver,
    outcomes: Mutex<HashMap<Vec<SocketAddr>, Outcome>>,
}

impl Resolver for Eyeballs {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        let mut ordered = self.empty();
        self.order(&found).into_iter().for_each(|address| ordered.push(address));
        Ok(ordered)
    }
}

impl Eyeballs {
    /// `found`, the best address first.
    fn order(&self, found: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut addresses = found.to_vec();
        if addresses.iter().all(SocketAddr::is_ipv4) || addresses.iter().all(SocketAddr::is_ipv6) {
            return addresses;
        }

        // Name servers give the same addresses in changing order.
        let mut runners = addresses.clone();
        runners.sort();
        let known = lock(&self.outcomes).get(&runners).filter(|(_, until)| Instant::now() < *until).copied();
        let winner = match known {
            Some((winner, _)) => winner,
            None => {
                let winner = race(&alternating(&addresses));
                let now = Instant::now();
                let until = now + if winner.is_some() { BELIEVED } else { HOPELESS };
                let mut outcomes = lock(&self.outcomes);
                outcomes.retain(|_, (_, until)| now < *until);
                outcomes.insert(runners, (winner, until));
                winner
            }
        };

        addresses.sort_by_key(|address| Some(*address) != winner);
        addresses
    }
}

/// The kinds in turns, the resolver's favourite first.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let favourite = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == favourite);
    let longest = first.len().max(second.len());
    (0..longest).flat_map(|n| [first.get(n), second.get(n)]).flatten().copied().collect()
}

/// The first that answers.
fn race(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let (finish, line) = mpsc::channel();
    for (number, address) in (0..).zip(addresses.iter().copied()) {
        let finish = finish.clone();
        let run = move || {
            std::thread::sleep(DELAY * number);
            if TcpStream::connect_timeout(&address, RACE).is_ok() {
                // The race may be over.
                let _ = finish.send(address);
            }
        };
        // Without a thread it does not take part.
        let _ = thread::start("eyeballs", run);
    }
    drop(finish);
    line.recv_timeout(RACE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn of_both_kinds_the_one_that_answers_comes_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        // An address for documentation is in use nowhere.
        let dead: SocketAddr = format!("[2001:db8::1]:{}", alive.port()).parse().unwrap();
        let eyeballs = Eyeballs::default();
        let start = Instant::now();
        assert_eq!(eyeballs.order(&[dead, alive]), [alive, dead]);
        assert!(start.elapsed() < RACE, "it did not wait for the dead one");
        drop(listener);
        assert_eq!(eyeballs.order(&[dead, alive]), [alive, dead], "it is believed for a while");
        assert_eq!(eyeballs.order(&[dead]), [dead], "no race is needed");
    }

    #[test]
    fn the_kinds_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "2.2.2.2:1"].map(|text| text.parse().unwrap());
        let order: Vec<String> = alternating(&addresses).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1"]);
    }
}
