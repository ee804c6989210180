//! Loop devices on files of ours, and file systems on those.

use crate::sys::loopctl;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Two processes may be given the same free device; the loser asks again.
const TRIES: usize = 8;

/// A file attached to a loop device, let go when this is dropped and nothing is mounted.
#[derive(Debug)]
pub struct LoopDevice {
    path: String,
    /// The device is kept by being open, and only by that: whatever ends this process ends it.
    _open: File,
}

impl LoopDevice {
    /// Attach `file`, read-only; `direct` past the page cache.
    pub fn attach(file: &Path, direct: bool) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let backing = File::open(file)?;
        let mut tries = 0;
        loop {
            let path = format!("/dev/loop{}", loopctl::free(&control)?);
            let device = File::open(&path)?;
            match loopctl::configure(&device, backing.as_fd(), direct) {
                Ok(()) => return Ok(Self { path, _open: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// `/dev/loop0`
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How much the kernel reads ahead of a sequential reader.
    pub fn set_read_ahead(&self, kib: u32) {
        let name = self.path.trim_start_matches("/dev/");
        // Only a matter of speed.
        let _ = fs::write(format!("/sys/block/{name}/queue/read_ahead_kb"), kib.to_string());
    }
}

/// A file system on a device, unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    _device: LoopDevice,
}

impl Mounted {
    /// Mount the file system `kind` on `device` at `dir`, which is made if need be, read-only and with
    /// the file system's own `options`.
    pub fn mount(device: LoopDevice, kind: &str, dir: &Path, options: Option<&CStr>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(device.path(), dir, kind, flags, options)?;
        Ok(Self { dir: dir.to_owned(), _device: device })
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Somebody still in there keeps it; nobody else is in our initramfs.
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
    }
}
