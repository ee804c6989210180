//! Drivers for the hardware of this machine: the modules of our initramfs or overlay, by the aliases of the
//! devices in sysfs (modules.alias(5)).

use crate::base::console;
use crate::base::lock::lock;
use crate::formats::depmod::Index;
use crate::formats::{compression, handoff};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::{fs, io};

/// The parents of our modules: those for the target's kernel in an overlay, or those of our initramfs.
const MODULES: [&str; 2] = [handoff::MODULES_PATH, "/lib/modules"];

/// The drivers of disks, by their folder among the modules.
const DISK_DRIVERS: [&str; 6] = [
    "kernel/drivers/ata/",
    "kernel/drivers/block/",
    "kernel/drivers/mmc/",
    "kernel/drivers/nvme/",
    "kernel/drivers/scsi/",
    "kernel/drivers/usb/storage/",
];

/// The folder and the index of our modules for the running kernel, if it has any.
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

/// Loads drivers for all devices but disks. Repeat it while hardware is still missing: a bus shows its
/// devices only when its own driver is loaded.
pub fn load_drivers() {
    load_drivers_that(|path| !is_disk_driver(path));
}

/// The same for disks. Only a cache on a disk needs them.
pub fn load_disk_drivers() {
    load_drivers_that(is_disk_driver);
}

fn is_disk_driver(path: &str) -> bool {
    DISK_DRIVERS.iter().any(|dir| path.starts_with(dir))
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
                load_with_dependencies(dir, index, name);
            }
        }
    }
}

/// Loads the module `name` and those that it depends on, if this kernel has it as a module.
pub fn load_module(name: &str) {
    if let Some((dir, index)) = own_modules()
        && let Some(name) = index.module(name)
    {
        load_with_dependencies(dir, index, name);
    }
}

fn load_with_dependencies(dir: &Path, index: &Index, name: &str) {
    if is_loaded(name) {
        return;
    }
    for path in index.load_order(name) {
        if let Err(error) = insert(&dir.join(path)) {
            report_once(format!("  module {path} cannot be loaded: {error}"));
        }
    }
}

/// A driver that fails is tried again whenever devices are looked for, several times a second. The screen
/// gets its line once.
fn report_once(line: String) {
    static REPORTED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut reported = lock(&REPORTED);
    if !reported.contains(&line) {
        console::say(&line);
        reported.push(line);
    }
}

fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).join("initstate").exists()
}

/// Loads the module in the file `path`, compressed or not. It is no error if it is loaded already.
pub fn insert(path: &Path) -> io::Result<()> {
    let image = compression::unpack(&fs::read(path)?)?;
    match rustix::system::init_module(&image, c"") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Collects the aliases of all devices below `dir`. The only loops in sysfs are symbolic links, which are not
/// followed; the bound on the depth makes sure that this ends.
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

/// A device on the path from a card to the root of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The text that modules match it by: `pci:v00008086d…`
    pub modalias: String,
    /// The name of its driver in the running kernel.
    pub driver: Option<String>,
    /// The module of that driver, unless it is built in.
    pub module: Option<String>,
}

/// The device behind the link or disk at `sysfs`, then its bus, and so on up to the root: all of them need
/// drivers.
pub fn device_chain(sysfs: &Path) -> Vec<Device> {
    let Ok(mut dir) = fs::canonicalize(sysfs.join("device")) else { return Vec::new() };
    let mut chain = Vec::new();
    while dir.starts_with("/sys/devices") {
        chain.extend(device(&dir));
        if !dir.pop() {
            break;
        }
    }
    chain
}

/// The device at `dir`; `None` for a folder without a modalias, which groups devices.
fn device(dir: &Path) -> Option<Device> {
    let modalias = fs::read_to_string(dir.join("modalias")).ok()?;
    let modalias = modalias.trim();
    let target_of = |link: &str| {
        let target = fs::canonicalize(dir.join(link)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    };
    let (driver, module) = (target_of("driver"), target_of("driver/module"));
    (!modalias.is_empty()).then(|| Device { modalias: modalias.to_owned(), driver, module })
}
