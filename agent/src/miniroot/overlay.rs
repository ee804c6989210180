//! The cpio segments that we append to the target's initrd: the overlay, and the notes behind it.

use crate::formats::cpio;
use crate::formats::eventlog::EventLog;
use crate::formats::handoff::{self, Handoff};
use crate::formats::recipe::Recipe;
use crate::formats::statement::{Statement, Sum, Topic};
use crate::miniroot::MinirootError;
use crate::miniroot::modules::{self, Module};
use std::fs::File;
use std::io::{self, Seek, Write};

/// This program in the target's initrd, and the value of `rdinit=`.
pub const AGENT: &str = "/inetboot";

/// The contents of the overlay, beside modules from the target's root.
#[derive(Debug)]
pub struct Contents<'a> {
    /// This program.
    pub agent: &'a [u8],
    /// The certificates that it trusts, as PEM; `None` for Mozilla's.
    pub ca: Option<&'a [u8]>,
    /// Has the image's index and its profile.
    pub recipe: &'a Recipe,
    /// Modules that the network needs beside the card's driver.
    pub modules: &'a [&'a str],
}

impl Contents<'_> {
    /// Path, mode and contents of each file.
    fn files(&self) -> impl Iterator<Item = (&'static str, u32, &[u8])> {
        let Recipe { index, profile, .. } = self.recipe;
        let index = index.as_ref().map(|(_, index)| &index[..]);
        let files = [
            (AGENT, 0o755, Some(self.agent)),
            (handoff::CA_PATH, 0o644, self.ca),
            (handoff::INDEX_PATH, 0o644, index),
            (handoff::PROFILE_PATH, 0o644, profile.as_ref().map(String::as_bytes)),
        ];
        files.into_iter().filter_map(|(path, mode, contents)| Some((path, mode, contents?)))
    }
}

/// Appends the overlay to `initrd`. Gives a statement for each of its files.
pub fn append(initrd: &mut File, contents: &Contents<'_>, modules: &[Module]) -> io::Result<Vec<Statement>> {
    let mut archive = cpio::Archive::new(io::BufWriter::new(initrd));
    add_devices(&mut archive)?;
    archive.directory(inside(handoff::DIR), 0o755)?;
    archive.directory(inside(modules::DIR), 0o755)?;

    let files = contents.files().map(|(path, mode, contents)| (path.to_owned(), mode, contents));
    let modules = modules.iter().filter_map(|module| Some((module.path(), 0o644, module.contents()?)));
    let mut parts = Vec::new();
    for (path, mode, contents) in files.chain(modules) {
        archive.file(inside(&path), mode, contents)?;
        parts.push(Statement::bytes(Topic::Overlay, inside(&path), Sum::of(contents)));
    }
    archive.finish()?.flush()?;
    Ok(parts)
}

/// The last segment of the initrd: the handoff of this one boot, and the event log. A target without a
/// second life gets the log alone.
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

/// Pads `initrd` to four bytes: the kernel looks for the next segment there
/// (`Documentation/driver-api/early-userspace/buffer-format.rst`).
pub fn align(mut initrd: &File) -> io::Result<()> {
    let length = initrd.stream_position()?;
    initrd.write_all(&[0; 4][..cpio::padding(length)])
}

/// Adds `/dev/console` and `/dev/null`, which not every initrd brings. The Rust runtime aborts if
/// descriptors 0 to 2 are closed and `/dev/null` cannot be opened: a console that the kernel cannot open
/// must not end process 1.
pub fn add_devices(archive: &mut cpio::Archive<impl Write>) -> io::Result<()> {
    archive.directory("dev", 0o755)?;
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.device("dev/null", 0o666, 1, 3)
}

/// An absolute path as it stands in an archive.
pub fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}
