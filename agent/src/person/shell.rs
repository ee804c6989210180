//! What a person in front of a machine that does not boot can do: a shell, or a restart.

use crate::base::console;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where a shell may be: in a second initrd beside ours, or in the target's initrd.
const SHELLS: [&str; 2] = ["/bin/busybox", "/bin/sh"];

/// Busybox' tools become programs of their own, and the page that lies beside it says what to try.
const BEGIN: &str = "/bin/busybox --install -s /bin 2> /dev/null; \
                     [ ! -r /rescue.txt ] || cat /rescue.txt; exec /bin/sh";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// A shell on the console.
    Shell,
    /// Restart the machine.
    Restart,
}

/// Those that there are.
pub fn all() -> Vec<WayOut> {
    let shell = SHELLS.iter().any(|path| Path::new(path).exists()).then_some(WayOut::Shell);
    shell.into_iter().chain([WayOut::Restart]).collect()
}

impl WayOut {
    /// How a menu calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Shell => "A shell",
            Self::Restart => "Restart this machine",
        }
    }

    /// Take it; comes back from a shell.
    pub fn go(self) {
        match self {
            Self::Shell => drop(shell()),
            Self::Restart => restart(),
        }
    }
}

/// Restart the machine after so long.
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

/// A shell on the console, until it ends; whether there was one.
pub fn shell() -> bool {
    let Some(path) = SHELLS.into_iter().find(|path| Path::new(path).exists()) else {
        console::say("  there is no shell: load shell.img as a second initrd");
        return false;
    };
    let terminal = || OpenOptions::new().read(true).write(true).open("/dev/console");
    let (Ok(stdin), Ok(stdout), Ok(stderr)) = (terminal(), terminal(), terminal()) else {
        console::say("  there is no console for a shell");
        return false;
    };
    console::say("  a shell; leave it with exit");
    let mut shell = Command::new(path);
    if path.ends_with("busybox") {
        shell.arg0("sh");
    }
    let ended = shell.args(["-c", BEGIN]).stdin(stdin).stdout(stdout).stderr(stderr).status();
    if let Err(error) = ended {
        console::say(&format!("  cannot start {path}: {error}"));
        return false;
    }
    true
}
