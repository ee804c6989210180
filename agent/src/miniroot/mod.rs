//! Step 6: the target's own initrd, untouched, with our overlay appended.
//!
//! ```text
//! initrd of the medium | zeros to 4 bytes | overlay:  /inetboot                 this program
//!                                                     /inetboot.d/ca.pem        whom it trusts
//!                                                     /inetboot.d/index         what the image has to be
//!                                                     /inetboot.d/profile       what to fetch ahead
//!                                                     /inetboot.d/modules/*.ko  what the initrd lacks
//!                                         | notes:    /inetboot.d/handoff       what it needs to know
//!                                                     /inetboot.d/eventlog      what was measured
//! ```
//!
//! and `/dev/console` and `/dev/null`, which not every initrd brings. The kernel unpacks one over
//! the other. The overlay is measured, file by file; the notes are about this one boot: its lease,
//! its times, its measurements. Both have names of their own at the top only: a directory entry
//! `lib` would replace the symbolic link that merged-/usr initrds have there.

mod transplant;

use crate::base::console::{self, Progress, size};
use crate::base::failure::Explain;
use crate::distro::{Plan, xen};
use crate::formats::boot_menu::Program;
use crate::formats::bzimage::{self, Kernel, NotBootable};
use crate::formats::eventlog::EventLog;
use crate::formats::handoff::{self, Handoff};
use crate::formats::recipe::Recipe;
use crate::formats::statement::{Statement, Sum, What};
use crate::formats::{compression, cpio};
use crate::kexec::multiboot::WORDS_MAX;
use crate::kexec::{CMDLINE_MAX, Hypervisor, Payload};
use crate::machine::memory::{self, Growing, Memory, Sealed};
use crate::medium::{Cd, MediumError};
pub use crate::miniroot::transplant::Part;
use crate::miniroot::transplant::{Organ, Tree};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

/// Our own program's name in the target's initrd, and the value of `rdinit=`.
pub const AGENT: &str = "/inetboot";

/// Memory beyond the payload that this life and the kernel's own tables need.
const SLACK: u64 = 24 << 20;

/// Memory the target needs beside its unpacked initrd, to come up at all.
const TARGET_FLOOR: u64 = 128 << 20;

/// Whose memory it is.
const MACHINE: &str = "this machine";
const DOM0: &str = "dom0";

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub enum MinirootError {
    /// A file of the medium cannot be read.
    #[error("cannot read {path} of the image{trouble}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the source knows of it.
        trouble: String,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
    /// The kernel is none that can be started here.
    #[error("cannot start {path}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: NotBootable,
    },
    /// The initrd is none that we can look into.
    #[error("cannot look into {names}")]
    Initrd {
        /// The initrd's files.
        names: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// Too little memory.
    #[error("not enough memory for {what}: {} are needed, {who} has {}", size(*need), size(*have))]
    Memory {
        /// For what.
        what: &'static str,
        /// Who has it.
        who: &'static str,
        /// How much that is.
        need: u64,
        /// How much there is.
        have: u64,
    },
    /// The target cannot drive what it needs.
    #[error(
        "the target lacks a driver for the {part} ({modalias}): there is none in its initrd, \
         and none for kernel {release} in its root"
    )]
    NoDriver {
        /// What it is.
        kind: &'static str,
        /// Which one.
        part: String,
        /// What drivers match it by.
        modalias: String,
        /// The target's kernel.
        release: String,
    },
    /// The target cannot have our block device.
    #[error(
        "the target lacks the module {name}: it is neither in its initrd nor in its root for kernel {release}"
    )]
    NoModule {
        /// Which.
        name: String,
        /// The target's kernel.
        release: String,
    },
    /// The target's root cannot be looked into.
    #[error("cannot look into the target's root file system")]
    Root(#[source] MediumError),
    /// The overlay cannot be made.
    #[error("cannot make the overlay")]
    Overlay(#[source] io::Error),
    /// Too many arguments.
    #[error("the target's command line has {length} bytes, and only {limit} are taken")]
    Cmdline {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
}

impl Explain for MinirootError {
    fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "Check the image's checksum and the web server's log".into(),
            Self::Initrd { .. } => {
                "Use an image whose initrd is packed by gzip, xz or zstd, or check its checksum".into()
            }
            Self::Kernel { .. } => "Use an image for 64-bit PCs (amd64, x86_64)".into(),
            Self::Memory { who: DOM0, .. } => {
                "Give dom0 more: inetboot.xen=dom0_mem=SIZE, or add memory".into()
            }
            Self::Memory { .. } => "Add memory, or boot a smaller image".into(),
            Self::NoDriver { kind, .. } => format!("Use another {kind}, or an image with more drivers"),
            Self::NoModule { .. } => "Use an image whose kernel has FUSE and loop devices".into(),
            Self::Root(error) => error.hint(),
            Self::Overlay(_) => "Check the machine's memory".into(),
            Self::Cmdline { .. } => "Shorten the kernel arguments".into(),
        }
    }
}

