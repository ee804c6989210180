//! The target's root file system on the CD, mounted to take modules from: a squashfs or an EROFS,
//! perhaps with an ext4 image inside, or an ISO inside a cloop image.

use crate::machine::drivers;
use crate::machine::loopdev::{LoopDevice, Mounted};
use crate::medium::Root;
use crate::medium::fuse::FuseMount;
use crate::source::cloop::{self, Cloop};
use crate::source::fault::SourceError;
use crate::source::file;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A file system by a mark in its first bytes: where it is, what it is, what the kernel calls the
/// file system, and what it has to be told to leave the device alone.
struct Kind {
    at: u64,
    mark: &'static [u8],
    name: &'static str,
    options: Option<&'static CStr>,
}

const KINDS: [Kind; 4] = [
    Kind { at: 0, mark: b"hsqs", name: "squashfs", options: None },
    Kind { at: 1024, mark: &[0xe2, 0xe1, 0xf5, 0xe0], name: "erofs", options: None },
    Kind { at: 1080, mark: &[0x53, 0xef], name: "ext4", options: Some(c"noload") },
    Kind { at: 32769, mark: b"CD001", name: "iso9660", options: None },
];

/// Where the root itself may lie in what is mounted (dracut.cmdline(7), `rd.live.squashimg`).
pub(crate) const NESTED: [&str; 2] = ["LiveOS/rootfs.img", "LiveOS/ext3fs.img"];

/// A mounted root, and what it stands on. Field order is drop order.
struct MountedRoot {
    root: Mounted,
    _outer: Option<Mounted>,
    _unpacked: Option<FuseMount>,
}

impl Root for MountedRoot {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.root.dir().join(path))
    }
}

/// Mount the root in `image` below `run`.
pub(super) fn mount(image: &Path, run: &Path) -> Result<Box<dyn Root>, Failed> {
    let mut start = [0; 16];
    let file = File::open(image)?;
    let length = file.metadata()?.len();
    file.read_at(&mut start, 0)?;
    let (outer, unpacked) = if cloop::begins(&start) {
        let packed = file::File::new(file, length, image.display().to_string());
        let cloop = Cloop::open(Arc::new(packed)).map_err(Failed::Unpack)?;
        let dir = run.join("unpacked");
        fs::create_dir_all(&dir)?;
        let unpacked = FuseMount::mount(Arc::new(cloop), &dir, OsStr::new("image"))?;
        (mount_image(unpacked.path(), &run.join("root"))?, Some(unpacked))
    } else {
        (mount_image(image, &run.join("root"))?, None)
    };
    let nested = NESTED.iter().map(|path| outer.dir().join(path)).find(|path| path.exists());
    Ok(Box::new(match nested {
        Some(nested) => {
            let root = mount_image(&nested, &run.join("nested"))?;
            MountedRoot { root, _outer: Some(outer), _unpacked: unpacked }
        }
        None => MountedRoot { root: outer, _outer: None, _unpacked: unpacked },
    }))
}

/// Why a root is not mounted: what the kernel says, or we.
pub(super) enum Failed {
    Kernel(io::Error),
    Unpack(SourceError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

fn mount_image(image: &Path, dir: &Path) -> io::Result<Mounted> {
    let file = File::open(image)?;
    let has = |kind: &&Kind| {
        let mut mark = vec![0; kind.mark.len()];
        file.read_exact_at(&mut mark, kind.at).is_ok() && mark == kind.mark
    };
    let kind = KINDS
        .iter()
        .find(has)
        .ok_or_else(|| io::Error::other("it is neither squashfs, EROFS, ext4, ISO 9660 nor cloop"))?;
    drivers::load_module(kind.name);
    Mounted::mount(LoopDevice::attach(image, false)?, kind.name, dir, kind.options)
}
