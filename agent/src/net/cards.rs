//! The cards.

use crate::base::console;
use crate::config::NetConfig;
use crate::machine::drivers;
use crate::net::link::Link;
use crate::net::{NetError, SAY_EVERY};
use std::time::{Duration, Instant};

/// How often further cards are looked for while none has what it takes.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The links that were asked for, switched on. Drivers may need seconds to show their cards, USB
/// ones above all, so new devices are looked for as long as there is none.
pub fn wait_for_links(cards: &mut Cards<'_>, deadline: Instant) -> Result<Vec<Link>, NetError> {
    let mut said = Instant::now();
    loop {
        let links = cards.newcomers();
        if !links.is_empty() {
            return Ok(links);
        }
        if Instant::now() >= deadline {
            let mut have: Vec<String> = Link::all().iter().map(ToString::to_string).collect();
            have.append(&mut cards.refused);
            let have = have.join(", ");
            return Err(NetError::NoLink {
                wanted: match &cards.config.only {
                    Some(name) => format!("there is no wired link {name}"),
                    None => "there is no wired link".into(),
                },
                have: if have.is_empty() { "none that a driver here knows".into() } else { have },
            });
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            console::say("  waiting for a network card to appear");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The cards that were asked for, as they show up.
pub struct Cards<'a> {
    pub config: &'a NetConfig,
    /// The interface indexes of those that were seen.
    seen: Vec<u32>,
    /// Those that could not be used, and why not.
    refused: Vec<String>,
}

impl<'a> Cards<'a> {
    pub fn new(config: &'a NetConfig) -> Self {
        Self { config, seen: Vec::new(), refused: Vec::new() }
    }

    /// Links that were not there before, switched on. A card behind a bus that needs a driver itself
    /// (USB, virtio) shows up only after that one is loaded.
    pub fn newcomers(&mut self) -> Vec<Link> {
        drivers::load_drivers();
        let wanted = |link: &Link| self.config.only.as_ref().is_none_or(|only| link.is(only));
        let new = |link: &Link| wanted(link) && !self.seen.contains(&link.index);
        let cards: Vec<Link> = Link::all().into_iter().filter(new).collect();
        self.seen.extend(cards.iter().map(|card| card.index));
        cards.into_iter().filter_map(|card| self.switch_on(card)).collect()
    }

    pub fn switch_on(&mut self, card: Link) -> Option<Link> {
        let up = |link: &Link| {
            if let Err(error) = link.up() {
                console::say(&format!("  {link} cannot be switched on: {error}"));
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
                let refused = format!("{card} cannot carry VLAN {id}: {error}");
                console::say(&format!("  {refused}"));
                self.refused.push(refused);
                None
            }
        }
    }
}

/// The first link to have carrier, or simply the first: a static address may be on a card whose
/// driver never tells.
pub fn first_with_carrier(cards: &mut Cards<'_>, mut links: Vec<Link>, deadline: Instant) -> Link {
    let (mut said, mut looked) = (Instant::now(), Instant::now());
    while Instant::now() < deadline {
        if let Some(link) = links.iter().find(|link| link.has_carrier()) {
            return link.clone();
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            console::say(&format!("  waiting for a cable in {}", names(&links)));
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            links.extend(cards.newcomers());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    links.swap_remove(0)
}

pub fn names(links: &[Link]) -> String {
    links.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
