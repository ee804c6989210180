//! The second life: process 1 of the target's initrd (`rdinit=/inetboot`).
//!
//! It loads the modules that the first life chose, starts the [`server`], waits until the image is a
//! block device, and becomes the distro's own init, which finds everything as it expects it.

use crate::base::console;
use crate::base::failure::{Explain, Failure};
use crate::base::step::Step;
use crate::lives::{handover, server};
use crate::machine::{drivers, mounts};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::convert::Infallible;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The distro's own init.
const INIT: &str = "/init";

/// The reason why process 1 cannot hand over.
#[derive(Debug, thiserror::Error)]
enum SecondError {
    #[error("cannot start the server")]
    Start(#[source] io::Error),
    #[error("the server ended before the image was there")]
    Ended,
    #[error("cannot mount the CD at {dir}, where the target's init looks for it")]
    Premount {
        dir: String,
        #[source]
        error: io::Error,
    },
    #[error("cannot start the target's {INIT}")]
    Init(#[source] io::Error),
}

impl Explain for SecondError {
    fn hint(&self) -> String {
        match self {
            Self::Start(_) => "Check the machine's memory".into(),
            Self::Ended => "The lines above say why".into(),
            Self::Premount { .. } => "Use an image whose kernel has the module isofs".into(),
            Self::Init(_) => "Check the image: its initrd has no init".into(),
        }
    }
}

/// From the handoff to the distro's own init.
pub fn run() -> Result<Infallible, Failure> {
    console::say(concat!("InetBoot ", env!("CARGO_PKG_VERSION"), ", second life"));
    let handoff = handover::read().map_err(|error| Failure::at(Step::Config, error))?;
    for module in &handoff.modules {
        if let Err(error) = drivers::insert(Path::new(module)) {
            console::say(&format!("  module {module} cannot be loaded: {error}"));
        }
    }

    let mut server = start_server().map_err(|error| Failure::at(Step::Medium, error))?;
    wait_until_ready(&mut server).map_err(|error| Failure::at(Step::Medium, error))?;

    let Err(error) = premount(handoff.premount.as_deref()).and_then(|()| become_init());
    // The next attempt starts a server of its own, which needs the device.
    if let Some(dir) = &handoff.premount {
        let _ = unmount(dir, UnmountFlags::DETACH);
    }
    let _ = server.kill().and_then(|()| server.wait());
    Err(Failure::at(Step::Kexec, error))
}

/// The server is this program under another name: a fork would inherit our threads' locks.
fn start_server() -> Result<Child, SecondError> {
    Command::new("/proc/self/exe")
        .arg0(server::NAME)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(SecondError::Start)
}

/// Waits without a limit of its own: the server bounds each of its steps, and says what it waits for.
fn wait_until_ready(server: &mut Child) -> Result<(), SecondError> {
    if let Some(stdout) = server.stdout.take() {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if lines.any(|line| line.trim_end() == server::READY) {
            return Ok(());
        }
    }
    let _ = server.kill().and_then(|()| server.wait());
    Err(SecondError::Ended)
}

/// Mounts the CD at `dir`, where the target's init looks before it looks anywhere else.
fn premount(dir: Option<&str>) -> Result<(), SecondError> {
    let Some(dir) = dir else { return Ok(()) };
    let failed = |error| SecondError::Premount { dir: dir.to_owned(), error };
    std::fs::create_dir_all(dir).map_err(failed)?;
    match mount(server::DEVICE, dir, "iso9660", MountFlags::RDONLY, None) {
        // An earlier attempt mounted it.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// The init gets the arguments that the kernel did not know and passed to us, and our environment.
fn become_init() -> Result<Infallible, SecondError> {
    console::say(&format!("handing over to the target's own {INIT}"));
    mounts::unmount_all();
    let error = Command::new(INIT).args(std::env::args_os().skip(1)).exec();
    mounts::mount_all(Path::new("/"));
    Err(SecondError::Init(error))
}
