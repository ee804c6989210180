//! The wired cards of the machine, as they appear, switched on and with the VLAN that was asked for.

use crate::base::console;
use crate::config::NetConfig;
use crate::machine::drivers;
use crate::net::NetError;
use crate::net::link::Link;
use crate::net::waiting::{Interval, REMIND_EVERY};
use std::time::{Duration, Instant};

/// The interval between searches for further cards while none has a lease.
pub const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// The cards that `config` allows, as they show up.
pub struct Cards<'a> {
    pub config: &'a NetConfig,
    /// The interface indexes of the cards that were found before.
    seen: Vec<u32>,
    /// A line for each card that could not be used.
    refused: Vec<String>,
}

impl<'a> Cards<'a> {
    pub fn new(config: &'a NetConfig) -> Self {
        Self { config, seen: Vec::new(), refused: Vec::new() }
    }

    /// The links that have appeared since the last call, switched on. A card on a bus that needs a driver
    /// itself (USB, virtio) appears only when that driver is loaded.
    pub fn newcomers(&mut self) -> Vec<Link> {
        drivers::load_drivers();
        let is_wanted = |link: &Link| self.config.only.as_ref().is_none_or(|only| link.matches(only));
        let is_new = |link: &Link| is_wanted(link) && !self.seen.contains(&link.index);
        let cards: Vec<Link> = Link::all().into_iter().filter(is_new).collect();

        self.seen.extend(cards.iter().map(|card| card.index));
        cards.into_iter().filter_map(|card| self.switch_on(card)).collect()
    }

    /// The card itself, or the VLAN on it that was asked for.
    fn switch_on(&mut self, card: Link) -> Option<Link> {
        let up = |link: &Link| {
            if let Err(error) = link.up() {
                console::say(&format!("  cannot switch on {link}: {error}"));
            }
        };
        up(&card);

        let Some(id) = self.config.vlan else { return Some(card) };
        match card.with_vlan(id) {
            Ok(link) => {
                up(&link);
                Some(link)
            }
            Err(error) => {
                console::say(&format!("  cannot make VLAN {id} on {card}: {error}"));
                self.refused.push(format!("{card} without VLAN {id} ({error})"));
                None
            }
        }
    }
}

/// Waits for links that `cards` may use; the list is not empty. Drivers may need seconds to show their cards,
/// above all those of USB, so this searches until there is one.
pub fn wait_for_links(cards: &mut Cards<'_>, deadline: Instant) -> Result<Vec<Link>, NetError> {
    let mut reminder = Interval::new(REMIND_EVERY);
    loop {
        let links = cards.newcomers();
        if !links.is_empty() {
            return Ok(links);
        }
        if Instant::now() >= deadline {
            return Err(no_link(cards));
        }
        if reminder.is_due() {
            console::say("  waiting for a network card to appear");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn no_link(cards: &Cards<'_>) -> NetError {
    let mut have: Vec<String> = Link::all().iter().map(ToString::to_string).collect();
    have.extend_from_slice(&cards.refused);
    NetError::NoLink {
        wanted: match &cards.config.only {
            Some(name) => format!("there is no wired link {name}"),
            None => "there is no wired link".into(),
        },
        have: if have.is_empty() { "no card with a driver in InetBoot".into() } else { have.join(", ") },
    }
}

/// Waits for the first of `links`, or of those that appear meanwhile, to have a cable. At the deadline it
/// takes the first: a static address may be for a card whose driver never reports the carrier.
pub fn first_with_carrier(cards: &mut Cards<'_>, mut links: Vec<Link>, deadline: Instant) -> Link {
    let (mut reminder, mut search) = (Interval::new(REMIND_EVERY), Interval::new(SEARCH_EVERY));
    while Instant::now() < deadline {
        if let Some(link) = links.iter().find(|link| link.has_carrier()) {
            return link.clone();
        }
        if reminder.is_due() {
            console::say(&format!("  waiting for a cable in {}", names(&links)));
        }
        if search.is_due() {
            links.extend(cards.newcomers());
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    let first = links.swap_remove(0);
    console::say(&format!("  no card reports a cable; trying {first}"));
    first
}

/// `eth0 (52:54:00:12:34:56), eth1 (52:54:00:12:34:57)`
pub fn names(links: &[Link]) -> String {
    links.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
