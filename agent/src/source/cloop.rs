//! A compressed image of KNOPPIX: cloop, versions 2 and 4 (`cloop.h` of the package cloop-src).
//!
//! ```text
//! 128 bytes of a shell script, with V2.0 or V4.0 at byte 11 | block size | number of blocks
//! an offset for each block and for the end; in version 4 its upper four bits are the packing
//! the blocks
//! ```
//!
//! All numbers are big-endian. Version 4 may have all but the blocks at the file's end instead.

use crate::base::lock::lock;
use crate::source::Source;
use crate::source::fault::SourceError;
use flate2::{Decompress, FlushDecompress, Status};
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex};

/// Bytes of the head: the script, and two numbers.
const HEAD: u64 = 128 + 8;

/// The place of the version in the head.
const VERSION: std::ops::Range<usize> = 11..15;

/// The largest block that is believed; real ones have 64 KiB, or 128.
const LARGEST_BLOCK: u32 = 16 << 20;

/// The lower bits of an offset of version 4.
const OFFSET: u64 = u64::MAX >> 4;

/// The reason why a file is no cloop image, or why a block of it is lost.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloopError {
    /// Neither its beginning nor its end is a head.
    #[error("it is no cloop image of version 2 or 4")]
    NoHead,
    #[error("its head says {blocks} blocks of {size} bytes")]
    Head { blocks: u32, size: u32 },
    #[error("its table says that block {0} ends before it begins, or behind the file")]
    Table(usize),
    #[error("block {block} is packed with {packing}, which is not supported")]
    Packing { block: usize, packing: &'static str },
    #[error("block {0} is damaged")]
    Damaged(usize),
}

/// The two numbers of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    version: u8,
    size: u32,
    blocks: u32,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let version = match bytes.get(VERSION)? {
            b"V2.0" => 2,
            b"V4.0" => 4,
            _ => return None,
        };
        Some(Self { version, size: number(128)?, blocks: number(132)? })
    }
}

/// True for the beginning of a cloop image with its head in front.
pub fn begins(start: &[u8]) -> bool {
    start.get(VERSION).is_some_and(|version| matches!(version, b"V2.0" | b"V4.0"))
}

/// A cloop image, as the bytes that are packed in it.
pub struct Cloop {
    base: Arc<dyn Source>,
    head: Head,
    /// The offset of each block in the file and its packing; one more for the end.
    table: Vec<u64>,
    /// The block that was read last: readers go on where they were.
    last: Mutex<Option<(usize, Arc<[u8]>)>>,
}

impl Cloop {
    /// Open the image in `base`.
    pub fn open(base: Arc<dyn Source>) -> Result<Self, SourceError> {
        let failed = |error| SourceError::Cloop { name: base.to_string(), error };
        let length = base.len();
        let mut bytes = [0; HEAD as usize];
        let mut head_at = |at: u64| -> Result<Option<Head>, SourceError> {
            if length < HEAD {
                return Ok(None);
            }
            base.read_at(at, &mut bytes)?;
            Ok(Head::parse(&bytes))
        };

        let (head, in_front) = match head_at(0)? {
            Some(head) => (head, true),
            None => (head_at(length.saturating_sub(HEAD))?.ok_or_else(|| failed(CloopError::NoHead))?, false),
        };
        let Head { size, blocks, .. } = head;
        let table_bytes = (u64::from(blocks) + 1) * 8;
        if size == 0 || size > LARGEST_BLOCK || table_bytes + HEAD > length {
            return Err(failed(CloopError::Head { blocks, size }));
        }

        let mut table = vec![0; table_bytes as usize];
        base.read_at(if in_front { HEAD } else { length - HEAD - table_bytes }, &mut table)?;
        let table: Vec<u64> = table
            .chunks_exact(8)
            .map(|bytes| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
            .collect();

        // A reader believes the table from here on, so all of it is checked once.
        let offset = |entry: u64| if head.version == 2 { entry } else { entry & OFFSET };
        // A packed block is hardly longer than the block.
        let longest = 2 * u64::from(size) + 1024;
        let wrong = table.windows(2).position(|pair| {
            let (start, end) = (offset(pair[0]), offset(pair[1]));
            end < start || end > length || end - start > longest
        });
        match wrong {
            Some(block) => Err(failed(CloopError::Table(block))),
            None => Ok(Self { base, head, table, last: Mutex::new(None) }),
        }
    }

    fn block(&self, number: usize) -> Result<Arc<[u8]>, SourceError> {
        if let Some((last, bytes)) = &*lock(&self.last)
            && *last == number
        {
            return Ok(Arc::clone(bytes));
        }
        let failed = |error| SourceError::Cloop { name: self.base.to_string(), error };
        let (Some(entry), Some(end)) = (self.table.get(number), self.table.get(number + 1)) else {
            return Err(failed(CloopError::Table(number)));
        };

        let (packing, start) =
            if self.head.version == 2 { (0, *entry) } else { (entry >> 60, entry & OFFSET) };
        let mut packed = vec![0; (end & OFFSET).saturating_sub(start) as usize];
        self.base.read_at(start, &mut packed)?;
        let bytes: Arc<[u8]> = unpack(number, packing, packed, self.head.size).map_err(failed)?.into();
        *lock(&self.last) = Some((number, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

/// The `size` bytes of a block; the last one may be shorter in version 2, and then is filled up.
fn unpack(block: usize, packing: u64, packed: Vec<u8>, size: u32) -> Result<Vec<u8>, CloopError> {
    let damaged = || CloopError::Damaged(block);
    let mut bytes = Vec::with_capacity(size as usize);
    match packing {
        0 => {
            let mut zlib = Decompress::new(true);
            let status = zlib.decompress_vec(&packed, &mut bytes, FlushDecompress::Finish);
            if !matches!(status, Ok(Status::StreamEnd)) {
                return Err(damaged());
            }
        }
        1 => bytes = packed,
        2 => {
            let xz = lzma_rust2::XzReader::new(packed.as_slice(), false);
            xz.take(size.into()).read_to_end(&mut bytes).map_err(|_| damaged())?;
        }
        other => {
            let packing = match other {
                3 => "lz4",
                4 => "lzo",
                _ => "something unknown",
            };
            return Err(CloopError::Packing { block, packing });
        }
    }
    if bytes.len() > size as usize {
        return Err(damaged());
    }
    bytes.resize(size as usize, 0);
    Ok(bytes)
}

impl fmt::Display for Cloop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { version, size, blocks } = self.head;
        write!(f, "{} (cloop version {version}, {blocks} blocks of {size} bytes)", self.base)
    }
}

impl Source for Cloop {
    fn len(&self) -> u64 {
        u64::from(self.head.size) * u64::from(self.head.blocks)
    }

    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), SourceError> {
        let size = u64::from(self.head.size);
        while !buffer.is_empty() {
            let block = self.block((offset / size) as usize)?;
            let from = &block[(offset % size) as usize..];
            let (now, later) = buffer.split_at_mut(from.len().min(buffer.len()));
            now.copy_from_slice(&from[..now.len()]);
            offset += now.len() as u64;
            buffer = later;
        }
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.base.trouble()
    }
}
