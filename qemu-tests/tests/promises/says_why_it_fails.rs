//! Every way a boot can fail ends in one sentence with the object and the way out, before kexec,
//! and then in what `inetboot.onfail=` says. Process 1 neither ends nor panics.

use crate::loaders::{END, UP};
use qemu_tests::images::{self, Witness};
use qemu_tests::machine::built;
use qemu_tests::pki::{Authority, Years};
use qemu_tests::web::{Content, Fault, Server};
use qemu_tests::{Machine, Opts, boot, dns, firmware};

const SOON: u64 = 240;

/// Boots, and demands a line that has all of `parts` and names its step, then the usual way on.
fn says(opts: &Opts, server: Option<&Server>, step: &str, parts: &[&str]) -> Machine {
    let mut machine = boot(opts);
    if step == "network" {
        // It takes a minute to fail.
        machine.gives_up_its_turn();
    }
    machine.expect(&format!("] {step} failed: "), SOON, server);
    let said = machine.expect("\n", 30, server);
    for part in parts {
        assert!(said.contains(part), "\"{part}\" is missing in: {said}");
    }
    if !opts.append.contains("onfail") {
        let after = machine.expect("inetboot:   ", 30, server);
        assert!(!after.contains("Kernel panic"), "{after}");
        let way = machine.expect("\n", 30, server);
        assert!(way.starts_with("trying again in") || way.starts_with("nothing will change"), "{way}");
    }
    machine
}

fn append(append: impl Into<String>) -> Opts {
    Opts { append: append.into(), ..Opts::default() }
}

fn content(bytes: &[u8]) -> Content {
    Content::Bytes(bytes.into())
}

fn server(content: Content) -> Server {
    Server::builder().file("/x.iso", content).start().expect("starting a web server")
}

fn witness(witness: &Witness) -> Server {
    server(Content::File(images::witness(witness)))
}

fn netdir(server: &Server) -> String {
    format!("netdir={}", server.guest_url("/x.iso"))
}

#[test]
fn no_netdir_and_nobody_is_asked() {
    let opts = append("inetboot.onfail=reboot panic=60");
    says(&opts, None, "config", &["there is no netdir=", "Add netdir=URL"]);
}

#[test]
fn a_malformed_url() {
    says(
        &append("netdir=debian.iso"),
        None,
        "config",
        &["netdir=debian.iso", "lacks http://", "Write netdir="],
    );
}

#[test]
fn an_unknown_argument_of_ours() {
    let opts = append("netdir=http://10.0.2.2/x inetboot.onfial=shell");
    says(&opts, None, "config", &["inetboot.onfial=", "Did you mean inetboot.onfail=?"]);
}

#[test]
fn no_link() {
    let opts = Opts { card: None, ..append("netdir=http://10.0.2.2/x") };
    says(&opts, None, "network", &["there is no wired link", "Plug in a wired network card"]);
}

#[test]
fn no_lease() {
    let opts = Opts {
        card: None,
        qemu: ["-netdev", "hubport,id=idle,hubid=7", "-device", "virtio-net-pci,netdev=idle"]
            .map(String::from)
            .to_vec(),
        ..append("netdir=http://10.0.2.2/x")
    };
    says(
        &opts,
        None,
        "network",
        &["no lease after 60 s", "eth0 (52:54:00:12:34:56) has a cable, but no DHCP server answered", "ip="],
    );
}

#[test]
fn a_name_that_is_not_found() {
    dns::serve();
    let opts = append("netdir=http://nowhere.invalid/x.iso nameserver=10.0.2.2");
    says(
        &opts,
        None,
        "source",
        &["http://nowhere.invalid/x.iso", "the name nowhere.invalid was not found", "nameserver="],
    );
}

#[test]
fn a_refused_connection() {
    // A port that was just given back; nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let opts = append(format!("netdir=http://10.0.2.2:{port}/x.iso"));
    says(&opts, None, "source", &["the connection was refused", "Check the port"]);
}

