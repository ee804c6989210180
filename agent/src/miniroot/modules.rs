//! The modules that the second life loads: FUSE and loop devices for its block device, and the drivers of
//! the hardware that brings the image.
//!
//! A module is used from the target's initrd if that has it. Otherwise it is taken from the target's root,
//! which belongs to the same kernel, and the overlay brings it.

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

/// Modules from the target's root go here in the target's initrd.
pub(in crate::miniroot) const DIR: &str = "/inetboot.d/modules";

/// Every target needs these: the image is a FUSE file, and a loop device on it.
const OF_EVERY_TARGET: [&str; 2] = ["fuse", "loop"];

/// Drivers of buses. No kernel for PCs has them as modules of their own.
const BUILT_IN_EVERYWHERE: [&str; 3] = ["hub", "pcieport", "usb"];

/// A module for the second life to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// In the target's initrd, at this absolute path.
    InInitrd { path: String },
    /// Taken from the target's root, and unpacked.
    FromRoot { name: String, contents: Vec<u8> },
}

impl Module {
    /// The module's absolute path in the finished initrd.
    pub(in crate::miniroot) fn path(&self) -> String {
        match self {
            Self::InInitrd { path } => path.clone(),
            Self::FromRoot { name, .. } => format!("{DIR}/{name}.ko"),
        }
    }

    /// The contents for the overlay; `None` for a module that needs no place there.
    pub(in crate::miniroot) fn contents(&self) -> Option<&[u8]> {
        match self {
            Self::InInitrd { .. } => None,
            Self::FromRoot { contents, .. } => Some(contents),
        }
    }
}

/// Hardware that the target has to drive.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// For people, e.g. `network card`.
    pub kind: &'static str,
    /// Tells it from others of its kind, e.g. `eth0`; may be empty.
    pub name: String,
    /// Its device first, then the buses above it.
    pub chain: Vec<Device>,
    /// True if the target can do without it.
    pub is_optional: bool,
}

impl Hardware {
    /// One requirement for each device that needs a driver, buses first.
    fn requirements(&self) -> impl Iterator<Item = Requirement> {
        let needs_driver = |device: &&Device| {
            let driver = device.driver.as_deref();
            driver.is_some_and(|driver| !BUILT_IN_EVERYWHERE.contains(&driver))
        };
        let buses = self.chain.iter().skip(1).rev().filter(needs_driver);
        // Our own kernel has the drivers of many buses built in. Then we cannot know that the target's kernel
        // has a module for this bus, and do not insist on one.
        let buses = buses.map(|device| (device, self.is_optional || device.module.is_none()));
        let own_device = self.chain.first().map(|device| (device, self.is_optional));

        buses.chain(own_device).map(|(device, is_optional)| Requirement::Driver {
            kind: self.kind,
            hardware: format!("{} {}", self.kind, self.name).trim_end().to_owned(),
            device: device.clone(),
            is_optional,
        })
    }
}

