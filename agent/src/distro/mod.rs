//! Step 5: recognise the medium, and decide what to start and with which arguments.
//!
//! A family is a row of data. The medium's own menu says kernel, initrd and arguments; the row
//! only fills in what a menu cannot say. Nothing is done here: a [`Plan`] is a value.

mod debian;
pub mod menu;

use crate::failure::Explain;
use crate::glob;
use menu::Entry;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is known of the media of one family. Paths are relative to the medium's root and may
/// have a pattern in their last part.
#[derive(Debug)]
pub struct Family {
    /// The word for `type=`.
    pub name: &'static str,
    /// One of these is on its media and on nobody else's.
    pub marks: &'static [&'static str],
    /// Where its menu may lie, best first.
    pub menus: &'static [&'static str],
    /// A word that the live entry of the menu has (an installer's has not).
    pub entry_has: &'static str,
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
    /// Words that are added to them.
    pub add: &'static [&'static str],
    /// Modules its initrd needs beside those that we do.
    pub modules: &'static [&'static str],
}

/// Every family there is.
pub const FAMILIES: [&Family; 1] = [&debian::FAMILY];

/// What is going to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The family's name.
    pub family: &'static str,
    /// What the menu calls it.
    pub title: String,
    /// The kernel's path on the medium.
    pub kernel: PathBuf,
    /// The initrds' paths.
    pub initrds: Vec<PathBuf>,
    /// The target's kernel arguments, all of them but `rdinit=`.
    pub words: Vec<String>,
    /// Root file systems on the medium.
    pub roots: Vec<PathBuf>,
    /// Modules the target needs to come up.
    pub modules: &'static [&'static str],
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": {}", self.family, self.title, self.kernel.display())
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
        /// `kernel` or `initrd`.
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

/// The plan for the medium in `dir`. `wanted` is the family's name, or nothing for any;
/// `pass_on` are the user's words for the target.
pub fn recognise(dir: &Path, wanted: Option<&str>, pass_on: &[String]) -> Result<Plan, DistroError> {
    let family = family(dir, wanted)?;
    let (entry, says) = match from_menu(dir, family)? {
        Some(found) => found,
        None => (from_table(dir, family)?, format!("type={} needs it", family.name)),
    };
    for (what, path) in
        std::iter::once(("kernel", &entry.kernel)).chain(entry.initrds.iter().map(|path| ("initrd", path)))
    {
        match fs::metadata(dir.join(path)) {
            Ok(metadata) if metadata.is_file() => {}
            Err(error) if !is_absence(&error) => {
                return Err(DistroError::Unreadable { path: path.clone(), error });
            }
            _ => return Err(DistroError::Missing { what, path: path.clone(), says }),
        }
    }
    let kept = entry.words.iter().filter(|word| {
        let key = word.split('=').next().unwrap_or(word);
        !family.drop.contains(&key)
    });
    let words =
        kept.cloned().chain(family.add.iter().map(ToString::to_string)).chain(pass_on.iter().cloned());
    let mut roots = Vec::new();
    for pattern in family.roots {
        roots.extend(find(dir, pattern)?);
    }
    Ok(Plan {
        family: family.name,
        title: entry.title,
        kernel: entry.kernel.into(),
        initrds: entry.initrds.into_iter().map(PathBuf::from).collect(),
        words: words.collect(),
        roots,
        modules: family.modules,
    })
}

