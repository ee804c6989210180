//! The end of a failed attempt: its one sentence, then what `inetboot.onfail=` asks for, or what the person
//! at the console picks. If a retry may help, it comes without waiting for a key press.

use crate::base::console;
use crate::base::failure::Failure;
use crate::config::{Boot, Config, OnFailure, Wanted};
use crate::formats::cmdline::{self, Word};
use crate::lives::{Process1, unaided};
use crate::person::menu::{Item, Menu};
use crate::person::screen::Screen;
use crate::person::shell::{self, Session, WayOut};
use std::time::Duration;

/// The pause before a retry. It doubles with every failure up to the longest.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// The interval at which a machine repeats that it waits for a person.
const REMIND_EVERY: Duration = Duration::from_secs(300);

/// The end of a failure that no retry can heal.
const NOTHING_CHANGES: &str =
    "a retry cannot help: correct the cause named above, then restart this machine (Ctrl-Alt-Del)";

/// The attempts at one boot: their arguments, and the pause between them.
pub struct Attempts {
    /// The arguments of the next attempt.
    pub arguments: Vec<Word>,
    /// The arguments of the boot loader.
    given: Vec<Word>,
    pause: Duration,
    /// A second life is bound to what the first told it.
    may_change: bool,
}

/// The effect of an item of the menu.
#[derive(Clone, Copy)]
enum Choice {
    Again,
    /// Once more, with the item's text as arguments.
    With,
    WayOut(WayOut),
}

impl Attempts {
    /// No attempt was made yet.
    pub fn new(life: Process1) -> Self {
        let loader = kernel_arguments();
        let given = if life == Process1::Unaided { unaided::arguments(&loader) } else { loader };
        let may_change = life != Process1::Second;
        Self { arguments: given.clone(), given, pause: RETRY_AFTER, may_change }
    }

    /// The only way to fail. Comes back for a further attempt.
    pub fn after(&mut self, failure: &Failure) {
        console::say_loud(&failure.sentence());
        match OnFailure::of(&self.arguments) {
            OnFailure::Reboot(after) => shell::restart_after(after),
            // A shell that ended at once would end at once again: pause as if there were none.
            OnFailure::Shell if shell::shell() == Session::Left => return,
            OnFailure::Shell | OnFailure::Wait => {}
        }
        while !self.wait(failure) {}
        self.pause = (self.pause * 2).min(RETRY_LONGEST);
    }

    /// Waits for the time of the retry or for a key; true if an attempt shall follow.
    fn wait(&mut self, failure: &Failure) -> bool {
        let mut screen = Screen::open();
        let menu = if screen.is_some() { "; press a key for a menu" } else { "" };
        let wait = if failure.may_heal() {
            console::say(&format!("  trying again in {} s{menu}", self.pause.as_secs()));
            self.pause
        } else {
            console::say(&format!("  {NOTHING_CHANGES}{menu}"));
            REMIND_EVERY
        };

        let is_pressed = match &mut screen {
            Some(screen) => screen.is_pressed_within(wait),
            None => {
                std::thread::sleep(wait);
                false
            }
        };
        // The menu opens a screen of its own.
        drop(screen);
        (is_pressed && self.ask(failure)) || failure.may_heal()
    }

    /// Shows the menu until an item is picked; true if an attempt shall follow at once.
    fn ask(&mut self, failure: &Failure) -> bool {
        let (items, choices): (Vec<Item>, Vec<Choice>) = self.items().into_iter().unzip();
        let mut menu = Menu::new(failure.sentence(), items, None);
        if failure.may_heal() {
            // Noise on a serial line must not stop a machine for ever.
            menu = menu.or_after(REMIND_EVERY);
        }

        loop {
            let Some(mut screen) = Screen::open() else { return false };
            let chosen = screen.ask(&mut menu);
            // A shell needs the terminal as it was.
            drop(screen);
            match (choices.get(chosen.item), chosen.text) {
                (Some(Choice::WayOut(way)), _) => way.go(),
                (Some(Choice::With), Some(text)) => {
                    self.arguments = cmdline::words(&text);
                    return true;
                }
                _ => return true,
            }
        }
    }

    fn items(&self) -> Vec<(Item, Choice)> {
        let mut items = vec![(Item::new("Try again"), Choice::Again)];
        if self.may_change {
            let line = cmdline::line(&self.arguments);
            if let Some(rotated) = other_mirror(&self.arguments) {
                items.push((Item::with_text("Another mirror first", cmdline::line(&rotated)), Choice::With));
            }
            items.push((Item::to_type("Other arguments", line), Choice::With));
            if self.arguments != self.given {
                let given = cmdline::line(&self.given);
                items.push((Item::with_text("From the beginning", given), Choice::With));
            }
        }
        let ways = shell::all().into_iter();
        items.extend(ways.map(|way| (Item::new(way.label()), Choice::WayOut(way))));
        items
    }
}

/// The kernel's command line. Boot loaders pass on any bytes.
pub fn kernel_arguments() -> Vec<Word> {
    let line = std::fs::read("/proc/cmdline").unwrap_or_default();
    cmdline::words(&String::from_utf8_lossy(&line))
}

/// After a bug of ours there is nothing to try, and process 1 must not end.
pub fn wait_for_a_person() -> ! {
    loop {
        console::say(&format!("  {NOTHING_CHANGES}"));
        std::thread::sleep(REMIND_EVERY);
    }
}

/// `arguments`, with the mirror that is asked first put last; `None` where there is only one.
fn other_mirror(arguments: &[Word]) -> Option<Vec<Word>> {
    let Ok(Config { boot: Boot::Medium(Wanted { mut urls, .. }), .. }) = Config::parse(arguments) else {
        return None;
    };
    if urls.len() < 2 {
        return None;
    }
    urls.rotate_left(1);
    let urls: Vec<&str> = urls.iter().map(|url| url.as_str()).collect();
    let mut rotated = arguments.to_vec();
    // The last netdir= is the one that counts.
    let netdir = rotated.iter_mut().rfind(|word| word.key == "netdir")?;
    *netdir = Word::from_text(&format!("netdir={}", urls.join(",")))?;
    Some(rotated)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The menu offers the mirrors in another order, and leaves the other words alone.
    #[test]
    fn mirrors_are_rotated() {
        let rotated = |line: &str| other_mirror(&cmdline::words(line)).map(|words| cmdline::line(&words));
        assert_eq!(
            rotated("quiet netdir=http://a/x,http://b/x,http://c/x type=debian").as_deref(),
            Some("quiet netdir=http://b/x,http://c/x,http://a/x type=debian")
        );
        assert_eq!(rotated("netdir=http://a/x"), None);
        assert_eq!(rotated("netdir=http://a/x,1.iso"), None, "a comma may be part of an address");
    }
}
