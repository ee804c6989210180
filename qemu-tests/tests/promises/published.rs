//! Images that somebody vouches for, booted: the real Debian ISO by our index, from stores, by the
//! world's indexes. Of two mirrors one has wrong bytes and one dies in the middle of the boot; the
//! boot goes on to the login prompt, and says who it was. What is not vouched for as was demanded
//! is not booted. Those that nobody signed are booted by the machines of `loaders`, the signed store by
//! that of `secure_boot` whose owner signs everything.

use qemu_tests::images::{self, Witness};
use qemu_tests::machine::built;
use qemu_tests::tpm::{Tpm, Version};
use qemu_tests::web::{Builder, Fault, Server};
use qemu_tests::{Machine, Opts, boot, publish, run};
use std::fs;
use std::path::Path;

/// Seconds for one stretch of a boot under TCG on a busy machine.
const LONG: u64 = 600;

const UNVOUCHED: &str = "unverified: its index came without HTTPS, pin or signature";

fn ctl(dir: &Path, arguments: &[&str]) -> String {
    run(dir, built("inetbootctl").to_str().expect("a path"), &[&["image"], arguments].concat())
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

/// Two mirrors of `dir`: the first has wrong bytes in everything but the index.
fn mirrors(dir: &Path) -> [Server; 2] {
    let [lies, dies] = [serve(dir), serve(dir)];
    lies.misbehave(|number, path| {
        let is_index =
            [".idx", ".torrent", ".meta4", ".caibx", ".minisig"].iter().any(|end| path.ends_with(end));
        // Every ninth answer has a flipped bit: the others are needed when the other mirror is gone.
        (!is_index && number % 9 == 3).then_some(Fault::Corrupt)
    });
    [lies, dies]
}

fn urls(servers: &[Server; 2], path: &str) -> String {
    servers.iter().map(|server| server.guest_url(path)).collect::<Vec<_>>().join(",")
}

/// An image as somebody published it, on two mirrors.
pub struct Published {
    _dir: tempfile::TempDir,
    mirrors: [Server; 2],
    _index: Option<Server>,
    /// The kernel arguments that name it and demand what is demanded of it.
    pub arguments: String,
    /// What screen and receipt say of who vouches for it.
    trust: String,
}

impl Published {
    fn of_store(dir: tempfile::TempDir, index: &str) -> Self {
        fs::remove_file(dir.path().join("x.iso")).expect("the image itself is not needed");
        let mirrors = mirrors(dir.path());
        let arguments = format!("netdir={}", urls(&mirrors, index));
        Self { _dir: dir, mirrors, _index: None, arguments, trust: UNVOUCHED.into() }
    }

    /// By an index that `make` writes: the image's mirrors are named there, not in the address.
    fn of_index(make: fn(&Path, &str, &[String]), index: &str) -> Self {
        let dir = site(&images::debian());
        let mirrors = mirrors(dir.path());
        make(dir.path(), "x", &[mirrors[0].guest_url("/x.iso"), mirrors[1].guest_url("/x.iso")]);
        let server = serve(dir.path());
        let arguments = format!("netdir={}", server.guest_url(index));
        Self { _dir: dir, mirrors, _index: Some(server), arguments, trust: UNVOUCHED.into() }
    }

    pub fn classic_store() -> Self {
        let dir = site(&images::debian());
        ctl(dir.path(), &["build", "x.iso", "--store", "store", "--classic"]);
        Self::of_store(dir, "/x.iso.idx")
    }

    pub fn signed_store() -> Self {
        let dir = site(&images::debian());
        let key = ctl(dir.path(), &["key", "secret.key"]);
        let key = key.lines().find(|line| line.starts_with("inetboot.key=")).expect("it prints the key");
        ctl(dir.path(), &["build", "x.iso", "--store", "store"]);
        ctl(dir.path(), &["sign", "x.iso.idx", "--secret", "secret.key"]);
        let image = Self::of_store(dir, "/x.iso.idx");
        let trust = format!("verified, signed by {}", &key["inetboot.key=".len()..]);
        Self { arguments: format!("{} {key}", image.arguments), trust, ..image }
    }

    pub fn casyncs_store() -> Self {
        let dir = site(&images::debian());
        publish::casync(dir.path(), "x");
        Self::of_store(dir, "/x.caibx")
    }

    pub fn torrent() -> Self {
        Self::of_index(publish::torrent, "/x.torrent")
    }

    pub fn metalink() -> Self {
        Self::of_index(publish::metalink, "/x.meta4")
    }

    /// The mirror that is there to the end.
    pub fn web(&self) -> &Server {
        &self.mirrors[0]
    }

    /// The machine boots it by way of kexec and logs in.
    pub fn logs_in(&self, machine: &mut Machine) {
        goes_on(machine, &self.mirrors, &self.trust);
    }
}

/// The boot of `machine` goes by way of kexec, while the honest mirror dies at the hand-over, to the
/// login prompt; the screen and the receipt name the other one.
fn goes_on(machine: &mut Machine, [lies, dies]: &[Server; 2], trust: &str) {
    let first = machine.expect("handing over to the target's own /init", LONG, Some(lies));
    assert!(first.contains("[8/8] kexec"), "it went another way");
    assert!(first.contains(trust), "\"{trust}\" was not said");
    dies.set_down(true);
    machine.log_in(LONG, Some(lies));
    let receipt = machine.run("cat /run/inetboot/receipt.json", LONG, Some(lies));
    assert!(receipt.contains(&format!("\"trust\": \"{trust}\"")), "{receipt}");
    names(machine, &receipt, lies);
    let said = machine.said();
    for bad in ["I/O error", "SQUASHFS error", "Kernel panic"] {
        assert!(!said.contains(bad), "the serial line says {bad}");
    }
}

fn names(machine: &Machine, receipt: &str, lies: &Server) {
    let port = format!("10.0.2.2:{}", lies.port());
    let said = machine.said();
    assert!(
        said.lines().any(|line| line.contains(&port) && line.contains("is asked last from now on")),
        "the screen does not name {port}"
    );
    assert!(receipt.contains("\"wrong\": "), "the receipt names nobody: {receipt}");
}

#[test]
fn debian_boots_verified_from_a_plain_image_with_our_index_and_a_pin() {
    let dir = site(&images::debian());
    let said = ctl(dir.path(), &["index", "x.iso"]);
    let pin = said.lines().find(|line| line.starts_with("inetboot.pin=")).expect("it prints the pin");
    let servers = mirrors(dir.path());
    let index = servers[0].guest_url("/x.iso.idx");
    let append =
        format!("netdir={} inetboot.index={index} {pin} inetboot.tpm=require", urls(&servers, "/x.iso"));
    let arguments = format!("console=ttyS0 {append}");
    let initramfs = built("own/initramfs.img");
    let initramfs = initramfs.to_str().expect("a path");
    let predict = ["predict", "--initramfs", initramfs, "--arguments", &arguments];
    let predicted = run(dir.path(), built("inetbootctl").to_str().expect("a path"), &predict);

    let tpm = Tpm::new(Version::V20);
    let opts = Opts { append, qemu: tpm.qemu("tpm-crb"), ..Opts::default() };
    let mut machine = boot(&opts);
    goes_on(&mut machine, &servers, "verified, pinned");
    // Whatever happened on the way, it was the boot that was to be expected.
    let holds = machine.run("cat /sys/class/tpm/tpm0/pcr-sha256/[89]", LONG, Some(&servers[0]));
    let (_, sha256) = predicted.split_once("sha256:").expect("a bank");
    let values: Vec<&str> = holds.lines().map(str::trim).collect();
    assert_eq!(values.len(), 2, "{holds}");
    for (pcr, value) in ["8 : 0x", "9 : 0x"].iter().zip(values) {
        assert!(sha256.contains(&format!("{pcr}{value}")), "PCR {pcr} holds {value}, not as in {predicted}");
    }
}

/// Boots with `append`, which has to be refused with `words` before anything of the image is used.
fn is_refused(server: &Server, append: &str, words: &[&str]) {
    let append = format!("netdir={} {append}", server.guest_url("/x.iso.idx"));
    let mut machine = boot(&Opts { append, ..Opts::default() });
    machine.expect("[3/8] source failed: ", LONG, Some(server));
    let said = machine.expect("\n", 30, Some(server));
    for word in words {
        assert!(said.contains(word), "\"{word}\" is not in: {said}");
    }
    assert!(!machine.said().contains("[4/8]"), "it went on");
}

#[test]
fn a_wrong_pin_a_missing_signature_and_a_tampered_index_stop_before_kexec() {
    let dir = site(&images::witness(&Witness::default()));
    let pin = ctl(dir.path(), &["index", "x.iso"]);
    let pin = pin.lines().find(|line| line.starts_with("inetboot.pin=")).expect("it prints the pin");
    let key = ctl(dir.path(), &["key", "secret.key"]);
    let key = key.lines().find(|line| line.starts_with("inetboot.key=")).expect("it prints the key");
    let server = serve(dir.path());
    let other = format!("inetboot.pin=sha256:{}", "0".repeat(64));
    is_refused(&server, &other, &["is not trusted", "inetboot.pin= demands sha256:000"]);
    is_refused(&server, key, &["is not trusted", "demands a signature", "/x.iso.idx.minisig"]);

    ctl(dir.path(), &["sign", "x.iso.idx", "--secret", "secret.key"]);
    let index = dir.path().join("x.iso.idx");
    let mut bytes = fs::read(&index).expect("reading the index");
    *bytes.last_mut().expect("it has digests") ^= 1;
    fs::write(&index, bytes).expect("tampering with it");
    let server = serve(dir.path());
    is_refused(&server, key, &["is not trusted", "its signature is not good for inetboot.key=RW"]);
    is_refused(&server, pin, &["is not trusted", "inetboot.pin= demands sha256:"]);
}
