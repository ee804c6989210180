//! Before anything else: the file systems every program expects, and drivers for the hardware
//! that is there.

use crate::base::console;
use crate::formats::depmod::Index;
use crate::formats::{compression, handoff};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

/// One thing that must be mounted.
struct Need {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    why: &'static str,
}

const NOTHING_RUNS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const NEEDS: [Need; 3] = [
    Need { target: "proc", kind: "proc", flags: NOTHING_RUNS, why: "the kernel's arguments and memory" },
    Need { target: "sys", kind: "sysfs", flags: NOTHING_RUNS, why: "devices and links" },
    Need {
        target: "dev",
        kind: "devtmpfs",
        flags: MountFlags::NOSUID,
        why: "consoles, /dev/fuse, loop devices",
    },
];

/// Mount what is not mounted yet below `root` (`/`, or a root of one's own). Never fails: what is
/// missing is said, and whoever needs it fails with a better sentence.
pub fn mount_all(root: &Path) {
    for need in &NEEDS {
        let target = root.join(need.target);
        let mounted =
            fs::create_dir_all(&target).map_err(|error| error.to_string()).and_then(|()| {
                match mount(need.kind, &target, need.kind, need.flags, None) {
                    Ok(()) | Err(Errno::BUSY) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            });
        if let Err(error) = mounted {
            console::say(&format!(
                "cannot mount {} on {} ({}): {error}",
                need.kind,
                target.display(),
                need.why
            ));
        }
    }
}

/// Undo [`mount_all`] below `/`, for an init that wants to find nothing mounted.
pub fn unmount_all() {
    for need in NEEDS.iter().rev() {
        let _ = unmount(Path::new("/").join(need.target), UnmountFlags::DETACH);
    }
}

/// Where modules of ours may lie: those for the target's kernel in an overlay, or in our initramfs.
const MODULES: [&str; 2] = [handoff::MODULES_PATH, "/lib/modules"];

/// The modules that we brought along for this kernel.
fn own_modules() -> Option<&'static (PathBuf, Index)> {
    static FOUND: OnceLock<Option<(PathBuf, Index)>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            MODULES.iter().find_map(|parent| {
                let dir = Path::new(parent).join(&release);
                let index = Index::parse(&|name| fs::read(dir.join(name)).ok())?;
                Some((dir, index))
            })
        })
        .as_ref()
}

/// Load the drivers of every device that is there and has none. Cheap to repeat: a bus that was
/// just driven shows new devices.
pub fn load_drivers() {
    load_drivers_that(|path| !is_of_disks(path));
}

/// The same for disks, which nobody needs but a cache.
pub fn load_disk_drivers() {
    load_drivers_that(is_of_disks);
}

/// Where the drivers of disks lie among the modules.
const OF_DISKS: [&str; 6] = [
    "kernel/drivers/ata/",
    "kernel/drivers/block/",
    "kernel/drivers/mmc/",
    "kernel/drivers/nvme/",
    "kernel/drivers/scsi/",
    "kernel/drivers/usb/storage/",
];

fn is_of_disks(path: &str) -> bool {
    OF_DISKS.iter().any(|dir| path.starts_with(dir))
}

fn load_drivers_that(are_wanted: impl Fn(&str) -> bool) {
    let Some((dir, index)) = own_modules() else { return };
    let mut aliases = Vec::new();
    collect_modaliases(Path::new("/sys/devices"), 0, &mut aliases);
    aliases.sort();
    aliases.dedup();
    for alias in aliases {
        for name in index.modules_for(&alias) {
            if index.path(name).is_some_and(&are_wanted) {
                insert_with_needs(dir, index, name);
            }
        }
    }
}

/// Load the module `name` and what it needs, if this kernel has it as a module.
pub fn load_module(name: &str) {
    if let Some((dir, index)) = own_modules()
        && let Some(name) = index.module(name)
    {
        insert_with_needs(dir, index, name);
    }
}

fn insert_with_needs(dir: &Path, index: &Index, name: &str) {
    if is_loaded(name) {
        return;
    }
    for path in index.load_order(name) {
        if let Err(error) = insert(&dir.join(path)) {
            console::say(&format!("  module {path} cannot be loaded: {error}"));
        }
    }
}

fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).join("initstate").exists()
}

/// Load the module in the file `path`, compressed or not. One that is there already is fine.
pub fn insert(path: &Path) -> io::Result<()> {
    let image = compression::unpack(&fs::read(path)?)?;
    match rustix::system::init_module(&image, c"") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Every device's alias below `dir`. Bounded in depth: sysfs has loops only through symbolic
/// links, which are not followed, but nothing here may run for ever.
fn collect_modaliases(dir: &Path, depth: usize, aliases: &mut Vec<String>) {
    const DEEPEST: usize = 16;
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEEPEST {
            collect_modaliases(&entry.path(), depth + 1, aliases);
        } else if kind.is_file()
            && entry.file_name() == "modalias"
            && let Ok(alias) = fs::read_to_string(entry.path())
            && !alias.trim().is_empty()
        {
            aliases.push(alias.trim().to_owned());
        }
    }
}

/// A device on the way from a card to the root of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What modules match it by.
    pub modalias: String,
    /// What its driver here is called.
    pub driver: Option<String>,
    /// The module which that is in, where it is in one.
    pub module: Option<String>,
}

/// The device behind the link at `sysfs`, first, and all that it hangs on: a card needs its bus.
pub fn device_chain(sysfs: &Path) -> Vec<Device> {
    let Ok(mut dir) = fs::canonicalize(sysfs.join("device")) else { return Vec::new() };
    let mut chain = Vec::new();
    while dir.starts_with("/sys/devices") {
        if let Ok(modalias) = fs::read_to_string(dir.join("modalias"))
            && !modalias.trim().is_empty()
        {
            let name = |link: &str| {
                let target = fs::canonicalize(dir.join(link)).ok();
                target.and_then(|target| Some(target.file_name()?.to_str()?.to_owned()))
            };
            let (driver, module) = (name("driver"), name("driver/module"));
            chain.push(Device { modalias: modalias.trim().to_owned(), driver, module });
        }
        if !dir.pop() {
            break;
        }
    }
    chain
}
