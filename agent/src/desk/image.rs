//! `inetbootctl image …`: makes, signs, shows and checks indexes and their stores. `docs/formats.md` specifies
//! both.

use crate::base::console::size;
use crate::base::lock::lock;
use crate::desk::{Say, files};
use crate::formats::index::{self, Form, Index, Place, ours};
use crate::formats::pieces::{Algorithm, BLOCK, Pieces, PiecesError, hex};
use crate::formats::trust::{Pin, signature_url};
use crate::formats::unpack;
use crate::formats::url::encode_path;
use anyhow::{Context, anyhow, ensure};
use fastcdc::v2020::StreamCDC;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// zstd's level. A store is packed once and unpacked at every boot, at the same speed for all levels.
const LEVEL: i32 = 19;

/// The time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Bytes of a block that is cut by content: at least, usually, and at most. What did not change in the next
/// release is then the same block, wherever it begins.
const BY_CONTENT: (usize, usize, usize) = (64 << 10, 128 << 10, 256 << 10);

/// Bytes of a block in the classic form.
const CLASSIC: u64 = 256 << 10;

/// The suffix of a public key's file.
const PUBLIC: &str = "pub";

/// An order for [`build`].
#[derive(Clone, Debug)]
pub struct Build {
    pub iso: PathBuf,
    /// The index that is written.
    pub out: PathBuf,
    pub kind: Kind,
    /// The address of the profile, relative to the index.
    pub profile: Option<String>,
}

/// The products of a build.
#[derive(Clone, Debug)]
pub enum Kind {
    /// An index; the image stays as it is.
    Index,
    /// An index, and a store in this directory.
    Store(PathBuf),
    /// The same in the classic HTTP-FUSE form: blocks of one size, SHA-1 and zlib.
    Classic(PathBuf),
}

impl Kind {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Index | Self::Store(_) => Algorithm::Sha256,
            Self::Classic(_) => Algorithm::Sha1,
        }
    }

    /// The directory of the block files, and the form in which they are packed.
    fn store(&self) -> Option<(&Path, Form)> {
        match self {
            Self::Index => None,
            Self::Store(dir) => Some((dir, Form::Zstd)),
            Self::Classic(dir) => Some((dir, Form::Zlib)),
        }
    }

    /// Bytes of a block, where all blocks have the same size.
    fn block(&self) -> Option<u64> {
        match self {
            Self::Index => Some(BLOCK),
            Self::Store(_) => None,
            Self::Classic(_) => Some(CLASSIC),
        }
    }

    /// The end of each block of an image of `length` bytes.
    fn ends(&self, iso: &File, length: u64) -> anyhow::Result<Vec<u64>> {
        if let Some(size) = self.block() {
            return Ok((1..=length.div_ceil(size)).map(|number| (number * size).min(length)).collect());
        }
        let (least, usual, most) = BY_CONTENT;
        let chunks = StreamCDC::new(BufReader::new(iso), least, usual, most);
        chunks
            .map(|chunk| chunk.map(|chunk| chunk.offset + chunk.length as u64).map_err(Into::into))
            .collect()
    }

    fn pieces(&self, ends: Vec<u64>, digests: Vec<u8>) -> Result<Pieces, PiecesError> {
        match self.block() {
            None => Pieces::ending(ends, self.algorithm(), digests),
            Some(size) => Pieces::every(size, ends.last().copied().unwrap_or(0), self.algorithm(), digests),
        }
    }
}

/// The default path of an index of `iso`: in the directory that has `neighbour` in it.
pub fn index_beside(neighbour: &Path, iso: &Path) -> PathBuf {
    let name = iso.file_name().unwrap_or_default().to_string_lossy();
    neighbour.parent().unwrap_or(Path::new("")).join(format!("{name}.idx"))
}

