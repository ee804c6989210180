//! Step 5: recognise the medium, and decide what to start and with which arguments.
//!
//! A family is a row of data. The medium's own menu says kernel, initrd and arguments; the row
//! only fills in what a menu cannot say. Nothing is done here: a [`Plan`] is a value.

mod casper;
mod debian;
mod fedora;
mod find;
mod knoppix;
mod plain;
pub mod xen;

use crate::base::failure::Explain;
use crate::base::glob;
use crate::config::Target;
use crate::distro::find::{find, first, is_absence, listing};
use crate::formats::boot_menu::{self, Entry, Program};
use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// What is known of the media of one family. Paths are relative to the medium's root and may
/// have patterns in their parts.
#[derive(Debug)]
pub struct Family {
    /// The word for `type=`.
    pub name: &'static str,
    /// One of these is on its media and on nobody else's.
    pub marks: &'static [&'static str],
    /// Where its menu may lie, best first.
    pub menus: &'static [&'static str],
    /// What tells its live entry from others in the menu, best first.
    pub live: &'static [Tell],
    /// Where kernels lie, for media without a menu.
    pub kernels: &'static [&'static str],
    /// Where initrds lie, likewise.
    pub initrds: &'static [&'static str],
    /// The arguments, likewise.
    pub words: &'static [&'static str],
    /// The target's root file systems, to take modules from.
    pub roots: &'static [&'static str],
    /// Keys that are taken out of the menu's arguments.
    pub drop: &'static [&'static str],
    /// Words that are put before them.
    pub add: &'static [&'static str],
    /// Modules its initrd needs beside those that we do.
    pub modules: &'static [&'static str],
    /// Where its init wants to find the CD mounted, where it would not find it by itself.
    pub premount: Option<&'static str>,
}

