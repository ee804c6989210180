//! Step 6: the target's own initrd, untouched, with our overlay appended.
//!
//! ```text
//! initrd of the medium | zeros to 4 bytes | overlay:  /inetboot                 this program
//!                                                     /inetboot.d/ca.pem        the certificates it trusts
//!                                                     /inetboot.d/index         the digests of the image
//!                                                     /inetboot.d/profile       the order to fetch it in
//!                                                     /inetboot.d/modules/*.ko  drivers that the initrd lacks
//!                                         | notes:    /inetboot.d/handoff       this boot: lease, mirrors, times
//!                                                     /inetboot.d/eventlog      the measurements
//! ```
//!
//! The kernel unpacks one segment over the other. The overlay is measured file by file; the notes are
//! about this one boot and are not. At the top both have names of their own only: a directory entry `lib`
//! would replace the symbolic link that merged-/usr initrds have there.

mod modules;
pub mod overlay;
pub mod payload;
mod room;

use crate::base::console::{self, Progress, size};
use crate::base::failure::Explain;
use crate::distro::Plan;
use crate::formats::boot_menu::Program;
use crate::formats::bzimage::{self, Kernel, NotBootable};
use crate::formats::cmdline::has_open_quote;
use crate::formats::compression;
use crate::formats::statement::{Statement, Sum, Topic};
use crate::machine::memfd::{self, Sealed};
use crate::machine::meminfo::Memory;
use crate::machine::pread::Growing;
use crate::medium::{Directory, MediumError};
use crate::miniroot::modules::{Module, ModuleTree};
use crate::miniroot::overlay::{AGENT, Contents};
use crate::miniroot::payload::{Hypervisor, Initrd, Payload};
use crate::miniroot::room::{DOM0, Sizes};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

pub use crate::miniroot::modules::Hardware;

/// The reason why there is no payload.
#[derive(Debug, thiserror::Error)]
pub enum MinirootError {
    #[error("cannot read {path} of the image")]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("cannot start {path}")]
    Kernel {
        path: PathBuf,
        #[source]
        error: NotBootable,
    },
    #[error("cannot look into {names}")]
    Initrd {
        names: String,
        #[source]
        error: io::Error,
    },
    #[error("not enough memory for {what}: {} are needed, {who} has {}", size(*need), size(*have))]
    Memory {
        what: &'static str,
        who: &'static str,
        /// In bytes, like `have`.
        need: u64,
        have: u64,
    },
    #[error(
        "the target lacks a driver for the {hardware} ({modalias}): there is none in its initrd, \
         and none for kernel {release} in its root"
    )]
    NoDriver { kind: &'static str, hardware: String, modalias: String, release: String },
    #[error(
        "the target lacks the module {name}: it is neither in its initrd nor in its root for kernel {release}"
    )]
    NoModule { name: String, release: String },
    #[error("cannot look into the target's root file system")]
    Root(#[source] MediumError),
    #[error("cannot make the overlay")]
    Overlay(#[source] io::Error),
    #[error("the target's command line has {length} bytes, and only {limit} are taken")]
    TooLong { length: usize, limit: usize },
    #[error("the argument {word} in the target's menu opens a quote and does not close it")]
    OpenQuote { word: String },
    #[error("an argument in the target's menu contains a NUL byte")]
    Nul,
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
            Self::TooLong { .. } => "Shorten the kernel arguments".into(),
            Self::OpenQuote { .. } | Self::Nul => {
                "Check the image's checksum, or correct the menu on it".into()
            }
        }
    }
}

/// The outcome of [`rebuild`].
pub struct Rebuilt {
    pub payload: Payload,
    /// Modules for the second life to load, in order: absolute paths in the target's initrd.
    pub modules: Vec<String>,
}

