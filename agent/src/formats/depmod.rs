//! A kernel's module tree, from the text files that depmod(8) writes beside it: the module that drives a device,
//! and the order in which modules have to be loaded. Pure.

use crate::base::glob;
use std::collections::{HashMap, HashSet};

/// The files of depmod's that an [`Index`] is made of.
pub const FILES: [&str; 5] =
    ["modules.dep", "modules.alias", "modules.softdep", "modules.builtin", "modules.builtin.modinfo"];

/// The directories of a root in which each kernel's modules are, in one named after its release.
pub const IN_ROOTS: [&str; 2] = ["usr/lib/modules", "lib/modules"];

/// Reads one of depmod's files by its name (`modules.dep`), if there is such a file.
pub type Files<'a> = dyn Fn(&str) -> Option<Vec<u8>> + 'a;

/// The modules of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// By name, with `_` for `-`.
    modules: HashMap<String, Entry>,
    /// A pattern for devices, and the module that drives them.
    aliases: Vec<(String, String)>,
    /// Modules to be loaded before another, if they exist.
    before: HashMap<String, Vec<String>>,
    /// Modules that are part of the kernel itself.
    builtin: HashSet<String>,
    /// A pattern for devices, and the built-in driver for them.
    builtin_aliases: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: String,
    needs: Vec<String>,
}

impl Index {
    /// Reads depmod's files; `None` without `modules.dep`, the only one that must exist.
    pub fn parse(files: &Files<'_>) -> Option<Self> {
        let text = |name: &str| files(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mut index = Self::default();
        for line in text("modules.dep")?.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(name_of).collect();
                index.modules.insert(name_of(path), Entry { path: path.to_owned(), needs });
            }
        }

        for line in text("modules.alias").unwrap_or_default().lines() {
            if let ["alias", pattern, module] = line.split_whitespace().collect::<Vec<_>>()[..] {
                index.aliases.push((pattern.to_owned(), normal(module)));
            }
        }

        for line in text("modules.softdep").unwrap_or_default().lines() {
            if let ["softdep", module, rest @ ..] = &line.split_whitespace().collect::<Vec<_>>()[..] {
                // A module may have several lines: Debian's btrfs has four.
                index.before.entry(normal(module)).or_default().extend(pre(rest));
            }
        }

        index.builtin = text("modules.builtin").unwrap_or_default().lines().map(name_of).collect();
        // NUL-separated "module.key=value".
        for field in text("modules.builtin.modinfo").unwrap_or_default().split('\0') {
            if let Some((key, pattern)) = field.split_once('=')
                && let Some(module) = key.strip_suffix(".alias")
            {
                index.builtin_aliases.push((pattern.to_owned(), normal(module)));
            }
        }
        Some(index)
    }

    /// The modules that drive this device.
    pub fn modules_for(&self, modalias: &str) -> impl Iterator<Item = &str> {
        let modalias = modalias.to_owned();
        self.aliases
            .iter()
            .filter(move |(pattern, _)| glob::matches(pattern, &modalias))
            .map(|(_, module)| module.as_str())
    }

    /// True if the kernel itself drives this device.
    pub fn drives_itself(&self, modalias: &str) -> bool {
        self.builtin_aliases.iter().any(|(pattern, _)| glob::matches(pattern, modalias))
    }

    /// True if this module is part of the kernel itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normal(name))
    }

    /// The module of this name, in its normal spelling. A name may have `-` for `_`, and may be an alias: that of a
    /// file system (`fs-NAME`), or one that is a name by itself.
    pub fn module(&self, name: &str) -> Option<&str> {
        let name = normal(name);
        let key = self.modules.get_key_value(&name).map(|(key, _)| key.as_str());
        key.or_else(|| {
            let wanted = [format!("fs_{name}"), name];
            let alias = self.aliases.iter().find(|(alias, _)| wanted.contains(&normal(alias)));
            alias.map(|(_, module)| module.as_str())
        })
    }

    /// The path of a module's file, relative to the tree.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.modules.get(name).map(|entry| entry.path.as_str())
    }

    /// The paths of the files to load for `name`, in order, its own last.
    pub fn load_order(&self, name: &str) -> Vec<&str> {
        let mut order = Vec::new();
        self.visit(name, &mut HashSet::new(), &mut order);
        order.into_iter().filter_map(|name| self.path(name)).collect()
    }

    /// Goes depth first. `seen` also ends the loops that soft dependencies may have.
    fn visit<'a>(&'a self, name: &str, seen: &mut HashSet<&'a str>, order: &mut Vec<&'a str>) {
        let Some((name, entry)) = self.modules.get_key_value(name) else { return };
        if !seen.insert(name) {
            return;
        }
        for before in self.before.get(name).into_iter().flatten() {
            if let Some(before) = self.module(before) {
                self.visit(before, seen, order);
            }
        }
        // depmod lists the nearest need first and the farthest last.
        for need in entry.needs.iter().rev() {
            self.visit(need, seen, order);
        }
        order.push(name);
    }
}