#[test]
fn a_404_and_a_403() {
    let server = server(content(b"x"));
    let opts = append(format!("netdir={}", server.guest_url("/y.iso")));
    says(&opts, Some(&server), "source", &["/y.iso", "404 Not Found", "Check the path"]);
    server.misbehave(|_, _| Some(Fault::Status(403)));
    says(&append(netdir(&server)), Some(&server), "source", &["403 Forbidden", "Make the file readable"]);
}

fn says_of_tls(names: &[&str], years: Years, trusted: bool, parts: &[&str]) {
    let authority = Authority::new().expect("making an authority");
    let identity = authority.identity(names, years).expect("making a certificate");
    let server =
        Server::builder().file("/x.iso", content(b"x")).tls(identity).start().expect("starting a web server");
    let mut opts = append(netdir(&server));
    if trusted {
        opts.append += " inetboot.ca=/ca.pem";
        opts.files.push(("/ca.pem".into(), authority.pem().into()));
    }
    says(&opts, Some(&server), "source", parts);
}

#[test]
fn an_expired_certificate() {
    says_of_tls(
        &["10.0.2.2"],
        Years(2001, 2002),
        true,
        &["certificate expired on 2002-12-31", "Renew the certificate"],
    );
}

#[test]
fn a_clock_that_is_wrong() {
    says_of_tls(
        &["10.0.2.2"],
        Years(2150, 2160),
        true,
        &["valid from 2150-01-01 only", "the clock is wrong"],
    );
}

#[test]
fn a_certificate_for_another_host() {
    says_of_tls(&["elsewhere.example"], Years::NOW, true, &["for another host", "Use the host name"]);
}

#[test]
fn an_unknown_authority() {
    says_of_tls(&["10.0.2.2"], Years::NOW, false, &["authority that is not trusted", "inetboot.ca="]);
}

#[test]
fn what_is_not_an_iso() {
    let server = server(content(b"<!DOCTYPE html><title>Index of /</title>"));
    says(
        &append(netdir(&server)),
        Some(&server),
        "medium",
        &["is not an ISO 9660 image", "looks like a web page"],
    );
}

#[test]
fn an_iso_of_no_known_family() {
    let server = witness(&Witness { no_family: true, ..Witness::default() });
    says(
        &append(netdir(&server)),
        Some(&server),
        "distro",
        &["of no known family", "live/*.squashfs (debian)", "boot nothing numbers"],
    );
}

#[test]
fn a_missing_kernel() {
    let server = witness(&Witness { missing: vec!["live/vmlinuz"], ..Witness::default() });
    says(
        &append(netdir(&server)),
        Some(&server),
        "distro",
        &["the kernel live/vmlinuz is missing", "boot/grub/grub.cfg names it"],
    );
}

#[test]
fn a_missing_initrd() {
    let server = witness(&Witness { missing: vec!["live/initrd.img"], ..Witness::default() });
    says(
        &append(netdir(&server)),
        Some(&server),
        "distro",
        &["the initrd live/initrd.img is missing", "incomplete"],
    );
}

#[test]
fn a_card_nobody_in_the_target_can_drive() {
    let server = witness(&Witness { without: vec!["virtio_net"], ..Witness::default() });
    let parts = ["lacks a driver for the network card eth0", "virtio:d00000001", "Use another network card"];
    says(&append(netdir(&server)), Some(&server), "miniroot", &parts);
}

#[test]
fn too_little_memory() {
    let server = witness(&Witness { ballast: 600 << 20, ..Witness::default() });
    says(
        &append(netdir(&server)),
        Some(&server),
        "miniroot",
        &["not enough memory for the target to unpack its initrd", "Add memory"],
    );
}

#[test]
fn a_kernel_that_kexec_refuses() {
    let server = witness(&Witness { forged_kernel: true, ..Witness::default() });
    let opts = append(format!("{} lockdown=integrity", netdir(&server)));
    says(
        &opts,
        Some(&server),
        "kexec",
        &["locked down, and does not trust the signature", "switch Secure Boot"],
    );
}

#[test]
fn a_server_without_ranges_and_too_little_memory_for_all_of_it() {
    let server = witness(&Witness::default());
    server.misbehave(|_, _| Some(Fault::NoRange));
    let opts = Opts { memory: 320, ..append(netdir(&server)) };
    says(&opts, Some(&server), "source", &["cannot serve ranges", "do not fit", "e.g. nginx"]);
}

