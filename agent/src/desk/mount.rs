//! `inetbootctl mount URL DIR`: the image appears as one file in DIR.

use crate::base::console::size;
use crate::config::{Access, Wanted};
use crate::desk::files;
use crate::formats::url::Url;
use crate::machine::loopdev::LoopDevice;
use crate::medium::fuse::FuseMount;
use crate::source::Image;
use crate::source::mirrors::Patience;
use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Ends with an error after a minute without a server, instead of waiting for ever as a boot does.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(60));

/// The suffixes of indexes.
const INDEXES: [&str; 4] = [".idx", ".torrent", ".meta4", ".caibx"];

/// The parameters of [`run`].
#[derive(Clone, Debug)]
pub struct Request {
    pub image: Wanted,
    /// An existing, empty directory.
    pub dir: PathBuf,
    pub access: Access,
    /// The file for the profile: the order in which the image was read.
    pub record: Option<PathBuf>,
    /// True to make a block device of the image as well.
    pub device: bool,
}

/// Mounts the image, and serves it until it is unmounted or the program gets a signal to stop.
pub fn run(request: &Request, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let dir = &request.dir;
    anyhow::ensure!(dir.is_dir(), "{} is not a directory; create it first", dir.display());
    if let Some(path) = &request.record {
        files::ensure_replaceable(path, files::PROFILE)?;
    }
    // Before any thread is started, so that all of them inherit the mask.
    let stop = stop_signals();
    stop.thread_block().context("blocking signals")?;

    let image = Image::open_ahead(&request.image, &request.access, PATIENCE)?;
    let mount = FuseMount::mount(Arc::clone(image.source()), dir, OsStr::new(file_name(&request.image)))
        .with_context(|| format!("mounting on {} (this needs root, or the package fuse3)", dir.display()))?;
    let length = size(image.source().len());
    say(&format!(
        "{} ({length}, {}) is at {}; Ctrl-C unmounts it",
        request.image.name(),
        image.trust(),
        mount.path().display()
    ));

    let device = match request.device {
        true => {
            Some(LoopDevice::attach(mount.path(), true).context("making a block device (this needs root)")?)
        }
        false => None,
    };
    if let Some(device) = &device {
        say(&format!("and the block device {}", device.path()));
    }
    let unmounted = dir.to_owned();
    std::thread::spawn(move || end_when_told(&stop, device, &unmounted));
    mount.wait().context("serving the image")?;
    image.settle();
    if let (Some(path), Some(profile)) = (&request.record, image.profile()) {
        files::write(path, files::PROFILE, profile.encode().as_bytes())?;
    }
    let traffic = image.traffic();
    say(&format!("unmounted; {} crossed the network in {} requests", size(traffic.bytes), traffic.requests));
    Ok(())
}

/// The name of the file in the directory: the image's, even if the address is that of its index.
fn file_name(image: &Wanted) -> &str {
    let name = image.urls.first().map_or("image", Url::file_name);
    INDEXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn stop_signals() -> SigSet {
    let mut stop = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        stop.add(signal);
    }
    stop
}

/// Unmounts when a signal asks for it. Unmounting ends the session, as it does when another program unmounts.
fn end_when_told(stop: &SigSet, device: Option<LoopDevice>, dir: &Path) {
    let told = stop.wait().is_ok();
    // It holds the file open.
    drop(device);
    if told && rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH).is_err() {
        let _ = std::process::Command::new("fusermount3").arg("-uz").arg(dir).status();
    }
}
