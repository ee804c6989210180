//! `inetbootctl cache`: makes and shows disks that keep pieces of images across boots.

use crate::base::console::size;
use crate::desk::Say;
use crate::formats::disk_layout::{Id, SLOT};
use crate::source::disk::Disk;
use anyhow::{Context, ensure};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Makes a cache on the disk, the partition or the file at `path`.
///
/// # Errors
/// It is in use, or it is not empty and `force` is not given.
pub fn format(path: &Path, label: &str, force: bool, say: &Say) -> anyhow::Result<()> {
    let named = || format!("opening {}", path.display());
    // For a block device this fails while it is mounted, or in use by another cache.
    let exclusive = OFlags::EXCL.bits() as i32;
    let mut file =
        OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path).with_context(named)?;
    let bytes = file.seek(SeekFrom::End(0)).with_context(named)?;
    ensure!(
        force || is_empty(&file, bytes).with_context(named)?,
        "{} is not empty, and all that is on it would be lost; --force does it",
        path.display()
    );

    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id).context("reading /dev/urandom")?;
    let superblock = Disk::format(&file, Id(id), label, bytes)
        .with_context(|| format!("formatting {}", path.display()))?;

    say(&format!(
        "{}: a cache for {} of images, called {label}",
        path.display(),
        size(superblock.capacity())
    ));
    say(&format!("inetboot.cache=LABEL={label}"));
    Ok(())
}

/// Looks at both ends alone, which hold the marks of file systems and partition tables.
fn is_empty(file: &File, bytes: u64) -> std::io::Result<bool> {
    for end in Disk::ends(bytes) {
        let mut found = vec![0; (end.end - end.start) as usize];
        file.read_exact_at(&mut found, end.start)?;
        if found.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Shows the name of a cache, and how full it is.
pub fn info(path: &Path, say: &Say) -> anyhow::Result<()> {
    let disk = Disk::open(path)?;
    let (superblock, used) = (disk.superblock(), disk.used()?);
    say(&format!("label: {}", superblock.label));
    say(&format!("id: {}", superblock.id));
    say(&format!(
        "used: {used} of {} slots of {} ({} %)",
        superblock.slots(),
        size(SLOT),
        used * 100 / superblock.slots()
    ));
    Ok(())
}
