//! Before anything else: the file systems every program expects, and drivers for the hardware
//! that is there.

use crate::base::console;
use crate::formats::depmod::Index;
use crate::formats::{compression, handoff};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

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
