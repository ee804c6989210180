//! Step 5: recognise the medium, and decide what to start and with which arguments.
//!
//! A [`Family`] is a row of data. The medium's own boot menu names the kernel, the initrd and the arguments;
//! the row adds what a menu cannot know: that the CD is behind `/dev/loop0`, and that the network card is in
//! use. This step reads the medium and starts nothing. Its result, a [`Plan`], is a value.
//! `docs/families.md` describes how to add a family.

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
use crate::distro::find::{find, find_first, is_absence, list_root};
use crate::formats::boot_menu::{self, Entry, Program};
use crate::formats::family::FamilyName;
use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// The media of one family. Paths are relative to the medium's root; each of their components may be a
/// [pattern](glob).
#[derive(Debug)]
pub struct Family {
    /// The word for `type=`.
    pub name: &'static str,
    /// Files that mark the family: its media have one of them, and the media of other families none.
    pub marks: &'static [&'static str],
    /// Boot menus, best first.
    pub menus: &'static [&'static str],
    /// Marks of a menu entry that starts the live system, best first.
    pub live: &'static [Marker],
    /// Kernels, best first. For media without a menu, as are `initrds` and `words`.
    pub kernels: &'static [&'static str],
    pub initrds: &'static [&'static str],
    /// The kernel's arguments.
    pub words: &'static [&'static str],
    /// The target's root file systems, to take modules from.
    pub roots: &'static [&'static str],
    /// Keys of arguments to remove from the menu's.
    pub drop: &'static [&'static str],
    /// Arguments to put before the menu's.
    pub add: &'static [&'static str],
    /// Modules that the target's initrd needs, beside those that every target needs.
    pub modules: &'static [&'static str],
    /// The mount point at which the target's init looks for the CD, if it cannot find a loop device.
    pub premount: Option<&'static str>,
}

/// A mark of a live entry in a boot menu.
#[derive(Clone, Copy, Debug)]
pub enum Marker {
    /// A pattern that one of the entry's arguments matches.
    Word(&'static str),
    /// A pattern that the path of the entry's kernel matches.
    Kernel(&'static str),
}

impl Marker {
    fn matches(self, entry: &Entry) -> bool {
        match self {
            Self::Word(pattern) => entry.words.iter().any(|word| glob::matches(pattern, word)),
            Self::Kernel(pattern) => glob::matches(pattern, &entry.kernel),
        }
    }
}

/// The row of the family `name`.
pub fn row(name: FamilyName) -> &'static Family {
    match name {
        FamilyName::Debian => &debian::FAMILY,
        FamilyName::Fedora => &fedora::FAMILY,
        FamilyName::Casper => &casper::FAMILY,
        FamilyName::Knoppix => &knoppix::FAMILY,
    }
}

/// A decision: the programs to start from the medium, and their arguments. Paths are relative to the
/// medium's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// True if the target reads the medium after it started, and so needs the second life.
    pub is_live: bool,
    pub family: &'static str,
    /// The title of the menu's entry.
    pub title: String,
    /// Starts the kernel in our place, if one was asked for.
    pub hypervisor: Option<Program>,
    pub kernel: PathBuf,
    pub initrds: Vec<PathBuf>,
    /// The target's kernel arguments, all of them but `rdinit=`.
    pub words: Vec<String>,
    /// Root file systems on the medium, the largest first: it is likely the one with modules.
    pub roots: Vec<PathBuf>,
    /// Modules that the target's initrd needs.
    pub modules: &'static [&'static str],
    /// The mount point for the CD before the target's init begins.
    pub premount: Option<&'static str>,
}

/// `debian "Live system": live/vmlinuz-6.1`, for the screen.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": ", self.family, self.title)?;
        if let Some(hypervisor) = &self.hypervisor {
            write!(f, "{}, then ", hypervisor.path)?;
        }
        write!(f, "{}", self.kernel.display())
    }
}

/// The origin of a file's path, for the sentence that says the file is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A menu on the medium, by its path.
    Menu(String),
    /// The row of a family, by its name.
    Row(&'static str),
    /// The argument `bootxen=1`.
    Xen,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Menu(path) => write!(f, "{path} names it"),
            Self::Row(family) => write!(f, "type={family} needs it"),
            Self::Xen => f.write_str("bootxen=1 needs it"),
        }
    }
}

