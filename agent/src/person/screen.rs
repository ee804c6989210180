//! The consoles of the kernel, in raw mode. All of them show the same menu, and a key of any counts.

use crate::base::console;
use crate::person::keys::{Key, Keys};
use crate::person::menu::{Chosen, Menu};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

/// The time within which the rest of a key's sequence has to arrive.
const SEQUENCE: Duration = Duration::from_millis(100);

/// Columns and rows of a terminal that does not know its size, as on a serial line.
const USUAL: (usize, usize) = (80, 24);

/// One console, and its settings as they were before.
struct Terminal {
    file: File,
    before: Termios,
    keys: Keys,
}

/// All consoles. Restores their settings when dropped.
pub struct Screen {
    terminals: Vec<Terminal>,
}

impl Screen {
    /// Opens the consoles that can be read from; `None` where there are none.
    pub fn open() -> Option<Self> {
        let terminal = |file: File| {
            let before = tcgetattr(&file).ok()?;
            let mut raw = before.clone();
            raw.make_raw();
            // Keys that were pressed before the question are no answer to it.
            tcsetattr(&file, OptionalActions::Flush, &raw).ok()?;
            Some(Terminal { file, before, keys: Keys::default() })
        };
        let terminals: Vec<Terminal> = console::files(true).into_iter().filter_map(terminal).collect();
        (!terminals.is_empty()).then_some(Self { terminals })
    }

    /// Shows `menu` until something is chosen.
    pub fn ask(&mut self, menu: &mut Menu) -> Chosen {
        let mut shown = Vec::new();
        let mut looked = Instant::now();
        loop {
            let size = self.size();
            let picture = menu.picture(size.0, size.1);
            if picture != shown {
                let mut text = String::from("\x1b[H\x1b[J");
                for line in &picture {
                    let (on, off) = if line.is_marked { ("\x1b[7m", "\x1b[m") } else { ("", "") };
                    text.push_str(&format!("{on}{}{off}\r\n", line.text));
                }
                self.write(&text);
                shown = picture;
            }

            let pressed = self.pressed();
            let passed = looked.elapsed();
            looked = Instant::now();
            let chosen = menu.tick(passed);
            if let Some(chosen) = chosen.or_else(|| pressed.into_iter().find_map(|key| menu.press(key))) {
                self.write("\x1b[H\x1b[J");
                return chosen;
            }
        }
    }

    /// Waits for a key, until it is pressed or `time` is over. True if it was pressed.
    pub fn is_pressed_within(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < time {
            if !self.pressed().is_empty() {
                return true;
            }
        }
        false
    }

    /// The keys that are pressed within a moment. The moment is short, since an Escape is known for one only when
    /// nothing follows it.
    fn pressed(&mut self) -> Vec<Key> {
        let moment = Timespec { tv_sec: 0, tv_nsec: SEQUENCE.subsec_nanos().into() };
        let mut waiting: Vec<PollFd<'_>> =
            self.terminals.iter().map(|terminal| PollFd::new(&terminal.file, PollFlags::IN)).collect();
        let is_quiet = !matches!(poll(&mut waiting, Some(&moment)), Ok(1..));

        let (mut pressed, mut is_dead) = (Vec::new(), !is_quiet);
        for terminal in &mut self.terminals {
            let mut bytes = [0; 256];
            match terminal.file.read(&mut bytes) {
                Ok(length @ 1..) => {
                    pressed.extend(terminal.keys.feed(&bytes[..length]));
                    is_dead = false;
                }
                _ if is_quiet => pressed.extend(terminal.keys.pause()),
                _ => {}
            }
        }
        if is_dead {
            // A serial line that was hung up is always ready, and has nothing to read: wait here instead.
            std::thread::sleep(SEQUENCE);
        }
        pressed
    }

    /// Columns and rows that fit on all of them.
    fn size(&self) -> (usize, usize) {
        let sizes = self.terminals.iter().filter_map(|terminal| tcgetwinsize(&terminal.file).ok());
        let known = sizes.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        known.fold(USUAL, |(columns, rows), size| {
            (columns.min(size.ws_col.into()), rows.min(size.ws_row.into()))
        })
    }

    fn write(&mut self, text: &str) {
        for terminal in &mut self.terminals {
            console::write_soon(&mut terminal.file, text.as_bytes());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for Terminal { file, before, .. } in &self.terminals {
            let _ = tcsetattr(file, OptionalActions::Now, before);
        }
    }
}
