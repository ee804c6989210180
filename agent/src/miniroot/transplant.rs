//! The modules the second life loads: from the target's initrd where it has them, else taken out
//! of the target's root, which belongs to the same kernel.

use super::MinirootError;
use super::modules::{Index, name_of};
use super::newc;
use super::pack;
use crate::console;
use crate::distro::Plan;
use crate::early::{Device, device_chain};
use crate::failure::chain;
use crate::medium::Medium;
use crate::memory::FromStart;
use crate::net::link::Link;
use crate::source::disk;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// Where transplanted modules lie in the target's initrd.
pub(super) const DIR: &str = "/inetboot.d/modules";

/// What the block device in the target stands on.
const OURS: [&str; 2] = ["fuse", "loop"];

/// depmod's files, as far as [`Index`] reads them.
const INDEX_FILES: [&str; 5] =
    ["modules.dep", "modules.alias", "modules.softdep", "modules.builtin", "modules.builtin.modinfo"];

/// A module the second life will load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Organ {
    /// It is in the target's initrd, at this absolute path.
    Native(String),
    /// It was not: its name and contents.
    Transplant(String, Vec<u8>),
}

impl Organ {
    /// Where the second life finds it.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Native(path) => path.clone(),
            Self::Transplant(name, _) => format!("{DIR}/{name}.ko"),
        }
    }

    /// The contents, for the overlay.
    pub(super) fn image(&self) -> Option<&[u8]> {
        match self {
            Self::Native(_) => None,
            Self::Transplant(_, image) => Some(image),
        }
    }
}

/// A kernel's modules, somewhere.
#[derive(Debug, Default)]
pub(super) struct Tree {
    index: Index,
    /// The directory that paths of the index are relative to.
    dir: PathBuf,
    /// The modules whose files are really there, by name; `None`: all that are listed.
    present: Option<HashSet<String>>,
}

impl Tree {
    /// The modules for kernel `release` in an initrd, and the initrd's size unpacked.
    pub(super) fn of_initrd(initrd: &File, release: &str) -> io::Result<(Self, u64)> {
        let mut files: HashMap<String, Vec<u8>> = HashMap::new();
        let mut present = HashSet::new();
        let mut dir = PathBuf::new();
        let mut unpacked = 0;
        let tree = format!("lib/modules/{release}/");
        // By an offset of its own: the file's is where the overlay goes.
        let mut input = BufReader::with_capacity(1 << 16, FromStart::new(initrd));
        newc::walk(&mut input, &mut |member| {
            unpacked += member.length;
            let Some((before, inside)) = member.name.split_once(&tree) else { return Ok(()) };
            if inside.contains(".ko") {
                present.insert(name_of(inside));
            } else if INDEX_FILES.contains(&inside) {
                dir = Path::new("/").join(before).join(&tree);
                let mut contents = Vec::new();
                member.contents.read_to_end(&mut contents)?;
                files.insert(inside.to_owned(), contents);
            }
            Ok(())
        })?;
        let index = Index::parse(&|name| files.get(name).cloned()).unwrap_or_default();
        Ok((Self { index, dir, present: Some(present) }, unpacked))
    }

    /// The modules for kernel `release` in a mounted root, if it has any.
    fn of_root(root: &Path, release: &str) -> Option<Self> {
        ["usr/lib/modules", "lib/modules"].iter().find_map(|parent| {
            let dir = root.join(parent).join(release);
            let index = Index::parse(&|name| fs::read(dir.join(name)).ok())?;
            Some(Self { index, dir, present: None })
        })
    }

    fn has(&self, name: &str) -> bool {
        self.index.path(name).is_some() && self.present.as_ref().is_none_or(|present| present.contains(name))
    }

    /// What `need` is here.
    fn find(&self, need: &Need) -> Found {
        let module = match need {
            Need::Module(name) => self.index.module(name),
            Need::Card(device) | Need::Disk(device) => {
                self.index.modules_for(&device.modalias).find(|name| self.has(name))
            }
        };
        if let Some(module) = module.filter(|name| self.has(name)) {
            return Found::Module(module.to_owned());
        }
        let builtin = match need {
            Need::Module(name) => self.index.is_builtin(name),
            Need::Card(device) | Need::Disk(device) => {
                self.index.drives_itself(&device.modalias)
                    || device.driver.as_ref().is_some_and(|driver| self.index.is_builtin(driver))
            }
        };
        if builtin { Found::Builtin } else { Found::Nowhere }
    }
}

/// Something the second life needs a module for, unless the kernel has it built in.
#[derive(Clone, Debug)]
enum Need {
    /// A module by name.
    Module(String),
    /// Whatever drives this device, without which there is no network.
    Card(Device),
    /// Whatever drives this device, which one can do without.
    Disk(Device),
}

