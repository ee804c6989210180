//! `inetbootctl image …`: makes, signs, shows and checks indexes and their stores. The formats are
//! in `docs/formats.md`.

use crate::base::console::size;
use crate::desk::Say;
use crate::desk::files;
use crate::formats::index::{self, Form, Index, Place, ours};
use crate::formats::pieces::{Algorithm, BLOCK, Pieces, PiecesError, hex};
use crate::formats::trust::{Pin, signature_url};
use crate::formats::unpack;
use anyhow::{Context, bail, ensure};
use fastcdc::v2020::StreamCDC;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// zstd's level: a store is made once, and read by everybody at the same speed.
const LEVEL: i32 = 19;

/// How often progress is said.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// How long the blocks of a store are, at least, usually and at most, where their content says
/// where they end: what is the same in the next release is then the same block, wherever it is.
const BY_CONTENT: (usize, usize, usize) = (64 << 10, 128 << 10, 256 << 10);

/// Bytes of a block in the classic form.
const CLASSIC: u64 = 256 << 10;

/// The suffix of a public key's file.
const PUBLIC: &str = "pub";

/// What to make of an image.
#[derive(Clone, Debug)]
pub struct Build {
    /// The image.
    pub iso: PathBuf,
    /// Where the index goes.
    pub out: PathBuf,
    /// What is made.
    pub kind: Kind,
    /// Where the profile will lie, relative to the index.
    pub profile: Option<String>,
}

/// What is made of an image.
#[derive(Clone, Debug)]
pub enum Kind {
    /// An index; the image stays where it is.
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

    /// The directory of block files, and how they are packed.
    fn store(&self) -> Option<(&Path, Form)> {
        match self {
            Self::Index => None,
            Self::Store(dir) => Some((dir, Form::Zstd)),
            Self::Classic(dir) => Some((dir, Form::Zlib)),
        }
    }

    /// How long blocks are that are alike.
    fn block(&self) -> Option<u64> {
        match self {
            Self::Index => Some(BLOCK),
            Self::Store(_) => None,
            Self::Classic(_) => Some(CLASSIC),
        }
    }

    /// Where the blocks of an image of `length` bytes end.
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

#[derive(Default)]
struct Tally {
    next: AtomicUsize,
    /// The digests of blocks that a worker has taken: equal ones are packed once.
    taken: Mutex<HashSet<String>>,
    new_files: AtomicU64,
    new_unpacked: AtomicU64,
    new_packed: AtomicU64,
}

/// The default path of an index of `iso`: in the directory that has `neighbour` in it.
pub fn index_beside(neighbour: &Path, iso: &Path) -> PathBuf {
    let name = iso.file_name().unwrap_or_default().to_string_lossy();
    neighbour.parent().unwrap_or(Path::new("")).join(format!("{name}.idx"))
}

/// Make the index of an image, and its store. Block files that are there already are kept, so that
/// it goes on where it was stopped, and a second release adds only what is new.
pub fn build(build: &Build, say: &Say) -> anyhow::Result<()> {
    let iso = File::open(&build.iso).with_context(|| format!("opening {}", build.iso.display()))?;
    let length = iso.metadata()?.len();
    ensure!(length > 0, "{} is empty", build.iso.display());
    // Before hours of work are done for nothing.
    files::ensure_replaceable(&build.out, files::INDEX)?;
    let ends = build.kind.ends(&iso, length).with_context(|| format!("reading {}", build.iso.display()))?;
    let count = ends.len();
    let digests = Mutex::new(vec![Vec::new(); count]);
    let tally = Tally::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<()> {
            // One for all blocks, and told their length: else each sets up tables for an endless stream.
            let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
            loop {
                let number = tally.next.fetch_add(1, Ordering::Relaxed);
                let Some(end) = ends.get(number) else { return Ok(()) };
                let start = number.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
                let mut block = vec![0; (end - start) as usize];
                iso.read_exact_at(&mut block, start)
                    .with_context(|| format!("reading {}", build.iso.display()))?;
                let digest = build.kind.algorithm().digest(&block);
                if let Some((store, form)) = build.kind.store() {
                    keep(store, form, &hex(&digest), &block, &mut compressor, &tally)?;
                }
                if let Some(slot) = digests.lock().ok().as_mut().and_then(|all| all.get_mut(number)) {
                    *slot = digest;
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut said = Instant::now();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(20));
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                let done = tally.next.load(Ordering::Relaxed).min(count);
                say(&format!("{done} of {count} blocks ({} %)", done * 100 / count));
            }
        }
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(_) => bail!("a worker failed"),
        })
    })?;
    let digests = digests.into_inner().unwrap_or_default();
    let different = digests.iter().collect::<HashSet<_>>().len();
    let pieces = build.kind.pieces(ends, digests.concat())?;
    let beside = build.out.parent().unwrap_or(Path::new(""));
    let place = match build.kind.store() {
        None => Place::File(relative(&build.iso, beside)),
        Some((store, form)) => Place::Store { url: relative(store, beside) + "/", form },
    };
    let index = Index { pieces, places: vec![place], profile: build.profile.clone() };
    let bytes = ours::encode(&index).context("an image has blocks")?;
    files::write(&build.out, files::INDEX, &bytes)?;
    say(&format!("{}: {} in {count} blocks, {different} different", build.out.display(), size(length)));
    if build.kind.store().is_some() {
        let [files, unpacked, packed] =
            [tally.new_files, tally.new_unpacked, tally.new_packed].map(AtomicU64::into_inner);
        say(&format!(
            "store: {files} new files; they hold {} of the image ({:.1} %) in {}",
            size(unpacked),
            unpacked as f64 * 100.0 / length as f64,
            size(packed)
        ));
    }
    say(&format!("inetboot.pin={}", Pin::of(&bytes)));
    Ok(())
}