/// What tells a live entry.
#[derive(Clone, Copy, Debug)]
pub enum Tell {
    /// One of its arguments is like this pattern.
    Word(&'static str),
    /// Its kernel's path is.
    Kernel(&'static str),
}

impl Tell {
    fn is_of(self, entry: &Entry) -> bool {
        match self {
            Self::Word(pattern) => entry.words.iter().any(|word| glob::matches(pattern, word)),
            Self::Kernel(pattern) => glob::matches(pattern, &entry.kernel),
        }
    }
}

/// Every family there is.
pub const FAMILIES: [&Family; 4] = [&debian::FAMILY, &fedora::FAMILY, &casper::FAMILY, &knoppix::FAMILY];

/// What is going to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the target needs the medium, and so the second life.
    pub is_live: bool,
    /// The family's name.
    pub family: &'static str,
    /// What the menu calls it.
    pub title: String,
    /// The hypervisor to start it under.
    pub hypervisor: Option<Program>,
    /// The kernel's path on the medium.
    pub kernel: PathBuf,
    /// The initrds' paths.
    pub initrds: Vec<PathBuf>,
    /// The target's kernel arguments, all of them but `rdinit=`.
    pub words: Vec<String>,
    /// Root file systems on the medium, the largest first: it is likely the one with modules.
    pub roots: Vec<PathBuf>,
    /// Modules the target needs to come up.
    pub modules: &'static [&'static str],
    /// Where to mount the CD before the target's init begins.
    pub premount: Option<&'static str>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": ", self.family, self.title)?;
        if let Some(hypervisor) = &self.hypervisor {
            write!(f, "{}, then ", hypervisor.path)?;
        }
        write!(f, "{}", self.kernel.display())
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum DistroError {
    /// No such family.
    #[error("type={given} is no family this release knows ({})", names())]
    NoSuchFamily {
        /// What was asked for.
        given: String,
    },
    /// Not a medium of any family.
    #[error("the image is of no known family: looked for {looked_for}; its root has {found}")]
    Unknown {
        /// The marks.
        looked_for: String,
        /// What is there.
        found: String,
    },
    /// Not a medium of the family that was asked for.
    #[error("type={asked} was asked for, but the image looks like {looks}")]
    Contradiction {
        /// The family asked for.
        asked: &'static str,
        /// What the medium looks like.
        looks: String,
    },
    /// A file is not there.
    #[error("the {what} {path} is missing in the image, though {says}")]
    Missing {
        /// `kernel`, `initrd` or `hypervisor`.
        what: &'static str,
        /// Where it should be.
        path: String,
        /// Who says so.
        says: String,
    },
    /// The medium cannot be read.
    #[error("cannot read the image's {path}")]
    Unreadable {
        /// Which part.
        path: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

impl Explain for DistroError {
    fn hint(&self) -> String {
        match self {
            Self::NoSuchFamily { .. } => format!("Use type=auto or type={}", names()),
            Self::Unknown { .. } => {
                "Use a live image of a supported family; installer images are none".into()
            }
            Self::Contradiction { .. } => "Leave type= out, or check netdir=".into(),
            Self::Missing { .. } => "Check the image's checksum: it may be incomplete".into(),
            Self::Unreadable { .. } => "Check the image's checksum and the web server's log".into(),
        }
    }
}

fn names() -> String {
    FAMILIES.map(|family| family.name).join("|")
}

/// The plan for what `target` wants from the medium in `dir`.
pub fn recognise(dir: &Path, target: &Target) -> Result<Plan, DistroError> {
    plan(dir, family(dir, target.family.as_deref())?, target)
}

/// The plan for the kernel and the initrd in `dir`, each in a directory of that name.
pub fn plain(dir: &Path, target: &Target) -> Result<Plan, DistroError> {
    Ok(Plan { is_live: false, title: "as named".into(), ..plan(dir, &plain::FAMILY, target)? })
}

fn plan(dir: &Path, family: &Family, target: &Target) -> Result<Plan, DistroError> {
    let (entry, says) = match from_menu(dir, family, target.xen.is_some())? {
        Some(found) => found,
        None => (from_table(dir, family)?, format!("type={} needs it", family.name)),
    };
    is_there(dir, "kernel", &entry.kernel, &says)?;
    for initrd in &entry.initrds {
        is_there(dir, "initrd", initrd, &says)?;
    }
    let kept = entry.words.iter().filter(|word| {
        let key = word.split('=').next().unwrap_or(word);
        !family.drop.contains(&key)
    });
    let words = family.add.iter().map(ToString::to_string).chain(kept.cloned());
    let mut plan = Plan {
        is_live: true,
        family: family.name,
        title: entry.title,
        hypervisor: None,
        kernel: entry.kernel.into(),
        initrds: entry.initrds.into_iter().map(PathBuf::from).collect(),
        words: words.chain(target.pass_on.iter().cloned()).collect(),
        roots: roots(dir, family)?,
        modules: family.modules,
        premount: family.premount,
    };
    if let Some(user) = &target.xen {
        let mut hypervisor = match entry.hypervisor {
            Some(hypervisor) => hypervisor,
            None => xen::find_in(dir)?,
        };
        is_there(dir, "hypervisor", &hypervisor.path, &says)?;
        xen::share(&mut hypervisor.words, &mut plan.words, user);
        plan.hypervisor = Some(hypervisor);
    }
    Ok(plan)
}

fn is_there(dir: &Path, what: &'static str, path: &str, says: &str) -> Result<(), DistroError> {
    match fs::metadata(dir.join(path)) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Err(error) if !is_absence(&error) => Err(DistroError::Unreadable { path: path.to_owned(), error }),
        _ => Err(DistroError::Missing { what, path: path.to_owned(), says: says.to_owned() }),
    }
}

/// The target's root file systems, the largest first.
fn roots(dir: &Path, family: &Family) -> Result<Vec<PathBuf>, DistroError> {
    let mut roots = Vec::new();
    for pattern in family.roots {
        roots.extend(find(dir, pattern)?);
    }
    // Layers of languages are many and small, and have no modules.
    roots.sort_by_key(|path| Reverse(fs::metadata(dir.join(path)).map_or(0, |metadata| metadata.len())));
    Ok(roots)
}

fn family(dir: &Path, wanted: Option<&str>) -> Result<&'static Family, DistroError> {
    let mut marked = None;
    for family in FAMILIES {
        if marked.is_none() && first(dir, family.marks)?.is_some() {
            marked = Some(family);
        }
    }
    let Some(wanted) = wanted else {
        return marked.ok_or_else(|| DistroError::Unknown {
            looked_for: FAMILIES
                .map(|family| format!("{} ({})", family.marks.join(" or "), family.name))
                .join(", "),
            found: listing(dir),
        });
    };
    let asked = FAMILIES
        .into_iter()
        .find(|family| family.name == wanted)
        .ok_or_else(|| DistroError::NoSuchFamily { given: wanted.to_owned() })?;
    match marked {
        Some(found) if found.name == asked.name => Ok(asked),
        Some(found) => Err(DistroError::Contradiction { asked: asked.name, looks: found.name.to_owned() }),
        None => Err(DistroError::Contradiction {
            asked: asked.name,
            looks: format!("none: it lacks {}, its root has {}", asked.marks.join(" or "), listing(dir)),
        }),
    }
}

/// The first live entry of the first menu that has one, and who says so.
fn from_menu(dir: &Path, family: &Family, xen: bool) -> Result<Option<(Entry, String)>, DistroError> {
    let read =
        |path: &str| fs::read(dir.join(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for pattern in family.menus {
        for path in find(dir, pattern)? {
            let path = path.to_string_lossy();
            let text = match read(&path) {
                Ok(text) => text,
                Err(error) if is_absence(&error) => continue,
                Err(error) => return Err(DistroError::Unreadable { path: path.into_owned(), error }),
            };
            let entries = boot_menu::entries(&path, &text, &|included| read(included).ok());
            if let Some(entry) = live_entry(entries, family, xen) {
                return Ok(Some((entry, format!("{path} names it"))));
            }
        }
    }
    Ok(None)
}

/// With a hypervisor only where one is wanted; without one even there, for it may be found.
fn live_entry(entries: Vec<Entry>, family: &Family, xen: bool) -> Option<Entry> {
    let (under, bare): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.hypervisor.is_some());
    let under = if xen { under } else { Vec::new() };
    [under, bare].into_iter().find_map(|entries| {
        family.live.iter().find_map(|tell| entries.iter().find(|entry| tell.is_of(entry)).cloned())
    })
}

fn from_table(dir: &Path, family: &Family) -> Result<Entry, DistroError> {
    let one = |what, patterns: &[&str]| match first(dir, patterns)? {
        Some(path) => Ok(path.to_string_lossy().into_owned()),
        None => Err(DistroError::Missing {
            what,
            path: patterns.join(" or "),
            says: format!("type={} needs it", family.name),
        }),
    };
    Ok(Entry {
        title: format!("{} without a menu", family.name),
        kernel: one("kernel", family.kernels)?,
        initrds: vec![one("initrd", family.initrds)?],
        words: family.words.iter().map(ToString::to_string).collect(),
        hypervisor: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MENU: &str = "menuentry \"Install\" {\n linux /install/vmlinuz --- quiet\n initrd /install/initrd.gz\n}\n\
        menuentry \"Live system\" {\n linux /live/vmlinuz-6.1 boot=live components toram ip=dhcp quiet\n initrd /live/initrd.img-6.1\n}\n";

    fn medium(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        dir
    }

    fn target(family: Option<&str>, pass_on: &[&str]) -> Target {
        Target {
            family: family.map(str::to_owned),
            xen: None,
            pass_on: pass_on.iter().map(ToString::to_string).collect(),
        }
    }

    fn debian() -> Vec<(&'static str, &'static str)> {
        vec![
            ("live/filesystem.squashfs", ""),
            ("live/vmlinuz-6.1", ""),
            ("live/initrd.img-6.1", ""),
            ("boot/grub/grub.cfg", MENU),
        ]
    }

    #[test]
    fn the_menus_live_entry_becomes_the_plan() {
        let dir = medium(&debian());
        let plan = recognise(dir.path(), &target(None, &["console=ttyS0"])).unwrap();
        assert_eq!((plan.family, plan.title.as_str()), ("debian", "Live system"));
        assert_eq!(plan.kernel, Path::new("live/vmlinuz-6.1"));
        assert_eq!(plan.initrds, [Path::new("live/initrd.img-6.1")]);
        assert_eq!(
            plan.words,
            [
                "live-media=/dev/loop0",
                "nodhcp",
                "noeject",
                "boot=live",
                "components",
                "quiet",
                "console=ttyS0"
            ]
        );
        assert_eq!(plan.roots, [Path::new("live/filesystem.squashfs")]);
    }

    #[test]
    fn without_a_menu_the_table_knows() {
        let files: Vec<_> = debian().into_iter().filter(|(path, _)| !path.ends_with(".cfg")).collect();
        let plan = recognise(medium(&files).path(), &target(Some("debian"), &[])).unwrap();
        assert_eq!(plan.kernel, Path::new("live/vmlinuz-6.1"));
        assert!(plan.words.contains(&"boot=live".to_owned()));
    }

    #[test]
    fn a_missing_kernel_or_initrd_is_named_with_who_wants_it() {
        for (gone, what) in [("live/vmlinuz-6.1", "kernel"), ("live/initrd.img-6.1", "initrd")] {
            let files: Vec<_> = debian().into_iter().filter(|(path, _)| *path != gone).collect();
            let error = recognise(medium(&files).path(), &target(None, &[])).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("the {what} {gone} is missing in the image, though boot/grub/grub.cfg names it")
            );
        }
    }

    #[test]
    fn an_unknown_medium_says_what_was_looked_for_and_found() {
        let error =
            recognise(medium(&[("casper/x", "")]).path(), &target(None, &[])).unwrap_err().to_string();
        assert!(
            error.contains("live/*.squashfs (debian)") && error.contains("its root has casper"),
            "{error}"
        );
    }

    #[test]
    fn a_type_that_contradicts_the_medium_says_both() {
        let error =
            recognise(medium(&[("x", "")]).path(), &target(Some("debian"), &[])).unwrap_err().to_string();
        assert!(error.contains("type=debian") && error.contains("lacks live/*.squashfs"), "{error}");
        let error =
            recognise(medium(&debian()).path(), &target(Some("fedora"), &[])).unwrap_err().to_string();
        assert!(error.contains("type=fedora") && error.contains("looks like debian"), "{error}");
        let error = recognise(medium(&debian()).path(), &target(Some("beos"), &[])).unwrap_err().to_string();
        assert!(
            error.contains("type=beos is no family this release knows (debian|fedora|casper|knoppix)"),
            "{error}"
        );
    }
}