/// The reason why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum DistroError {
    #[error("the image is of no known family: looked for {looked_for}; its root has {found}")]
    Unknown { looked_for: String, found: String },
    #[error("type={asked} was asked for, but the image is of the family {found}")]
    OtherFamily { asked: &'static str, found: &'static str },
    #[error("type={asked} was asked for, but the image lacks {marks}; its root has {found}")]
    Unmarked { asked: &'static str, marks: String, found: String },
    /// `what` is `kernel`, `initrd` or `hypervisor`.
    #[error("the {what} {path} is missing in the image, though {origin}")]
    Missing { what: &'static str, path: String, origin: Origin },
    #[error("cannot read the image's {path}")]
    Unreadable {
        path: String,
        #[source]
        error: io::Error,
    },
}

impl Explain for DistroError {
    fn hint(&self) -> String {
        match self {
            Self::Unknown { .. } => {
                "Use a live image of a supported family; installer images are not supported".into()
            }
            Self::OtherFamily { .. } | Self::Unmarked { .. } => "Leave type= out, or check netdir=".into(),
            Self::Missing { .. } => "Check the image's checksum: it may be incomplete".into(),
            Self::Unreadable { .. } => "Check the image's checksum and the web server's log".into(),
        }
    }
}

/// The plan for the live medium in `dir`.
pub fn recognise(dir: &Path, target: &Target) -> Result<Plan, DistroError> {
    plan(dir, find_family(dir, target.family)?, target)
}

/// The plan for a plain kernel and initrd, each in a directory of that name in `dir`.
pub fn plain(dir: &Path, target: &Target) -> Result<Plan, DistroError> {
    Ok(Plan { is_live: false, title: "as named".into(), ..plan(dir, &plain::FAMILY, target)? })
}

fn plan(dir: &Path, family: &Family, target: &Target) -> Result<Plan, DistroError> {
    let with_xen = target.xen.is_some();
    let (entry, origin) = match entry_of_menus(dir, family, with_xen)? {
        Some(found) => found,
        None => (entry_of_row(dir, family)?, Origin::Row(family.name)),
    };

    // A menu may name a file that a cut download lacks.
    check_file(dir, "kernel", &entry.kernel, &origin)?;
    for initrd in &entry.initrds {
        check_file(dir, "initrd", initrd, &origin)?;
    }

    // Kernels and init scripts take the last of several words: the user's come last of all.
    let is_dropped = |word: &String| family.drop.contains(&word.split('=').next().unwrap_or(word));
    let added = family.add.iter().map(ToString::to_string);
    let of_menu = entry.words.into_iter().filter(|word| !is_dropped(word));
    let mut words: Vec<String> = added.chain(of_menu).chain(target.pass_on.iter().cloned()).collect();

    let hypervisor = match (&target.xen, entry.hypervisor) {
        (None, _) => None,
        (Some(users_words), of_menu) => {
            let mut hypervisor = match of_menu {
                Some(named) => {
                    check_file(dir, "hypervisor", &named.path, &origin)?;
                    named
                }
                None => xen::find_hypervisor(dir)?,
            };
            xen::divide_words(&mut hypervisor.words, &mut words, users_words);
            Some(hypervisor)
        }
    };

    Ok(Plan {
        is_live: true,
        family: family.name,
        title: entry.title,
        hypervisor,
        kernel: entry.kernel.into(),
        initrds: entry.initrds.into_iter().map(PathBuf::from).collect(),
        words,
        roots: find_roots(dir, family)?,
        modules: family.modules,
        premount: family.premount,
    })
}

/// Refuses a plan whose file `path` is not on the medium.
fn check_file(dir: &Path, what: &'static str, path: &str, origin: &Origin) -> Result<(), DistroError> {
    match fs::metadata(dir.join(path)) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Err(error) if !is_absence(&error) => Err(DistroError::Unreadable { path: path.to_owned(), error }),
        _ => Err(DistroError::Missing { what, path: path.to_owned(), origin: origin.clone() }),
    }
}

/// The target's root file systems, the largest first.
fn find_roots(dir: &Path, family: &Family) -> Result<Vec<PathBuf>, DistroError> {
    let mut roots = Vec::new();
    for pattern in family.roots {
        roots.extend(find(dir, pattern)?);
    }
    // Layers of languages are many and small, and have no modules.
    roots.sort_by_key(|path| Reverse(fs::metadata(dir.join(path)).map_or(0, |metadata| metadata.len())));
    Ok(roots)
}

/// The family whose mark is on the medium. It must be the one that was `asked` for, if any was.
fn find_family(dir: &Path, asked: Option<FamilyName>) -> Result<&'static Family, DistroError> {
    let mut marked = None;
    for family in FamilyName::ALL.map(row) {
        if find_first(dir, family.marks)?.is_some() {
            marked = Some(family);
            break;
        }
    }

    match (asked.map(row), marked) {
        (None, Some(family)) => Ok(family),
        (Some(asked), Some(family)) if asked.name == family.name => Ok(family),
        (Some(asked), Some(family)) => {
            Err(DistroError::OtherFamily { asked: asked.name, found: family.name })
        }
        (Some(asked), None) => Err(DistroError::Unmarked {
            asked: asked.name,
            marks: asked.marks.join(" and "),
            found: list_root(dir),
        }),
        (None, None) => {
            let marks = |family: &Family| format!("{} ({})", family.marks.join(" or "), family.name);
            let looked_for = FamilyName::ALL.map(row).map(marks).join(", ");
            Err(DistroError::Unknown { looked_for, found: list_root(dir) })
        }
    }
}

