//! Promises of the whole line, kept with a witness: double boots that take seconds.

use qemu_tests::images::{self, Witness};
use qemu_tests::pki::{Authority, Years};
use qemu_tests::web::{Content, Fault, Server};
use qemu_tests::{Machine, Opts, boot, dns};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Seconds until the witness is ready; a boot takes 20 to 30 on an idle machine under TCG.
const SOON: u64 = 300;

fn serve(iso: &Path) -> Server {
    Server::builder().file("/w.iso", Content::File(iso.to_owned())).start().expect("starting a web server")
}

fn netdir(server: &Server) -> String {
    format!("netdir={}", server.guest_url("/w.iso"))
}

/// Boots to the end of the witness' report, and gives what it said.
fn report(opts: &Opts, server: &Server) -> (Machine, String) {
    let mut machine = boot(opts);
    let said = machine.expect("witness: ready", SOON, Some(server));
    (machine, said)
}

fn line<'a>(said: &'a str, key: &str) -> &'a str {
    let start = format!("witness: {key} ");
    said.lines()
        .find_map(|line| line.split_once(start.as_str()))
        .map(|(_, rest)| rest.trim())
        .unwrap_or_else(|| panic!("the witness said nothing of {key}:\n{said}"))
}

#[test]
fn second_life_finds_the_cd() {
    dns::serve();
    let iso = images::witness(&Witness::default());
    let server = serve(&iso);
    let opts = Opts {
        // By name, so that names are looked up in both lives.
        append: format!(
            "netdir=http://iso.inetboot.test:{}/w.iso nameserver=10.0.2.2 first=1 \"a b\" last=2",
            server.port()
        ),
        ..Opts::default()
    };
    let (mut machine, said) = report(&opts, &server);
    assert_eq!(line(&said, "pid"), "1");
    assert_eq!(line(&said, "mounts before:"), "", "the distro's init finds nothing mounted");
    let cmdline = line(&said, "cmdline");
    assert!(
        cmdline.starts_with(
            "rdinit=/inetboot live-media=/dev/loop0 nodhcp noeject boot=live witness=1 console=ttyS0 first=1 \"a b\" last=2"
        ),
        "{cmdline}"
    );
    assert!(!cmdline.contains("netdir="), "what is ours is not passed on: {cmdline}");
    assert_eq!(line(&said, "cd"), "boot live numbers");
    let sectors = fs::metadata(&iso).expect("the ISO is there").len() / 512;
    assert_eq!(line(&said, "size"), sectors.to_string());
    assert!(line(&said, "resolv").starts_with("nameserver 10.0.2.2"));
    assert_eq!(line(&said, "address"), "10.0.2.15/24");
    assert!(said.contains("transplanting fuse"), "the witness' initrd has no modules");
    assert!(said.contains("not measured: this machine shows no TPM"));

    let receipt = machine.run("sleep 3; cat /run/inetboot/receipt.json", 60, Some(&server));
    for part in
        ["\"image\": \"http://iso.inetboot.test", "\"trust\": \"unverified\"", "\"miniroot\":", "\"kexec\":"]
    {
        assert!(receipt.contains(part), "{part} is missing in {receipt}");
    }
    let profile = machine.run("head -n 3 /run/inetboot/profile", 60, Some(&server));
    let pieces = format!("inetboot-profile 1\npieces {}\n", (sectors * 512).div_ceil(128 << 10));
    assert!(profile.starts_with(&pieces), "{profile}");
    let argv = machine.run("cat $(grep -l [@]inetboot /proc/[0-9]*/cmdline)", 60, Some(&server));
    assert!(argv.starts_with("@inetboot"), "systemd would end it: {argv}");
}

#[test]
fn modules_of_the_targets_own_initrd_are_used() {
    let witness = Witness {
        initrd_modules: vec!["virtio_net", "virtio_pci", "fuse", "loop", "isofs", "squashfs", "overlay"],
        ..Witness::default()
    };
    let server = serve(&images::witness(&witness));
    let (_machine, said) = report(&Opts { append: netdir(&server), ..Opts::default() }, &server);
    assert!(!said.contains("transplanting"));
}

#[test]
fn a_card_whose_driver_the_initrd_lacks_gets_it_from_the_root() {
    let witness = Witness {
        initrd_modules: vec!["virtio_net", "virtio_pci", "fuse", "loop", "isofs", "squashfs", "overlay"],
        ..Witness::default()
    };
    let server = serve(&images::witness(&witness));
    let opts = Opts { append: netdir(&server), card: Some("e1000"), ..Opts::default() };
    let (_machine, said) = report(&opts, &server);
    assert!(said.contains("transplanting e1000"));
    assert!(!said.contains("transplanting fuse"));
}

