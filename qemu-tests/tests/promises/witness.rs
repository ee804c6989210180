//! Promises of the whole line, kept with the witness: two lives that take seconds.

use crate::SOON;
use qemu_tests::images::{self, Root, Witness};
use qemu_tests::pki::{Authority, Years};
use qemu_tests::web::{Fault, IMAGE, Server};
use qemu_tests::{Machine, Opts, boot, dns, promise, run};
use std::fs;
use std::time::Duration;

/// An initrd with every module that its machine needs, but for the drivers of other cards.
const ALL_MODULES: &[&str] = &["virtio_net", "virtio_pci", "fuse", "loop", "isofs", "squashfs", "overlay"];

fn serve(witness: &Witness) -> Server {
    Server::of_image(images::witness(witness))
}

/// Boots to the end of the witness' report, and gives what was said.
fn report(opts: &Opts) -> (Machine, String) {
    let mut machine = boot(opts);
    let said = machine.expect("witness: ready", SOON);
    (machine, said)
}

/// The value of a line of the witness' report.
fn line<'a>(said: &'a str, key: &str) -> &'a str {
    let start = format!("witness: {key} ");
    said.lines()
        .find_map(|line| line.split_once(start.as_str()))
        .map(|(_, rest)| rest.trim())
        .unwrap_or_else(|| panic!("the witness reports no {key}:\n{said}"))
}

/// The distribution's init finds its CD, its arguments and its network, and no trace of ours; the notes of
/// the boot are in `/run/inetboot`.
#[test]
fn second_life_finds_the_cd() {
    dns::serve();
    let iso = images::witness(&Witness::default());
    let server = Server::of_image(&iso);
    // By a name, so that names are looked up in both lives.
    let (mut machine, said) = report(&Opts::with_arguments(format!(
        "netdir=http://iso.inetboot.test:{}{IMAGE} nameserver=10.0.2.2 first=1 \"a b\" last=2",
        server.port()
    )));

    promise("the distribution's init is process 1 and finds nothing mounted", || {
        assert_eq!(line(&said, "pid"), "1");
        assert_eq!(line(&said, "mounts before:"), "");
    });
    promise("its arguments are those of its menu and the user's, without ours", || {
        let cmdline = line(&said, "cmdline");
        let expected = "rdinit=/inetboot live-media=/dev/loop0 nodhcp noeject boot=live witness=1 console=ttyS0 \
                        first=1 \"a b\" last=2";
        assert!(cmdline.starts_with(expected), "{cmdline}");
        assert!(!cmdline.contains("netdir="), "{cmdline}");
    });
    let sectors = fs::metadata(&iso).expect("the ISO is there").len() / 512;
    promise("it finds the whole CD", || {
        assert_eq!(line(&said, "cd"), "boot live numbers");
        assert_eq!(line(&said, "size"), sectors.to_string());
    });
    promise("it has the name server and the address", || {
        assert!(line(&said, "resolv").starts_with("nameserver 10.0.2.2"));
        assert_eq!(line(&said, "address"), "10.0.2.15/24");
    });
    promise("modules that its initrd lacks come from its root", || {
        assert!(said.contains("taking the module fuse from"));
    });
    promise("the screen says that there is no TPM", || {
        assert!(said.contains("not measured: this machine shows no TPM"));
    });

    promise("there is a receipt", || {
        let receipt = machine.run("sleep 3; cat /run/inetboot/receipt.json", 60);
        for part in [
            "\"image\": \"http://iso.inetboot.test",
            "\"trust\": \"unverified\"",
            "\"miniroot\":",
            "\"kexec\":",
        ] {
            assert!(receipt.contains(part), "{part} is missing in {receipt}");
        }
    });
    promise("there is a profile of the reads", || {
        let profile = machine.run("head -n 3 /run/inetboot/profile", 60);
        let pieces = format!("inetboot-profile 1\npieces {}\n", (sectors * 512).div_ceil(128 << 10));
        assert!(profile.starts_with(&pieces), "{profile}");
    });
    promise("the name of our process tells systemd not to end it", || {
        let argv = machine.run("cat $(grep -l [@]inetboot /proc/[0-9]*/cmdline)", 60);
        assert!(argv.starts_with("@inetboot"), "{argv}");
    });
}

/// Modules that the target's initrd has are used from there.
#[test]
fn initrd_modules_are_used() {
    let server = serve(&Witness { initrd_modules: ALL_MODULES, ..Witness::default() });
    let (_machine, said) = report(&Opts::with_arguments(server.netdir()));
    assert!(!said.contains("taking the module"));
}

