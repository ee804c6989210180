//! A boot that has not happened, as far as what is made of it on a desk has in common: the agent that
//! would do it, the image it would open, and the plan it would follow.

use crate::config::{Access, Config, Wanted};
use crate::desk::iso::Iso;
use crate::distro::{self, Plan};
use crate::formats::cpio;
use crate::medium::Cd;
use crate::source::Image;
use crate::source::mirrors::Patience;
use anyhow::{Context, ensure};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::time::Duration;

/// How long a server may be gone.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(60));

/// The boot.
pub struct Subject {
    /// The agent, as it is in our initramfs.
    pub agent: Vec<u8>,
    /// The image; it knows the certificates from there, too.
    pub image: Image,
    /// The image's files.
    pub iso: Iso,
    /// What would be started from it.
    pub plan: Plan,
}

impl Subject {
    /// What the agent in `initramfs` would do with the image that is `wanted` by `config`.
    pub fn open(initramfs: &Path, config: &Config, wanted: &Wanted) -> anyhow::Result<Self> {
        let (agent, ca) = unpack(initramfs, config.access.ca.as_deref())?;
        let ca = ca.map(|pem| -> anyhow::Result<_> {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(&pem)?;
            Ok(file)
        });
        let ca = ca.transpose().context("keeping the certificates")?;
        // The disk that keeps pieces is the other machine's.
        let access = Access {
            ca: ca.as_ref().map(|file| file.path().to_owned()),
            disk: None,
            ..config.access.clone()
        };
        let image = Image::open(wanted, &access, PATIENCE)?;
        let iso = Iso::open(&image.source())?;
        let plan = distro::recognise(iso.dir(), &config.target)?;
        Ok(Self { agent, image, iso, plan })
    }
}

/// The agent in our initramfs, and the file `ca` where one is wanted.
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
