//! Step 4: the image becomes a file, then a block device, then a mounted CD. A plain kernel and initrd become
//! two files.
//!
//! The file is FUSE's: each read of it is a read of the [source](Source). Nothing is copied.

mod blame;
pub mod fuse;
pub(crate) mod root;

use crate::base::failure::Explain;
use crate::machine::drivers;
use crate::machine::ledger::Measured;
use crate::machine::loopdev::{LoopDevice, Mounted};
use crate::medium::fuse::FuseMount;
use crate::source::fault::SourceError;
use crate::source::images::Images;
use crate::source::{Image, Source};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

pub use crate::medium::blame::Blamed;

/// The first life's mounts lie here.
const RUN: &str = "/inetboot.d";

/// The first sector of an ISO 9660 file system's descriptors, and its mark (ECMA-119, 7.1).
const DESCRIPTOR: u64 = 16 * 2048;
const MARK: &[u8] = b"CD001";

/// The files to boot from. Mounts are undone when it is dropped, in reverse order.
#[derive(Debug)]
pub enum Medium {
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

/// The files of a medium, as a directory.
pub trait Directory {
    fn dir(&self) -> &Path;

    /// The root file system in the image at `path` of the medium.
    fn root(&self, path: &Path) -> Result<Box<dyn Root>, MediumError>;
}

/// A root file system, to take modules from.
pub trait Root {
    /// The contents of the file at `path`, which is relative to the root.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The reason why an image is no medium.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    #[error("cannot read the image's first sectors")]
    Read(#[source] SourceError),
    #[error("{image} is not an ISO 9660 image: {looks}")]
    NotIso { image: String, looks: &'static str },
    #[error("cannot serve the image as a file over /dev/fuse")]
    Fuse(#[source] io::Error),
    #[error("cannot make a block device of the image")]
    Loop(#[source] io::Error),
    #[error("cannot unpack {what}")]
    Unpack {
        what: String,
        #[source]
        error: Box<SourceError>,
    },
    #[error("cannot mount {what}")]
    Mount {
        what: String,
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

/// Mounts images that were opened, and measured as far as possible before their bytes are read.
pub fn mount(images: &Measured<Images>) -> Result<Medium, Blamed<MediumError>> {
    let mounted = match images.initrd() {
        None => mount_cd(images.first()).map(Medium::Cd),
        Some(initrd) => mount_files(images.first(), initrd).map(Medium::Files),
    };
    mounted.map_err(|error| Blamed::new(error, &images.first().source().trouble()))
}

fn mount_files(kernel: &Image, initrd: &Image) -> Result<Files, MediumError> {
    drivers::load_module("fuse");
    let dir = Path::new(RUN).join("files");

    let (mut mounts, mut sources) = (Vec::new(), Vec::new());
    for (name, image) in [("kernel", kernel), ("initrd", initrd)] {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).map_err(MediumError::Fuse)?;
        let file = image.file_name();
        let mount = FuseMount::mount(Arc::clone(image.source()), &dir, OsStr::new(&file));
        mounts.push(mount.map_err(MediumError::Fuse)?);
        sources.push(Arc::clone(image.source()));
    }
    Ok(Files { dir, _mounts: mounts, sources })
}

fn mount_cd(image: &Image) -> Result<MountedCd, MediumError> {
    let source = image.source();
    check_iso(&**source)?;
    for module in ["fuse", "loop", "isofs"] {
        drivers::load_module(module);
    }
    let (file, device) = attach(source, Path::new(RUN))?;

    // Kernel and initrd are read from end to end, and small reads would leave the line idle between them.
    device.set_read_ahead(4096);
    let dir = Path::new(RUN).join("cd");
    let cd = Mounted::mount(device, "iso9660", &dir, None)
        .map_err(|error| MediumError::Mount { what: "the image's ISO 9660 file system".into(), error })?;
    Ok(MountedCd { cd, _file: file, source: Arc::clone(source) })
}

/// The image as a block device: a FUSE file in `dir`/image, and a loop device on it.
pub fn attach(source: &Arc<dyn Source>, dir: &Path) -> Result<(FuseMount, LoopDevice), MediumError> {
    let dir = dir.join("image");
    fs::create_dir_all(&dir).map_err(MediumError::Fuse)?;
    let file = FuseMount::mount(Arc::clone(source), &dir, OsStr::new("image")).map_err(MediumError::Fuse)?;
    let device = LoopDevice::attach(file.path(), true).map_err(MediumError::Loop)?;
    Ok((file, device))
}

impl Directory for Medium {
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
            root::Failed::Kernel(error) => MediumError::Mount { what, error },
        })
    }
}

impl Medium {
    /// Adds the source's reason to an error of reading the medium's files.
    pub fn blame<T, E: Explain>(&self, result: Result<T, E>) -> Result<T, Blamed<E>> {
        result.map_err(|error| {
            let sources = match self {
                Self::Cd(cd) => std::slice::from_ref(&cd.source),
                Self::Files(files) => &files.sources,
            };
            Blamed::new(error, &sources.iter().find_map(|source| source.trouble()))
        })
    }
}

/// Refuses an image that is no ISO 9660 file system, with a sentence on its looks. The kernel would only say
/// EINVAL.
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
    use crate::machine::memfd;
    use crate::source::file::File;
    use std::io::Write;

    fn source(contents: &[u8]) -> File {
        let mut file = memfd::file("test").unwrap();
        file.write_all(contents).unwrap();
        File::new(file, contents.len() as u64, "http://h/x".into())
    }

    fn refusal(contents: &[u8]) -> String {
        check_iso(&source(contents)).unwrap_err().to_string()
    }

    /// The error names the kind of a file that is no ISO.
    #[test]
    fn other_files() {
        assert!(refusal(b"\n<!DOCTYPE html>").contains("a web page"));
        assert!(refusal(b"\xfd7zXZ\0").contains("an xz file"));
        assert!(refusal(&[0; 40_000]).contains("lacks the mark CD001"));
        assert!(refusal(b"").contains("lacks the mark"));
    }

    /// A descriptor's mark is enough.
    #[test]
    fn isos() {
        let mut iso = vec![0; 40_000];
        iso[DESCRIPTOR as usize] = 1;
        iso[DESCRIPTOR as usize + 1..][..5].copy_from_slice(MARK);
        check_iso(&source(&iso)).unwrap();
    }
}