/// A module that the second life needs, unless the target's kernel has it built in.
#[derive(Clone, Debug)]
enum Requirement {
    /// The module of this name.
    Module(String),
    /// Any driver of this device, which belongs to `hardware`.
    Driver { kind: &'static str, hardware: String, device: Device, is_optional: bool },
}

impl Requirement {
    fn is_optional(&self) -> bool {
        matches!(self, Self::Driver { is_optional: true, .. })
    }
}

/// The answer of a [`ModuleTree`] to a [`Requirement`].
enum Availability {
    /// The kernel needs no module for it.
    BuiltIn,
    /// The module of this name meets it.
    Module(String),
    Missing,
}

/// The modules of one kernel, as they lie in an initrd or in a root.
#[derive(Debug, Default)]
pub(in crate::miniroot) struct ModuleTree {
    index: Index,
    /// The directory that paths of the index are relative to.
    dir: PathBuf,
    /// The names of the modules whose files exist. An initrd's index lists modules that the initrd lacks; a
    /// root has all that it lists (`None`).
    present: Option<HashSet<String>>,
}

impl ModuleTree {
    /// The modules for kernel `release` in an initrd, and the initrd's size unpacked in bytes.
    pub(in crate::miniroot) fn of_initrd(initrd: impl Read, release: &str) -> io::Result<(Self, u64)> {
        let mut depmod_files: HashMap<String, Vec<u8>> = HashMap::new();
        let mut present = HashSet::new();
        let mut dir = PathBuf::new();
        let mut unpacked = 0;
        let tree = format!("lib/modules/{release}/");

        let mut input = BufReader::with_capacity(1 << 16, initrd);
        cpio::walk(&mut input, &mut |member| {
            unpacked += member.length;
            // `before` is `usr/` in an initrd whose `lib` is a symbolic link.
            let Some((before, inside)) = member.name.split_once(&tree) else { return Ok(()) };
            if inside.contains(".ko") {
                present.insert(name_of(inside));
            } else if FILES.contains(&inside) {
                dir = Path::new("/").join(before).join(&tree);
                let mut contents = Vec::new();
                member.contents.read_to_end(&mut contents)?;
                depmod_files.insert(inside.to_owned(), contents);
            }
            Ok(())
        })?;

        let index = Index::parse(&|name| depmod_files.get(name).cloned()).unwrap_or_default();
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

    /// The path of the module `name`; `None` if its file is not here.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let is_present = self.present.as_ref().is_none_or(|present| present.contains(name));
        self.index.path(name).filter(|_| is_present).map(|path| self.dir.join(path))
    }

    fn find(&self, requirement: &Requirement) -> Availability {
        let has_file = |name: &&str| self.file(name).is_some();
        let module = match requirement {
            Requirement::Module(name) => self.index.module(name).filter(has_file),
            Requirement::Driver { device, .. } => self.index.modules_for(&device.modalias).find(has_file),
        };
        if let Some(name) = module {
            return Availability::Module(name.to_owned());
        }

        let is_built_in = match requirement {
            Requirement::Module(name) => self.index.is_builtin(name),
            // A built-in driver need not list its devices. Most have the same name as a module.
            Requirement::Driver { device: Device { modalias, driver, module }, .. } => {
                let mut names = [driver, module].into_iter().flatten();
                self.index.drives_itself(modalias) || names.any(|name| self.index.is_builtin(name))
            }
        };
        if is_built_in { Availability::BuiltIn } else { Availability::Missing }
    }
}

/// The modules to load, in order, for a target that must have its block device, drive `hardware` and use
/// `network_modules`. `initrd` has the modules in the target's initrd, for its kernel `release`.
pub(in crate::miniroot) fn choose(
    plan: &Plan,
    medium: &dyn Directory,
    hardware: &[Hardware],
    network_modules: &[&str],
    release: &str,
    initrd: &ModuleTree,
) -> Result<Vec<Module>, MinirootError> {
    let names = OF_EVERY_TARGET.iter().chain(plan.modules).chain(network_modules);
    let requirements = names
        .map(|name| Requirement::Module((*name).to_owned()))
        .chain(hardware.iter().flat_map(Hardware::requirements))
        .collect();

    let mut list = LoadList { initrd, modules: Vec::new(), names: HashSet::new() };
    let mut missing = list.meet(requirements, None)?;
    if missing.is_empty() {
        return Ok(list.modules);
    }

    // A root that cannot be read ends the boot only where something is needed from it.
    let is_optional = missing.iter().all(Requirement::is_optional);
    console::say("  the initrd lacks modules: looking into the target's root");
    match list.meet_from_roots(missing.clone(), plan, medium, release) {
        Ok(still_missing) => missing = still_missing,
        Err(error) if is_optional => console::say(&format!("  {}", chain(&error))),
        Err(error) => return Err(error),
    }
    missing.into_iter().try_for_each(|requirement| report_missing(requirement, release))?;
    Ok(list.modules)
}

/// The end of the boot, or a line on the screen for hardware that is optional.
fn report_missing(requirement: Requirement, release: &str) -> Result<(), MinirootError> {
    let release = release.to_owned();
    match requirement {
        Requirement::Module(name) => Err(MinirootError::NoModule { name, release }),
        Requirement::Driver { kind, hardware, device: Device { modalias, .. }, is_optional: false } => {
            Err(MinirootError::NoDriver { kind, hardware, modalias, release })
        }
        Requirement::Driver { hardware, device: Device { modalias, .. }, .. } => {
            console::say(&format!(
                "  the target lacks a driver for the {hardware} ({modalias}) and goes without it"
            ));
            Ok(())
        }
    }
}

/// The modules chosen so far, in the order in which they are loaded.
struct LoadList<'a> {
    /// The modules in the target's initrd.
    initrd: &'a ModuleTree,
    modules: Vec<Module>,
    /// Their names, and the names of modules that are left out.
    names: HashSet<String>,
}

