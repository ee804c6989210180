//! What the server does beside serving.

use crate::base::console;
use crate::formats::eventlog::EventLog;
use crate::formats::receipt::Receipt;
use crate::net::dropins::{self, DropIn};
use crate::net::{Network, guard, renew};
use crate::source::Image;
use rustix::fs::{StatFs, statfs};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;

/// When the rest of the image is fetched.
const LOCALISE_AFTER: Duration = Duration::from_secs(30);

/// How often the receipt in the target is brought up to date.
const RECEIPT_EVERY: Duration = Duration::from_secs(2);

/// How long the target takes to come up, and how often it is looked after until then.
const SETTLING: Duration = Duration::from_secs(120);

const SETTLING_EVERY: Duration = Duration::from_millis(200);

/// How long somebody else in the target has to make a `resolv.conf`.
const RESOLVER_FOR: Duration = Duration::from_secs(600);

/// The target's root, seen from ours: through process 1.
const TARGET: &str = "/proc/1/root";

/// There, as in its initrd.
const RESOLV_CONF: &str = "etc/resolv.conf";

/// The target's initrd knows the name servers: live-boot copies this into a root that has none.
pub fn tell_resolver(network: &Network) {
    let path = Path::new(TARGET).join(RESOLV_CONF);
    let written = fs::create_dir_all(path.parent().unwrap_or(&path))
        .and_then(|()| fs::write(&path, network.leases.resolv_conf(network.link.index)));
    if let Err(error) = written {
        console::say(&format!("  the target will not know its name servers: {error}"));
    }
}

/// Those that never sleep: the lease is renewed, the link stays as it is, and the target learns of
/// the name servers where nobody else tells it.
pub fn keep_network(network: &Arc<Network>, held: Duration) {
    let now = Instant::now();
    let held_since = now.checked_sub(held).unwrap_or(now);
    let start = |name: &str, work: Box<dyn FnOnce(Arc<Network>) + Send>| {
        let network = Arc::clone(network);
        let thread = std::thread::Builder::new().name(name.into());
        if let Err(error) = thread.spawn(move || work(network)) {
            console::say_loud(&format!("nobody keeps the {name}: {error}"));
        }
    };
    start("lease", Box::new(move |network| renew::keep(&network, held_since)));
    start("lease of IPv6", Box::new(move |network| renew::keep6(&network, held_since)));
    start("link", Box::new(|network| guard::keep(&network)));
    start("resolver", Box::new(|network| keep_resolver(&network)));
}

/// A root that has no `resolv.conf`, or an empty one, and nobody who makes it, gets ours. This may
/// wait for the disk like anybody else.
fn keep_resolver(network: &Network) {
    let path = Path::new(TARGET).join(RESOLV_CONF);
    let start = Instant::now();
    while start.elapsed() < RESOLVER_FOR {
        let is_empty = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                fs::read_to_string(&path).is_ok_and(|text| !text.contains("nameserver"))
            }
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_empty {
            // Where it cannot be written, somebody wants it so.
            let _ = fs::write(&path, network.leases.resolv_conf(network.link.index));
        }
        std::thread::sleep(RECEIPT_EVERY);
    }
}

pub fn localise(image: &Image) {
    let image = image.clone();
    let localiser = std::thread::Builder::new().name("localise".into());
    let work = move || {
        // The boot itself comes first.
        std::thread::sleep(LOCALISE_AFTER);
        image.localise();
    };
    if let Err(error) = localiser.spawn(work) {
        console::say_loud(&format!("the image stays remote: {error}"));
    }
}

/// Keep the receipt, the profile and the event log in the target's `/run/inetboot` up to date, and
/// what tells its network managers to leave our link alone where they look for it, for ever. Other
/// threads serve the image; this one may wait for the disk like anybody else.
pub fn keep_notes(mut receipt: Receipt, image: &Image, log: Option<EventLog>, network: &Network) -> ! {
    let (mut json, mut profile) = (Note::new("inetboot/receipt.json"), Note::new("inetboot/profile"));
    let (mut events, mut readable) = (Note::new("inetboot/eventlog"), Note::new("inetboot/eventlog.txt"));
    let mut dropins: Vec<(Note, String)> =
        dropins::for_link(network.link.mac, network.link.index, &network.leases)
            .into_iter()
            .map(|DropIn { path, text }| (Note::new(path), text))
            .collect();
    let start = Instant::now();
    loop {
        // They have to be there before the managers are, and some inits mount /run anew.
        for (note, text) in &mut dropins {
            note.keep(text.as_str());
        }
        update(&mut receipt, image);
        json.keep(receipt.json());
        if let Some(read) = image.profile() {
            profile.keep(read.encode());
        }
        if let Some(log) = &log {
            events.keep(log.encode());
            readable.keep(log.to_string());
        }
        std::thread::sleep(if start.elapsed() < SETTLING { SETTLING_EVERY } else { RECEIPT_EVERY });
    }
}

/// A small file in the target's `/run`.
struct Note {
    path: &'static str,
    written: Vec<u8>,
}

impl Note {
    fn new(path: &'static str) -> Self {
        Self { path, written: Vec::new() }
    }

    fn keep(&mut self, contents: impl Into<Vec<u8>>) {
        let contents = contents.into();
        let run = Path::new(TARGET).join("run");
        let path = run.join(self.path);
        if (contents == self.written && path.exists()) || !is_tmpfs(&run) {
            return;
        }
        let new = path.with_extension("new");
        let dir = path.parent().unwrap_or(&run);
        let done = fs::create_dir_all(dir)
            .and_then(|()| fs::write(&new, &contents))
            .and_then(|()| fs::rename(&new, &path));
        if done.is_ok() {
            self.written = contents;
        }
    }
}

pub fn update(receipt: &mut Receipt, image: &Image) {
    let traffic = image.traffic();
    receipt.second.bytes = traffic.bytes;
    receipt.second.requests = traffic.requests;
    receipt.second.spared = image.spared();
    receipt.mirrors = image.reports();
}

/// Writing anywhere else could wait for the disk that we serve.
fn is_tmpfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|StatFs { f_type, .. }| f_type == TMPFS)
}