/// What goes along with the second life.
#[derive(Debug)]
pub struct Luggage<'a> {
    /// This program.
    pub agent: &'a [u8],
    /// The certificates it trusts, as PEM, where they are not Mozilla's.
    pub ca: Option<&'a [u8]>,
    /// The image's index and its profile, where there are any.
    pub recipe: &'a Recipe,
    /// Modules that its network needs beside the card's driver.
    pub modules: &'a [&'a str],
}

impl Luggage<'_> {
    /// The files that are always there or have contents of their own: path, mode, contents.
    fn files(&self) -> impl Iterator<Item = (&'static str, u32, &[u8])> {
        let Recipe { index, profile, .. } = self.recipe;
        let index = index.as_ref().map(|index| &index.bytes[..]);
        let files = [
            (AGENT, 0o755, Some(self.agent)),
            (handoff::CA_PATH, 0o644, self.ca),
            (handoff::INDEX_PATH, 0o644, index),
            (handoff::PROFILE_PATH, 0o644, profile.as_ref().map(String::as_bytes)),
        ];
        files.into_iter().filter_map(|(path, mode, contents)| Some((path, mode, contents?)))
    }
}

/// The payload for `plan`: its kernel, its initrd with our overlay, its command line; and the
/// modules that the second life has to load so that the target drives `hardware`. Nothing is begun
/// that does not fit into `memory`, where one is given.
pub fn rebuild(
    plan: &Plan,
    cd: &dyn Cd,
    hardware: &[Part],
    luggage: &Luggage<'_>,
    memory: Option<Memory>,
) -> Result<(Payload, Vec<String>), MinirootError> {
    let cmdline = cmdline(plan, if plan.hypervisor.is_some() { WORDS_MAX } else { CMDLINE_MAX })?;
    let hypervisor = plan.hypervisor.as_ref().map(|program| hypervisor(program, cd)).transpose()?;
    let sizes = Sizes::of(plan, cd)?;
    if let Some(memory) = memory {
        check_room(sizes, memory)?;
    }

    let start = start(&open(cd, &plan.kernel)?).map_err(|error| read_error(cd, &plan.kernel, error))?;
    let header = header(&start, &plan.kernel)?;
    let kernel = memory::file("kernel").map_err(MinirootError::Overlay)?;
    let mut initrd = memory::file("initrd").map_err(MinirootError::Overlay)?;
    let (mut parts, tree, unpacked) = copy_and_look(plan, cd, &kernel, &initrd, &header.release)?;
    if let Some(memory) = memory {
        check_target(unpacked, sizes.initrd, plan, memory)?;
    }

    let mut modules = Vec::new();
    if plan.is_live {
        let organs = transplant::choose(plan, cd, hardware, luggage.modules, &header.release, tree)?;
        parts.extend(append_overlay(&mut initrd, luggage, &organs).map_err(MinirootError::Overlay)?);
        modules.extend(organs.iter().map(Organ::path));
    }

    let kernel = Sealed::new(kernel).map_err(MinirootError::Overlay)?;
    Ok((Payload { hypervisor, kernel, initrd, parts, cmdline }, modules))
}

/// The last segment of the initrd: what only the second life of this one boot needs to know, and
/// what was measured, for whoever asks where there is no second life.
pub fn notes(handoff: Option<&Handoff>, log: Option<&EventLog>) -> Result<Vec<u8>, MinirootError> {
    let written = || {
        let mut archive = cpio::Archive::new(Vec::new());
        archive.directory(inside(handoff::DIR), 0o755)?;
        if let Some(handoff) = handoff {
            archive.file(inside(handoff::PATH), 0o600, handoff.encode().as_bytes())?;
        }
        if let Some(log) = log {
            archive.file(inside(handoff::EVENTLOG_PATH), 0o600, log.encode())?;
        }
        archive.finish()
    };
    written().map_err(MinirootError::Overlay)
}

/// The hypervisor in the file of that path; packed or not, as Xen lies on media.
fn hypervisor(program: &Program, cd: &dyn Cd) -> Result<Hypervisor, MinirootError> {
    let path = Path::new(&program.path);
    let failed = |error| read_error(cd, path, error);
    let file = fs::read(cd.dir().join(path)).map_err(failed)?;
    let unpacked = compression::unpack(&file).map_err(failed)?;
    let words = program.words.join(" ");
    check_cmdline(words.len(), WORDS_MAX)?;
    Ok(Hypervisor { path: program.path.clone(), file, program: unpacked, words })
}

