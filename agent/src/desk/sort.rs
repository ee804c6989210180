//! `inetbootctl profile sort`: turns the order in which a boot read an image into the order in which mksquashfs
//! should write the next one, so that a boot reads that from the beginning on. (HTTP-FUSE CLOOP had
//! ext2optimizer for this.)

use crate::base::console::size;
use crate::desk::Say;
use crate::desk::image::read_index;
use crate::formats::pieces::Pieces;
use crate::formats::profile::Profile;
use anyhow::{Context, ensure};
use backhand::{FilesystemReader, InnerNode, SquashfsFileReader};
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The superblock of a squashfs: its magic number, and where its version and the length of the file system stand
/// (kernel: `fs/squashfs/squashfs_fs.h`).
const MAGIC: &[u8] = b"hsqs";
const VERSION: std::ops::Range<usize> = 28..32;
const LENGTH: std::ops::Range<usize> = 40..48;
const SUPERBLOCK: usize = 96;

/// Files of an ISO begin at multiples of this many bytes.
const SECTOR: u64 = 2048;

/// The highest priority of mksquashfs, which writes files of higher priority first.
const HIGHEST: usize = 32767;

/// The fragment number of a file without one.
const NONE: usize = u32::MAX as usize;

/// Writes to `out` the lines of mksquashfs's sort file, for the files of the squashfs in `iso` that the boot of
/// `profile` read. If that boot read by an index, so that its pieces are those of the index, `index` names it.
pub fn sort(profile: &Path, iso: &Path, index: Option<&Path>, out: &Say, say: &Say) -> anyhow::Result<()> {
    let file = File::open(iso).with_context(|| format!("opening {}", iso.display()))?;
    let length = file.metadata()?.len();

    // The rank of each piece: its place in the order in which the boot read them.
    let pieces = match index {
        None => Pieces::unknown(length),
        Some(path) => read_index(path)?.1.pieces,
    };
    let text = fs::read_to_string(profile).with_context(|| format!("reading {}", profile.display()))?;
    let profile = Profile::decode(&text, pieces.count())
        .with_context(|| format!("{} is not a profile of {} (--index?)", profile.display(), iso.display()))?;
    let order: Vec<u64> = profile.runs.iter().cloned().flatten().collect();
    let mut rank = vec![usize::MAX; pieces.count() as usize];
    for (place, number) in order.iter().enumerate().rev() {
        if let Some(rank) = rank.get_mut(*number as usize) {
            *rank = place;
        }
    }

    let start = find(&file, length)?.with_context(|| format!("{} has no squashfs in it", iso.display()))?;
    let reader = FilesystemReader::from_reader_with_offset(BufReader::new(&file), start)
        .with_context(|| format!("reading the squashfs of {}", iso.display()))?;

    // The rank of each file: the lowest of its pieces.
    let mut read = Vec::new();
    let mut all = 0;
    for node in reader.files() {
        let InnerNode::File(inside) = &node.inner else { continue };
        all += 1;
        let touched = extents(inside, &reader).into_iter().flat_map(|(at, bytes)| {
            let first = pieces.at(start + at);
            first..=pieces.at(start + at + bytes.max(1) - 1)
        });
        let first = touched.filter_map(|number| rank.get(number as usize)).min().copied();
        if let Some(first) = first.filter(|first| *first != usize::MAX) {
            read.push((first, node.fullpath.clone()));
        }
    }
    ensure!(!read.is_empty(), "no file of the squashfs lies in the pieces that were read");

    read.sort();
    for (place, (_, path)) in read.iter().enumerate() {
        let priority = HIGHEST - place * (HIGHEST - 1) / read.len();
        let path = path.strip_prefix("/").unwrap_or(path).display().to_string();
        out(&format!("{} {priority}", path.replace('\\', "\\\\").replace(' ', "\\ ")));
    }
    let bytes: u64 = order.iter().map(|number| pieces.size(*number)).sum();
    say(&format!("{} of {all} files lie in the {} that were read", read.len(), size(bytes)));
    Ok(())
}

/// The offset of the largest squashfs in the image.
fn find(image: &File, length: u64) -> anyhow::Result<Option<u64>> {
    let mut found: Option<(u64, u64)> = None;
    let mut at = 0;
    let mut superblock = [0; SUPERBLOCK];
    while at + SUPERBLOCK as u64 <= length {
        image.read_exact_at(&mut superblock, at)?;
        let mut next = at + SECTOR;
        let bytes = superblock[LENGTH].try_into().map(u64::from_le_bytes).unwrap_or(0);
        let is_one = superblock.starts_with(MAGIC) && superblock[VERSION] == [4, 0, 0, 0];
        if is_one && bytes > 0 && bytes <= length - at {
            if found.is_none_or(|(largest, _)| bytes > largest) {
                found = Some((bytes, at));
            }
            next = at + bytes.next_multiple_of(SECTOR);
        }
        at = next;
    }
    Ok(found.map(|(_, at)| at))
}

/// Offsets and lengths of a file's data in the squashfs: its blocks, one after the other, and its fragment.
fn extents(file: &SquashfsFileReader, squashfs: &FilesystemReader<'_>) -> Vec<(u64, u64)> {
    let mut extents = Vec::new();
    let blocks: u64 = file.block_sizes().iter().map(|block| u64::from(block.size())).sum();
    if blocks > 0 {
        extents.push((file.blocks_start(), blocks));
    }
    if file.frag_index() != NONE
        && let Some(fragment) = squashfs.fragments.as_ref().and_then(|all| all.get(file.frag_index()))
    {
        extents.push((fragment.start, u64::from(fragment.size.size())));
    }
    extents
}
