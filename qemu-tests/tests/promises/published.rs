//! Published images, booted: the Debian ISO by our index, from stores, by other tools' indexes. One of two
//! mirrors has wrong bytes and the other dies in the middle of the boot; the boot goes on to the login
//! prompt and names the mirror with wrong bytes. An image whose index is not trusted as the arguments
//! demand is not booted. Unsigned images are booted by the machines of `loaders`, the signed store by the
//! one of `secure_boot` whose owner signs everything.

use crate::LONG;
use qemu_tests::images::{self, Witness};
use qemu_tests::repository::{built, inetbootctl, text};
use qemu_tests::tpm::{Tpm, Version};
use qemu_tests::web::{Builder, Fault, Server};
use qemu_tests::{Machine, Opts, boot, promise, publish};
use std::fs;
use std::path::Path;

/// The screen's and the receipt's words for an index without a signature or a pin.
const UNVOUCHED: &str = "unverified: its index came without HTTPS, pin or signature";

/// The files that the mirror with wrong bytes serves as they are.
const INDEXES: [&str; 5] = [".idx", ".torrent", ".meta4", ".caibx", ".minisig"];

/// Runs `inetbootctl image`.
fn ctl(dir: &Path, arguments: &[&str]) -> String {
    inetbootctl(dir, &[&["image"], arguments].concat())
}

/// The line of `inetbootctl`'s output that is this kernel argument.
fn argument<'a>(output: &'a str, name: &str) -> &'a str {
    output.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {output}"))
}

/// A directory with `iso` in it as `x.iso`.
fn site(iso: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(iso, dir.path().join("x.iso")).expect("linking the image");
    dir
}

fn serve(dir: &Path) -> Server {
    Server::builder().tree(dir).and_then(Builder::start).expect("a server")
}

/// Two mirrors: one has wrong bytes now and then, and the other dies.
struct Mirrors {
    lies: Server,
    dies: Server,
}

impl Mirrors {
    /// Mirrors of `dir`. Indexes are right on both.
    fn of(dir: &Path) -> Self {
        let (lies, dies) = (serve(dir), serve(dir));
        lies.misbehave(|number, path| {
            let is_index = INDEXES.iter().any(|end| path.ends_with(end));
            // Only every ninth answer has a flipped bit: the others are needed once the other mirror is
            // gone.
            (!is_index && number % 9 == 3).then_some(Fault::Corrupt)
        });
        Self { lies, dies }
    }

    fn urls(&self, path: &str) -> [String; 2] {
        [self.lies.guest_url(path), self.dies.guest_url(path)]
    }

    /// The machine boots by way of kexec and logs in, while the honest mirror dies at the handover. Screen
    /// and receipt say how far the image is trusted, and name the mirror with wrong bytes.
    fn check_boot(&self, machine: &mut Machine, trust: &str) {
        promise("the screen says how far the image is trusted, before kexec", || {
            let first = machine.expect("handing over to the target's own /init", LONG);
            assert!(first.contains("[8/8] kexec"), "it went another way");
            assert!(first.contains(trust), "\"{trust}\" was not said");
        });

        promise("the boot goes on while the honest mirror is gone", || {
            self.dies.set_down(true);
            machine.log_in(LONG);
        });

        promise("the receipt says how far the image is trusted, and which mirror had wrong bytes", || {
            let receipt = machine.run("cat /run/inetboot/receipt.json", LONG);
            assert!(receipt.contains(&format!("\"trust\": \"{trust}\"")), "{receipt}");
            assert!(receipt.contains("\"wrong\": "), "{receipt}");
        });
        promise("the screen names the mirror with wrong bytes", || {
            let liar = format!("10.0.2.2:{}", self.lies.port());
            let said = machine.said();
            let is_named = |line: &str| line.contains(&liar) && line.contains("is asked last from now on");
            assert!(said.lines().any(is_named), "{liar} is not named");
        });
        promise("no read failed", || machine.check_no_read_failed());
    }
}

/// The Debian ISO as it may be published, on two mirrors.
pub struct Published {
    _dir: tempfile::TempDir,
    mirrors: Mirrors,
    _index: Option<Server>,
    /// The kernel arguments that name it, with the demands on it.
    pub arguments: String,
    /// The screen's and the receipt's words for how far it is trusted.
    trust: String,
}

impl Published {
    /// The image in pieces, in a store on both mirrors that `index` describes.
    fn of_store(dir: tempfile::TempDir, index: &str) -> Self {
        fs::remove_file(dir.path().join("x.iso")).expect("the image itself is not needed");
        let mirrors = Mirrors::of(dir.path());
        let arguments = format!("netdir={}", mirrors.urls(index).join(","));
        Self { _dir: dir, mirrors, _index: None, arguments, trust: UNVOUCHED.into() }
    }

    /// The image whole, with an index that `make` writes: that names the mirrors, and is on a third server.
    fn of_index(make: fn(&Path, &str, &[String]), index: &str) -> Self {
        let dir = site(&images::debian());
        let mirrors = Mirrors::of(dir.path());
        make(dir.path(), "x", &mirrors.urls("/x.iso"));
        let server = serve(dir.path());
        let arguments = format!("netdir={}", server.guest_url(index));
        Self { _dir: dir, mirrors, _index: Some(server), arguments, trust: UNVOUCHED.into() }
    }

