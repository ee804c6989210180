//! Pieces that are kept beyond their use: on a disk for the next boot, or in memory until the end of
//! this one. What is at hand is not fetched again.

use crate::base::lock::lock;
use crate::formats::pieces::{Pieces, hex};
use crate::machine::memfd;
use crate::source::cache::Supply;
use crate::source::disk::Disk;
use crate::source::fault::SourceError;
use crate::source::mirrors::{Deliver, Mirrors};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Bytes of pieces that may wait for a slow disk; what comes then is not kept.
const QUEUE: u64 = 16 << 20;

/// How long the disk may take to write them when we leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);

/// Bytes asked for at once in the background.
const STRETCH: u64 = 4 << 20;

/// The mirrors, and what is kept of what they gave.
#[derive(Debug)]
pub struct Kept {
    mirrors: Arc<Mirrors>,
    keep: Option<Keep>,
    /// Bytes that did not have to be fetched.
    spared: AtomicU64,
}

#[derive(Debug)]
enum Keep {
    Disk(OnDisk),
    Memory(InMemory),
}

/// How much of the image came to be at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Localised {
    /// `in memory`, `on /dev/sda`
    pub place: String,
    /// Pieces that are not there.
    pub missing: u64,
}

impl Kept {
    /// Nothing is kept.
    pub fn nothing(mirrors: Arc<Mirrors>) -> Self {
        Self { mirrors, keep: None, spared: AtomicU64::new(0) }
    }

    /// Keep on `disk`. `identity` says which image this is where its pieces have no digests.
    pub fn on_disk(mirrors: Arc<Mirrors>, disk: Disk, identity: String) -> io::Result<Self> {
        let keep = Keep::Disk(OnDisk::new(mirrors.pieces(), disk, identity)?);
        Ok(Self { keep: Some(keep), ..Self::nothing(mirrors) })
    }

    /// Keep in memory.
    pub fn in_memory(mirrors: Arc<Mirrors>) -> io::Result<Self> {
        let keep = Keep::Memory(InMemory::new(mirrors.pieces().count())?);
        Ok(Self { keep: Some(keep), ..Self::nothing(mirrors) })
    }

    /// Those who have the image.
    pub fn mirrors(&self) -> &Arc<Mirrors> {
        &self.mirrors
    }

    /// The disk that keeps it.
    pub fn disk(&self) -> Option<&Disk> {
        match &self.keep {
            Some(Keep::Disk(on_disk)) => Some(&on_disk.disk),
            Some(Keep::Memory(_)) | None => None,
        }
    }

    /// Bytes that did not have to be fetched.
    pub fn spared(&self) -> u64 {
        self.spared.load(Ordering::Relaxed)
    }

    /// Wait, for a while, until all that waits for the disk is on it.
    pub fn settle(&self) {
        if let Some(Keep::Disk(on_disk)) = &self.keep {
            on_disk.settle();
        }
    }

    /// Fetch all that is not at hand, and say how that ended; nothing where nothing is kept. At hand is
    /// what was read and found right.
    pub fn localise(&self) -> Result<Option<Localised>, SourceError> {
        let Some(keep) = &self.keep else { return Ok(None) };
        let pieces = self.mirrors.pieces();
        let stretch = (STRETCH / pieces.usual_size()).max(1);
        for start in (0..pieces.count()).step_by(stretch as usize) {
            let end = (start + stretch).min(pieces.count());
            for run in keep.missing(pieces, start..end, &mut |_, _| {}) {
                self.mirrors.fetch(run, &mut |number, piece| keep.put(pieces, number, &piece))?;
            }
        }
        self.settle();
        let missing = keep.missing(pieces, 0..pieces.count(), &mut |_, _| {});
        let missing = missing.iter().map(|run| run.end - run.start).sum();
        Ok(Some(match keep {
            Keep::Memory(_) => Localised { place: "in memory".into(), missing },
            Keep::Disk(on_disk) => {
                Localised { place: format!("on {}", on_disk.disk.path().display()), missing }
            }
        }))
    }
}

impl Supply for Kept {
    fn pieces(&self) -> &Pieces {
        self.mirrors.pieces()
    }

    fn fetch(&self, run: Range<u64>, deliver: Deliver<'_>) -> Result<(), SourceError> {
        let Some(keep) = &self.keep else { return self.mirrors.fetch(run, deliver) };
        let pieces = self.mirrors.pieces();
        // What is at hand does not wait for what is not.
        let missing = keep.missing(pieces, run, &mut |number, piece| {
            self.spared.fetch_add(piece.len() as u64, Ordering::Relaxed);
            deliver(number, piece.into());
        });
        missing.into_iter().try_for_each(|run| {
            self.mirrors.fetch(run, &mut |number, piece| {
                // First: who has read all of it may leave at once.
                keep.put_soon(pieces, number, &piece);
                deliver(number, piece);
            })
        })
    }

