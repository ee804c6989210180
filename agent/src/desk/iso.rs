//! An ISO and the squashfs in it, read without mounting them: on a desk nobody is root.
//!
//! The CD becomes a directory of its own, with its small files as they are and holes for its large
//! ones, until somebody asks for those.

use crate::medium::{Cd, MediumError, Root, trouble};
use crate::source::Source;
use anyhow::{Context, anyhow, ensure};
use backhand::{FilesystemReader, InnerNode};
use isomage::TreeNode;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Menus and marks are smaller, kernels larger.
const SMALL: u64 = 256 << 10;

/// Directories in directories; ECMA-119 has eight.
const DEEPEST: usize = 32;

/// An image as a reader.
#[derive(Clone)]
struct Reader {
    source: Arc<dyn Source>,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.source.len().saturating_sub(self.at);
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.source.read_at(self.at, &mut buffer[..length]).map_err(io::Error::other)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => self.source.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// An ISO, laid out in a directory.
pub struct Iso {
    reader: Reader,
    tree: TreeNode,
    dir: TempDir,
}

impl Iso {
    /// Lay out the ISO that `source` holds.
    pub fn open(source: &Arc<dyn Source>) -> anyhow::Result<Self> {
        let mut reader = Reader { source: Arc::clone(source), at: 0 };
        let tree = isomage::iso9660::parse_iso9660(&mut reader)
            .map_err(|error| anyhow!("{source} cannot be read as an ISO: {error}"))?;
        let dir = tempfile::tempdir().context("making a directory for the ISO's files")?;
        let iso = Self { reader, tree, dir };
        iso.lay_out(&iso.tree, iso.dir.path(), 0)?;
        Ok(iso)
    }

    fn lay_out(&self, node: &TreeNode, dir: &Path, depth: usize) -> anyhow::Result<()> {
        ensure!(depth < DEEPEST, "the ISO has directories {depth} deep");
        for child in &node.children {
            let mut parts = Path::new(&child.name).components();
            let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            ensure!(is_name, "the ISO has a file called \"{}\"", child.name);
            let path = dir.join(&child.name);
            if child.is_directory {
                fs::create_dir_all(&path)?;
                self.lay_out(child, &path, depth + 1)?;
            } else if child.size <= SMALL {
                io::copy(&mut self.contents(child)?, &mut File::create(&path)?)?;
            } else {
                File::create(&path)?.set_len(child.size)?;
            }
        }
        Ok(())
    }

    /// Fill in the contents of the file at `path`.
    pub fn fetch(&self, path: &Path) -> anyhow::Result<()> {
        let what = || format!("reading {} of the ISO", path.display());
        let node = self.node(path).with_context(what)?;
        let mut file = File::create(self.dir.path().join(path)).with_context(what)?;
        io::copy(&mut self.contents(node)?, &mut file).map(drop).with_context(what)
    }

    fn node(&self, path: &Path) -> Option<&TreeNode> {
        path.components().try_fold(&self.tree, |node, part| {
            node.children.iter().find(|child| Some(child.name.as_str()) == part.as_os_str().to_str())
        })
    }

    fn contents(&self, node: &TreeNode) -> io::Result<impl Read> {
        let mut reader = self.reader.clone();
        reader.seek(SeekFrom::Start(node.file_location.unwrap_or_default()))?;
        Ok(BufReader::with_capacity(1 << 20, reader).take(node.size))
    }
}

impl Cd for Iso {
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn root(&self, path: &Path) -> Result<Box<dyn Root>, MediumError> {
        let opened = || {
            let start = self.node(path).and_then(|node| node.file_location);
            let start = start.ok_or(io::ErrorKind::NotFound)?;
            let reader = BufReader::with_capacity(1 << 17, self.reader.clone());
            FilesystemReader::from_reader_with_offset(reader, start).map_err(io::Error::other)
        };
        let squashfs = opened().map_err(|error| MediumError::Mount {
            what: format!("{} of the image", path.display()),
            trouble: self.trouble(),
            error,
        })?;
        Ok(Box::new(Squashfs(squashfs)))
    }

    fn trouble(&self) -> String {
        trouble(&*self.reader.source)
    }
}

struct Squashfs(FilesystemReader<'static>);

impl Root for Squashfs {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = PathBuf::from("/").join(path);
        let file = self.0.files().find_map(|node| match &node.inner {
            InnerNode::File(file) if node.fullpath == path => Some(file),
            _ => None,
        });
        let mut contents = Vec::new();
        self.0.file(file.ok_or(io::ErrorKind::NotFound)?).reader().read_to_end(&mut contents)?;
        Ok(contents)
    }
}
