//! Every family boots from an ISO of its own kind to its login prompt, and the family's network service
//! leaves our network alone. The makers in `qemu-tests/isos` say what is real about each ISO and what
//! stands in for something.

use crate::{LONG, check_budget};
use qemu_tests::images::{self, Casper, Fedora};
use qemu_tests::lan::{Lan, Service};
use qemu_tests::repository::{built, inetbootctl, text};
use qemu_tests::web::Server;
use qemu_tests::{Machine, Opts, boot, dns, promise};

/// The part of the image that a boot may fetch, kernel and initrd included.
const BUDGET_PERCENT: u64 = 70;

/// Boots to the login prompt and logs in.
fn log_in(server: &Server, opts: Opts) -> Machine {
    let append = format!("{} {}", server.netdir(), opts.append);
    let mut machine = boot(&Opts { append, ..opts });
    promise("it boots to its login prompt", || machine.log_in(LONG));
    promise("only a part of the image is fetched", || check_budget(&machine, server, BUDGET_PERCENT));
    promise("no read failed", || machine.check_no_read_failed());
    machine
}

/// A network whose leases last a minute, so that they have to be renewed, and a machine on it.
fn short_lease() -> (Lan, Opts) {
    dns::serve();
    let lan = Lan::new(Service::Dhcp(60));
    let opts = Opts { wire: lan.wire(), memory: 1024, ..Opts::default() };
    (lan, opts)
}

/// The modalias of QEMU's e1000.
const E1000: &str = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";

/// `inetbootctl predict`, which mounts nothing, expects every file that the machine measured.
fn check_prediction(machine: &Machine, server: &Server) {
    let dir = tempfile::tempdir().expect("a directory");
    let initramfs = text(&built("own/initramfs.img"));
    let arguments = format!("console=ttyS0 {} ", server.netdir());
    let boot = ["predict", "--initramfs", &initramfs, "--arguments", &arguments];
    inetbootctl(dir.path(), &[boot.as_slice(), &["--device", E1000, "--out", "expected"]].concat());
    let expected = inetbootctl(dir.path(), &["log", "show", "expected"]);

    let said = machine.said();
    let files: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("inetboot:   "))
        .filter(|line| ["kernel: ", "initrd: ", "overlay: "].iter().any(|word| line.starts_with(word)))
        .collect();
    assert!(files.iter().any(|line| line.contains("e1000.ko")), "{files:?}");
    for line in files {
        assert!(expected.contains(line), "\"{line}\" is not in\n{expected}");
    }
}

/// Fedora's kind, dracut 059 with a flat root: NetworkManager leaves our card alone.
#[test]
fn dracut_059_flat_with_networkmanager() {
    let server = Server::of_image(images::fedora(Fedora::Flat));
    let (lan, opts) = short_lease();
    let mut machine = log_in(&server, opts);
    promise("the root is an overlay, and NetworkManager runs", || {
        assert!(machine.run("findmnt -n /", LONG).contains("overlay"));
        machine.run("systemctl is-active NetworkManager", LONG);
    });
    lan.check_network_survives(&mut machine, &server, "NetworkManager");
    promise("NetworkManager does not manage the card", || {
        let state = machine.run("nmcli --terse --colors no device", LONG);
        assert!(state.contains("ethernet:unmanaged"), "{state}");
    });
}

/// Fedora's kind, dracut 059 with a root in a root, an e1000, and a first card without a network.
#[test]
fn dracut_059_nested_with_idle_card() {
    let server = Server::of_image(images::fedora(Fedora::Nested));
    let opts = Opts { memory: 1024, card: Some("e1000"), ..Opts::default() };
    let mut machine = log_in(&server, opts.with_idle_card());
    promise("the root is an overlay", || {
        let root = machine.run("findmnt -n /", LONG);
        assert!(root.contains("overlay"), "{root}");
    });
    promise("every measured file was predicted", || check_prediction(&machine, &server));
}

