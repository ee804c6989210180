//! Every family boots from an ISO of its own making to its login prompt, and what it keeps its
//! network by leaves ours alone. What is real about each ISO and what stands in for something is
//! said where it is made (`qemu-tests/isos`). The tests that wait for minutes are begun first: they are
//! taken by name.

use qemu_tests::lan::{Lan, Service};
use qemu_tests::machine::built;
use qemu_tests::web::{Content, Server};
use qemu_tests::{Machine, Opts, boot, dns, images, run};

/// Seconds for one stretch of a boot under TCG on a busy machine.
const LONG: u64 = 600;

fn serve(family: &str, layout: &str) -> Server {
    let iso = images::family(family, layout);
    Server::builder().file("/live.iso", Content::File(iso)).start().expect("starting a web server")
}

/// Of the ISO, kernel and initrd included: nobody reads the whole of it.
const BUDGET_PERCENT: u64 = 70;

/// Boots to the login prompt and logs in.
fn logs_in(server: &Server, opts: Opts) -> Machine {
    let append = format!("netdir={} {}", server.guest_url("/live.iso"), opts.append);
    let mut machine = boot(&Opts { append, ..opts });
    machine.log_in(LONG, Some(server));
    is_thrifty(&machine, server);
    let said = machine.said();
    for bad in ["I/O error", "SQUASHFS error", "Kernel panic"] {
        assert!(!said.contains(bad), "the serial line says {bad}");
    }
    machine
}

fn is_thrifty(machine: &Machine, server: &Server) {
    let (sent, length) = (server.bytes_sent(), server.length("/live.iso"));
    let percent = sent * 100 / length;
    println!("{sent} of {length} bytes ({percent} %) after {:?}", machine.age());
    assert!(percent < BUDGET_PERCENT, "{percent} % of the image crossed the network");
}

/// A lease of a minute, which somebody has to renew; names by a server of ours.
fn short_lease() -> (Lan, Opts) {
    dns::serve();
    let lan = Lan::new(Service::Dhcp(60));
    let opts = Opts { wire: lan.wire(), memory: 1024, ..Opts::default() };
    (lan, opts)
}

#[test]
fn dracut_059_with_a_flat_root_and_networkmanager() {
    let server = serve("fedora", "flat");
    let (lan, opts) = short_lease();
    let mut machine = logs_in(&server, opts);
    assert!(machine.run("findmnt -n /", LONG, Some(&server)).contains("overlay"));
    machine.run("systemctl is-active NetworkManager", LONG, Some(&server));
    lan.outlives(&mut machine, &server, "NetworkManager");
    let state = machine.run("nmcli --terse --colors no device", LONG, Some(&server));
    assert!(state.contains("ethernet:unmanaged"), "{state}");
}

/// What QEMU's e1000 is matched by.
const E1000: &str = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";

/// The desk, which mounts nothing, has the same idea of what was going to run: every file that the
/// machine measured is in its prediction.
fn was_predicted(machine: &Machine, server: &Server, append: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let ctl = |arguments: &[&str]| run(dir.path(), built("inetbootctl").to_str().expect("a path"), arguments);
    let initramfs = built("own/initramfs.img");
    let arguments = format!("console=ttyS0 netdir={} {append}", server.guest_url("/live.iso"));
    ctl(&[
        "predict",
        "--initramfs",
        initramfs.to_str().expect("a path"),
        "--arguments",
        &arguments,
        "--device",
        E1000,
        "--out",
        "expected",
    ]);
    let expected = ctl(&["log", "show", "expected"]);
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

#[test]
fn dracut_059_with_a_nested_root_and_an_idle_card() {
    let server = serve("fedora", "nested");
    let mut machine =
        logs_in(&server, Opts { memory: 1024, card: Some("e1000"), ..Opts::default() }.with_idle_card());
    let root = machine.run("findmnt -n /", LONG, Some(&server));
    assert!(root.contains("overlay"), "{root}");
    was_predicted(&machine, &server, "");
}

#[test]
fn dracut_ng() {
    let server = serve("fedora", "ng");
    let mut machine = logs_in(&server, Opts { memory: 1024, ..Opts::default() });
    let root = machine.run("findmnt -n /", LONG, Some(&server));
    assert!(root.contains("overlay"), "{root}");
}

#[test]
fn casper_by_its_contract_with_an_idle_card() {
    let server = serve("casper", "classic");
    let mut machine = logs_in(&server, Opts { memory: 1024, ..Opts::default() }.with_idle_card());
    assert!(machine.run("findmnt -n /cdrom", LONG, Some(&server)).contains("/dev/loop0"));
    // Whatever checks the medium after the boot would have read all of it.
    machine.run("systemctl is-system-running --wait; true", LONG, Some(&server));
    assert!(machine.run("systemctl is-enabled casper-md5check", LONG, Some(&server)).contains("enabled"));
    is_thrifty(&machine, &server);
}

#[test]
fn casper_by_its_contract_in_layers_with_networkd() {
    let server = serve("casper", "layered");
    let (lan, opts) = short_lease();
    let mut machine = logs_in(&server, opts);
    assert!(machine.run("findmnt -n /cdrom", LONG, Some(&server)).contains("/dev/loop0"));
    assert!(machine.run("cat /etc/layer", LONG, Some(&server)).contains("standard"));
    machine.run("systemctl is-active systemd-networkd", LONG, Some(&server));
    lan.outlives(&mut machine, &server, "systemd-networkd");
    let state = machine.run("SYSTEMD_COLORS=0 networkctl --no-pager status eth0", LONG, Some(&server));
    for line in ["Network File: /run/systemd/network/00-inetboot.network", "(configured)"] {
        assert!(state.contains(line), "{state}");
    }
    assert_eq!(
        machine.run("ls /run/systemd/netif/leases", LONG, Some(&server)),
        "",
        "it has a lease of its own"
    );
}

#[test]
fn knoppix_by_its_contract_from_cloop_images() {
    let server = serve("knoppix", "cd");
    let mut machine = logs_in(&server, Opts { memory: 1024, card: Some("e1000"), ..Opts::default() });
    assert!(machine.run("findmnt -n /mnt-system", LONG, Some(&server)).contains("/dev/loop0"));
    assert!(machine.run("cat /etc/second", LONG, Some(&server)).contains("from KNOPPIX1"));
    assert!(!machine.run("cat /proc/cmdline", LONG, Some(&server)).contains("tohd="));
    was_predicted(&machine, &server, "");
}

#[test]
fn xen_and_dom0_from_the_same_medium() {
    let server = serve("fedora", "nested");
    let opts = Opts {
        // QEMU 7.2 lets a paravirtual dom0 die where the processor has SMAP.
        append: "bootxen=1 inetboot.xen=\"dom0_mem=1G smap=0\"".into(),
        memory: 2048,
        ..Opts::default()
    };
    let mut machine = logs_in(&server, opts);
    assert!(machine.run("cat /sys/hypervisor/type", LONG, Some(&server)).contains("xen"));
}

#[test]
fn installer_of_debian_from_its_netboot_files() {
    let dir = images::netboot();
    let server =
        Server::builder().tree(&dir).and_then(|builder| builder.start()).expect("starting a web server");
    let opts = Opts {
        append: format!("netdir={} priority=high", server.guest_url("/")),
        memory: 1024,
        ..Opts::default()
    };
    let mut machine = boot(&opts);
    // Its first dialogue.
    machine.expect("Choose the language", LONG, Some(&server));
    assert!(machine.said().contains("plain \"as named\": kernel/linux"));
}