    fn trouble(&self) -> Option<String> {
        self.mirrors.trouble()
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mirrors.fmt(f)
    }
}

impl Keep {
    /// The pieces of `run` that are not at hand; those that are, and are right, go to `at_hand`.
    fn missing(
        &self,
        pieces: &Pieces,
        run: Range<u64>,
        at_hand: &mut dyn FnMut(u64, Vec<u8>),
    ) -> Vec<Range<u64>> {
        let mut missing: Vec<Range<u64>> = Vec::new();
        for number in run {
            match self.get(pieces, number).filter(|piece| pieces.accept(number, piece)) {
                Some(piece) => at_hand(number, piece),
                None => match missing.last_mut() {
                    Some(run) if run.end == number => run.end += 1,
                    _ => missing.push(number..number + 1),
                },
            }
        }
        missing
    }

    fn get(&self, pieces: &Pieces, number: u64) -> Option<Vec<u8>> {
        match self {
            Self::Disk(on_disk) => on_disk.disk.get(&on_disk.name(pieces, number), pieces.size(number)),
            Self::Memory(in_memory) => in_memory.get(pieces, number),
        }
    }

    /// Keep it, however long that takes.
    fn put(&self, pieces: &Pieces, number: u64, piece: &[u8]) {
        match self {
            Self::Disk(on_disk) => on_disk.disk.put(&on_disk.name(pieces, number), piece),
            Self::Memory(in_memory) => in_memory.put(pieces, number, piece),
        }
    }

    /// Keep it if that needs no waiting.
    fn put_soon(&self, pieces: &Pieces, number: u64, piece: &Arc<[u8]>) {
        match self {
            // What finds no room in the queue is fetched again at the next boot, no more.
            Self::Disk(on_disk) => {
                let _ = on_disk.writer.try_send(Write::Put(on_disk.name(pieces, number), Arc::clone(piece)));
            }
            Self::Memory(in_memory) => in_memory.put(pieces, number, piece),
        }
    }
}

/// On a disk; written by a thread of its own, for a disk may be slower than the network.
#[derive(Debug)]
struct OnDisk {
    disk: Arc<Disk>,
    identity: String,
    writer: SyncSender<Write>,
}

enum Write {
    Put(String, Arc<[u8]>),
    Settle(Sender<()>),
}

impl OnDisk {
    fn new(pieces: &Pieces, disk: Disk, identity: String) -> io::Result<Self> {
        let disk = Arc::new(disk);
        let (writer, offered) = sync_channel((QUEUE / pieces.usual_size()).max(1) as usize);
        let writing = Arc::clone(&disk);
        std::thread::Builder::new().name("keep".into()).spawn(move || write(&writing, &offered))?;
        Ok(Self { disk, identity, writer })
    }

    /// What piece `number` is called among all pieces of all images: by its digest, where it has one,
    /// for it is then the same in every image.
    fn name(&self, pieces: &Pieces, number: u64) -> String {
        match pieces.digest(number) {
            Some((algorithm, digest)) => format!("{} {}", algorithm.name(), hex(digest)),
            None => format!("{} piece {number}", self.identity),
        }
    }

    fn settle(&self) {
        let deadline = Instant::now() + LEAVE_WITHIN;
        let (sender, settled) = channel();
        // A disk that takes longer loses what it has not written: a help, not a condition.
        while let Err(TrySendError::Full(_)) = self.writer.try_send(Write::Settle(sender.clone())) {
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = settled.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write(disk: &Disk, offered: &Receiver<Write>) {
    for job in offered {
        match job {
            Write::Put(piece, bytes) => disk.put(&piece, &bytes),
            Write::Settle(done) => {
                disk.flush();
                // Whoever waited may have gone.
                let _ = done.send(());
            }
        }
    }
}

/// In a file in memory, as long as the image, with holes where nothing is yet.
#[derive(Debug)]
struct InMemory {
    file: File,
    here: Mutex<Vec<bool>>,
}

impl InMemory {
    fn new(count: u64) -> io::Result<Self> {
        Ok(Self { file: memfd::file("image")?, here: Mutex::new(vec![false; count as usize]) })
    }

    fn has(&self, number: u64) -> bool {
        lock(&self.here).get(number as usize).copied().unwrap_or(false)
    }

    fn get(&self, pieces: &Pieces, number: u64) -> Option<Vec<u8>> {
        if !self.has(number) {
            return None;
        }
        let mut piece = vec![0; pieces.size(number) as usize];
        self.file.read_exact_at(&mut piece, pieces.bytes(number..number + 1).start).ok()?;
        Some(piece)
    }

    fn put(&self, pieces: &Pieces, number: u64, piece: &[u8]) {
        let written = self.file.write_all_at(piece, pieces.bytes(number..number + 1).start);
        if let (Ok(()), Some(here)) = (written, lock(&self.here).get_mut(number as usize)) {
            *here = true;
        }
    }
}
