//! The server's chores while it serves: the lease, the link, the target's resolver, the rest of the
//! image, and the files in the target's `/run`.
//!
//! Each has a thread of its own, apart from those that serve the image: a chore may have to wait for the
//! very disk that they serve. Files are written to a tmpfs alone.

use crate::base::console;
use crate::formats::eventlog::EventLog;
use crate::formats::receipt::Receipt;
use crate::lives::{TARGET, shutdown, start_thread};
use crate::net::dropins::{self, DropIn};
use crate::net::{Network, guard, renew};
use crate::source::Image;
use rustix::fs::{StatFs, statfs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;

/// The boot itself comes first: the rest of the image is fetched after this.
const LOCALISE_AFTER: Duration = Duration::from_secs(30);

/// The interval at which the files in the target's `/run` are brought up to date.
const UPDATE_EVERY: Duration = Duration::from_secs(2);

/// A target comes up within this time. Until then missing files are looked for more often: the drop-ins
/// have to be there before the network managers are, and some inits mount `/run` anew.
const COMING_UP: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The time in which the target may make a `resolv.conf` of its own.
const RESOLVER_FOR: Duration = Duration::from_secs(600);

const RESOLV_CONF: &str = "etc/resolv.conf";

/// The things that are kept up to date.
pub struct Kept {
    pub receipt: Receipt,
    pub image: Image,
    pub log: Option<EventLog>,
    pub network: Network,
    /// The time since the lease was granted.
    pub lease_age: Duration,
    /// Fetch all of the image in the background.
    pub localise: bool,
}

/// Does all chores until the machine is switched off.
pub fn for_ever(kept: Kept) -> ! {
    let Kept { receipt, image, log, network, lease_age, localise } = kept;
    let network = Arc::new(network);
    let now = Instant::now();
    let leased = now.checked_sub(lease_age).unwrap_or(now);

    let with = |chore: fn(&Network, Instant)| {
        let network = Arc::clone(&network);
        move || chore(&network, leased)
    };
    start_thread("lease", with(renew::renew_ipv4));
    start_thread("lease of IPv6", with(renew::renew_ipv6));
    start_thread("link", with(|network, _| guard::watch(network)));
    start_thread("resolver", with(|network, _| provide_resolv_conf(network)));
    if localise {
        let image = image.clone();
        start_thread("rest of the image", move || {
            std::thread::sleep(LOCALISE_AFTER);
            image.localise();
        });
    }
    maintain_files(receipt, &image, log.as_ref(), &network)
}

/// Writes the target's initrd a `resolv.conf`: live-boot copies it into a root that has none.
pub fn write_resolv_conf(network: &Network) {
    let path = Path::new(TARGET).join(RESOLV_CONF);
    let written = fs::create_dir_all(path.parent().unwrap_or(&path))
        .and_then(|()| fs::write(&path, network.leases.resolv_conf(network.link.index)));
    if let Err(error) = written {
        console::say(&format!("  the target will not know its name servers: {error}"));
    }
}

/// Gives the target's root a `resolv.conf` where the target itself makes none, or leaves it empty.
fn provide_resolv_conf(network: &Network) {
    let path = Path::new(TARGET).join(RESOLV_CONF);
    let start = Instant::now();
    while start.elapsed() < RESOLVER_FOR {
        let is_empty = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                fs::read_to_string(&path).is_ok_and(|text| !text.contains("nameserver"))
            }
            // A link belongs to a resolver of the target's.
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_empty {
            // If the root cannot be written, it is read-only on purpose.
            let _ = fs::write(&path, network.leases.resolv_conf(network.link.index));
        }
        std::thread::sleep(UPDATE_EVERY);
    }
}

/// Keeps the receipt, the profile and the event log in the target's `/run/inetboot`, and the drop-ins by
/// which its network managers leave our link alone where they look for them.
fn maintain_files(mut receipt: Receipt, image: &Image, log: Option<&EventLog>, network: &Network) -> ! {
    let mut dropins: Vec<(RunFile, String)> =
        dropins::for_link(network.link.mac, network.link.index, &network.leases)
            .into_iter()
            .map(|DropIn { path, text }| (RunFile::new(path), text))
            .chain(shutdown::UNITS.map(|(path, text)| (RunFile::new(path), text.to_owned())))
            .collect();
    let mut logs: Vec<(RunFile, Vec<u8>)> = log
        .map(|log| {
            let (binary, text) = (log.encode().to_vec(), log.to_string().into_bytes());
            [(RunFile::new("inetboot/eventlog"), binary), (RunFile::new("inetboot/eventlog.txt"), text)]
        })
        .into_iter()
        .flatten()
        .collect();
    let mut receipt_file = RunFile::new("inetboot/receipt.json");
    let mut profile_file = RunFile::new("inetboot/profile");

    let start = Instant::now();
    let mut updated: Option<Instant> = None;
    loop {
        for (file, text) in &mut dropins {
            file.provide(text.as_bytes());
        }
        for (file, bytes) in &mut logs {
            file.provide(bytes);
        }

        // These change all the time, and making their text costs something.
        if updated.is_none_or(|updated| updated.elapsed() >= UPDATE_EVERY) {
            updated = Some(Instant::now());
            update(&mut receipt, image);
            receipt_file.provide(receipt.json().as_bytes());
            if let Some(profile) = image.profile() {
                profile_file.provide(profile.encode().as_bytes());
            }
        }
        std::thread::sleep(if start.elapsed() < COMING_UP { LOOK_EVERY } else { UPDATE_EVERY });
    }
}

/// A small file in the target's `/run`.
struct RunFile {
    path: &'static str,
    written: Vec<u8>,
}

impl RunFile {
    fn new(path: &'static str) -> Self {
        Self { path, written: Vec::new() }
    }

    /// Writes `contents`, unless they are there already. Writing to anything but a tmpfs could wait for
    /// the disk that we serve.
    fn provide(&mut self, contents: &[u8]) {
        let run = Path::new(TARGET).join("run");
        let path = run.join(self.path);
        if (contents == self.written && path.exists()) || !is_tmpfs(&run) {
            return;
        }

        let new = path.with_extension("new");
        let dir = path.parent().unwrap_or(&run);
        let done = fs::create_dir_all(dir)
            .and_then(|()| fs::write(&new, contents))
            .and_then(|()| fs::rename(&new, &path));
        if done.is_ok() {
            self.written = contents.to_vec();
        }
    }
}

/// Brings the second life's part of `receipt` up to date.
pub fn update(receipt: &mut Receipt, image: &Image) {
    let traffic = image.traffic();
    receipt.second.bytes = traffic.bytes;
    receipt.second.requests = traffic.requests;
    receipt.second.spared = image.spared();
    receipt.mirrors = image.reports();
}

fn is_tmpfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|StatFs { f_type, .. }| f_type == TMPFS)
}
