//! An ISO and the root file system in it, read without mounting them, which would need root.
//!
//! The ISO's tree is laid out in a temporary directory. Small files have their contents there; large ones are
//! holes until [`Iso::fetch`] fills them in.

use crate::medium::root::NESTED;
use crate::medium::{Directory, MediumError, Root};
use crate::source::Source;
use crate::source::cloop::{self, Cloop};
use crate::source::fault::SourceError;
use anyhow::{Context, anyhow, ensure};
use backhand::{FilesystemReader, InnerNode, SquashfsFileReader};
use ext4_view::Ext4;
use isomage::TreeNode;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path};
use std::sync::Arc;
use tempfile::TempDir;

/// Bytes of a file that is laid out with its contents, at most. Menus and marks are smaller, kernels larger.
const SMALL: u64 = 256 << 10;

/// Directories within directories at most; ECMA-119 allows eight.
const DEEPEST: usize = 32;

/// A reader of an image.
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

/// A file of an ISO as a source of its own. Such files lie in one piece.
struct Slice {
    source: Arc<dyn Source>,
    start: u64,
    length: u64,
    name: String,
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Source for Slice {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.source.read_at(self.start + offset, buffer)
    }
}

/// The files of an ISO.
struct Tree {
    reader: Reader,
    root: TreeNode,
}

impl Tree {
    fn of(source: &Arc<dyn Source>) -> anyhow::Result<Self> {
        let mut reader = Reader { source: Arc::clone(source), at: 0 };
        let root = isomage::iso9660::parse_iso9660(&mut reader)
            .map_err(|error| anyhow!("{source} cannot be read as an ISO: {error}"))?;
        Ok(Self { reader, root })
    }

    fn node(&self, path: &Path) -> Option<&TreeNode> {
        path.components().try_fold(&self.root, |node, part| {
            node.children.iter().find(|child| Some(child.name.as_str()) == part.as_os_str().to_str())
        })
    }

    fn slice(&self, node: &TreeNode) -> Slice {
        Slice {
            source: Arc::clone(&self.reader.source),
            start: node.file_location.unwrap_or_default(),
            length: node.size,
            name: node.name.clone(),
        }
    }

    fn contents(&self, node: &TreeNode) -> impl Read + use<> {
        let reader = Reader { source: Arc::new(self.slice(node)), at: 0 };
        BufReader::with_capacity(1 << 20, reader)
    }
}

/// An ISO that is laid out in a directory.
pub struct Iso {
    tree: Tree,
    dir: TempDir,
}

impl Iso {
    /// Lays out the ISO that `source` holds.
    pub fn open(source: &Arc<dyn Source>) -> anyhow::Result<Self> {
        let tree = Tree::of(source)?;
        let dir = tempfile::tempdir().context("making a directory for the ISO's files")?;
        let iso = Self { tree, dir };
        iso.lay_out(&iso.tree.root, iso.dir.path(), 0)?;
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
                io::copy(&mut self.tree.contents(child), &mut File::create(&path)?)?;
            } else {
                File::create(&path)?.set_len(child.size)?;
            }
        }
        Ok(())
    }

    /// Fills in the contents of the file at `path`.
    pub fn fetch(&self, path: &Path) -> anyhow::Result<()> {
        let what = || format!("reading {} of the ISO", path.display());
        let node = self.tree.node(path).with_context(what)?;
        let mut file = File::create(self.dir.path().join(path)).with_context(what)?;
        io::copy(&mut self.tree.contents(node), &mut file).map(drop).with_context(what)
    }
}

impl Directory for Iso {
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn root(&self, path: &Path) -> Result<Box<dyn Root>, MediumError> {
        self.root_in(path).map_err(|error| MediumError::Mount {
            what: format!("{} of the image", path.display()),
            error: io::Error::other(format!("{error:#}")),
        })
    }
}

impl Iso {
    fn root_in(&self, path: &Path) -> anyhow::Result<Box<dyn Root>> {
        let node = self.tree.node(path).context("it is not there")?;
        let file: Arc<dyn Source> = Arc::new(self.tree.slice(node));
        let mut start = [0; 16];
        if file.len() >= start.len() as u64 {
            file.read_at(0, &mut start)?;
        }
        if cloop::begins(&start) {
            let unpacked: Arc<dyn Source> = Arc::new(Cloop::open(file)?);
            return Ok(Box::new(Tree::of(&unpacked)?));
        }

        let reader = BufReader::with_capacity(1 << 17, Reader { source: file, at: 0 });
        let squashfs = Squashfs(FilesystemReader::from_reader(reader).map_err(|error| anyhow!("{error}"))?);
        match NESTED.iter().find_map(|path| squashfs.file(Path::new(path))) {
            None => Ok(Box::new(squashfs)),
            Some(nested) => {
                // A file of a squashfs is read from its start on, and an ext4 has to be read anywhere.
                let mut image = tempfile::NamedTempFile::new().context("keeping the nested root")?;
                io::copy(&mut squashfs.0.file(nested).reader(), &mut image)?;
                let ext4 = Ext4::load_from_path(image.path()).map_err(|error| anyhow!("{error}"))?;
                Ok(Box::new(Nested { ext4, _image: image }))
            }
        }
    }
}

impl Root for Tree {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        let node = self.node(path).ok_or(io::ErrorKind::NotFound)?;
        self.contents(node).read_to_end(&mut contents)?;
        Ok(contents)
    }
}

struct Squashfs(FilesystemReader<'static>);

impl Squashfs {
    fn file(&self, path: &Path) -> Option<&SquashfsFileReader> {
        let path = Path::new("/").join(path);
        self.0.files().find_map(|node| match &node.inner {
            InnerNode::File(file) if node.fullpath == path => Some(file),
            _ => None,
        })
    }
}

impl Root for Squashfs {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        let file = self.file(path).ok_or(io::ErrorKind::NotFound)?;
        self.0.file(file).reader().read_to_end(&mut contents)?;
        Ok(contents)
    }
}

struct Nested {
    ext4: Ext4,
    _image: tempfile::NamedTempFile,
}

impl Root for Nested {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = Path::new("/").join(path);
        let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        self.ext4.read(path).map_err(|error: ext4_view::Ext4Error| {
            let kind = match error {
                ext4_view::Ext4Error::NotFound => io::ErrorKind::NotFound,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, Box::<dyn Error + Send + Sync>::from(error))
        })
    }
}
