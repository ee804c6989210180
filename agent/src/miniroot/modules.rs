//! The modules the second life loads: from the target's initrd where it has them, else taken out
//! of the target's root, which belongs to the same kernel.

use crate::base::console;
use crate::base::failure::chain;
use crate::distro::Plan;
use crate::formats::depmod::{FILES, IN_ROOTS, Index, name_of};
use crate::formats::{compression, cpio};
use crate::machine::drivers::Device;
use crate::medium::{Directory, Root};
use crate::miniroot::MinirootError;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Where transplanted modules lie in the target's initrd.
pub(in crate::miniroot) const DIR: &str = "/inetboot.d/modules";

/// What the block device in the target stands on.
const OURS: [&str; 2] = ["fuse", "loop"];

/// Drivers of buses that no kernel for PCs has as modules of their own.
const OF_EVERY_KERNEL: [&str; 3] = ["hub", "pcieport", "usb"];

/// A module the second life will load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// It is in the target's initrd, at this absolute path.
    InInitrd(String),
    /// It was not: its name and contents.
    FromRoot(String, Vec<u8>),
}

impl Module {
    /// Where the second life finds it.
    pub(in crate::miniroot) fn path(&self) -> String {
        match self {
            Self::InInitrd(path) => path.clone(),
            Self::FromRoot(name, _) => format!("{DIR}/{name}.ko"),
        }
    }

    /// The contents, for the overlay.
    pub(in crate::miniroot) fn image(&self) -> Option<&[u8]> {
        match self {
            Self::InInitrd(_) => None,
            Self::FromRoot(_, image) => Some(image),
        }
    }
}

/// A kernel's modules, somewhere.
#[derive(Debug, Default)]
pub(in crate::miniroot) struct Tree {
    index: Index,
    /// The directory that paths of the index are relative to.
    dir: PathBuf,
    /// The modules whose files are really there, by name; `None`: all that are listed.
    present: Option<HashSet<String>>,
}

