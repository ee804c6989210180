//! The lives of the program, one file each, in the order in which things happen.
//!
//! ```text
//! our initramfs                          the target's initrd
//!   first ── kexec ──────────────────────▶ second ── exec ──▶ the distro's own init
//!                                            │
//!   (GRUB or iPXE without kexec) ────────▶ unaided, then second
//!                                            └── spawn ──▶ server, with its upkeep
//!
//! the target's /run/initramfs, at its end
//!   shutdown ── reboot(2)
//! ```

pub mod first;
pub mod handover;
pub mod last_words;
pub mod panics;
pub mod second;
pub mod server;
pub mod shutdown;
pub mod unaided;
pub mod upkeep;

use crate::base::{console, thread};
use crate::formats::handoff;
use crate::source::mirrors::Patience;
use std::path::Path;
use std::time::Duration;

/// The target's root as the server sees it, from a root of its own: through process 1.
const TARGET: &str = "/proc/1/root";

/// The waiting time of process 1 for a server that stopped sending. Then the boot starts over.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(120));

/// Starts a thread that no one waits for. Without it the others go on, so a failure is a line on the screen.
fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::start(name, work) {
        console::say_loud(&format!("cannot start the thread \"{name}\": {error}"));
    }
}

/// The job of this process. It follows from facts, never from a flag, and is decided once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Process1(Process1),
    /// Serves the image for as long as the machine runs.
    Server,
    /// Process 1 again, at the end of the target: unmounts its root and turns the machine off.
    Shutdown,
    /// Started by hand on a running system.
    Stray,
}

/// The lives that end in another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process1 {
    /// In our own initramfs.
    First,
    /// In an initrd of the target that the first life prepared.
    Second,
    /// In an initrd of the target with an overlay of `inetbootctl overlay`: there was no first life.
    Unaided,
}

impl Life {
    pub fn of_this_process() -> Self {
        let name = std::env::args().next().unwrap_or_default();
        Self::of(&name, std::process::id(), &|path| Path::new(path).exists())
    }

    fn of(name: &str, id: u32, exists: &dyn Fn(&str) -> bool) -> Self {
        match (name, id) {
            (server::NAME, _) => Self::Server,
            (shutdown::PROGRAM, 1) => Self::Shutdown,
            (_, 1) if exists(handoff::PATH) => Self::Process1(Process1::Second),
            (_, 1) if exists(handoff::ARGUMENTS_PATH) => Self::Process1(Process1::Unaided),
            (_, 1) => Self::Process1(Process1::First),
            _ => Self::Stray,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A life follows from the process's name and number, and from the files in its initrd.
    #[test]
    fn lives_are_told_apart() {
        let life = |name, id, file: &str| Life::of(name, id, &|path| path == file);
        assert_eq!(life("/init", 1, ""), Life::Process1(Process1::First));
        assert_eq!(life("/inetboot", 1, handoff::PATH), Life::Process1(Process1::Second));
        assert_eq!(life("/inetboot", 1, handoff::ARGUMENTS_PATH), Life::Process1(Process1::Unaided));
        assert_eq!(life("@inetboot", 77, handoff::PATH), Life::Server);
        assert_eq!(life("/shutdown", 1, ""), Life::Shutdown);
        assert_eq!(life("inetboot", 77, handoff::PATH), Life::Stray);
    }
}