/// Fails for arguments of `length` where `limit` includes a NUL, and for Xen the word it drops.
fn check_cmdline(length: usize, limit: usize) -> Result<(), MinirootError> {
    let limit = limit - 1 - if limit == WORDS_MAX { "module ".len() } else { 0 };
    if length > limit { Err(MinirootError::Cmdline { length, limit }) } else { Ok(()) }
}

/// The arguments that `plan` starts its kernel with, which takes `limit` bytes at most with a NUL.
pub(crate) fn cmdline(plan: &Plan, limit: usize) -> Result<CString, MinirootError> {
    // First, for the kernel forgets init's arguments that come before it, and reads nothing behind
    // a bare `--`; and alone, for the last one wins.
    let ours = format!("rdinit={AGENT}");
    let ours = plan.is_live.then_some(ours.as_str());
    let words = plan.words.iter().map(String::as_str);
    let theirs = words.filter(|word| ours.is_none() || !word.starts_with("rdinit="));
    let text = ours.into_iter().chain(theirs).collect::<Vec<_>>().join(" ");
    check_cmdline(text.len(), limit)?;
    // A menu file with a NUL in it is damaged; the kernel would stop there.
    CString::new(text).map_err(|error| MinirootError::Overlay(io::Error::other(error)))
}

#[derive(Clone, Copy)]
struct Sizes {
    kernel: u64,
    initrd: u64,
}

impl Sizes {
    fn of(plan: &Plan, cd: &dyn Cd) -> Result<Self, MinirootError> {
        let length = |path: &PathBuf| {
            let metadata = cd.dir().join(path).metadata();
            metadata.map(|metadata| metadata.len()).map_err(|error| read_error(cd, path, error))
        };
        let initrds: Vec<u64> = plan.initrds.iter().map(length).collect::<Result<_, _>>()?;
        Ok(Self { kernel: length(&plan.kernel)?, initrd: initrds.iter().sum() })
    }
}

/// Before anything large is fetched. The payload is in memory three times at the peak: our copy,
/// the one `kexec_file_load` reads, and where that will start.
fn check_room(sizes: Sizes, memory: Memory) -> Result<(), MinirootError> {
    let need = 3 * (sizes.kernel + sizes.initrd) + SLACK;
    let have = memory.available;
    if need > have {
        let what = "the target's kernel and initrd";
        return Err(MinirootError::Memory { what, who: MACHINE, need, have });
    }
    Ok(())
}

/// The target unpacks its initrd into a file system that takes half of the memory at most, while
/// the packed one is still there.
fn check_target(unpacked: u64, packed: u64, plan: &Plan, memory: Memory) -> Result<(), MinirootError> {
    let (who, have) = match &plan.hypervisor {
        None => (MACHINE, memory.total),
        Some(hypervisor) => (DOM0, xen::dom0_memory(&hypervisor.words, memory.total)),
    };
    let need = (2 * unpacked).max(unpacked + packed + TARGET_FLOOR);
    if need > have {
        return Err(MinirootError::Memory { what: "the target to unpack its initrd", who, need, have });
    }
    Ok(())
}

fn read_error(cd: &dyn Cd, path: &Path, error: io::Error) -> MinirootError {
    MinirootError::Read { path: path.to_owned(), trouble: cd.trouble(), error }
}

fn open(cd: &dyn Cd, path: &Path) -> Result<File, MinirootError> {
    File::open(cd.dir().join(path)).map_err(|error| read_error(cd, path, error))
}

/// Copy kernel and initrds from the CD, and look meanwhile for the modules of kernel `release` in the
/// initrds, and how much they are unpacked.
fn copy_and_look(
    plan: &Plan,
    cd: &dyn Cd,
    kernel: &File,
    initrd: &File,
    release: &str,
) -> Result<(Vec<Statement>, Tree, u64), MinirootError> {
    thread::scope(|scope| {
        let (announcer, announced) = channel();
        let growing = Growing::new(initrd, announced);
        let looking = thread::Builder::new()
            .spawn_scoped(scope, || Tree::of_initrd(growing, release))
            .map_err(MinirootError::Overlay)?;
        // Who looks may have seen enough.
        let announce = || _ = announcer.send(());
        let mut initrds = Vec::new();
        for path in &plan.initrds {
            initrds.push(copy(cd, path, What::Initrd, initrd, &announce)?);
            align(initrd).map_err(MinirootError::Overlay)?;
        }
        drop(announcer);
        let mut parts = vec![copy(cd, &plan.kernel, What::Kernel, kernel, &|| {})?];
        parts.append(&mut initrds);
        console::say(&format!("  looking into the initrd of kernel {release}"));
        match looking.join().unwrap_or_else(|_| Err(io::Error::other("it cannot be unpacked"))) {
            Ok((tree, unpacked)) => Ok((parts, tree, unpacked)),
            // Only the kernel has to read what we add nothing to.
            Err(_) if !plan.is_live => Ok((parts, Tree::default(), 0)),
            Err(error) => {
                let names = plan.initrds.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
                Err(MinirootError::Initrd { names: names.join(", "), error })
            }
        }
    })
}

