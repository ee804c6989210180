//! When a boot fails: its last words; then what `inetboot.onfail=` asks for, or what somebody in
//! front of it does. One who is not there is not waited for, where trying again may help.

use crate::base::console;
use crate::base::failure::Failure;
use crate::config::{Boot, Config, OnFailure, Wanted};
use crate::formats::cmdline;
use crate::lives::handover;
use crate::person::menu::{Item, Menu};
use crate::person::screen::Screen;
use crate::person::shell::{self, Session, WayOut};
use std::time::Duration;

/// How often a machine says that it waits for somebody.
const REMIND_EVERY: Duration = Duration::from_secs(300);

/// What is said where trying again cannot help.
const NOTHING_CHANGES: &str =
    "nothing will change by itself: correct it and restart this machine (Ctrl-Alt-Del)";

/// What an item of the menu does.
#[derive(Clone, Copy)]
enum Attempt {
    /// The same once more.
    Again,
    /// Once more with the item's text for arguments.
    With,
    /// Something else.
    Out(WayOut),
}

/// The one way to fail. Returns to try again, with the `arguments` that then hold; `given` are those
/// that the boot loader gave.
pub fn last_words(failure: &Failure, pause: Duration, arguments: &mut String, given: &str) {
    console::say_loud(&failure.sentence());
    match OnFailure::of(arguments) {
        OnFailure::Reboot(after) => shell::restart_after(after),
        // One that ended at once would end again: wait as if there were none.
        OnFailure::Shell if shell::shell() == Session::Left => return,
        OnFailure::Shell | OnFailure::Wait => {}
    }
    loop {
        let mut screen = Screen::open();
        let menu = if screen.is_some() { "; press a key for a menu" } else { "" };
        let wait = if failure.may_heal() {
            console::say(&format!("  trying again in {} s{menu}", pause.as_secs()));
            pause
        } else {
            console::say(&format!("  {NOTHING_CHANGES}{menu}"));
            REMIND_EVERY
        };
        let is_somebody_there = match &mut screen {
            Some(screen) => screen.is_pressed_within(wait),
            None => {
                std::thread::sleep(wait);
                false
            }
        };
        // What is asked below opens its own.
        drop(screen);
        if (is_somebody_there && ask(failure, arguments, given)) || failure.may_heal() {
            return;
        }
    }
}

/// After a bug of ours there is nothing to try; and process 1 must not end.
pub fn wait_for_a_person() -> ! {
    loop {
        console::say(&format!("  {NOTHING_CHANGES}"));
        std::thread::sleep(REMIND_EVERY);
    }
}

/// A menu of what can be tried, until something is; whether that is more than waiting on.
fn ask(failure: &Failure, arguments: &mut String, given: &str) -> bool {
    let mut items = vec![(Item::new("Try again"), Attempt::Again)];
    // A second life does what the first told it.
    if !handover::is_second_life() {
        if let Some(rotated) = other_mirror(arguments) {
            items.push((Item::with_text("Another mirror first", rotated), Attempt::With));
        }
        items.push((Item::to_type("Other arguments", arguments.as_str()), Attempt::With));
        if arguments != given {
            items.push((Item::with_text("From the beginning", given), Attempt::With));
        }
    }
    items.extend(shell::all().into_iter().map(|way| (Item::new(way.label()), Attempt::Out(way))));
    let (items, attempts): (Vec<Item>, Vec<Attempt>) = items.into_iter().unzip();
    let mut menu = Menu::new(failure.sentence(), items, None);
    if failure.may_heal() {
        // Noise on a serial line is nobody.
        menu = menu.or_after(REMIND_EVERY);
    }
    loop {
        let Some(mut screen) = Screen::open() else { return false };
        let chosen = screen.ask(&mut menu);
        // A shell wants the terminal as it was.
        drop(screen);
        match (attempts.get(chosen.item), chosen.text) {
            (Some(Attempt::Out(way)), _) => way.go(),
            (Some(Attempt::With), Some(text)) => {
                *arguments = text;
                return true;
            }
            _ => return true,
        }
    }
}

/// The arguments, with the mirror that is asked first put last; `None` where there is only one.
fn other_mirror(arguments: &str) -> Option<String> {
    let Ok(Config { boot: Boot::Medium(Wanted { mut urls, .. }), .. }) = Config::parse(arguments) else {
        return None;
    };
    if urls.len() < 2 {
        return None;
    }
    urls.rotate_left(1);
    let mut words = cmdline::words(arguments);
    // The last one counts.
    let netdir = words.iter_mut().rfind(|word| word.key == "netdir")?;
    netdir.raw = format!("netdir={}", urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    Some(cmdline::line(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_that_is_asked_first_is_put_last() {
        let arguments = "quiet netdir=http://a/x,http://b/x,http://c/x type=debian";
        let rotated = other_mirror(arguments).unwrap();
        assert_eq!(rotated, "quiet netdir=http://b/x,http://c/x,http://a/x type=debian");
        assert_eq!(other_mirror("netdir=http://a/x"), None);
        assert_eq!(other_mirror("netdir=http://a/x,1.iso"), None, "a comma may be part of an address");
    }
}
