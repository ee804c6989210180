//! Stores of pieces, which outlive their stay in the cache: on a disk for the next boot, or in memory
//! until the end of this one. Pieces in a store are not fetched again.

use crate::base::lock::lock;
use crate::base::thread;
use crate::formats::pieces::{Pieces, hex};
use crate::machine::memfd;
use crate::source::disk::Disk;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes of pieces that may wait for a slow disk. Pieces that arrive then are not stored.
const QUEUE: u64 = 16 << 20;

/// Time for the disk to write them at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(20);

/// A store of the pieces of one image. It is a help: what it has lost or has wrong is fetched again, so
/// the caller checks each piece that it gives.
pub trait PieceStore: Debug + Send + Sync {
    /// `in memory`, `on /dev/sda`
    fn name(&self) -> String;

    /// Piece `number`, where it is there.
    fn get(&self, pieces: &Pieces, number: u64) -> Option<Vec<u8>>;

    /// Store piece `number`, however long that takes.
    fn put(&self, pieces: &Pieces, number: u64, bytes: &[u8]);

    /// Store piece `number` if that needs no waiting.
    fn offer(&self, pieces: &Pieces, number: u64, bytes: &Arc<[u8]>);

    /// Wait, for a while, until everything offered is stored.
    fn flush(&self);

    /// Let the device go, even while a request still refers to the store.
    fn close(&self);

    /// The disk, of a store on one.
    fn disk(&self) -> Option<&Disk>;
}

/// A store on a disk. A thread of its own writes: the disk may be slower than the network.
#[derive(Debug)]
pub struct DiskStore {
    disk: Arc<Disk>,
    identity: String,
    writer: SyncSender<Job>,
}

enum Job {
    Put(String, Arc<[u8]>),
    Flush(Sender<()>),
}

impl DiskStore {
    /// A store of `pieces` on `disk`. `identity` names the image where its pieces have no digests.
    pub fn new(pieces: &Pieces, disk: Disk, identity: String) -> io::Result<Self> {
        let disk = Arc::new(disk);
        let (writer, jobs) = sync_channel((QUEUE / pieces.usual_size()).max(1) as usize);
        let writing = Arc::clone(&disk);
        thread::start("store", move || write(&writing, &jobs))?;
        Ok(Self { disk, identity, writer })
    }

    /// The name of a piece among all pieces of all images: its digest, where it has one, for a piece with
    /// that digest is the same in every image.
    fn piece_name(&self, pieces: &Pieces, number: u64) -> String {
        match pieces.digest(number) {
            Some((algorithm, digest)) => format!("{} {}", algorithm.name(), hex(digest)),
            None => format!("{} piece {number}", self.identity),
        }
    }
}

impl PieceStore for DiskStore {
    fn name(&self) -> String {
        format!("on {}", self.disk.path().display())
    }

    fn get(&self, pieces: &Pieces, number: u64) -> Option<Vec<u8>> {
        self.disk.get(&self.piece_name(pieces, number), pieces.size(number))
    }

    fn put(&self, pieces: &Pieces, number: u64, bytes: &[u8]) {
        self.disk.put(&self.piece_name(pieces, number), bytes);
    }

    fn offer(&self, pieces: &Pieces, number: u64, bytes: &Arc<[u8]>) {
        // A piece that finds no room in the queue is fetched again at the next boot, no more.
        let _ = self.writer.try_send(Job::Put(self.piece_name(pieces, number), Arc::clone(bytes)));
    }

    fn flush(&self) {
        let deadline = Instant::now() + FLUSH_WITHIN;
        let (sender, flushed) = channel();
        // A disk that takes longer loses what it has not written: a help, not a condition.
        while let Err(TrySendError::Full(_)) = self.writer.try_send(Job::Flush(sender.clone())) {
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    fn close(&self) {
        self.disk.close();
    }

    fn disk(&self) -> Option<&Disk> {
        Some(&self.disk)
    }
}

fn write(disk: &Disk, jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Put(piece, bytes) => disk.put(&piece, &bytes),
            Job::Flush(done) => {
                disk.flush();
                // The caller may have given up.
                let _ = done.send(());
            }
        }
    }
}

/// A store in a file in memory, as long as the image, with holes where pieces are missing.
#[derive(Debug)]
pub struct MemoryStore {
    file: File,
    present: Mutex<Vec<bool>>,
}

impl MemoryStore {
    pub fn new(pieces: &Pieces) -> io::Result<Self> {
        let present = Mutex::new(vec![false; pieces.count() as usize]);
        Ok(Self { file: memfd::file("image")?, present })
    }
}

impl PieceStore for MemoryStore {
    fn name(&self) -> String {
        "in memory".into()
    }

    fn get(&self, pieces: &Pieces, number: u64) -> Option<Vec<u8>> {
        if !*lock(&self.present).get(number as usize)? {
            return None;
        }
        let mut bytes = vec![0; pieces.size(number) as usize];
        self.file.read_exact_at(&mut bytes, pieces.bytes(number..number + 1).start).ok()?;
        Some(bytes)
    }

    fn put(&self, pieces: &Pieces, number: u64, bytes: &[u8]) {
        let written = self.file.write_all_at(bytes, pieces.bytes(number..number + 1).start);
        if let (Ok(()), Some(present)) = (written, lock(&self.present).get_mut(number as usize)) {
            *present = true;
        }
    }

    fn offer(&self, pieces: &Pieces, number: u64, bytes: &Arc<[u8]>) {
        self.put(pieces, number, bytes);
    }

    fn flush(&self) {}

    fn close(&self) {}

    fn disk(&self) -> Option<&Disk> {
        None
    }
}
