//! Step 4: the image as a file, a block device, a mounted CD; or just the files that were named.

pub mod fuse;
pub(crate) mod root;

use crate::base::failure::Explain;
use crate::machine::drivers;
use crate::machine::loopdev::{LoopDevice, Mounted};
use crate::measure::Measured;
use crate::medium::fuse::FuseMount;
use crate::source::fault::SourceError;
use crate::source::images::Images;
use crate::source::{Image, Source};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

/// Where the first life keeps its mounts.
const RUN: &str = "/inetboot.d";

/// The first sector of an ISO 9660 file system's descriptors (ECMA-119, 7.1), and its mark.
const DESCRIPTOR: u64 = 16 * 2048;
const MARK: &[u8] = b"CD001";

/// What there is to boot from, as a directory. Everything is undone when it is dropped, in reverse
/// order.
#[derive(Debug)]
pub enum Medium {
    /// A mounted CD.
    Cd(MountedCd),
    /// A kernel and its initrd.
    Files(Files),
}

/// An image as a mounted CD.
pub struct MountedCd {
    // Field order is drop order.
    cd: Mounted,
    _file: FuseMount,
    source: Arc<dyn Source>,
}

/// Remote files, each in a directory of its own: `kernel/linux`, `initrd/initrd.gz`.
pub struct Files {
    dir: PathBuf,
    _mounts: Vec<FuseMount>,
    sources: Vec<Arc<dyn Source>>,
}

/// The files of a CD, as a directory.
pub trait Cd {
    /// The directory.
    fn dir(&self) -> &Path;

    /// The files of the root file system at `path` of the CD, to take modules from.
    fn root(&self, path: &Path) -> Result<Box<dyn Root>, MediumError>;

    /// What the source says about an I/O error that the kernel reported for a file.
    fn trouble(&self) -> String;
}

