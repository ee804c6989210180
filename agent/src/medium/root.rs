//! The target's root file system, mounted to take modules from. It is a squashfs or an EROFS on the CD, perhaps
//! with an ext4 image inside; or, on KNOPPIX, an ISO in a cloop image.

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

/// A file system that a root may be.
struct FileSystem {
    /// The kernel's name for it, and for its module.
    name: &'static str,
    /// The bytes by which it is recognised, and their offset.
    mark: &'static [u8],
    offset: u64,
    /// Mount options without which the kernel would write to the device.
    options: Option<&'static CStr>,
}

const FILE_SYSTEMS: [FileSystem; 4] = [
    FileSystem { name: "squashfs", mark: b"hsqs", offset: 0, options: None },
    FileSystem { name: "erofs", mark: &[0xe2, 0xe1, 0xf5, 0xe0], offset: 1024, options: None },
    FileSystem { name: "ext4", mark: &[0x53, 0xef], offset: 1080, options: Some(c"noload") },
    FileSystem { name: "iso9660", mark: b"CD001", offset: 32769, options: None },
];

/// Images inside the outer file system that are the root (dracut.cmdline(7), `rd.live.squashimg`).
pub(crate) const NESTED: [&str; 2] = ["LiveOS/rootfs.img", "LiveOS/ext3fs.img"];

/// A mounted root, and the mounts below it.
struct MountedRoot {
    // Field order is drop order.
    root: Mounted,
    _outer: Option<Mounted>,
    _unpacked: Option<FuseMount>,
}

impl Root for MountedRoot {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.root.dir().join(path))
    }
}

/// The reason why a root is not mounted.
pub(super) enum Failed {
    /// The kernel, or the image, says so.
    Kernel(io::Error),
    /// The cloop image cannot be unpacked.
    Unpack(SourceError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

/// Mounts the root in the file `image`, at directories below `run`.
pub(super) fn mount(image: &Path, run: &Path) -> Result<Box<dyn Root>, Failed> {
    let mut start = [0; 16];
    let file = File::open(image)?;
    let length = file.metadata()?.len();
    file.read_at(&mut start, 0)?;

    // The kernel has no driver for cloop: a FUSE file unpacks it.
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

/// Mounts the file system in the file `image` at `dir`.
fn mount_image(image: &Path, dir: &Path) -> io::Result<Mounted> {
    let file = File::open(image)?;
    let is_in_file = |system: &&FileSystem| {
        let mut mark = vec![0; system.mark.len()];
        file.read_exact_at(&mut mark, system.offset).is_ok() && mark == system.mark
    };
    let system = FILE_SYSTEMS
        .iter()
        .find(is_in_file)
        .ok_or_else(|| io::Error::other("it is neither squashfs, EROFS, ext4, ISO 9660 nor cloop"))?;

    drivers::load_module(system.name);
    Mounted::mount(LoopDevice::attach(image, false)?, system.name, dir, system.options)
}
