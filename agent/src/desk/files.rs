//! The files that verbs write: whole or not at all, and never over something that is not theirs.
//!
//! A verb may replace what an earlier run of it wrote (an index by an index), and nothing else. So a slip
//! in the arguments costs a message, and not an image, a kernel or a key.

use crate::formats::compression::Packing;
use crate::formats::eventlog::EventLog;
use crate::formats::statement::Statement;
use anyhow::{Context, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A kind of file that a later run may replace.
#[derive(Clone, Copy)]
pub struct Kind {
    /// With its article: "an index".
    name: &'static str,
    /// Recognises one by its first [`LOOKED_AT`] bytes.
    is_one: fn(&[u8]) -> bool,
}

/// An index in our own format.
pub const INDEX: Kind = Kind { name: "an index", is_one: |bytes| bytes.starts_with(b"inetboot-index ") };

/// A minisign signature. A secret key begins with the same comment, so the whole of it is read.
pub const SIGNATURE: Kind = Kind {
    name: "a signature",
    is_one: |bytes| str::from_utf8(bytes).is_ok_and(|text| minisign::SignatureBox::from_string(text).is_ok()),
};

/// A TCG event log with lines of InetBoot's. Any run of zeros would be a log without them.
pub const EVENT_LOG: Kind = Kind {
    name: "an event log of InetBoot's",
    is_one: |bytes| {
        EventLog::decode(bytes)
            .is_ok_and(|log| log.events().iter().any(|event| Statement::of_event(event).is_some()))
    },
};

/// A profile: the order in which an image was read.
pub const PROFILE: Kind = Kind { name: "a profile", is_one: |bytes| bytes.starts_with(b"inetboot-profile ") };

/// A script for iPXE.
pub const IPXE_SCRIPT: Kind = Kind { name: "an iPXE script", is_one: |bytes| bytes.starts_with(b"#!ipxe") };

/// A cpio archive as the kernel unpacks it, packed or not.
pub const INITRAMFS: Kind = Kind {
    name: "an initramfs",
    is_one: |bytes| bytes.starts_with(b"070701") || Packing::of(bytes) != Packing::Plain,
};

/// Bytes of a file by which its kind is recognised; no event log or signature of ours has more.
const LOOKED_AT: u64 = 16 << 20;

/// Writes `bytes` to `path`, where there may be an earlier file of the same `kind`.
pub fn write(path: &Path, kind: Kind, bytes: &[u8]) -> anyhow::Result<()> {
    ensure_replaceable(path, kind)?;
    // Through a symbolic link, which stays.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    write_whole(&path, bytes)
}

/// Fails where [`write()`] would refuse to replace `path`: to be asked before long work is done for nothing.
pub fn ensure_replaceable(path: &Path, kind: Kind) -> anyhow::Result<()> {
    let named = || format!("reading {}", path.display());
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        outcome => outcome.with_context(named)?,
    };
    ensure!(metadata.is_file(), "{} is not a regular file; name another one", path.display());

    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut start)).with_context(named)?;
    ensure!(
        start.is_empty() || (kind.is_one)(&start),
        "{} exists and is not {}; name another file, or remove it",
        path.display(),
        kind.name
    );
    Ok(())
}

/// Fails where `out` is one of the files that the same verb reads.
pub fn ensure_no_input(out: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let Some(own) = identity(out) else { return Ok(()) };
    match inputs.iter().find(|input| identity(input) == Some(own)) {
        None => Ok(()),
        Some(input) => bail!("{} would be overwritten, and is read too; name another file", input.display()),
    }
}

/// Makes the directory `dir`, or takes one that holds nothing but what an earlier run put there: files of
/// these `names`, or anything beside the last of them, which is written last.
pub fn own_directory(dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    if names.last().is_some_and(|last| dir.join(last).exists()) {
        return Ok(());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        ensure!(
            names.iter().any(|own| name == **own),
            "{} has a file {} in it; name a directory that is new or empty",
            dir.display(),
            name.display()
        );
    }
    Ok(())
}

/// Makes a file that must not exist yet, with these permissions.
pub fn create_new(path: &Path, mode: u32) -> anyhow::Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match created {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists and is never overwritten; name another file", path.display())
        }
        outcome => outcome.with_context(|| format!("making {}", path.display())),
    }
}

/// Writes to a new name and then renames, so that a reader sees all of the file or none of it. Makes the
/// directory. For names that depend on the contents; others are written by [`write()`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let thread = std::thread::current().id();
    let new = dir.join(format!(".new-{}-{thread:?}", std::process::id()));

    let written = File::create(&new).and_then(|mut file| file.write_all(bytes));
    let outcome = written.and_then(|()| fs::rename(&new, path));
    if outcome.is_err() {
        let _ = fs::remove_file(&new);
    }
    outcome.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(outcome: anyhow::Result<()>) -> String {
        format!("{:#}", outcome.unwrap_err())
    }

    /// An index replaces an index, and an empty file, and nothing else.
    #[test]
    fn only_the_same_kind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for before in [&b""[..], b"inetboot-index 1\n"] {
            fs::write(&path, before).unwrap();
            write(&path, INDEX, b"inetboot-index 1\nnew").unwrap();
            assert!(fs::read(&path).unwrap().ends_with(b"new"));
        }
        fs::write(&path, b"an image").unwrap();
        assert!(refusal(write(&path, INDEX, b"inetboot-index 1\n")).contains("is not an index"));
        assert_eq!(fs::read(&path).unwrap(), b"an image");
    }

    /// A secret key begins as a signature does, and is none.
    #[test]
    fn a_secret_key_is_no_signature() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let signature = minisign::sign(None, &pair.sk, &b"index"[..], None, None).unwrap().to_string();
        assert!((SIGNATURE.is_one)(signature.as_bytes()));
        let secret = pair.sk.to_box(None).unwrap().to_string();
        assert!(!(SIGNATURE.is_one)(secret.as_bytes()));
    }

    /// A device or a directory is never replaced by a file.
    #[test]
    fn only_regular_files_are_replaced() {
        assert!(refusal(write(Path::new("/dev/null"), INDEX, b"")).contains("not a regular file"));
        assert!(refusal(write(Path::new("/"), INDEX, b"")).contains("not a regular file"));
    }

    /// An input is found under another name as well.
    #[test]
    fn an_input_is_not_an_output() {
        let dir = tempfile::tempdir().unwrap();
        let (input, link) = (dir.path().join("in"), dir.path().join("link"));
        fs::write(&input, b"x").unwrap();
        fs::hard_link(&input, &link).unwrap();
        assert!(refusal(ensure_no_input(&link, &[&input])).contains("is read too"));
        ensure_no_input(&dir.path().join("new"), &[&input]).unwrap();
    }

    /// A directory of others' files is not written to, one that an earlier run made is.
    #[test]
    fn a_directory_of_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["vmlinuz", "overlay.img"];
        own_directory(&dir.path().join("new"), &names).unwrap();
        fs::remove_dir(dir.path().join("new")).unwrap();

        fs::write(dir.path().join("vmlinuz"), b"").unwrap();
        own_directory(dir.path(), &names).unwrap();
        fs::write(dir.path().join("config"), b"").unwrap();
        assert!(refusal(own_directory(dir.path(), &names)).contains("has a file config in it"));
        fs::write(dir.path().join("overlay.img"), b"").unwrap();
        own_directory(dir.path(), &names).unwrap();
    }

    /// A link to a file stays a link, and its target gets the contents.
    #[test]
    fn a_link_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, b"").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, PROFILE, b"inetboot-profile 1\n").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"inetboot-profile 1\n");
    }
}