/// A root of the target that has modules for its kernel.
struct RootModules {
    root: Box<dyn Root>,
    tree: ModuleTree,
}

impl LoadList<'_> {
    /// Adds modules for `requirements` from `root`, or else from the initrd. Gives back what is not there.
    fn meet(
        &mut self,
        requirements: Vec<Requirement>,
        root: Option<&RootModules>,
    ) -> Result<Vec<Requirement>, MinirootError> {
        let mut missing = Vec::new();
        for requirement in requirements {
            match root.map_or(self.initrd, |root| &root.tree).find(&requirement) {
                Availability::BuiltIn => {}
                Availability::Module(name) => {
                    if root.is_some() {
                        console::say(&format!("  taking the module {name} from the target's root"));
                    }
                    self.add(&name, root)?;
                }
                Availability::Missing => missing.push(requirement),
            }
        }
        Ok(missing)
    }

    /// The same with each of the target's roots, until nothing is missing.
    fn meet_from_roots(
        &mut self,
        mut missing: Vec<Requirement>,
        plan: &Plan,
        medium: &dyn Directory,
        release: &str,
    ) -> Result<Vec<Requirement>, MinirootError> {
        for path in &plan.roots {
            if missing.is_empty() {
                break;
            }
            let root = medium.root(path).map_err(MinirootError::Root)?;
            if let Some(tree) = ModuleTree::of_root(&*root, release) {
                missing = self.meet(missing, Some(&RootModules { root, tree }))?;
            }
        }
        Ok(missing)
    }

    /// Adds the module `name` of `root`, or else of the initrd, and before it all that it needs. Each file is
    /// the initrd's own where that has it.
    fn add(&mut self, name: &str, root: Option<&RootModules>) -> Result<(), MinirootError> {
        let tree = root.map_or(self.initrd, |root| &root.tree);
        for path in tree.index.load_order(name) {
            let name = name_of(path);
            if !self.names.insert(name.clone()) {
                continue;
            }
            let module = match (self.initrd.file(&name), root) {
                (Some(path), _) => Module::InInitrd { path: path.to_string_lossy().into_owned() },
                (None, Some(root)) => root.take(name, path)?,
                // The initrd's index lists it, but the maker of the initrd left it out as not needed.
                (None, None) => continue,
            };
            self.modules.push(module);
        }
        Ok(())
    }
}