/// A file system whose files can be read.
pub trait Root {
    /// The contents of the file at `path`, which is relative to the root.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// Why an image is no medium.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    /// Its first bytes cannot be read.
    #[error("cannot read the image's first sectors")]
    Read(#[source] SourceError),
    /// It is not an ISO.
    #[error("{image} is not an ISO 9660 image: {looks}")]
    NotIso {
        /// The image.
        image: String,
        /// What it looks like instead.
        looks: &'static str,
    },
    /// It cannot be served as a file.
    #[error("cannot serve the image as a file over /dev/fuse")]
    Fuse(#[source] io::Error),
    /// It cannot be made a block device.
    #[error("cannot make a block device of the image")]
    Loop(#[source] io::Error),
    /// A compressed image in it cannot be read.
    #[error("cannot unpack {what}")]
    Unpack {
        /// Which.
        what: String,
        /// Why not.
        #[source]
        error: Box<SourceError>,
    },
    /// It cannot be mounted.
    #[error("cannot mount {what}{trouble}")]
    Mount {
        /// Which file system.
        what: String,
        /// What the source says, where the kernel only says "Input/output error".
        trouble: String,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
}

impl Explain for MediumError {
    fn hint(&self) -> String {
        match self {
            Self::Read(error) => error.hint(),
            Self::Unpack { error, .. } => error.hint(),
            Self::NotIso { .. } => {
                "Check that netdir= names a live ISO, e.g. by opening it in a browser".into()
            }
            Self::Fuse(_) => "The kernel needs the fuse module".into(),
            Self::Loop(_) => "The kernel needs the loop module".into(),
            Self::Mount { .. } => {
                "Check the image's checksum, and that the kernel has the file system's module".into()
            }
        }
    }
}

/// Mount what was opened, and measured as far as it can be before it is read.
pub fn mount(images: &Measured<Images>) -> Result<Medium, MediumError> {
    match images.initrd() {
        None => mount_cd(images.first()).map(Medium::Cd),
        Some(initrd) => mount_files(images.first(), initrd).map(Medium::Files),
    }
}

fn mount_files(kernel: &Image, initrd: &Image) -> Result<Files, MediumError> {
    drivers::load_module("fuse");
    let dir = Path::new(RUN).join("files");
    let (mut mounts, mut sources) = (Vec::new(), Vec::new());
    for (name, image) in [("kernel", kernel), ("initrd", initrd)] {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).map_err(MediumError::Fuse)?;
        let file = image.file_name();
        let mount = FuseMount::mount(image.source(), &dir, OsStr::new(file));
        mounts.push(mount.map_err(MediumError::Fuse)?);
        sources.push(image.source());
    }
    Ok(Files { dir, _mounts: mounts, sources })
}

fn mount_cd(image: &Image) -> Result<MountedCd, MediumError> {
    let source = image.source();
    check_iso(&*source)?;
    for module in ["fuse", "loop", "isofs"] {
        drivers::load_module(module);
    }
    let (file, device) = attach(&source, Path::new(RUN))?;
    // Kernel and initrd are read from end to end here; this is what fills the line.
    device.set_read_ahead(4096);
    let dir = Path::new(RUN).join("cd");
    let cd = Mounted::mount(device, "iso9660", &dir, None).map_err(|error| MediumError::Mount {
        what: "the image's ISO 9660 file system".into(),
        trouble: trouble(&*source),
        error,
    })?;
    Ok(MountedCd { cd, _file: file, source })
}

/// The image as a block device: a FUSE file in `dir`/image, and a loop device on it.
pub fn attach(source: &Arc<dyn Source>, dir: &Path) -> Result<(FuseMount, LoopDevice), MediumError> {
    let dir = dir.join("image");
    fs::create_dir_all(&dir).map_err(MediumError::Fuse)?;
    let file = FuseMount::mount(Arc::clone(source), &dir, OsStr::new("image")).map_err(MediumError::Fuse)?;
    let device = LoopDevice::attach(file.path(), true).map_err(MediumError::Loop)?;
    Ok((file, device))
}

impl Cd for Medium {
    fn dir(&self) -> &Path {
        match self {
            Self::Cd(cd) => cd.cd.dir(),
            Self::Files(files) => &files.dir,
        }
    }

    fn root(&self, path: &Path) -> Result<Box<dyn Root>, MediumError> {
        let what = format!("{} of the image", path.display());
        root::mount(&self.dir().join(path), Path::new(RUN)).map_err(|failed| match failed {
            root::Failed::Unpack(error) => MediumError::Unpack { what, error: Box::new(error) },
            root::Failed::Kernel(error) => MediumError::Mount { what, trouble: self.trouble(), error },
        })
    }

    fn trouble(&self) -> String {
        match self {
            Self::Cd(cd) => trouble(&*cd.source),
            Self::Files(files) => files.sources.iter().map(|source| trouble(&**source)).collect(),
        }
    }
}

/// What `source` knows of an I/O error, to stand behind the kernel's words.
pub fn trouble(source: &dyn Source) -> String {
    source.trouble().map(|text| format!(" ({text})")).unwrap_or_default()
}

/// Whether there is an ISO 9660 file system, asked before the kernel is: it only knows EINVAL.
fn check_iso(source: &dyn Source) -> Result<(), MediumError> {
    let mut start = [0; 512];
    let length = source.len().min(start.len() as u64) as usize;
    source.read_at(0, &mut start[..length]).map_err(MediumError::Read)?;
    let mut descriptor = [0; 6];
    if source.len() >= DESCRIPTOR + descriptor.len() as u64 {
        source.read_at(DESCRIPTOR, &mut descriptor).map_err(MediumError::Read)?;
    }
    if descriptor.ends_with(MARK) {
        return Ok(());
    }
    Err(MediumError::NotIso { image: source.to_string(), looks: looks_like(&start[..length]) })
}

fn looks_like(start: &[u8]) -> &'static str {
    const LOOKS: [(&[u8], &str); 7] = [
        (b"<", "it looks like a web page"),
        (b"\x1f\x8b", "it looks like a gzip file"),
        (b"\xfd7zXZ", "it looks like an xz file"),
        (b"\x28\xb5\x2f\xfd", "it looks like a zstd file"),
        (b"QFI\xfb", "it looks like a QEMU disk (qcow2)"),
        (b"hsqs", "it looks like a bare squashfs"),
        (b"PK", "it looks like a zip file"),
    ];
    let text = start.trim_ascii_start();
    LOOKS
        .iter()
        .find(|(magic, _)| text.starts_with(magic))
        .map_or("it lacks the mark CD001 at byte 32769", |(_, look)| look)
}

impl std::fmt::Debug for MountedCd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountedCd").field("cd", &self.cd).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory;
    use crate::source::file::File;
    use std::io::Write;

    fn source(contents: &[u8]) -> File {
        let mut file = memory::file("test").unwrap();
        file.write_all(contents).unwrap();
        File::new(file, contents.len() as u64, "http://h/x".into())
    }

    fn refusal(contents: &[u8]) -> String {
        check_iso(&source(contents)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_iso_is_told_from_its_looks() {
        assert!(refusal(b"\n<!DOCTYPE html>").contains("a web page"));
        assert!(refusal(b"\xfd7zXZ\0").contains("an xz file"));
        assert!(refusal(&[0; 40_000]).contains("lacks the mark CD001"));
        assert!(refusal(b"").contains("lacks the mark"));
    }

    #[test]
    fn an_iso_is_taken_for_one() {
        let mut iso = vec![0; 40_000];
        iso[DESCRIPTOR as usize] = 1;
        iso[DESCRIPTOR as usize + 1..][..5].copy_from_slice(MARK);
        check_iso(&source(&iso)).unwrap();
    }
}