/// Makes the index of an image, and its store. Block files that exist are kept: a build that was stopped goes on
/// where it was, and the next release adds only what is new.
pub fn build(build: &Build, say: &Say) -> anyhow::Result<()> {
    let named = || format!("reading {}", build.iso.display());
    let iso = File::open(&build.iso).with_context(|| format!("opening {}", build.iso.display()))?;
    let length = iso.metadata().with_context(named)?.len();
    ensure!(length > 0, "{} is empty", build.iso.display());
    // Before hours of work are done for nothing.
    files::ensure_replaceable(&build.out, files::INDEX)?;

    let ends = build.kind.ends(&iso, length).with_context(named)?;
    let work = Work::new(&iso, build, &ends);
    let digests = work.run(say)?;
    let different = digests.iter().collect::<HashSet<_>>().len();

    let count = ends.len();
    let index = Index {
        pieces: build.kind.pieces(ends.clone(), digests.concat())?,
        places: vec![build.place()],
        profile: build.profile.clone(),
    };
    let bytes = ours::encode(&index).context("an image has blocks")?;
    files::write(&build.out, files::INDEX, &bytes)?;

    say(&format!("{}: {} in {count} blocks, {different} different", build.out.display(), size(length)));
    if build.kind.store().is_some() {
        say(&work.added.line(length));
    }
    say(&format!("inetboot.pin={}", Pin::of(&bytes)));
    Ok(())
}

impl Build {
    /// The place that the index names: relative, where it lies beside the index or below it.
    fn place(&self) -> Place<String> {
        let beside = self.out.parent().unwrap_or(Path::new(""));
        let relative = |path: &Path| path.strip_prefix(beside).unwrap_or(path).display().to_string();
        // Names become references: `#`, `?` and `%` would mean something else in one.
        let reference = |path: &Path| encode_path(&relative(path));
        match self.kind.store() {
            None => Place::File(reference(&self.iso)),
            Some((store, form)) => Place::Store { url: reference(store) + "/", form },
        }
    }
}

/// The blocks of an image, which several threads digest and pack.
struct Work<'a> {
    iso: &'a File,
    order: &'a Build,
    ends: &'a [u64],
    /// The number of the next block that no thread has taken.
    next: AtomicUsize,
    digests: Mutex<Vec<Vec<u8>>>,
    /// The digests of blocks that a thread has begun to pack: equal ones are packed once.
    taken: Mutex<HashSet<String>>,
    added: Added,
}

/// The block files that a build added to its store.
#[derive(Default)]
struct Added {
    files: AtomicU64,
    unpacked: AtomicU64,
    packed: AtomicU64,
}

impl<'a> Work<'a> {
    fn new(iso: &'a File, order: &'a Build, ends: &'a [u64]) -> Self {
        Self {
            iso,
            order,
            ends,
            next: AtomicUsize::new(0),
            digests: Mutex::new(vec![Vec::new(); ends.len()]),
            taken: Mutex::default(),
            added: Added::default(),
        }
    }

    /// Does the work with a thread for each processor, and returns the digests in the order of the blocks.
    fn run(&self, say: &Say) -> anyhow::Result<Vec<Vec<u8>>> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.blocks())).collect();
            self.show_progress(&workers, say);
            let join =
                |worker: ScopedJoinHandle<'_, _>| worker.join().map_err(|_| anyhow!("a worker failed"))?;
            workers.into_iter().try_for_each(join)
        })?;
        Ok(std::mem::take(&mut lock(&self.digests)))
    }

    fn show_progress(&self, workers: &[ScopedJoinHandle<'_, anyhow::Result<()>>], say: &Say) {
        let count = self.ends.len();
        let mut last = Instant::now();
        while !workers.iter().all(ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(20));
            if last.elapsed() > PROGRESS_EVERY {
                last = Instant::now();
                let done = self.next.load(Ordering::Relaxed).min(count);
                say(&format!("{done} of {count} blocks ({} %)", done * 100 / count));
            }
        }
    }

    /// The work of one thread: blocks that no other has taken, until there are none.
    fn blocks(&self) -> anyhow::Result<()> {
        let Build { iso, kind, .. } = self.order;
        // One for all blocks, and told their length: else each sets up tables for an endless stream.
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(end) = self.ends.get(number) else { return Ok(()) };
            let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            let mut block = vec![0; (end - start) as usize];
            self.iso
                .read_exact_at(&mut block, start)
                .with_context(|| format!("reading {}", iso.display()))?;

            let digest = kind.algorithm().digest(&block);
            if let Some((store, form)) = kind.store() {
                let path = store.join(form.path(&hex(&digest)));
                let is_first = lock(&self.taken).insert(hex(&digest));
                if is_first && !path.exists() {
                    let packed = pack(form, &block, &mut compressor)?;
                    files::write_whole(&path, &packed)?;
                    self.added.count(block.len(), packed.len());
                }
            }
            if let Some(slot) = lock(&self.digests).get_mut(number) {
                *slot = digest;
            }
        }
    }
}

