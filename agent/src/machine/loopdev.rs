//! Loop devices on our own files, and the file systems on them.

use crate::sys::loopctl;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Two processes may be offered the same free device. The loser tries the next, so many times.
const TRIES: usize = 8;

/// A file attached to a loop device. Dropping it detaches the file, once nothing is mounted from it.
#[derive(Debug)]
pub struct LoopDevice {
    path: String,
    /// The kernel detaches the file when the last user closes the device, however this process ends.
    _open: File,
}

impl LoopDevice {
    /// Attaches `file`, read-only. `direct` reads it past the page cache, if its file system can.
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

    /// Sets how far the kernel reads ahead of a sequential reader.
    pub fn set_read_ahead(&self, kib: u32) {
        let name = self.path.trim_start_matches("/dev/");
        // If it fails, reading is slower and works all the same.
        let _ = fs::write(format!("/sys/block/{name}/queue/read_ahead_kb"), kib.to_string());
    }
}

/// A file system on a loop device. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    _device: LoopDevice,
}

impl Mounted {
    /// Mounts `device` read-only at `dir`, which is made if need be. `kind` names the file system, and
    /// `options` are its own.
    pub fn mount(device: LoopDevice, kind: &str, dir: &Path, options: Option<&CStr>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(device.path(), dir, kind, flags, options)?;
        Ok(Self { dir: dir.to_owned(), _device: device })
    }

    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Detached at once, and freed by the kernel when its last open file is closed.
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
    }
}