fn family(dir: &Path, wanted: Option<&str>) -> Result<&'static Family, DistroError> {
    let mut marked = None;
    for family in FAMILIES {
        for mark in family.marks {
            if marked.is_none() && !find(dir, mark)?.is_empty() {
                marked = Some(family);
            }
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

/// The names in the medium's root, for an error message.
fn listing(dir: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(dir)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.sort();
    if names.is_empty() { "nothing".into() } else { names.join(" ") }
}

/// The first live entry of the first menu that has one, and the menu's path.
fn from_menu(dir: &Path, family: &Family) -> Result<Option<(Entry, String)>, DistroError> {
    let read =
        |path: &str| fs::read(dir.join(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for path in family.menus {
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(DistroError::Unreadable { path: (*path).into(), error }),
        };
        let entries = menu::entries(path, &text, &|included| read(included).ok());
        let live = entries.into_iter().find(|entry| entry.words.iter().any(|word| word == family.entry_has));
        if let Some(entry) = live {
            return Ok(Some((entry, format!("{path} names it"))));
        }
    }
    Ok(None)
}

fn from_table(dir: &Path, family: &Family) -> Result<Entry, DistroError> {
    let first = |what, patterns: &[&str]| {
        for pattern in patterns {
            if let Some(path) = find(dir, pattern)?.into_iter().next() {
                return Ok(path.to_string_lossy().into_owned());
            }
        }
        Err(DistroError::Missing {
            what,
            path: patterns.join(" or "),
            says: format!("type={} needs it", family.name),
        })
    };
    Ok(Entry {
        title: format!("{} without a menu", family.name),
        kernel: first("kernel", family.kernels)?,
        initrds: vec![first("initrd", family.initrds)?],
        words: family.words.iter().map(ToString::to_string).collect(),
    })
}

/// A server that went away gives other errors, and must not be told as a hole in the image.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The files that a pattern finds, relative to `dir` and sorted.
fn find(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, DistroError> {
    let (parent, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let entries = match fs::read_dir(dir.join(parent)) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(error) => return Err(DistroError::Unreadable { path: parent.into(), error }),
    };
    let entries: Result<Vec<_>, _> = entries.collect();
    let mut found: Vec<PathBuf> = entries
        .map_err(|error| DistroError::Unreadable { path: parent.into(), error })?
        .into_iter()
        .filter(|entry| glob::matches(name, &entry.file_name().to_string_lossy()))
        .map(|entry| Path::new(parent).join(entry.file_name()))
        .collect();
    found.sort();
    Ok(found)
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
        let plan = recognise(dir.path(), None, &["console=ttyS0".into()]).unwrap();
        assert_eq!((plan.family, plan.title.as_str()), ("debian", "Live system"));
        assert_eq!(plan.kernel, Path::new("live/vmlinuz-6.1"));
        assert_eq!(plan.initrds, [Path::new("live/initrd.img-6.1")]);
        assert_eq!(
            plan.words,
            ["boot=live", "components", "quiet", "live-media=/dev/loop0", "nodhcp", "console=ttyS0"]
        );
        assert_eq!(plan.roots, [Path::new("live/filesystem.squashfs")]);
    }

    #[test]
    fn without_a_menu_the_table_knows() {
        let files: Vec<_> = debian().into_iter().filter(|(path, _)| !path.ends_with(".cfg")).collect();
        let plan = recognise(medium(&files).path(), Some("debian"), &[]).unwrap();
        assert_eq!(plan.kernel, Path::new("live/vmlinuz-6.1"));
        assert!(plan.words.contains(&"boot=live".to_owned()));
    }

    #[test]
    fn a_missing_kernel_or_initrd_is_named_with_who_wants_it() {
        for (gone, what) in [("live/vmlinuz-6.1", "kernel"), ("live/initrd.img-6.1", "initrd")] {
            let files: Vec<_> = debian().into_iter().filter(|(path, _)| *path != gone).collect();
            let error = recognise(medium(&files).path(), None, &[]).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("the {what} {gone} is missing in the image, though boot/grub/grub.cfg names it")
            );
        }
    }

    #[test]
    fn an_unknown_medium_says_what_was_looked_for_and_found() {
        let error = recognise(medium(&[("casper/x", "")]).path(), None, &[]).unwrap_err().to_string();
        assert!(
            error.contains("live/*.squashfs (debian)") && error.contains("its root has casper"),
            "{error}"
        );
    }

    #[test]
    fn a_type_that_contradicts_the_medium_says_both() {
        let error = recognise(medium(&[("x", "")]).path(), Some("debian"), &[]).unwrap_err().to_string();
        assert!(error.contains("type=debian") && error.contains("lacks live/*.squashfs"), "{error}");
        let error = recognise(medium(&debian()).path(), Some("beos"), &[]).unwrap_err().to_string();
        assert!(error.contains("type=beos is no family this release knows (debian)"), "{error}");
    }
}
