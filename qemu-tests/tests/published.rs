//! Images that somebody vouches for, booted: by our index, from stores, by the world's indexes. Of
//! two mirrors one has a wrong byte and one dies in the middle of the boot; the boot goes on, and
//! says who it was.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests stop the test

use qemu_tests::images::{self, Witness};
use qemu_tests::machine::built;
use qemu_tests::web::{Fault, Server};
use qemu_tests::{Machine, Opts, boot, run};
use std::fs;
use std::path::Path;

const SOON: u64 = 300;

fn ctl(dir: &Path, arguments: &[&str]) -> String {
    run(dir, built("inetbootctl").to_str().expect("a path"), &[&["image"], arguments].concat())
}

/// A directory with the witness in it.
fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::copy(images::witness(&Witness::default()), dir.path().join("w.iso")).expect("copying the witness");
    dir
}

/// Two mirrors of `dir`: the first has wrong bytes in everything but the index.
fn mirrors(dir: &Path) -> [Server; 2] {
    let serve = || Server::builder().tree(dir).and_then(qemu_tests::web::Builder::start).expect("a server");
    let [lies, dies] = [serve(), serve()];
    lies.misbehave(|number, path| {
        let is_index = [".idx", ".torrent", ".caibx", ".minisig"].iter().any(|end| path.ends_with(end));
        // Every ninth answer has a flipped bit: the others are needed when the other mirror is gone.
        (!is_index && number % 9 == 3).then_some(Fault::Corrupt)
    });
    [lies, dies]
}

/// Boots with `append`, while the honest mirror dies at the hand-over, to the end of the report and
/// through all of the image; the screen and the receipt name the other one.
fn goes_on(append: String, [lies, dies]: &[Server; 2], trust: &str) {
    let mut machine = boot(&Opts { append, ..Opts::default() });
    let first = machine.expect("handing over to the target's own /init", SOON, Some(lies));
    assert!(first.contains(trust), "\"{trust}\" was not said");
    dies.set_down(true);
    machine.expect("witness: ready", SOON, Some(lies));
    let sum = machine.run("md5sum /cd/numbers", SOON, Some(lies));
    assert!(sum.contains(&numbers()), "{sum}");
    let receipt = machine.run("sleep 3; cat /run/inetboot/receipt.json", SOON, Some(lies));
    assert!(receipt.contains(&format!("\"trust\": \"{trust}\"")), "{receipt}");
    names(&machine, &receipt, lies);
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

/// The digest of the witness' file of numbers.
fn numbers() -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let numbers: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect();
    fs::write(dir.path().join("numbers"), numbers).expect("writing it");
    let sum = run(dir.path(), "md5sum", &["numbers"]);
    sum.split_whitespace().next().expect("md5sum prints a sum").to_owned()
}

fn urls(servers: &[Server; 2], path: &str) -> String {
    servers.iter().map(|server| server.guest_url(path)).collect::<Vec<_>>().join(",")
}

#[test]
fn boots_verified_from_a_plain_image_with_our_index_and_a_pin() {
    let dir = site();
    let said = ctl(dir.path(), &["index", "w.iso"]);
    let pin = said.lines().find(|line| line.starts_with("inetboot.pin=")).expect("it prints the pin");
    let servers = mirrors(dir.path());
    let append = format!(
        "netdir={} inetboot.index={} {pin}",
        urls(&servers, "/w.iso"),
        servers[0].guest_url("/w.iso.idx")
    );
    goes_on(append, &servers, "verified, pinned");
}

#[test]
fn boots_verified_from_a_store_that_is_signed() {
    let dir = site();
    let key = ctl(dir.path(), &["key", "secret.key"]);
    let key = key.lines().find(|line| line.starts_with("inetboot.key=")).expect("it prints the key");
    ctl(dir.path(), &["build", "w.iso", "--store", "store"]);
    ctl(dir.path(), &["sign", "w.iso.idx", "--secret", "secret.key"]);
    fs::remove_file(dir.path().join("w.iso")).expect("the image itself is not needed");
    let servers = mirrors(dir.path());
    let append = format!("netdir={} {key}", urls(&servers, "/w.iso.idx"));
    goes_on(append, &servers, &format!("verified, signed by {}", &key["inetboot.key=".len()..]));
}

#[test]
fn boots_from_a_classic_store() {
    let dir = site();
    ctl(dir.path(), &["build", "w.iso", "--store", "store", "--classic"]);
    let servers = mirrors(dir.path());
    let append = format!("netdir={}", urls(&servers, "/w.iso.idx"));
    goes_on(append, &servers, "unverified: nobody vouches for its index");
}

#[test]
fn boots_from_a_torrent() {
    let dir = site();
    let servers = mirrors(dir.path());
    let seeds = urls(&servers, "/w.iso");
    let arguments = ["-l", "18", "-a", "udp://tracker.invalid", "-w", &seeds, "-o", "w.torrent", "w.iso"];
    run(dir.path(), "mktorrent", &arguments);
    let index =
        Server::builder().tree(dir.path()).and_then(qemu_tests::web::Builder::start).expect("a server");
    let append = format!("netdir={}", index.guest_url("/w.torrent"));
    goes_on(append, &servers, "unverified: nobody vouches for its index");
}

#[test]
fn boots_from_casyncs_store() {
    let dir = site();
    run(dir.path(), "casync", &["make", "--store=default.castr", "w.caibx", "w.iso"]);
    let servers = mirrors(dir.path());
    let append = format!("netdir={}", urls(&servers, "/w.caibx"));
    goes_on(append, &servers, "unverified: nobody vouches for its index");
}

#[test]
fn a_wrong_pin_stops_before_kexec() {
    let dir = site();
    ctl(dir.path(), &["index", "w.iso"]);
    let [_, server] = mirrors(dir.path());
    let append = format!("netdir={} inetboot.pin=sha256:{}", server.guest_url("/w.iso.idx"), "0".repeat(64));
    let mut machine = boot(&Opts { append, ..Opts::default() });
    machine.expect("[3/8] source failed: ", SOON, Some(&server));
    let said = machine.expect("\n", 30, Some(&server));
    assert!(said.contains("is not trusted") && said.contains("inetboot.pin= demands sha256:000"), "{said}");
}