    /// In a store whose pieces have one size.
    pub fn classic_store() -> Self {
        let dir = site(&images::debian());
        ctl(dir.path(), &["build", "x.iso", "--store", "store", "--classic"]);
        Self::of_store(dir, "/x.iso.idx")
    }

    /// In a store whose index is signed, as the arguments demand.
    pub fn signed_store() -> Self {
        let dir = site(&images::debian());
        let output = ctl(dir.path(), &["key", "secret.key"]);
        let key = argument(&output, "inetboot.key=");
        ctl(dir.path(), &["build", "x.iso", "--store", "store"]);
        ctl(dir.path(), &["sign", "x.iso.idx", "--secret", "secret.key"]);

        let image = Self::of_store(dir, "/x.iso.idx");
        let trust = format!("verified, signed by {}", &key["inetboot.key=".len()..]);
        Self { arguments: format!("{} {key}", image.arguments), trust, ..image }
    }

    /// In a store of casync's.
    pub fn casyncs_store() -> Self {
        let dir = site(&images::debian());
        publish::casync(dir.path(), "x");
        Self::of_store(dir, "/x.caibx")
    }

    /// With a torrent that has web seeds.
    pub fn torrent() -> Self {
        Self::of_index(publish::torrent, "/x.torrent")
    }

    /// With a metalink.
    pub fn metalink() -> Self {
        Self::of_index(publish::metalink, "/x.meta4")
    }

    /// The machine boots it by way of kexec and logs in.
    pub fn log_in(&self, machine: &mut Machine) {
        self.mirrors.check_boot(machine, &self.trust);
    }
}

/// A plain image with our index and a pin is verified; the PCRs are as predicted, whatever the mirrors did.
#[test]
fn pinned_image_boots_as_predicted() {
    let dir = site(&images::debian());
    let output = ctl(dir.path(), &["index", "x.iso"]);
    let pin = argument(&output, "inetboot.pin=");
    let mirrors = Mirrors::of(dir.path());
    let index = mirrors.lies.guest_url("/x.iso.idx");
    let netdir = mirrors.urls("/x.iso").join(",");
    let append = format!("netdir={netdir} inetboot.index={index} {pin} inetboot.tpm=require");

    let arguments = format!("console=ttyS0 {append}");
    let initramfs = text(&built("own/initramfs.img"));
    let predict = ["predict", "--initramfs", &initramfs, "--arguments", &arguments];
    let predicted = inetbootctl(dir.path(), &predict);

    let tpm = Tpm::new(Version::V20);
    let mut machine = boot(&Opts { append, qemu: tpm.qemu("tpm-crb"), ..Opts::default() });
    mirrors.check_boot(&mut machine, "verified, pinned");
    promise("PCR 8 and 9 are as predicted", || {
        let holds = machine.run("cat /sys/class/tpm/tpm0/pcr-sha256/[89]", LONG);
        let (_, sha256) = predicted.split_once("sha256:").expect("a bank");
        let values: Vec<&str> = holds.lines().map(str::trim).collect();
        assert_eq!(values.len(), 2, "{holds}");
        for (pcr, value) in ["8 : 0x", "9 : 0x"].iter().zip(values) {
            assert!(sha256.contains(&format!("{pcr}{value}")), "PCR {pcr}{value} is not in {predicted}");
        }
    });
}

/// Boots with `append`, which has to be refused with `words` before anything of the image is used.
fn check_refused(server: &Server, append: &str, words: &[&str]) {
    let append = format!("netdir={} {append}", server.guest_url("/x.iso.idx"));
    let mut machine = boot(&Opts::with_arguments(append));
    machine.expect("[3/8] source failed: ", LONG);
    let said = machine.expect("\n", 30);
    for word in words {
        assert!(said.contains(word), "\"{word}\" is not in: {said}");
    }
    assert!(!machine.said().contains("[4/8]"), "it went on");
}

/// An index that does not fit the pin, or is not signed, or whose signature is not good, stops the boot
/// before the image is used.
#[test]
fn untrusted_indexes_are_refused() {
    let dir = site(&images::witness(&Witness::default()));
    let index = ctl(dir.path(), &["index", "x.iso"]);
    let pin = argument(&index, "inetboot.pin=");
    let key = ctl(dir.path(), &["key", "secret.key"]);
    let key = argument(&key, "inetboot.key=");

    let server = serve(dir.path());
    promise("an index that does not fit the pin is refused", || {
        let other = format!("inetboot.pin=sha256:{}", "0".repeat(64));
        check_refused(&server, &other, &["is not trusted", "inetboot.pin= demands sha256:000"]);
    });
    promise("an index without a signature is refused", || {
        check_refused(&server, key, &["is not trusted", "demands a signature", "/x.iso.idx.minisig"]);
    });

    ctl(dir.path(), &["sign", "x.iso.idx", "--secret", "secret.key"]);
    let index = dir.path().join("x.iso.idx");
    let mut bytes = fs::read(&index).expect("reading the index");
    *bytes.last_mut().expect("it has digests") ^= 1;
    fs::write(&index, bytes).expect("tampering with it");
    let server = serve(dir.path());
    promise("an index that was changed after it was signed is refused", || {
        let words = ["is not trusted", "its signature is not good for inetboot.key=RW"];
        check_refused(&server, key, &words);
    });
    promise("an index that was changed does not fit its pin and is refused", || {
        check_refused(&server, pin, &["is not trusted", "inetboot.pin= demands sha256:"]);
    });
}