impl Added {
    fn count(&self, unpacked: usize, packed: usize) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.unpacked.fetch_add(unpacked as u64, Ordering::Relaxed);
        self.packed.fetch_add(packed as u64, Ordering::Relaxed);
    }

    /// The report on a store of an image of `length` bytes.
    fn line(&self, length: u64) -> String {
        let [files, unpacked, packed] =
            [&self.files, &self.unpacked, &self.packed].map(|number| number.load(Ordering::Relaxed));
        format!(
            "store: {files} new files; they hold {} of the image ({:.1} %) in {}",
            size(unpacked),
            unpacked as f64 * 100.0 / length as f64,
            size(packed)
        )
    }
}

fn pack(form: Form, block: &[u8], zstd: &mut zstd::bulk::Compressor<'_>) -> std::io::Result<Vec<u8>> {
    match form {
        Form::Plain => Ok(block.to_vec()),
        Form::Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(block)?;
            encoder.finish()
        }
        Form::Zstd | Form::Casync => zstd.compress(block),
    }
}

pub(super) fn read_index(path: &Path) -> anyhow::Result<(Vec<u8>, Index)> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let index = index::decode(&bytes, &path.display().to_string())
        .with_context(|| format!("{} cannot be used", path.display()))?;
    Ok((bytes, index))
}

/// Shows the contents of an index, ours or another.
pub fn info(path: &Path, say: &Say) -> anyhow::Result<()> {
    let (bytes, index) = read_index(path)?;
    let pieces = &index.pieces;
    let algorithm = pieces.digest(0).map_or("no digests", |(algorithm, _)| algorithm.name());
    say(&format!(
        "image: {} ({} bytes) in {} pieces of about {}, {algorithm}",
        size(pieces.length()),
        pieces.length(),
        pieces.count(),
        size(pieces.usual_size())
    ));

    for place in &index.places {
        match place {
            Place::File(url) => say(&format!("file: {url}")),
            Place::Store { url, form } => say(&format!("store: {url} ({})", form.name())),
        }
    }
    if let Some(url) = &index.profile {
        say(&format!("profile: {url}"));
    }
    say(&format!("inetboot.pin={}", Pin::of(&bytes)));
    Ok(())
}

/// Checks every piece of an image or a store against an index, and names those that are wrong.
pub fn check(path: &Path, held: &Path, say: &Say) -> anyhow::Result<()> {
    let (_, index) = read_index(path)?;
    let pieces = &index.pieces;
    let held = Held::open(held, &index)?;

    let mut wrong = 0;
    for number in 0..pieces.count() {
        let complaint = match held.piece(pieces, number)? {
            Some(bytes) if pieces.accept(number, &bytes) => continue,
            Some(_) => "has other bytes than the index says",
            None => "is missing or cannot be unpacked",
        };
        wrong += 1;
        say(&format!("piece {number} {complaint}"));
    }
    ensure!(wrong == 0, "{wrong} of {} pieces are wrong", pieces.count());
    say(&format!("all {} pieces are right", pieces.count()));
    Ok(())
}

/// The pieces of an image, as they lie on this machine.
enum Held<'a> {
    Image(File),
    Store(&'a Path, Form),
}

impl<'a> Held<'a> {
    fn open(path: &'a Path, index: &Index) -> anyhow::Result<Self> {
        if path.is_dir() {
            let form = index.places.iter().find_map(|place| match place {
                Place::Store { form, .. } => Some(*form),
                Place::File(_) => None,
            });
            return Ok(Self::Store(path, form.context("the index names no store")?));
        }
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let (length, wanted) = (file.metadata()?.len(), index.pieces.length());
        ensure!(length == wanted, "{} has {length} bytes, and should have {wanted}", path.display());
        Ok(Self::Image(file))
    }

    /// The bytes of a piece; `None` where a store lacks it.
    fn piece(&self, pieces: &Pieces, number: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let size = pieces.size(number) as usize;
        match self {
            Self::Image(file) => {
                let mut bytes = vec![0; size];
                file.read_exact_at(&mut bytes, pieces.bytes(number..number + 1).start)?;
                Ok(Some(bytes))
            }
            Self::Store(dir, form) => {
                let (_, digest) = pieces.digest(number).context("the index has no digests")?;
                let packed = fs::read(dir.join(form.path(&hex(digest)))).ok();
                Ok(packed.and_then(|packed| unpack::piece(*form, &packed, size)))
            }
        }
    }
}