impl RootModules {
    /// Takes the module `name`, whose file is at `path` of the index.
    fn take(&self, name: String, path: &str) -> Result<Module, MinirootError> {
        let path = self.tree.dir.join(path);
        let contents = self.root.read(&path).and_then(|bytes| compression::unpack(&bytes));
        match contents {
            Ok(contents) => Ok(Module::FromRoot { name, contents }),
            Err(error) => Err(MinirootError::Read { path, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::medium::MediumError;
    use crate::miniroot::tests::plan;

    const DEP: &str = "kernel/fuse.ko:\nkernel/loop.ko:\nkernel/net_failover.ko: kernel/failover.ko\n\
                       kernel/failover.ko:\nkernel/virtio_net.ko: kernel/net_failover.ko kernel/failover.ko\n";
    const ALIAS: &str = "alias virtio:net virtio_net\n";

    /// A medium with one root, which has all modules of [`DEP`].
    struct OneRoot;

    impl Directory for OneRoot {
        fn dir(&self) -> &Path {
            Path::new("/")
        }

        fn root(&self, _: &Path) -> Result<Box<dyn Root>, MediumError> {
            Ok(Box::new(OneRoot))
        }
    }

    impl Root for OneRoot {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match path.strip_prefix("usr/lib/modules/6.1").ok().and_then(Path::to_str) {
                Some("modules.dep") => Ok(DEP.into()),
                Some("modules.alias") => Ok(ALIAS.into()),
                Some(module) if module.starts_with("kernel/") => Ok(module.into()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    /// The modules for `hardware`, as paths in the initrd or as contents, where the initrd has `present`.
    fn chosen(present: &[&str], hardware: &[Hardware]) -> Result<Vec<String>, String> {
        let index = Index::parse(&|name| match name {
            "modules.dep" => Some(DEP.into()),
            "modules.alias" => Some(ALIAS.into()),
            _ => None,
        });
        let present = present.iter().map(ToString::to_string).collect();
        let initrd =
            ModuleTree { index: index.unwrap(), dir: "/lib/modules/6.1".into(), present: Some(present) };
        let plan = Plan { roots: vec!["root".into()], ..plan() };
        let modules = choose(&plan, &OneRoot, hardware, &[], "6.1", &initrd);
        let text = |module| match module {
            Module::InInitrd { path } => path,
            Module::FromRoot { name, contents } => format!("{name}={}", String::from_utf8_lossy(&contents)),
        };
        modules.map(|modules| modules.into_iter().map(text).collect()).map_err(|error| error.to_string())
    }

    fn card(modalias: &str, is_optional: bool) -> Hardware {
        let chain = vec![device(modalias, None, None)];
        Hardware { kind: "network card", name: "eth0".into(), chain, is_optional }
    }

    /// Modules are the initrd's own where it has them, and the root's elsewhere; needs come first.
    #[test]
    fn modules_of_both() {
        assert_eq!(
            chosen(&["fuse", "loop", "failover"], &[card("virtio:net", false)]).unwrap(),
            [
                "/lib/modules/6.1/kernel/fuse.ko",
                "/lib/modules/6.1/kernel/loop.ko",
                "/lib/modules/6.1/kernel/failover.ko",
                "net_failover=kernel/net_failover.ko",
                "virtio_net=kernel/virtio_net.ko"
            ]
        );
    }

    /// A driver that is nowhere ends the boot, unless the target can do without the hardware.
    #[test]
    fn missing_driver() {
        let error = chosen(&["fuse", "loop"], &[card("pci:other", false)]).unwrap_err();
        assert!(error.contains("lacks a driver for the network card eth0 (pci:other)"), "{error}");
        assert_eq!(chosen(&["fuse", "loop"], &[card("pci:other", true)]).unwrap().len(), 2);
    }

    fn device(modalias: &str, driver: Option<&str>, module: Option<&str>) -> Device {
        Device {
            modalias: modalias.into(),
            driver: driver.map(str::to_owned),
            module: module.map(str::to_owned),
        }
    }

    /// A card's buses come before the card. A bus whose driver is built into our kernel is optional.
    #[test]
    fn buses_of_a_card() {
        let requirements = |chain: Vec<Device>| -> Vec<(String, bool)> {
            let card = Hardware { kind: "network card", name: "usb0".into(), chain, is_optional: false };
            let modalias = |requirement| match requirement {
                Requirement::Driver { device, is_optional, .. } => (device.modalias, is_optional),
                Requirement::Module(name) => panic!("{name}"),
            };
            card.requirements().map(modalias).collect()
        };
        let monolithic = vec![
            device("usb:dongle", Some("cdc_ether"), None),
            device("pci:xhci", Some("xhci_hcd"), None),
            device("pci:bridge", Some("pcieport"), None),
            device("acpi:root", None, None),
        ];
        assert_eq!(requirements(monolithic), [("pci:xhci".into(), true), ("usb:dongle".into(), false)]);
        let modular = vec![
            device("virtio:net", Some("virtio_net"), Some("virtio_net")),
            device("pci:virtio", Some("virtio-pci"), Some("virtio_pci")),
        ];
        assert_eq!(requirements(modular), [("pci:virtio".into(), false), ("virtio:net".into(), false)]);
    }
}