#[test]
fn onfail_reboot_reboots() {
    let opts = append("inetboot.onfail=reboot panic=2");
    let mut machine = says(&opts, None, "config", &["there is no netdir="]);
    machine.expect("rebooting in 2 s", 10, None);
    machine.expect("reboot: Restarting system", 30, None);
}

#[test]
fn onfail_shell_gives_a_shell() {
    let opts = Opts { second: Some(built("shell.img")), ..append("inetboot.onfail=shell") };
    let mut machine = says(&opts, None, "config", &["there is no netdir="]);
    machine.expect("a shell; leave it with exit", 10, None);
    machine.expect("What to try:", 30, None);
    machine.type_line("echo $((6*7)) is the answer");
    machine.expect("42 is the answer", 30, None);
}

#[test]
fn an_address_that_is_corrected_is_the_only_one() {
    let server = server(content(b"x"));
    let with = |address: &str| {
        let gone = server.guest_url("/gone.iso");
        format!("netdir={gone} ip={address}::10.0.2.2:255.255.255.0::eth0:none console=ttyS0")
    };
    let opts = Opts { second: Some(built("shell.img")), ..append(with("10.0.2.50")) };
    let mut machine = says(&opts, Some(&server), "source", &["404 Not Found"]);
    let menu = |machine: &mut Machine, keys: &str| {
        machine.type_keys(" ");
        machine.expect("Restart this machine", 30, Some(&server));
        machine.type_keys(keys);
    };
    menu(&mut machine, "j\r");
    machine.expect("Esc goes back", 30, Some(&server));
    machine.type_keys(&format!("\x15{}\r", with("10.0.2.77")));
    machine.expect("press a key for a menu", SOON, Some(&server));
    // The shell is the last but one.
    menu(&mut machine, &format!("{END}{UP}\r"));
    machine.expect("a shell; leave it with exit", 30, Some(&server));
    let addresses = machine.run("ip -4 address show eth0", 30, Some(&server));
    assert!(addresses.contains("10.0.2.77/24") && !addresses.contains("10.0.2.50"), "{addresses}");
    assert!(machine.run("ip route", 30, Some(&server)).contains("default via 10.0.2.2"));
}

#[test]
fn no_hypervisor_on_the_medium() {
    let server = witness(&Witness::default());
    let opts = append(format!("{} bootxen=1", netdir(&server)));
    says(&opts, Some(&server), "distro", &["the hypervisor", "xen*.gz is missing", "bootxen=1 needs it"]);
}

#[test]
fn a_directory_without_a_kernel() {
    let server = server(content(b"nothing of interest"));
    let opts = append(format!("netdir={}", server.guest_url("/")));
    says(&opts, Some(&server), "source", &["has no kernel", "linux, vmlinuz", "kernel=URL initrd=URL"]);
}

#[test]
fn a_hypervisor_on_a_machine_with_uefi() {
    let witness = Witness { hypervisor: true, ..Witness::default() };
    let server = server(Content::File(images::witness(&witness)));
    let variables = tempfile::tempdir().expect("a directory");
    let opts = Opts {
        qemu: firmware::uefi(variables.path()),
        memory: 1024,
        ..append(format!("{} bootxen=1", netdir(&server)))
    };
    says(&opts, Some(&server), "kexec", &["does not find ACPI on a machine with UEFI", "without bootxen=1"]);
}

#[test]
fn a_kernel_and_an_initrd_that_were_named_are_started_as_they_are() {
    // Our own: told nothing, it asks in its turn.
    let files = ["vmlinuz", "initramfs.img"].map(|name| (format!("/{name}"), Content::File(built(name))));
    let builder =
        files.into_iter().fold(Server::builder(), |builder, (path, file)| builder.file(&path, file));
    let server = builder.start().expect("starting a web server");
    let opts = append(format!(
        "kernel={} initrd={}",
        server.guest_url("/vmlinuz"),
        server.guest_url("/initramfs.img")
    ));
    let mut machine = boot(&opts);
    machine.expect("what shall be booted?", SOON, Some(&server));
    assert!(machine.said().contains("plain \"as named\": kernel/vmlinuz"));
}