#[test]
fn modules_are_taken_from_an_erofs_too() {
    let server = serve(&images::witness(&Witness { erofs: true, ..Witness::default() }));
    let (_machine, said) = report(&Opts { append: netdir(&server), ..Opts::default() }, &server);
    assert!(said.contains("transplanting virtio_net"), "{said}");
}

#[test]
fn boots_from_https_with_a_private_ca_and_a_dead_clock() {
    let iso = images::witness(&Witness::default());
    let authority = Authority::new().expect("making an authority");
    // Not valid in 2001, where this machine's clock stands.
    let identity = authority.identity(&["10.0.2.2"], Years(2020, 2099)).expect("making a certificate");
    let server = Server::builder()
        .file("/w.iso", Content::File(iso))
        .tls(identity)
        .start()
        .expect("starting a web server");
    let opts = Opts {
        append: format!("{} inetboot.ca=/ca.pem", netdir(&server)),
        files: vec![("/ca.pem".into(), authority.pem().into())],
        qemu: vec!["-rtc".into(), "base=2001-02-03".into()],
        ..Opts::default()
    };
    let (_machine, said) = report(&opts, &server);
    assert!(said.contains("the clock was behind"));
}

#[test]
fn a_static_address_needs_no_dhcp() {
    let server = serve(&images::witness(&Witness::default()));
    let opts = Opts {
        append: format!("{} ip=10.0.2.77::10.0.2.2:255.255.255.0::eth0:none:10.0.2.2", netdir(&server)),
        ..Opts::default()
    };
    let (_machine, said) = report(&opts, &server);
    assert_eq!(line(&said, "address"), "10.0.2.77/24");
    assert!(!said.contains("asking for a lease"));
}

#[test]
fn survives_5xx_stalls_and_cuts() {
    let iso = images::witness(&Witness::default());
    let server = serve(&iso);
    server.misbehave(|number, _| match number % 9 {
        2 => Some(Fault::Status(503)),
        4 => Some(Fault::Cut),
        5 => Some(Fault::HangUp),
        6 => Some(Fault::WrongRange),
        7 if number < 20 => Some(Fault::Stall(Duration::from_secs(30))),
        _ => None,
    });
    let (mut machine, _) = report(&Opts { append: netdir(&server), ..Opts::default() }, &server);
    let said = machine.run("md5sum /cd/numbers", SOON, Some(&server));
    let numbers: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), numbers).expect("writing it");
    let output = std::process::Command::new("md5sum").arg(file.path()).output().expect("md5sum");
    let sum = String::from_utf8_lossy(&output.stdout);
    let sum = sum.split_whitespace().next().expect("md5sum prints a sum");
    assert!(said.contains(sum), "{sum} was expected:\n{said}");
}

#[test]
fn notices_a_changed_image_and_goes_on_when_the_old_one_is_back() {
    let server = serve(&images::witness(&Witness::default()));
    let (mut machine, _) = report(&Opts { append: netdir(&server), ..Opts::default() }, &server);
    server.misbehave(|_, _| Some(Fault::OtherEtag("\"second\"".into())));
    machine.type_line("cat /cd/numbers | wc -c");
    machine.expect("the image on the server has changed", 60, Some(&server));
    server.misbehave(|_, _| None);
    machine.expect("is back after", 60, Some(&server));
    machine.expect("8000000", 60, Some(&server));
}

#[test]
fn a_server_without_ranges_is_read_whole() {
    let server = serve(&images::witness(&Witness::default()));
    server.misbehave(|_, _| Some(Fault::NoRange));
    let opts = Opts { append: netdir(&server), memory: 1024, ..Opts::default() };
    let (_machine, said) = report(&opts, &server);
    assert!(said.contains("server without ranges: reading all"));
    assert_eq!(line(&said, "cd"), "boot live numbers");
}

#[test]
fn an_idle_second_card_costs_no_wait() {
    let server = serve(&images::witness(&Witness::default()));
    let opts = Opts { append: netdir(&server), ..Opts::default() }.with_idle_card();
    let (_machine, said) = report(&opts, &server);
    assert!(!said.contains("still without a lease"), "it waited for the idle card");
}
