//! A disk that holds pieces across boots (`inetboot.cache=`). The layout is in
//! [`crate::formats::disk_layout`].
//!
//! It is a help, never a condition. Only a disk that was formatted for it is touched, and it is claimed
//! for as long as it is used. Each slot is compared with its digest. Once the disk fails it is not used
//! any more; how long it may take to fail is up to the kernel.

use crate::base::lock::lock;
use crate::base::{console, thread};
use crate::config::WantedDisk;
use crate::formats::disk_layout::{Entry, Id, Name, PAGE, Page, SLOT, SUPERBLOCK, Superblock};
use crate::machine::drivers;
use rustix::fs::{Advice, OFlags, fadvise};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time for a disk to show up: some spin up first.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);

/// Time to look at all disks: one may be dying.
const FOUND_WITHIN: Duration = Duration::from_secs(15);

/// Time for a disk that an earlier attempt has used to be let go.
const FREE_WITHIN: Duration = Duration::from_secs(3);

/// Bytes at either end of a disk where partition tables and file systems have their marks.
const ENDS: u64 = 1 << 20;

const SYS_CLASS_BLOCK: &str = "/sys/class/block";

/// Names of block devices that are no disks: reading one could wait for this program, or for a motor.
const NO_DISKS: [&str; 5] = ["loop", "ram", "zram", "fd", "sr"];

/// A disk with a cache on it.
#[derive(Debug)]
pub struct Disk {
    /// Open and claimed, until the disk is closed.
    file: Mutex<Option<Arc<File>>>,
    path: PathBuf,
    superblock: Superblock,
    /// One page is changed at a time.
    writing: Mutex<()>,
    failed: AtomicBool,
}

/// The reason why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No disk has that name or label.
    #[error("there is no disk with a cache {0}; inetbootctl cache format makes one")]
    Nowhere(WantedDisk),
    /// Something else is on it.
    #[error("{0} has no cache on it; inetbootctl cache format makes one, and deletes what is there")]
    Unformatted(PathBuf),
    /// Looking for it took too long.
    #[error("the disks do not answer within {} s", FOUND_WITHIN.as_secs())]
    Silent,
    #[error("{0} is smaller than it was when it was formatted")]
    Shrunk(PathBuf),
    #[error("cannot use {path} as a cache: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl Disk {
    /// Open the disk that is wanted, once its drivers are loaded and it is there; within a bound.
    pub fn find(wanted: &WantedDisk) -> Result<Self, DiskError> {
        let (sender, found) = channel();
        let wanted = wanted.clone();
        let look = move || {
            let path = wait_for(&wanted).ok_or_else(|| DiskError::Nowhere(wanted.clone()));
            // The caller may have given up.
            let _ = sender.send(path.and_then(|path| Self::open_when_free(&path)));
        };
        let started = thread::start("disk", look);
        started.map_err(|error| DiskError::Io { path: SYS_CLASS_BLOCK.into(), error })?;
        found.recv_timeout(FOUND_WITHIN).unwrap_or(Err(DiskError::Silent))
    }

    /// Open the cache at `path`, and wait a while where it is claimed: by an attempt to boot before this
    /// one, whose last read is still under way.
    fn open_when_free(path: &Path) -> Result<Self, DiskError> {
        let deadline = Instant::now() + FREE_WITHIN;
        loop {
            match Self::open(path) {
                Err(DiskError::Io { error, .. })
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(100));
                }
                opened => return opened,
            }
        }
    }

    /// Open the cache at `path`.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let path = path.to_owned();
        let named = |error| DiskError::Io { path: path.clone(), error };
        let mut options = OpenOptions::new();
        // A device is claimed: no program may format, mount or partition it meanwhile.
        let claimed = options.read(true).write(true).custom_flags(OFlags::EXCL.bits() as i32);
        let file = claimed.open(&path).map_err(named)?;
        let superblock = superblock(&file).map_err(named)?;
        let superblock = superblock.ok_or_else(|| DiskError::Unformatted(path.clone()))?;
        // Reading the last byte shows the length: a device's metadata has none.
        if file.read_exact_at(&mut [0], superblock.end() - 1).is_err() {
            return Err(DiskError::Shrunk(path));
        }
        let (file, failed) = (Mutex::new(Some(Arc::new(file))), AtomicBool::new(false));
        Ok(Self { file, path, superblock, writing: Mutex::new(()), failed })
    }

    /// Let the device go. Nothing is read or written any more.
    pub fn close(&self) {
        *lock(&self.file) = None;
    }

    fn file(&self) -> Option<Arc<File>> {
        lock(&self.file).clone().filter(|_| !self.failed.load(Ordering::Relaxed))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Make a cache called `label` on `file`, of `bytes` bytes. Its contents are lost.
    pub fn format(file: &File, id: Id, label: &str, bytes: u64) -> io::Result<Superblock> {
        let superblock = Superblock::new(id, label, bytes).map_err(io::Error::other)?;
        for end in Self::ends(bytes) {
            file.write_all_at(&vec![0; (end.end - end.start) as usize], end.start)?;
        }
        for number in 0..superblock.buckets() {
            file.write_all_at(&[0; PAGE], superblock.page(number))?;
        }
        file.write_all_at(&superblock.encode(), SUPERBLOCK)?;
        file.sync_all()?;
        Ok(superblock)
    }

    /// The parts of a disk of `bytes` bytes where partition tables and file systems have their marks.
    pub fn ends(bytes: u64) -> [Range<u64>; 2] {
        [0..ENDS.min(bytes), bytes.saturating_sub(ENDS)..bytes]
    }

    /// The number of slots in use.
    pub fn used(&self) -> io::Result<u64> {
        let file = self.file().ok_or(io::ErrorKind::NotConnected)?;
        (0..self.superblock.buckets()).map(|number| Ok(self.page(&file, number)?.1.used() as u64)).sum()
    }

    /// The piece called `piece`, of `size` bytes, as it was put there.
    pub fn get(&self, piece: &str, size: u64) -> Option<Vec<u8>> {
        let file = self.file()?;
        let mut bytes = Vec::with_capacity(size as usize);
        for (part, length) in parts(size) {
            let read = self.entry(&file, &Name::of(piece, part)).and_then(|found| match found {
                Some((page, entry)) if entry.length as u64 == length => slot(&file, page, &entry),
                _ => Ok(None),
            });
            match read {
                Ok(Some(part)) => bytes.extend(part),
                Ok(None) => return None,
                Err(error) => {
                    self.lay_aside(&error);
                    return None;
                }
            }
        }
        Some(bytes)
    }

    /// Store `bytes` as the piece called `piece`.
    pub fn put(&self, piece: &str, bytes: &[u8]) {
        let Some(file) = self.file() else { return };
        let _one = lock(&self.writing);
        for (part, contents) in (0..).zip(bytes.chunks(SLOT as usize)) {
            if let Err(error) = self.write(&file, &Name::of(piece, part), contents) {
                self.lay_aside(&error);
                return;
            }
        }
    }

    /// Wait until everything that was put is on the disk.
    pub fn flush(&self) {
        if let Some(Err(error)) = self.file().map(|file| file.sync_data()) {
            self.lay_aside(&error);
        }
    }

    fn write(&self, file: &File, name: &Name, contents: &[u8]) -> io::Result<()> {
        let (page, mut entries) = self.page(file, self.superblock.bucket(name))?;
        let slot = entries.give(name, contents);
        file.write_all_at(contents, Superblock::slot(page, slot))?;
        file.write_all_at(entries.bytes(), page)
    }

    fn page(&self, file: &File, number: u64) -> io::Result<(u64, Page)> {
        let page = self.superblock.page(number);
        let mut bytes = vec![0; PAGE];
        file.read_exact_at(&mut bytes, page)?;
        Ok((page, Page::new(bytes)))
    }

    fn entry(&self, file: &File, name: &Name) -> io::Result<Option<(u64, Entry)>> {
        let (page, entries) = self.page(file, self.superblock.bucket(name))?;
        Ok(entries.find(name).map(|entry| (page, entry)))
    }

    fn lay_aside(&self, error: &io::Error) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            console::say_loud(&format!("going on without the cache on {}: {error}", self.path.display()));
        }
    }
}

