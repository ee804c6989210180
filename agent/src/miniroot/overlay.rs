//! The overlay.

use crate::formats::cpio;
use crate::formats::eventlog::EventLog;
use crate::formats::handoff::{self, Handoff};
use crate::formats::recipe::Recipe;
use crate::formats::statement::{Statement, Sum, What};
use crate::miniroot::MinirootError;
use crate::miniroot::transplant::{self, Organ};
use std::fs::File;
use std::io::{self, Seek, Write};

/// Our own program's name in the target's initrd, and the value of `rdinit=`.
pub const AGENT: &str = "/inetboot";

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

/// What follows an initrd begins at a boundary.
pub(crate) fn align(mut initrd: &File) -> io::Result<()> {
    let length = initrd.stream_position()?;
    initrd.write_all(&[0; 4][..cpio::padding(length)])
}

/// What was appended.
pub fn append_overlay(
    initrd: &mut File,
    luggage: &Luggage<'_>,
    organs: &[Organ],
) -> io::Result<Vec<Statement>> {
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