/// The driver of a card that the target's initrd lacks comes from its root, and nothing else does.
#[test]
fn missing_driver_comes_from_the_root() {
    let server = serve(&Witness { initrd_modules: ALL_MODULES, ..Witness::default() });
    let (_machine, said) = report(&Opts { card: Some("e1000"), ..Opts::with_arguments(server.netdir()) });
    assert!(said.contains("taking the module e1000 from"));
    assert!(!said.contains("taking the module fuse from"));
}

/// The root may be an EROFS.
#[test]
fn modules_come_from_erofs_too() {
    let server = serve(&Witness { root: Root::Erofs, ..Witness::default() });
    let (_machine, said) = report(&Opts::with_arguments(server.netdir()));
    assert!(said.contains("taking the module virtio_net from"), "{said}");
}

/// HTTPS works with a private authority, on a machine whose clock stands in a year in which the certificate
/// is not valid yet.
#[test]
fn https_private_ca_and_dead_clock() {
    let authority = Authority::new().expect("making an authority");
    let identity = authority.identity(&["10.0.2.2"], Years(2020, 2099)).expect("making a certificate");
    let server = Server::builder()
        .image(images::witness(&Witness::default()))
        .tls(identity)
        .start()
        .expect("starting a web server");
    let (_machine, said) = report(&Opts {
        append: format!("{} inetboot.ca=/ca.pem", server.netdir()),
        files: vec![("/ca.pem".into(), authority.pem().into())],
        qemu: vec!["-rtc".into(), "base=2001-02-03".into()],
        ..Opts::default()
    });
    assert!(said.contains("the clock was behind"));
}

/// With `ip=` and an address no lease is asked for.
#[test]
fn static_address_needs_no_dhcp() {
    let server = serve(&Witness::default());
    let ip = "ip=10.0.2.77::10.0.2.2:255.255.255.0::eth0:none:10.0.2.2";
    let (_machine, said) = report(&Opts::with_arguments(format!("{} {ip}", server.netdir())));
    assert_eq!(line(&said, "address"), "10.0.2.77/24");
    assert!(!said.contains("asking for a lease"));
}

/// Every byte is right, though the server sends errors, stalls, hangs up and sends wrong ranges.
#[test]
fn survives_5xx_stalls_and_cuts() {
    let server = serve(&Witness::default());
    server.misbehave(|number, _| match number % 9 {
        2 => Some(Fault::Status(503)),
        4 => Some(Fault::Cut),
        5 => Some(Fault::HangUp),
        6 => Some(Fault::WrongRange),
        7 if number < 20 => Some(Fault::Stall(Duration::from_secs(30))),
        _ => None,
    });
    let (mut machine, _) = report(&Opts::with_arguments(server.netdir()));
    let said = machine.run("md5sum /cd/numbers", SOON);

    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("numbers"), images::numbers()).expect("writing the numbers");
    let sum = run(dir.path(), "md5sum", &["numbers"]);
    let sum = sum.split_whitespace().next().expect("md5sum prints a sum");
    assert!(said.contains(sum), "{sum} was expected:\n{said}");
}

/// Reads stop while the server has another version of the image, and go on when the old one is back.
#[test]
fn changed_image_is_noticed() {
    let server = serve(&Witness::default());
    let (mut machine, _) = report(&Opts::with_arguments(server.netdir()));
    server.misbehave(|_, _| Some(Fault::OtherEtag("\"second\"".into())));
    machine.type_line("cat /cd/numbers | wc -c");
    machine.expect("the image on the server has changed", 60);
    server.misbehave(|_, _| None);
    machine.expect("is back after", 60);
    machine.expect("8000000", 60);
}

/// An image on a server that cannot serve ranges is fetched whole, into memory.
#[test]
fn server_without_ranges_is_read_whole() {
    let server = serve(&Witness::default());
    server.misbehave(|_, _| Some(Fault::NoRange));
    let (_machine, said) = report(&Opts { memory: 1024, ..Opts::with_arguments(server.netdir()) });
    assert!(said.contains("server without ranges: reading all"));
    assert_eq!(line(&said, "cd"), "boot live numbers");
}

/// A first card without a network does not delay the boot.
#[test]
fn idle_card_costs_no_wait() {
    let server = serve(&Witness::default());
    let (_machine, said) = report(&Opts::with_arguments(server.netdir()).with_idle_card());
    assert!(!said.contains("still without a lease"), "it waited for the idle card");
}