/// `path` as it is written in an index that lies in `beside`: its name where it lies there too.
fn relative(path: &Path, beside: &Path) -> String {
    path.strip_prefix(beside).unwrap_or(path).display().to_string()
}

fn keep(
    store: &Path,
    form: Form,
    digest: &str,
    block: &[u8],
    compressor: &mut zstd::bulk::Compressor<'_>,
    tally: &Tally,
) -> anyhow::Result<()> {
    let path = store.join(form.path(digest));
    let is_new = tally.taken.lock().is_ok_and(|mut taken| taken.insert(digest.to_owned()));
    if !is_new || path.exists() {
        return Ok(());
    }
    let packed = match form {
        Form::Plain => block.to_vec(),
        Form::Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(block)?;
            encoder.finish()?
        }
        Form::Zstd | Form::Casync => compressor.compress(block)?,
    };
    tally.new_files.fetch_add(1, Ordering::Relaxed);
    tally.new_unpacked.fetch_add(block.len() as u64, Ordering::Relaxed);
    tally.new_packed.fetch_add(packed.len() as u64, Ordering::Relaxed);
    files::write_whole(&path, &packed)
}

pub(super) fn read_index(path: &Path) -> anyhow::Result<(Vec<u8>, Index)> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let index = index::decode(&bytes, &path.display().to_string())
        .with_context(|| format!("{} cannot be used", path.display()))?;
    Ok((bytes, index))
}

/// What an index says, ours or another.
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

/// Whether an image, or a store, is what the index says.
pub fn check(path: &Path, what: &Path, say: &Say) -> anyhow::Result<()> {
    let (_, index) = read_index(path)?;
    let pieces = &index.pieces;
    let form = index.places.iter().find_map(|place| match place {
        Place::Store { form, .. } => Some(*form),
        Place::File(_) => None,
    });
    let file = if what.is_dir() { None } else { Some(File::open(what)?) };
    if let Some(file) = &file {
        let length = file.metadata()?.len();
        ensure!(
            length == pieces.length(),
            "{} has {length} bytes, and should have {}",
            what.display(),
            pieces.length()
        );
    }
    let mut wrong = 0;
    for number in 0..pieces.count() {
        let bytes = match &file {
            Some(file) => {
                let mut bytes = vec![0; pieces.size(number) as usize];
                file.read_exact_at(&mut bytes, pieces.bytes(number..number + 1).start)?;
                Some(bytes)
            }
            None => {
                let form = form.context("the index names no store")?;
                let (_, digest) = pieces.digest(number).context("the index has no digests")?;
                let packed = fs::read(what.join(form.path(&hex(digest)))).ok();
                packed.and_then(|packed| unpack::piece(form, &packed, pieces.size(number) as usize))
            }
        };
        match bytes {
            Some(bytes) if pieces.accept(number, &bytes) => {}
            Some(_) => {
                wrong += 1;
                say(&format!("piece {number} has other bytes than the index says"));
            }
            None => {
                wrong += 1;
                say(&format!("piece {number} is missing or cannot be unpacked"));
            }
        }
    }
    ensure!(wrong == 0, "{wrong} of {} pieces are wrong", pieces.count());
    say(&format!("all {} pieces are right", pieces.count()));
    Ok(())
}

/// Makes a key pair: the secret key in `secret`, which only its owner may read, and the public one beside
/// it. Neither replaces a file.
pub fn key(secret: &Path, say: &Say) -> anyhow::Result<()> {
    let public = secret.with_extension(PUBLIC);
    ensure!(
        secret.file_name() != public.file_name(),
        "{} is the name of a public key; name the secret key otherwise, {PUBLIC} is added for the public one",
        secret.display()
    );
    let pair = minisign::KeyPair::generate_unencrypted_keypair()?;
    let texts = (pair.sk.to_box(Some("InetBoot"))?.to_string(), pair.pk.to_box()?.to_string());

    // Both are made before either is written: half a pair is of no use.
    let mut public_file = files::create_new(&public, 0o644)?;
    let mut secret_file = files::create_new(secret, 0o600).inspect_err(|_| {
        let _ = fs::remove_file(&public);
    })?;
    let named = |path: &Path| format!("writing {}", path.display());
    secret_file.write_all(texts.0.as_bytes()).with_context(|| named(secret))?;
    public_file.write_all(texts.1.as_bytes()).with_context(|| named(&public))?;

    say(&format!("{}, {}", secret.display(), public.display()));
    say(&format!("inetboot.key={}", pair.pk.to_base64()));
    Ok(())
}

/// Sign an index: the signature lies beside it.
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
        assert!(error.contains("is the name of a public key"), "{error}");
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