/// Fedora's kind, with dracut-ng.
#[test]
fn dracut_ng() {
    let server = Server::of_image(images::fedora(Fedora::Ng));
    let mut machine = log_in(&server, Opts { memory: 1024, ..Opts::default() });
    let root = machine.run("findmnt -n /", LONG);
    assert!(root.contains("overlay"), "{root}");
}

/// Ubuntu's kind with one squashfs, and a first card without a network.
#[test]
fn casper_classic_with_idle_card() {
    let server = Server::of_image(images::casper(Casper::Classic));
    let mut machine = log_in(&server, Opts { memory: 1024, ..Opts::default() }.with_idle_card());
    promise("the medium is mounted at /cdrom", || {
        assert!(machine.run("findmnt -n /cdrom", LONG).contains("/dev/loop0"));
    });
    promise("the medium check, which would read all of it, is enabled and does not read", || {
        machine.run("systemctl is-system-running --wait; true", LONG);
        assert!(machine.run("systemctl is-enabled casper-md5check", LONG).contains("enabled"));
        check_budget(&machine, &server, BUDGET_PERCENT);
    });
}

/// Ubuntu's kind with three layers: systemd-networkd leaves our address alone.
#[test]
fn casper_layered_with_networkd() {
    let server = Server::of_image(images::casper(Casper::Layered));
    let (lan, opts) = short_lease();
    let mut machine = log_in(&server, opts);
    promise("the root has its layers, and systemd-networkd runs", || {
        assert!(machine.run("findmnt -n /cdrom", LONG).contains("/dev/loop0"));
        assert!(machine.run("cat /etc/layer", LONG).contains("standard"));
        machine.run("systemctl is-active systemd-networkd", LONG);
    });
    lan.check_network_survives(&mut machine, &server, "systemd-networkd");
    promise("systemd-networkd uses our settings and asks for no lease", || {
        let state = machine.run("SYSTEMD_COLORS=0 networkctl --no-pager status eth0", LONG);
        for line in ["Network File: /run/systemd/network/00-inetboot.network", "(configured)"] {
            assert!(state.contains(line), "{state}");
        }
        assert_eq!(machine.run("ls /run/systemd/netif/leases", LONG), "", "it has a lease of its own");
    });
}

/// KNOPPIX' kind: the root is in two cloop images, and the card's driver comes from them.
#[test]
fn knoppix_from_cloop_images() {
    let server = Server::of_image(images::knoppix());
    let mut machine = log_in(&server, Opts { memory: 1024, card: Some("e1000"), ..Opts::default() });
    promise("both images are part of the root", || {
        assert!(machine.run("findmnt -n /mnt-system", LONG).contains("/dev/loop0"));
        assert!(machine.run("cat /etc/second", LONG).contains("from KNOPPIX1"));
    });
    promise("an argument of the menu that names a disk is left out", || {
        assert!(!machine.run("cat /proc/cmdline", LONG).contains("tohd="));
    });
    promise("every measured file was predicted", || check_prediction(&machine, &server));
}

/// `bootxen=1` starts the hypervisor of the medium, and the medium's Linux as its first guest.
#[test]
fn xen_and_dom0_from_one_medium() {
    let server = Server::of_image(images::fedora(Fedora::Nested));
    // A paravirtual dom0 dies in QEMU 7.2 if the processor has SMAP.
    let opts = Opts { memory: 2048, ..Opts::with_arguments("bootxen=1 inetboot.xen=\"dom0_mem=1G smap=0\"") };
    let mut machine = log_in(&server, opts);
    assert!(machine.run("cat /sys/hypervisor/type", LONG).contains("xen"));
}

/// Debian's installer starts from its netboot files, which are in a directory of a web server.
#[test]
fn netboot_files_of_debian_installer() {
    let builder = Server::builder().tree(&images::netboot()).expect("listing the netboot files");
    let server = builder.start().expect("starting a web server");
    let append = format!("netdir={} priority=high", server.guest_url("/"));
    let mut machine = boot(&Opts { memory: 1024, ..Opts::with_arguments(append) });
    // Its first dialogue.
    machine.expect("Choose the language", LONG);
    assert!(machine.said().contains("plain \"as named\": kernel/linux"));
}