/// The live entry of the first menu that has one.
fn entry_of_menus(
    dir: &Path,
    family: &Family,
    with_xen: bool,
) -> Result<Option<(Entry, Origin)>, DistroError> {
    let read =
        |path: &str| fs::read(dir.join(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());

    for pattern in family.menus {
        for path in find(dir, pattern)? {
            let path = path.to_string_lossy().into_owned();
            let text = match read(&path) {
                Ok(text) => text,
                // A symbolic link that leads nowhere.
                Err(error) if is_absence(&error) => continue,
                Err(error) => return Err(DistroError::Unreadable { path, error }),
            };

            let entries = boot_menu::entries(&path, &text, &|included| read(included).ok());
            if let Some(entry) = live_entry(&entries, family, with_xen) {
                return Ok(Some((entry.clone(), Origin::Menu(path))));
            }
        }
    }
    Ok(None)
}

/// The entry with the best of the family's live markers. Entries under a hypervisor count only
/// `with_xen`. They come first then, but an entry without one will do: the hypervisor may be elsewhere on
/// the medium.
fn live_entry<'a>(entries: &'a [Entry], family: &Family, with_xen: bool) -> Option<&'a Entry> {
    let best = |has_hypervisor: bool| {
        let candidates = entries.iter().filter(move |entry| entry.hypervisor.is_some() == has_hypervisor);
        family.live.iter().find_map(|marker| candidates.clone().find(|entry| marker.matches(entry)))
    };
    let under_xen = if with_xen { best(true) } else { None };
    under_xen.or_else(|| best(false))
}

/// The entry that a medium without a menu is started by.
fn entry_of_row(dir: &Path, family: &Family) -> Result<Entry, DistroError> {
    let find_one = |what, patterns: &[&str]| match find_first(dir, patterns)? {
        Some(path) => Ok(path.to_string_lossy().into_owned()),
        None => {
            let path = patterns.join(" or ");
            Err(DistroError::Missing { what, path, origin: Origin::Row(family.name) })
        }
    };
    Ok(Entry {
        title: format!("{} without a menu", family.name),
        kernel: find_one("kernel", family.kernels)?,
        initrds: vec![find_one("initrd", family.initrds)?],
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

    fn target(family: Option<FamilyName>, pass_on: &[&str]) -> Target {
        Target { family, xen: None, pass_on: pass_on.iter().map(ToString::to_string).collect() }
    }

    fn debian() -> Vec<(&'static str, &'static str)> {
        vec![
            ("live/filesystem.squashfs", ""),
            ("live/vmlinuz-6.1", ""),
            ("live/initrd.img-6.1", ""),
            ("boot/grub/grub.cfg", MENU),
        ]
    }

    /// The plan follows the menu's live entry, without the words that would do harm there.
    #[test]
    fn plan_from_a_menu() {
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

    /// The family's row names kernel and arguments of a medium without a menu.
    #[test]
    fn plan_from_the_row() {
        let files: Vec<_> = debian().into_iter().filter(|(path, _)| !path.ends_with(".cfg")).collect();
        let plan = recognise(medium(&files).path(), &target(Some(FamilyName::Debian), &[])).unwrap();
        assert_eq!(plan.kernel, Path::new("live/vmlinuz-6.1"));
        assert!(plan.words.contains(&"boot=live".to_owned()));
    }

    /// A file that the menu names and the medium lacks is reported with the menu.
    #[test]
    fn missing_files() {
        for (gone, what) in [("live/vmlinuz-6.1", "kernel"), ("live/initrd.img-6.1", "initrd")] {
            let files: Vec<_> = debian().into_iter().filter(|(path, _)| *path != gone).collect();
            let error = recognise(medium(&files).path(), &target(None, &[])).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("the {what} {gone} is missing in the image, though boot/grub/grub.cfg names it")
            );
        }
    }

    /// The error for an unknown medium lists the marks of every family, and the medium's files.
    #[test]
    fn unknown_media() {
        let error =
            recognise(medium(&[("casper/x", "")]).path(), &target(None, &[])).unwrap_err().to_string();
        assert!(
            error.contains("live/*.squashfs (debian)") && error.contains("its root has casper"),
            "{error}"
        );
    }

    /// `type=` does not overrule the marks on the medium.
    #[test]
    fn type_against_the_marks() {
        let error = recognise(medium(&[("x", "")]).path(), &target(Some(FamilyName::Debian), &[]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("type=debian") && error.contains("lacks live/*.squashfs"), "{error}");
        let error = recognise(medium(&debian()).path(), &target(Some(FamilyName::Fedora), &[]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("type=fedora") && error.contains("of the family debian"), "{error}");
    }
}