impl Tree {
    /// The modules for kernel `release` in an initrd, and the initrd's size unpacked.
    pub(in crate::miniroot) fn of_initrd(initrd: impl Read, release: &str) -> io::Result<(Self, u64)> {
        let mut files: HashMap<String, Vec<u8>> = HashMap::new();
        let mut present = HashSet::new();
        let mut dir = PathBuf::new();
        let mut unpacked = 0;
        let tree = format!("lib/modules/{release}/");
        let mut input = BufReader::with_capacity(1 << 16, initrd);
        cpio::walk(&mut input, &mut |member| {
            unpacked += member.length;
            let Some((before, inside)) = member.name.split_once(&tree) else { return Ok(()) };
            if inside.contains(".ko") {
                present.insert(name_of(inside));
            } else if FILES.contains(&inside) {
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

    /// The modules for kernel `release` in a root, if it has any.
    fn of_root(root: &dyn Root, release: &str) -> Option<Self> {
        IN_ROOTS.iter().find_map(|parent| {
            let dir = Path::new(parent).join(release);
            let index = Index::parse(&|name| root.read(&dir.join(name)).ok())?;
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
            Need::Driver { device, .. } => {
                self.index.modules_for(&device.modalias).find(|name| self.has(name))
            }
        };
        if let Some(module) = module.filter(|name| self.has(name)) {
            return Found::Module(module.to_owned());
        }
        let builtin = match need {
            Need::Module(name) => self.index.is_builtin(name),
            Need::Driver { device, .. } => {
                // Not every driver in the kernel tells what it drives; but most are called like
                // their modules.
                self.index.drives_itself(&device.modalias)
                    || [&device.driver, &device.module]
                        .into_iter()
                        .flatten()
                        .any(|name| self.index.is_builtin(name))
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
    /// Whatever drives this device.
    Driver {
        /// What the part of the machine is that it belongs to.
        kind: &'static str,
        /// Which one that is.
        part: String,
        /// The device.
        device: Device,
        /// Whether one can do without.
        is_optional: bool,
    },
}

enum Found {
    Builtin,
    Module(String),
    Nowhere,
}

/// A part of this machine that the target has to drive.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is, e.g. `network card`.
    pub kind: &'static str,
    /// Which of them it is, e.g. `eth0`; nothing where there is one.
    pub name: String,
    /// Its device first, then all that this hangs on.
    pub chain: Vec<Device>,
    /// Whether the target can do without.
    pub is_optional: bool,
}

impl Part {
    /// What drivers are needed for, buses first: those that have a driver here. One that is a module
    /// here needs one there; of others, which a kernel of ours has built in, that is not sure.
    fn needs(&self) -> impl Iterator<Item = Need> {
        let is_driven = |device: &&Device| {
            device.driver.as_deref().is_some_and(|driver| !OF_EVERY_KERNEL.contains(&driver))
        };
        let buses = self.chain.iter().skip(1).rev().filter(is_driven);
        let buses = buses.map(|device| (device, self.is_optional || device.module.is_none()));
        let first = self.chain.first().map(|device| (device, self.is_optional));
        buses.chain(first).map(|(device, is_optional)| Need::Driver {
            kind: self.kind,
            part: format!("{} {}", self.kind, self.name).trim_end().to_owned(),
            device: device.clone(),
            is_optional,
        })
    }
}

/// Which modules to load, in order, so that the target has its block device, its medium and the
/// card that brings it.
pub(in crate::miniroot) fn choose(
    plan: &Plan,
    medium: &dyn Directory,
    hardware: &[Part],
    further: &[&str],
    release: &str,
    initrd: Tree,
) -> Result<Vec<Module>, MinirootError> {
    let modules = OURS.iter().chain(plan.modules).chain(further).map(|name| Need::Module((*name).to_owned()));
    let needs: Vec<Need> = modules.chain(hardware.iter().flat_map(Part::needs)).collect();

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
        return Ok(chosen.modules);
    }

    let is_optional = missing.iter().all(|need| matches!(need, Need::Driver { is_optional: true, .. }));
    match chosen.transplant(&missing, plan, medium, release, &initrd) {
        Ok(still) => missing = still,
        Err(error) if is_optional => console::say(&format!("  {}", chain(&error))),
        Err(error) => return Err(error),
    }
    for need in missing {
        let release = release.to_owned();
        match need {
            Need::Module(name) => return Err(MinirootError::NoModule { name, release }),
            Need::Driver { kind, part, device: Device { modalias, .. }, is_optional: false } => {
                return Err(MinirootError::NoDriver { kind, part, modalias, release });
            }
            Need::Driver { part, device: Device { modalias, .. }, is_optional: true, .. } => {
                console::say(&format!(
                    "  the target lacks a driver for the {part} ({modalias}) and goes without it"
                ));
            }
        }
    }
    Ok(chosen.modules)
}

#[derive(Default)]
struct Chosen {
    modules: Vec<Module>,
    seen: HashSet<String>,
}

impl Chosen {
    /// Add what `missing` needs from the target's roots; what is in none of them is given back.
    fn transplant(
        &mut self,
        missing: &[Need],
        plan: &Plan,
        medium: &dyn Directory,
        release: &str,
        initrd: &Tree,
    ) -> Result<Vec<Need>, MinirootError> {
        console::say("  the initrd lacks modules: looking into the target's root");
        let mut missing = missing.to_vec();
        for path in &plan.roots {
            if missing.is_empty() {
                break;
            }
            let root = medium.root(path).map_err(MinirootError::Root)?;
            let Some(tree) = Tree::of_root(&*root, release) else { continue };
            let mut still = Vec::new();
            for need in missing {
                match tree.find(&need) {
                    Found::Builtin => {}
                    Found::Module(name) => {
                        console::say(&format!("  transplanting {name}"));
                        self.add(initrd, Some((&tree, &*root)), &name)?;
                    }
                    Found::Nowhere => still.push(need),
                }
            }
            missing = still;
        }
        Ok(missing)
    }

    /// Add `name` of the tree of a root (or else of the initrd) and what it needs; each from the
    /// initrd where that has it.
    fn add(
        &mut self,
        initrd: &Tree,
        root: Option<(&Tree, &dyn Root)>,
        name: &str,
    ) -> Result<(), MinirootError> {
        let tree = root.map_or(initrd, |(tree, _)| tree);
        for path in tree.index.load_order(name) {
            let module = name_of(path);
            if !self.seen.insert(module.clone()) {
                continue;
            }
            let module_file = if initrd.has(&module) {
                let native = initrd.index.path(&module).unwrap_or(path);
                Module::InInitrd(initrd.dir.join(native).to_string_lossy().into_owned())
            } else if let Some((_, root)) = root {
                let file = tree.dir.join(path);
                let failed = |error| MinirootError::Read { path: file.clone(), error };
                let image = root.read(&file).and_then(|bytes| compression::unpack(&bytes)).map_err(failed)?;
                Module::FromRoot(module, image)
            } else {
                continue; // Listed by depmod but left out of the initrd: its maker knows it is not needed.
            };
            self.modules.push(module_file);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_card_hangs_on_is_needed_before_it_also_where_it_is_no_module_here() {
        let device = |modalias: &str, driver: Option<&str>, module: Option<&str>| Device {
            modalias: modalias.into(),
            driver: driver.map(str::to_owned),
            module: module.map(str::to_owned),
        };
        let needs = |chain: Vec<Device>| -> Vec<(String, bool)> {
            let part = Part { kind: "network card", name: "usb0".into(), chain, is_optional: false };
            let need = |need| match need {
                Need::Driver { device, is_optional, .. } => (device.modalias, is_optional),
                Need::Module(name) => panic!("{name}"),
            };
            part.needs().map(need).collect()
        };
        let monolithic = vec![
            device("usb:dongle", Some("cdc_ether"), None),
            device("pci:xhci", Some("xhci_hcd"), None),
            device("pci:bridge", Some("pcieport"), None),
            device("acpi:root", None, None),
        ];
        assert_eq!(needs(monolithic), [("pci:xhci".into(), true), ("usb:dongle".into(), false)]);
        let modular = vec![
            device("virtio:net", Some("virtio_net"), Some("virtio_net")),
            device("pci:virtio", Some("virtio-pci"), Some("virtio_pci")),
        ];
        assert_eq!(needs(modular), [("pci:virtio".into(), false), ("virtio:net".into(), false)]);
    }
}