/// The modules that a line of `modules.softdep` wants before another: those after `pre:`, which may stand
/// after `post:` and more than once (modprobe.d(5)).
fn pre(words: &[&str]) -> Vec<String> {
    let mut is_pre = false;
    let mut wanted = Vec::new();
    for word in words {
        match *word {
            "pre:" => is_pre = true,
            "post:" => is_pre = false,
            name if is_pre => wanted.push(normal(name)),
            _ => {}
        }
    }
    wanted
}

/// `kernel/drivers/net/virtio_net.ko.xz` is the module `virtio_net`.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split(".ko").next().unwrap_or(file))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEP: &str = "kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz kernel/drivers/net/net_failover.ko.xz\n\
        kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz\n\
        kernel/net/core/failover.ko.xz:\n\
        kernel/drivers/net/r8169.ko: kernel/drivers/net/phy/libphy.ko\n\
        kernel/drivers/net/phy/libphy.ko:\n\
        kernel/drivers/net/phy/realtek.ko: kernel/drivers/net/phy/libphy.ko\n\
        kernel/fs/isofs/isofs.ko:\n";

    fn index() -> Index {
        Index::parse(&|name| {
            let text = match name {
                "modules.dep" => DEP,
                "modules.alias" => {
                    "# comment\nalias virtio:d00000001v* virtio_net\nalias fs-iso9660 isofs\nalias crypto-crc32c isofs\n"
                }
                "modules.softdep" => "softdep r8169 pre: realtek\n",
                "modules.builtin" => "kernel/drivers/virtio/virtio-pci.ko\n",
                "modules.builtin.modinfo" => "virtio_pci.alias=pci:v00001AF4d*\0virtio_pci.license=GPL\0",
                _ => return None,
            };
            Some(text.into())
        })
        .unwrap()
    }

    #[test]
    fn needs_are_loaded_first() {
        assert_eq!(
            index().load_order("virtio_net"),
            [
                "kernel/net/core/failover.ko.xz",
                "kernel/drivers/net/net_failover.ko.xz",
                "kernel/drivers/net/virtio_net.ko.xz",
            ]
        );
        assert_eq!(index().load_order("r8169").len(), 3);
        assert_eq!(index().load_order("r8169")[1], "kernel/drivers/net/phy/realtek.ko");
    }

    /// Every line of modules.softdep counts, and every `pre:` of a line.
    #[test]
    fn soft_dependencies_add_up() {
        let index = Index::parse(&|name| {
            let text = match name {
                "modules.dep" => "a.ko:\nb.ko:\nc.ko:\nd.ko:\nx-y.ko:\n",
                "modules.softdep" => {
                    "softdep x-y pre: a\nsoftdep x_y pre: b post: d\nsoftdep x-y post: d pre: c\n"
                }
                _ => return None,
            };
            Some(text.into())
        });
        assert_eq!(index.unwrap().load_order("x_y"), ["a.ko", "b.ko", "c.ko", "x-y.ko"]);
    }

    #[test]
    fn a_device_finds_its_driver_in_the_tree_or_in_the_kernel() {
        let index = index();
        assert_eq!(index.modules_for("virtio:d00000001v00001AF4").collect::<Vec<_>>(), ["virtio_net"]);
        assert_eq!(index.modules_for("pci:v00008086d0000100E").count(), 0);
        assert!(index.drives_itself("pci:v00001AF4d00001000"));
        assert!(index.is_builtin("virtio_pci"));
    }

    #[test]
    fn a_module_has_several_names() {
        assert_eq!(index().module("virtio-net"), Some("virtio_net"));
        assert_eq!(index().module("iso9660"), Some("isofs"));
        assert_eq!(index().module("crypto-crc32c"), Some("isofs"));
        assert_eq!(index().module("absent"), None);
    }

    #[test]
    fn modules_dep_must_exist() {
        assert_eq!(Index::parse(&|_| None), None);
    }

    proptest! {
        #[test]
        fn dependency_loops_end(edges in proptest::collection::vec((0u8..6, 0u8..6), 0..20)) {
            let dep: String = edges.iter().map(|(a, b)| format!("m{a}.ko: m{b}.ko\n")).collect();
            let index = Index::parse(&|name| (name == "modules.dep").then(|| dep.clone().into())).unwrap();
            index.load_order("m0");
        }
    }
}
