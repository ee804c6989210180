//! The inputs that `predict` and `overlay` share: the agent of a boot, its image, and its plan.

use crate::config::{Access, Config, Wanted};
use crate::desk::iso::Iso;
use crate::distro::{self, Plan};
use crate::formats::cpio;
use crate::medium::Directory;
use crate::source::Image;
use crate::source::mirrors::Patience;
use anyhow::{Context, ensure};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::time::Duration;

/// Ends with an error after a minute without a server: a person waits for the verb.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(60));

/// A boot that could be made.
pub struct Subject {
    /// The agent's program, as it is in our initramfs.
    pub agent: Vec<u8>,
    /// The image, opened with the certificates of that initramfs.
    pub image: Image,
    pub iso: Iso,
    pub plan: Plan,
}

impl Subject {
    /// Opens the image that is `wanted`, as the agent in `initramfs` would.
    pub fn open(initramfs: &Path, config: &Config, wanted: &Wanted) -> anyhow::Result<Self> {
        let (agent, ca) = unpack(initramfs, config.access.ca.as_deref())?;
        let ca = ca.map(|pem| -> anyhow::Result<_> {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(&pem)?;
            Ok(file)
        });
        let ca = ca.transpose().context("keeping the certificates")?;
        // A cache disk is on the machine that boots, not on this one.
        let access = Access {
            ca: ca.as_ref().map(|file| file.path().to_owned()),
            disk: None,
            ..config.access.clone()
        };
        let image = Image::open(wanted, &access, PATIENCE)?;
        let iso = Iso::open(image.source())?;
        let plan = distro::recognise(iso.dir(), &config.target)?;
        Ok(Self { agent, image, iso, plan })
    }
}

/// Takes the agent from our initramfs, and the file `ca` if one is named.
fn unpack(initramfs: &Path, ca: Option<&Path>) -> anyhow::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let what = || format!("reading {}", initramfs.display());
    let ca = ca.map(|path| path.strip_prefix("/").unwrap_or(path));

    let (mut agent, mut pem) = (None, None);
    let mut input = BufReader::new(File::open(initramfs).with_context(what)?);
    cpio::walk(&mut input, &mut |member| {
        let mut contents = Vec::new();
        if member.name == "init" {
            member.contents.read_to_end(&mut contents)?;
            agent = Some(contents);
        } else if ca.is_some_and(|ca| ca == Path::new(member.name)) {
            member.contents.read_to_end(&mut contents)?;
            pem = Some(contents);
        }
        Ok(())
    })
    .with_context(what)?;

    if let Some(ca) = ca {
        ensure!(
            pem.is_some(),
            "{} has no file {}, which inetboot.ca= names",
            initramfs.display(),
            ca.display()
        );
    }
    Ok((agent.with_context(|| format!("{} has no /init", initramfs.display()))?, pem))
}