/// Makes the payload for `plan`: its kernel, its initrd with our overlay, its command line. The target
/// will drive `hardware`, or the boot stops here and says which driver is missing.
///
/// A payload that does not fit into `memory` is refused before it is fetched. `inetbootctl predict` computes the
/// payload of another machine and gives none.
pub fn rebuild(
    plan: &Plan,
    medium: &dyn Directory,
    hardware: &[Hardware],
    contents: &Contents<'_>,
    memory: Option<Memory>,
) -> Result<Rebuilt, MinirootError> {
    let limit = if plan.hypervisor.is_some() { Limit::Xen } else { Limit::Kernel };
    let cmdline = cmdline(plan, limit)?;
    let hypervisor = plan.hypervisor.as_ref().map(|program| hypervisor(program, medium)).transpose()?;

    let sizes = Sizes::of(plan, medium)?;
    if let Some(memory) = memory {
        sizes.fit(memory)?;
    }

    // A kernel that cannot be started is refused by its first bytes.
    let start =
        kernel_start(&open(medium, &plan.kernel)?).map_err(|error| read_error(&plan.kernel, error))?;
    let release = kernel_header(&start, &plan.kernel)?.release;

    let kernel = memfd::file("kernel").map_err(MinirootError::Overlay)?;
    let mut initrd = memfd::file("initrd").map_err(MinirootError::Overlay)?;
    let Copied { mut parts, tree, unpacked } = copy_all(plan, medium, &kernel, &initrd, &release)?;
    if let Some(memory) = memory {
        sizes.fit_unpacked(unpacked, plan, memory)?;
    }

    let mut modules = Vec::new();
    if plan.is_live {
        let chosen = modules::choose(plan, medium, hardware, contents.modules, &release, &tree)?;
        parts.extend(overlay::append(&mut initrd, contents, &chosen).map_err(MinirootError::Overlay)?);
        modules.extend(chosen.iter().map(Module::path));
    }

    let kernel = Sealed::new(kernel).map_err(MinirootError::Overlay)?;
    let payload = Payload { hypervisor, kernel, initrd: Initrd::new(initrd), parts, cmdline };
    Ok(Rebuilt { payload, modules })
}

/// Reads the hypervisor's file. On media it lies packed or not.
fn hypervisor(program: &Program, medium: &dyn Directory) -> Result<Hypervisor, MinirootError> {
    let path = Path::new(&program.path);
    let failed = |error| read_error(path, error);
    let file = fs::read(medium.dir().join(path)).map_err(failed)?;
    let unpacked = compression::unpack(&file).map_err(failed)?;
    let words = program.words.join(" ");
    Limit::Xen.check(words.len())?;
    Ok(Hypervisor { path: program.path.clone(), file, program: unpacked, words })
}

/// The reader of a command line.
#[derive(Clone, Copy)]
pub enum Limit {
    Kernel,
    /// Xen, which reads its own arguments and passes dom0 the others.
    Xen,
}

impl Limit {
    /// Bytes that the reader takes.
    const fn bytes(self) -> usize {
        match self {
            Self::Kernel => bzimage::CMDLINE_MAX - 1,
            // The terminating NUL, and the name of the module, which Xen drops.
            Self::Xen => crate::formats::multiboot::WORDS_MAX - 1 - "module ".len(),
        }
    }

    fn check(self, length: usize) -> Result<(), MinirootError> {
        let limit = self.bytes();
        if length > limit { Err(MinirootError::TooLong { length, limit }) } else { Ok(()) }
    }
}

/// The command line that `plan` starts its kernel with.
pub fn cmdline(plan: &Plan, limit: Limit) -> Result<CString, MinirootError> {
    // The kernel would take all that follows an open quote for a part of its word.
    if let Some(word) = plan.words.iter().find(|word| has_open_quote(word)) {
        return Err(MinirootError::OpenQuote { word: word.clone() });
    }

    // Ours comes first, since the kernel forgets init's arguments that come before it, and reads nothing
    // behind a bare `--`. It comes alone, since the last one wins.
    let ours = plan.is_live.then(|| format!("rdinit={AGENT}"));
    let theirs = plan.words.iter().filter(|word| ours.is_none() || !word.starts_with("rdinit="));
    let text = ours.iter().chain(theirs).map(String::as_str).collect::<Vec<_>>().join(" ");
    limit.check(text.len())?;
    CString::new(text).map_err(|_| MinirootError::Nul)
}

fn read_error(path: &Path, error: io::Error) -> MinirootError {
    MinirootError::Read { path: path.to_owned(), error }
}

fn open(medium: &dyn Directory, path: &Path) -> Result<File, MinirootError> {
    File::open(medium.dir().join(path)).map_err(|error| read_error(path, error))
}

/// The outcome of [`copy_all`].
struct Copied {
    parts: Vec<Statement>,
    /// The modules in the initrds.
    tree: ModuleTree,
    /// The initrds' size unpacked, in bytes.
    unpacked: u64,
}