enum Found {
    Builtin,
    Module(String),
    Nowhere,
}

/// What the target's modules have to drive.
pub(super) struct Hardware<'a> {
    /// The card that brings the image.
    pub(super) card: &'a Link,
    /// The disk that keeps pieces.
    pub(super) disk: Option<&'a Path>,
}

/// Which modules to load, in order, so that the target has its block device, its medium and the
/// card that brings it.
pub(super) fn choose(
    plan: &Plan,
    medium: &Medium,
    hardware: &Hardware<'_>,
    release: &str,
    initrd: Tree,
) -> Result<Vec<Organ>, MinirootError> {
    let disk = hardware.disk.and_then(disk::sysfs).map(|disk| needed(&disk)).unwrap_or_default();
    let needs: Vec<Need> = OURS
        .iter()
        .chain(plan.modules)
        .map(|name| Need::Module((*name).to_owned()))
        .chain(needed(&hardware.card.sysfs()).into_iter().map(Need::Card))
        .chain(disk.into_iter().map(Need::Disk))
        .collect();

    let mut chosen = Chosen::default();
    let mut missing = Vec::new();
    for need in needs {
        match initrd.find(&need) {
            Found::Builtin => {}
            Found::Module(name) => chosen.add(&initrd, None, &name)?,
            Found::Nowhere => missing.push(need),
        }
    }
    if missing.is_empty() {
        return Ok(chosen.organs);
    }

    let is_help = missing.iter().all(|need| matches!(need, Need::Disk(_)));
    match chosen.transplant(&missing, plan, medium, release, &initrd) {
        Ok(still) => missing = still,
        Err(error) if is_help => console::say(&format!("  {}", chain(&error))),
        Err(error) => return Err(error),
    }
    for need in missing {
        let release = release.to_owned();
        match need {
            Need::Module(name) => return Err(MinirootError::NoModule { name, release }),
            Need::Card(Device { modalias, .. }) => {
                return Err(MinirootError::NoDriver { card: hardware.card.to_string(), modalias, release });
            }
            Need::Disk(Device { modalias, .. }) => {
                console::say(&format!(
                    "  the target lacks a driver for the disk with the cache ({modalias}) and goes without it"
                ));
            }
        }
    }
    Ok(chosen.organs)
}

/// What the device at `sysfs` needs, its buses first. Of those only what needs a module here may
/// need one there.
fn needed(sysfs: &Path) -> Vec<Device> {
    let devices = device_chain(sysfs);
    let buses = devices.iter().skip(1).rev().filter(|device| device.driver.is_some());
    buses.chain(devices.first()).cloned().collect()
}

#[derive(Default)]
struct Chosen {
    organs: Vec<Organ>,
    seen: HashSet<String>,
}

impl Chosen {
    /// Add what `missing` needs from the target's roots; what is in none of them is given back.
    fn transplant(
        &mut self,
        missing: &[Need],
        plan: &Plan,
        medium: &Medium,
        release: &str,
        initrd: &Tree,
    ) -> Result<Vec<Need>, MinirootError> {
        console::say("  the initrd lacks modules: looking into the target's root");
        let mut missing = missing.to_vec();
        for path in &plan.roots {
            let mounted = medium.mount_root(path).map_err(MinirootError::Root)?;
            let Some(root) = Tree::of_root(mounted.dir(), release) else { continue };
            let mut still = Vec::new();
            for need in missing {
                match root.find(&need) {
                    Found::Builtin => {}
                    Found::Module(name) => {
                        console::say(&format!("  transplanting {name}"));
                        self.add(initrd, Some(&root), &name)?;
                    }
                    Found::Nowhere => still.push(need),
                }
            }
            missing = still;
        }
        Ok(missing)
    }

    /// Add `name` of `root` (or else of the initrd) and what it needs; each from the initrd
    /// where that has it.
    fn add(&mut self, initrd: &Tree, root: Option<&Tree>, name: &str) -> Result<(), MinirootError> {
        let tree = root.unwrap_or(initrd);
        for path in tree.index.load_order(name) {
            let module = name_of(path);
            if !self.seen.insert(module.clone()) {
                continue;
            }
            let organ = if initrd.has(&module) {
                let native = initrd.index.path(&module).unwrap_or(path);
                Organ::Native(initrd.dir.join(native).to_string_lossy().into_owned())
            } else if root.is_some() {
                let file = tree.dir.join(path);
                let failed =
                    |error| MinirootError::Read { path: file.clone(), trouble: String::new(), error };
                let image = fs::read(&file).and_then(|bytes| pack::unpack(&bytes)).map_err(failed)?;
                Organ::Transplant(module, image)
            } else {
                continue; // Listed by depmod but left out of the initrd: its maker knows it is not needed.
            };
            self.organs.push(organ);
        }
        Ok(())
    }
}
