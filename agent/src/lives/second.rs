//! The second life: first process of the target's initrd (`rdinit=/inetboot`).
//!
//! Process 1 loads the modules that the first life chose, starts the server, waits until the
//! image is a block device, and becomes the distro's own init, which finds everything as it
//! expects it. The server goes on for the life of the machine:
//!
//! * its argv\[0\] begins with `@`, so that systemd leaves it alone at switch-root and shutdown
//!   (systemd's "Storage Daemons for the Root File System");
//! * its root is a tmpfs of its own, in a mount namespace of its own, so that it opens nothing on the
//!   disk it serves, and run-init, which empties the initrd, does not find it;
//! * memory pressure cannot kill it nor swap it out.

use crate::base::console;
use crate::base::failure::Failure;
use crate::base::step::Step;
use crate::lives::handover::{ServeError, read_handoff};
use crate::lives::server::SERVER;
use crate::machine::{drivers, mounts};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The distro's own init.
pub const INIT: &str = "/init";

/// What families are told to look for: nothing used a loop device before us.
pub const DEVICE: &str = "/dev/loop0";

/// What the server says to process 1 when the device is there.
pub const READY: &str = "ready";

/// Process 1: from the handoff to the distro's own init.
pub fn run() -> Result<Infallible, Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION"), ", second life"));
    let handoff = read_handoff().map_err(|error| Failure::at(Step::Config, error))?;
    for module in &handoff.modules {
        if let Err(error) = drivers::insert(Path::new(module)) {
            console::say(&format!("  module {module} cannot be loaded: {error}"));
        }
    }
    let mut server = start_server().map_err(|error| Failure::at(Step::Medium, error))?;
    wait_until_ready(&mut server).map_err(|error| Failure::at(Step::Medium, error))?;
    let init = premount(handoff.premount.as_deref()).and_then(|()| become_init());
    init.map_err(|error| {
        if let Some(dir) = &handoff.premount {
            let _ = unmount(dir, UnmountFlags::DETACH);
        }
        // The next attempt starts its own, and needs the device.
        let _ = server.kill().and_then(|()| server.wait());
        Failure::at(Step::Kexec, error)
    })
}

fn start_server() -> Result<Child, ServeError> {
    Command::new("/proc/self/exe")
        .arg0(SERVER)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(ServeError::Start)
}

/// The server says what it waits for, and each of its steps is bounded.
fn wait_until_ready(server: &mut Child) -> Result<(), ServeError> {
    if let Some(stdout) = server.stdout.take()
        && BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.trim_end() == READY)
    {
        return Ok(());
    }
    let _ = server.kill().and_then(|()| server.wait());
    Err(ServeError::Ended)
}

/// Mount the CD where the target's init looks before it looks anywhere else.
fn premount(dir: Option<&str>) -> Result<(), ServeError> {
    let Some(dir) = dir else { return Ok(()) };
    let failed = |error| ServeError::Premount { dir: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(failed)?;
    match mount(DEVICE, dir, "iso9660", MountFlags::RDONLY, None) {
        // An earlier attempt did it.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

fn become_init() -> Result<Infallible, ServeError> {
    console::say(&format!("handing over to the target's own {INIT}"));
    mounts::unmount_all();
    // Arguments that the kernel did not know are init's; the environment goes along untouched.
    let error = Command::new(INIT).args(std::env::args_os().skip(1)).exec();
    mounts::mount_all(Path::new("/"));
    Err(ServeError::Init(error))
}