/// The contents of a slot, where they are right.
fn slot(file: &File, page: u64, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
    let offset = Superblock::slot(page, entry.slot);
    let mut bytes = vec![0; entry.length];
    file.read_exact_at(&mut bytes, offset)?;
    // They will be in the kernel's cache once more, as a part of the image.
    let _ = fadvise(file, offset, NonZeroU64::new(SLOT), Advice::DontNeed);
    Ok((*Sha256::digest(&bytes) == entry.digest).then_some(bytes))
}

/// The parts of a piece of `size` bytes, and how long each is.
fn parts(size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(SLOT)).map(move |part| (part, SLOT.min(size - part * SLOT)))
}

/// The superblock of a disk, if it has one.
fn superblock(file: &File) -> io::Result<Option<Superblock>> {
    let mut bytes = vec![0; PAGE];
    match file.read_exact_at(&mut bytes, SUPERBLOCK) {
        Ok(()) => Ok(Superblock::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path of the disk that is wanted.
fn find(wanted: &WantedDisk) -> Option<PathBuf> {
    let first = |matches: &dyn Fn(&Superblock) -> bool| {
        let names = fs::read_dir(SYS_CLASS_BLOCK)
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let disks = names.filter(|name| !NO_DISKS.iter().any(|kind| name.starts_with(kind)));
        disks.map(|name| Path::new("/dev").join(name)).find(|path| {
            let found = File::open(path).and_then(|file| superblock(&file));
            found.is_ok_and(|found| found.is_some_and(|found| matches(&found)))
        })
    };
    match wanted {
        WantedDisk::File(path) | WantedDisk::Device(path) => path.exists().then(|| path.clone()),
        WantedDisk::Label(label) => first(&|found| found.label == *label),
        WantedDisk::Known(id) => first(&|found| found.id == *id),
    }
}

/// Load the drivers of disks, and wait a while until the one that is wanted is there.
fn wait_for(wanted: &WantedDisk) -> Option<PathBuf> {
    let deadline = Instant::now() + APPEARS_WITHIN;
    loop {
        // On a desk the system has done that.
        if !matches!(wanted, WantedDisk::File(_)) {
            drivers::load_disk_drivers();
        }
        match find(wanted) {
            None if Instant::now() < deadline && !matches!(wanted, WantedDisk::File(_)) => {
                std::thread::sleep(Duration::from_millis(100));
            }
            found => return found,
        }
    }
}

/// The device in sysfs behind a disk or a partition, for [`drivers::device_chain`].
pub fn sysfs(path: &Path) -> Option<PathBuf> {
    let dir = fs::canonicalize(Path::new(SYS_CLASS_BLOCK).join(path.file_name()?)).ok()?;
    [dir.clone(), dir.parent()?.to_owned()].into_iter().find(|dir| dir.join("device").exists())
}
