//! The ways out for a person in front of a machine that does not boot: a shell, or a restart.

use crate::base::console;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Shells in a second initrd beside ours, or in the target's initrd.
const SHELLS: [&str; 2] = ["/bin/busybox", "/bin/sh"];

/// Busybox' tools become programs of their own, and the page that lies beside it says what to try.
const BEGIN: &str = "/bin/busybox --install -s /bin 2> /dev/null; \
                     [ ! -r /rescue.txt ] || cat /rescue.txt; exec /bin/sh";

/// A shell that ended sooner was used by no one: it cannot run, or its console gave it the end of a file.
const SHORT: Duration = Duration::from_secs(3);

/// A shell on the console, after the fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It was used, and left.
    Left,
    /// It ended within three seconds. A caller that would start another at once has to wait first.
    EndedAtOnce,
    /// There is no shell or no console, which was said.
    Impossible,
}

/// A choice of the menu that is not an attempt to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    Shell,
    Restart,
}

/// The ways out on this machine.
pub fn all() -> Vec<WayOut> {
    let shell = SHELLS.iter().any(|path| Path::new(path).exists()).then_some(WayOut::Shell);
    shell.into_iter().chain([WayOut::Restart]).collect()
}

impl WayOut {
    /// Its line in a menu.
    pub fn label(self) -> &'static str {
        match self {
            Self::Shell => "A shell",
            Self::Restart => "Restart this machine",
        }
    }

    /// Takes it. Returns from a shell, and from a restart that failed.
    pub fn go(self) {
        match self {
            Self::Shell => {
                shell();
            }
            Self::Restart => restart(),
        }
    }
}

/// Restarts the machine after a pause, in which the last words can be read.
pub fn restart_after(after: Duration) {
    console::say(&format!("  rebooting in {} s", after.as_secs()));
    std::thread::sleep(after);
    restart();
}

fn restart() {
    if let Err(error) = rustix::system::reboot(rustix::system::RebootCommand::Restart) {
        console::say(&format!("  cannot reboot: {error}"));
    }
}

/// Runs a shell on the console until it ends.
pub fn shell() -> Session {
    let Some(path) = SHELLS.into_iter().find(|path| Path::new(path).exists()) else {
        console::say("  there is no shell: load shell.img as a second initrd");
        return Session::Impossible;
    };
    let terminal = || OpenOptions::new().read(true).write(true).open("/dev/console");
    let (Ok(stdin), Ok(stdout), Ok(stderr)) = (terminal(), terminal(), terminal()) else {
        console::say("  there is no console for a shell");
        return Session::Impossible;
    };

    console::say("  a shell; leave it with exit");
    let mut shell = Command::new(path);
    if path.ends_with("busybox") {
        shell.arg0("sh");
    }
    shell.args(["-c", BEGIN]).stdin(stdin).stdout(stdout).stderr(stderr);
    attend(&mut shell, SHORT).unwrap_or_else(|error| {
        console::say(&format!("  cannot start {path}: {error}"));
        Session::Impossible
    })
}

/// Runs `shell`, and tells whether it lasted longer than `short`.
fn attend(shell: &mut Command, short: Duration) -> io::Result<Session> {
    let started = Instant::now();
    shell.status()?;
    Ok(if started.elapsed() < short { Session::EndedAtOnce } else { Session::Left })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that ends at once is told from one that was used, so that the caller can pause.
    #[test]
    fn a_shell_that_ends_at_once_is_told() {
        let ended = |program: &str, short| attend(Command::new(program).arg("0.2"), short);
        assert_eq!(ended("sleep", Duration::from_millis(100)).unwrap(), Session::Left);
        assert_eq!(ended("true", Duration::from_secs(60)).unwrap(), Session::EndedAtOnce);
        assert!(ended("/nowhere", SHORT).is_err());
    }
}