/// Makes a key pair: the secret key in `secret`, which only its owner may read, and the public one beside
/// it. Neither replaces a file.
pub fn key(secret: &Path, say: &Say) -> anyhow::Result<()> {
    let public = secret.with_extension(PUBLIC);
    ensure!(
        secret.file_name() != public.file_name(),
        "{} would be the public key's name too; choose one that does not end in .{PUBLIC}",
        secret.display()
    );
    let pair = minisign::KeyPair::generate_unencrypted_keypair()?;
    let texts = (pair.sk.to_box(Some("InetBoot"))?.to_string(), pair.pk.to_box()?.to_string());

    // Both are made before either is written: half a pair is of no use.
    let mut secret_file = files::create_new(secret, 0o600)?;
    let mut public_file = files::create_new(&public, 0o644).inspect_err(|_| {
        let _ = fs::remove_file(secret);
    })?;
    let named = |path: &Path| format!("writing {}", path.display());
    secret_file.write_all(texts.0.as_bytes()).with_context(|| named(secret))?;
    public_file.write_all(texts.1.as_bytes()).with_context(|| named(&public))?;

    say(&format!("{}, {}", secret.display(), public.display()));
    say(&format!("inetboot.key={}", pair.pk.to_base64()));
    Ok(())
}

/// Signs an index; the signature is written beside it.
pub fn sign(path: &Path, secret: &Path, say: &Say) -> anyhow::Result<()> {
    let (bytes, _) = read_index(path)?;
    let text = fs::read_to_string(secret).with_context(|| format!("reading {}", secret.display()))?;
    let named = || format!("{} is no unencrypted minisign secret key", secret.display());
    let secret = minisign::SecretKeyBox::from_string(&text)
        .and_then(minisign::SecretKeyBox::into_unencrypted_secret_key)
        .with_context(named)?;
    let signature = minisign::sign(None, &secret, bytes.as_slice(), None, None)?;
    let out = PathBuf::from(signature_url(&path.display().to_string()));
    files::write(&out, files::SIGNATURE, signature.into_string().as_bytes())?;
    say(&format!("{}", out.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn silent(_: &str) {}

    /// A file's name becomes a reference in the index: no letter of it means something else there.
    #[test]
    fn names_become_references() {
        let (iso, out) = ("dir/my image#1, 50%.iso".into(), "dir/x.idx".into());
        let build = Build { iso, out, kind: Kind::Index, profile: None };
        assert_eq!(build.place(), Place::File("my%20image%231,%2050%25.iso".to_owned()));
    }

    /// Only its owner may read a secret key, whatever the umask says.
    #[test]
    fn the_secret_key_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("my.key");
        key(&secret, &silent).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&secret), 0o600);
        assert!(mode(&dir.path().join("my.pub")) & 0o444 != 0);
    }

    /// A path that would be the secret key's and the public key's is refused.
    #[test]
    fn a_public_keys_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = key(&dir.path().join("my.pub"), &silent).unwrap_err().to_string();
        assert!(error.contains("would be the public key's name too"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// The secret and the public key of another pair are left alone, and no half pair is made.
    #[test]
    fn no_key_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for taken in ["my.key", "my.pub"] {
            let taken = dir.path().join(taken);
            fs::write(&taken, b"mine").unwrap();
            let error = key(&dir.path().join("my.key"), &silent).unwrap_err().to_string();
            assert!(error.contains("never overwritten"), "{error}");
            assert_eq!(fs::read(&taken).unwrap(), b"mine");
            fs::remove_file(&taken).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    /// An image is not taken for the index that is to be made of it, nor a secret key for a signature.
    #[test]
    fn inputs_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let iso = dir.path().join("x.iso");
        fs::write(&iso, b"an image").unwrap();
        let wrong = Build { iso: iso.clone(), out: iso.clone(), kind: Kind::Index, profile: None };
        let error = build(&wrong, &silent).unwrap_err().to_string();
        assert!(error.contains("is not an index"), "{error}");
        assert_eq!(fs::read(&iso).unwrap(), b"an image");

        let index = dir.path().join("x.idx");
        build(&Build { out: index.clone(), ..wrong }, &silent).unwrap();
        let secret = dir.path().join("x.idx.minisig");
        key(&secret, &silent).unwrap();
        let error = sign(&index, &secret, &silent).unwrap_err().to_string();
        assert!(error.contains("is not a signature"), "{error}");
    }
}
