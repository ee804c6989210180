//! An image as one read-only file, served over `/dev/fuse` (kernel: `Documentation/filesystems/fuse.rst`).
//!
//! Reads never fail while the source is patient. The file never changes, so the kernel may cache
//! names, attributes and contents as long as it likes. The source knows better than the kernel what is
//! worth fetching ahead.

use crate::source::Source;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Requests answered at the same time: with a round trip behind each read, throughput is this
/// many blocks a round trip.
const WORKERS: usize = 8;

/// Requests the kernel may have under way.
const BACKGROUND: u16 = 64;

/// Bytes that the kernel reads ahead: enough that a stream does not cost a request for every page, so few
/// that it seldom reaches into a block that the reader does not want.
const READ_AHEAD: u32 = 16 * 1024;

const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

const FILE: INodeNo = INodeNo(2);

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
pub struct FuseMount {
    session: Option<BackgroundSession>,
    path: PathBuf,
}

impl FuseMount {
    /// Serve `source` as the file `name` in the existing directory `dir`. Root or `fusermount3`
    /// is needed.
    pub fn mount(source: Arc<dyn Source>, dir: &Path, name: &OsStr) -> io::Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::FSName("inetboot".into()),
            MountOption::Subtype("inetboot".into()),
        ];
        config.acl = SessionACL::Owner;
        config.n_threads = Some(WORKERS);
        let session = Session::new(OneFile { source, name: name.to_owned() }, dir, &config)?.spawn()?;
        Ok(Self { session: Some(session), path: dir.join(name) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serve until it is unmounted.
    pub fn wait(mut self) -> io::Result<()> {
        self.session.take().map_or(Ok(()), BackgroundSession::join)
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Nothing to be done where it is busy: it goes when its last user does.
            let _ = session.umount_and_join();
        }
    }
}

struct OneFile {
    source: Arc<dyn Source>,
    name: OsString,
}

impl OneFile {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, nlink, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o555, 2, 0),
            FILE => (FileType::RegularFile, 0o444, 1, self.source.len()),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for OneFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it the loop device's direct reads are answered one after the other. Kernels
        // that lack either are only slower.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.set_max_background(BACKGROUND);
        let _ = config.set_max_readahead(READ_AHEAD);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE) {
            Some(attributes) if parent == INodeNo::ROOT && name == self.name => {
                reply.entry(&FOR_EVER, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&FOR_EVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.source.len().saturating_sub(offset);
        let mut buffer = vec![0; u64::from(size).min(left) as usize];
        match self.source.read_at(offset, &mut buffer) {
            Ok(()) => reply.data(&buffer),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let entries = [
            (INodeNo::ROOT, FileType::Directory, OsStr::new(".")),
            (INodeNo::ROOT, FileType::Directory, OsStr::new("..")),
            (FILE, FileType::RegularFile, self.name.as_os_str()),
        ];
        for (next, (inode, kind, name)) in (1..).zip(entries).skip(offset as usize) {
            if reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