/// Copies kernel and initrds from the medium. Another thread meanwhile looks in the initrds for the modules
/// of kernel `release`, so that unpacking costs no time beside the network's.
fn copy_all(
    plan: &Plan,
    medium: &dyn Directory,
    kernel: &File,
    initrd: &File,
    release: &str,
) -> Result<Copied, MinirootError> {
    thread::scope(|scope| {
        let (announcer, announced) = channel();
        let growing = Growing::new(initrd, announced);
        let looking = thread::Builder::new()
            .spawn_scoped(scope, || ModuleTree::of_initrd(growing, release))
            .map_err(MinirootError::Overlay)?;

        // The reader may have stopped at damage, which is told below.
        let announce = || _ = announcer.send(());
        let mut initrds = Vec::new();
        for path in &plan.initrds {
            initrds.push(copy(medium, path, Topic::Initrd, initrd, &announce)?);
            overlay::align(initrd).map_err(MinirootError::Overlay)?;
        }
        drop(announcer);
        let mut parts = vec![copy(medium, &plan.kernel, Topic::Kernel, kernel, &|| {})?];
        parts.append(&mut initrds);

        console::say(&format!("  looking into the initrd of kernel {release}"));
        match looking.join().unwrap_or_else(|panic| resume_unwind(panic)) {
            Ok((tree, unpacked)) => Ok(Copied { parts, tree, unpacked }),
            // We add nothing to this initrd, so we need not be able to unpack it; the kernel does.
            Err(_) if !plan.is_live => Ok(Copied { parts, tree: ModuleTree::default(), unpacked: 0 }),
            Err(error) => {
                let names = plan.initrds.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
                Err(MinirootError::Initrd { names: names.join(", "), error })
            }
        }
    })
}

/// Copies a file of the medium to the end of `sink`, and calls `announce` after each part.
fn copy(
    medium: &dyn Directory,
    path: &Path,
    topic: Topic,
    mut sink: &File,
    announce: &dyn Fn(),
) -> Result<Statement, MinirootError> {
    let failed = |error| read_error(path, error);
    let mut file = open(medium, path)?;
    let mut progress = Progress::new(topic.row().word, file.metadata().map_err(failed)?.len());
    let mut sum = Sum::default();
    let mut buffer = vec![0; 1 << 20];

    loop {
        let length = file.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            break;
        }
        let bytes = &buffer[..length];
        sink.write_all(bytes).map_err(MinirootError::Overlay)?;
        announce();
        sum.add(bytes);
        progress.add(length as u64);
    }
    progress.finish();
    Ok(Statement::bytes(topic, &path.display().to_string(), sum))
}

/// The first bytes of a kernel, which hold its header.
pub fn kernel_start(kernel: &File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    kernel.take(bzimage::HEADER as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// The kernel's header in its `start`; `path` is for the error.
pub fn kernel_header(start: &[u8], path: &Path) -> Result<Kernel, MinirootError> {
    Kernel::parse(start).map_err(|error| MinirootError::Kernel { path: path.to_owned(), error })
}

#[cfg(test)]
pub(in crate::miniroot) mod tests {
    use super::*;

    /// A plan that starts nothing.
    pub fn plan() -> Plan {
        Plan {
            is_live: true,
            family: "debian",
            title: String::new(),
            hypervisor: None,
            kernel: PathBuf::new(),
            initrds: Vec::new(),
            words: Vec::new(),
            roots: Vec::new(),
            modules: &[],
            premount: None,
        }
    }

    /// The kernel and Xen take command lines of different lengths; one that is longer is refused.
    #[test]
    fn long_command_lines_are_counted() {
        let long = Plan { words: vec!["x".repeat(1020)], ..plan() };
        assert!(cmdline(&long, Limit::Kernel).is_ok());
        let error = cmdline(&long, Limit::Xen).unwrap_err().to_string();
        assert!(error.contains("has 1037 bytes, and only 1016 are taken"), "{error}");
    }

    /// An open quote in the medium's menu cannot swallow the words behind it.
    #[test]
    fn open_quotes_are_refused() {
        let open = Plan { words: vec!["x=\"".into(), "inetboot.onfail=reboot".into()], ..plan() };
        let error = cmdline(&open, Limit::Kernel).unwrap_err().to_string();
        assert!(error.contains("x=\" in the target's menu opens a quote"), "{error}");
        let closed = Plan { words: vec!["x=\"a b\"".into()], ..plan() };
        assert_eq!(cmdline(&closed, Limit::Kernel).unwrap().as_c_str(), c"rdinit=/inetboot x=\"a b\"");
    }
}