/// Copy a file of the CD to the end of `sink`, and `announce` whatever is there: what was copied.
fn copy(
    cd: &dyn Cd,
    path: &Path,
    what: What,
    mut sink: &File,
    announce: &dyn Fn(),
) -> Result<Statement, MinirootError> {
    let failed = |error| read_error(cd, path, error);
    let mut file = open(cd, path)?;
    let mut progress = Progress::new(what.row().word, file.metadata().map_err(failed)?.len());
    let mut sum = Sum::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            length => {
                let bytes = &buffer[..length];
                sink.write_all(bytes).map_err(MinirootError::Overlay)?;
                announce();
                sum.add(bytes);
                progress.add(length as u64);
            }
        }
    }
    progress.finish();
    Ok(Statement::bytes(what, &path.display().to_string(), sum))
}

/// As much of a kernel as says what it is.
pub(crate) fn start(kernel: &File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    kernel.take(bzimage::HEADER as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// What the kernel says of itself in its `start`; `path` is what it is called.
pub(crate) fn header(start: &[u8], path: &Path) -> Result<Kernel, MinirootError> {
    Kernel::parse(start).map_err(|error| MinirootError::Kernel { path: path.to_owned(), error })
}

/// What follows an initrd begins at a boundary.
pub(crate) fn align(mut initrd: &File) -> io::Result<()> {
    let length = initrd.stream_position()?;
    initrd.write_all(&[0; 4][..cpio::padding(length)])
}

/// What was appended.
fn append_overlay(initrd: &mut File, luggage: &Luggage<'_>, organs: &[Organ]) -> io::Result<Vec<Statement>> {
    let mut archive = cpio::Archive::new(io::BufWriter::new(initrd));
    add_devices(&mut archive)?;
    archive.directory(inside(handoff::DIR), 0o755)?;
    archive.directory(inside(transplant::DIR), 0o755)?;
    let organs = organs.iter().filter_map(|organ| Some((organ.path(), 0o644, organ.image()?)));
    let files = luggage.files().map(|(path, mode, contents)| (path.to_owned(), mode, contents));
    let mut parts = Vec::new();
    for (path, mode, contents) in files.chain(organs) {
        archive.file(inside(&path), mode, contents)?;
        parts.push(Statement::bytes(What::Overlay, inside(&path), Sum::of(contents)));
    }
    archive.finish()?.flush()?;
    Ok(parts)
}

/// A program in Rust is ended before it begins where descriptors 0 to 2 are closed and there is no null
/// device: a console that the kernel cannot open must not end process 1.
pub(crate) fn add_devices(archive: &mut cpio::Archive<impl Write>) -> io::Result<()> {
    archive.directory("dev", 0o755)?;
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.device("dev/null", 0o666, 1, 3)
}

/// A path as it stands in an archive.
pub(crate) fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(hypervisor: Option<&str>) -> Plan {
        let hypervisor = hypervisor.map(|words| Program {
            path: "boot/xen.gz".into(),
            words: words.split(' ').map(str::to_owned).collect(),
        });
        Plan {
            is_live: true,
            family: "debian",
            title: String::new(),
            hypervisor,
            kernel: PathBuf::new(),
            initrds: Vec::new(),
            words: Vec::new(),
            roots: Vec::new(),
            modules: &[],
            premount: None,
        }
    }

    #[test]
    fn who_has_too_little_memory_is_told() {
        let machine = Memory { total: 2 << 30, available: 2 << 30 };
        let refusal = |plan: &Plan, unpacked| {
            check_target(unpacked, 40 << 20, plan, machine).map_err(|error| (error.to_string(), error.hint()))
        };
        assert_eq!(refusal(&plan(None), 200 << 20), Ok(()));
        assert!(refusal(&plan(None), 2 << 30).unwrap_err().0.contains("this machine has"));
        assert_eq!(refusal(&plan(Some("dom0_mem=1G")), 200 << 20), Ok(()));
        let (said, hint) = refusal(&plan(Some("dom0_mem=256M")), 200 << 20).unwrap_err();
        assert!(said.contains("dom0 has"), "{said}");
        assert!(hint.contains("inetboot.xen=dom0_mem="), "{hint}");
    }

    #[test]
    fn arguments_that_are_too_many_are_counted() {
        let words = vec!["x".repeat(1020)];
        let long = Plan { words, ..plan(None) };
        assert!(cmdline(&long, CMDLINE_MAX).is_ok());
        let error = cmdline(&long, WORDS_MAX).unwrap_err().to_string();
        assert!(error.contains("has 1037 bytes, and only 1016 are taken"), "{error}");
    }
}
