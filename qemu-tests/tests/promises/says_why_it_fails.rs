//! Every failed boot ends in one sentence that names the object and the way out, before kexec, and then in
//! the action of `inetboot.onfail=`. Process 1 neither ends nor panics.

use crate::loaders::OUR_MENU;
use qemu_tests::images::{self, Extra, Flaw, Witness};
use qemu_tests::pki::{Authority, Years};
use qemu_tests::repository::built;
use qemu_tests::web::{Content, Fault, IMAGE, Server};
use qemu_tests::{Machine, Opts, boot, dns, firmware, promise};
use std::net::TcpListener;

/// Seconds until a boot has failed.
const SOON: u64 = 240;

/// Boots, and checks that the step `step` fails with a sentence that has all `parts`, and that the usual
/// way on is announced.
fn fails(opts: &Opts, step: &str, parts: &[&str]) -> Machine {
    let mut machine = boot(opts);
    if step == "network" {
        // It waits a minute for a lease.
        machine.give_up_turn();
    }
    machine.expect(&format!("] {step} failed: "), SOON);
    let said = machine.expect("\n", 30);
    for part in parts {
        assert!(said.contains(part), "\"{part}\" is missing in: {said}");
    }

    if !opts.append.contains("onfail") {
        let after = machine.expect("inetboot:   ", 30);
        assert!(!after.contains("Kernel panic"), "{after}");
        let way = machine.expect("\n", 30);
        assert!(way.starts_with("trying again in") || way.starts_with("a retry cannot help"), "{way}");
    }
    machine
}

/// Boots with these arguments, and checks the failure as [`fails`] does.
fn arguments_fail(append: &str, step: &str, parts: &[&str]) -> Machine {
    fails(&Opts::with_arguments(append), step, parts)
}

/// Boots the image on `server`, and checks the failure as [`fails`] does.
fn image_fails(server: &Server, step: &str, parts: &[&str]) -> Machine {
    arguments_fail(&server.netdir(), step, parts)
}

/// A server whose image is these bytes.
fn serve(bytes: &[u8]) -> Server {
    let content = Content::Bytes(bytes.into());
    Server::builder().file(IMAGE, content).start().expect("starting a web server")
}

/// A server with the witness that has this flaw.
fn serve_flawed(flaw: Flaw) -> Server {
    Server::of_image(images::witness(&Witness::with_flaw(flaw)))
}

/// Step 1: without `netdir=`, and with no menu allowed.
#[test]
fn no_netdir() {
    let append = "inetboot.onfail=reboot panic=60";
    arguments_fail(append, "config", &["there is no netdir=", "Add netdir=URL"]);
}

/// Step 1: `netdir=` is no URL.
#[test]
fn malformed_url() {
    let parts = ["netdir=debian.iso", "lacks http://", "Write netdir="];
    arguments_fail("netdir=debian.iso", "config", &parts);
}

/// Step 1: an argument of ours with a typo.
#[test]
fn unknown_argument() {
    let append = "netdir=http://10.0.2.2/x inetboot.onfial=shell";
    arguments_fail(append, "config", &["inetboot.onfial=", "Did you mean inetboot.onfail=?"]);
}

/// Step 2: a machine without a network card.
#[test]
fn no_link() {
    let opts = Opts { card: None, ..Opts::with_arguments("netdir=http://10.0.2.2/x") };
    fails(&opts, "network", &["there is no wired link", "Plug in a wired network card"]);
}

/// Step 2: a network without a DHCP server.
#[test]
fn no_lease() {
    let opts = Opts::with_arguments("netdir=http://10.0.2.2/x").with_idle_card_alone();
    let card = "eth0 (52:54:00:12:34:56) has a cable, but no DHCP server answered";
    fails(&opts, "network", &["no lease after 60 s", card, "ip="]);
}

/// Step 3: the name server does not know the host.
#[test]
fn unknown_host_name() {
    dns::serve();
    let append = "netdir=http://nowhere.invalid/x.iso nameserver=10.0.2.2";
    let parts = ["http://nowhere.invalid/x.iso", "the name nowhere.invalid was not found", "nameserver="];
    arguments_fail(append, "source", &parts);
}

/// Step 3: no server listens on the port.
#[test]
fn connection_refused() {
    // A port that was just released.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    drop(listener);
    let append = format!("netdir=http://10.0.2.2:{port}/x.iso");
    arguments_fail(&append, "source", &["the connection was refused", "Check the port"]);
}

/// Step 3: the server has no such file, or does not let it be read.
#[test]
fn http_404_and_403() {
    let server = serve(b"x");
    promise("404 is explained", || {
        let append = format!("netdir={}", server.guest_url("/y.iso"));
        arguments_fail(&append, "source", &["/y.iso", "404 Not Found", "Check the path"]);
    });
    promise("403 is explained", || {
        server.misbehave(|_, _| Some(Fault::Status(403)));
        image_fails(&server, "source", &["403 Forbidden", "Make the file readable"]);
    });
}

/// The trust of the machine in the authority that signed a certificate.
#[derive(PartialEq, Eq)]
enum Trust {
    Trusted,
    Unknown,
}

/// Step 3: boots from a server with a certificate for `names`.
fn certificate_fails(names: &[&str], years: Years, trust: Trust, parts: &[&str]) {
    let authority = Authority::new().expect("making an authority");
    let identity = authority.identity(names, years).expect("making a certificate");
    let content = Content::Bytes(b"x".as_slice().into());
    let server = Server::builder().file(IMAGE, content).tls(identity).start().expect("starting a web server");

    let mut opts = Opts::with_arguments(server.netdir());
    if trust == Trust::Trusted {
        opts.append += " inetboot.ca=/ca.pem";
        opts.files.push(("/ca.pem".into(), authority.pem().into()));
    }
    fails(&opts, "source", parts);
}

/// Step 3: a certificate of the past.
#[test]
fn certificate_expired() {
    let parts = ["certificate expired on 2002-12-31", "Renew the certificate"];
    certificate_fails(&["10.0.2.2"], Years(2001, 2002), Trust::Trusted, &parts);
}

/// Step 3: a certificate of the future, for a clock that is behind.
#[test]
fn certificate_not_yet_valid() {
    let parts = ["valid from 2150-01-01 only", "the clock is wrong"];
    certificate_fails(&["10.0.2.2"], Years(2150, 2160), Trust::Trusted, &parts);
}

/// Step 3: a certificate with another name.
#[test]
fn certificate_for_another_host() {
    let parts = ["for another host", "Use the host name"];
    certificate_fails(&["elsewhere.example"], Years::NOW, Trust::Trusted, &parts);
}

/// Step 3: a certificate by an authority that is not known.
#[test]
fn unknown_authority() {
    let parts = ["authority that is not trusted", "inetboot.ca="];
    certificate_fails(&["10.0.2.2"], Years::NOW, Trust::Unknown, &parts);
}

/// Step 4: a web page in place of an image.
#[test]
fn not_an_iso() {
    let server = serve(b"<!DOCTYPE html><title>Index of /</title>");
    image_fails(&server, "medium", &["is not an ISO 9660 image", "looks like a web page"]);
}

/// Step 5: an ISO of no family; the sentence lists the families' marks, and the directory.
#[test]
fn unknown_family() {
    let server = serve_flawed(Flaw::UnknownFamily);
    let parts = ["of no known family", "live/*.squashfs (debian)", "boot nothing numbers"];
    image_fails(&server, "distro", &parts);
}

/// Step 5: the boot menu names a kernel that the medium lacks.
#[test]
fn missing_kernel() {
    let server = serve_flawed(Flaw::MissingFile("live/vmlinuz"));
    let parts = ["the kernel live/vmlinuz is missing", "boot/grub/grub.cfg names it"];
    image_fails(&server, "distro", &parts);
}

/// Step 5: the boot menu names an initrd that the medium lacks.
#[test]
fn missing_initrd() {
    let server = serve_flawed(Flaw::MissingFile("live/initrd.img"));
    image_fails(&server, "distro", &["the initrd live/initrd.img is missing", "incomplete"]);
}

/// Step 6: neither the initrd nor the root has a driver for the card.
#[test]
fn no_driver_for_the_card() {
    let server = serve_flawed(Flaw::MissingModule("virtio_net"));
    let parts = ["lacks a driver for the network card eth0", "virtio:d00000001", "Use another network card"];
    image_fails(&server, "miniroot", &parts);
}

/// Step 6: the target could not unpack its initrd.
#[test]
fn too_little_memory() {
    let server = serve_flawed(Flaw::LargeInitrd(600 << 20));
    let parts = ["not enough memory for the target to unpack its initrd", "Add memory"];
    image_fails(&server, "miniroot", &parts);
}

/// Step 8: the kernel is locked down, and the target's kernel is forged.
#[test]
fn kernel_refused_by_kexec() {
    let server = serve_flawed(Flaw::ForgedKernel);
    let append = format!("{} lockdown=integrity", server.netdir());
    let parts = ["locked down, and does not trust the signature", "switch Secure Boot"];
    arguments_fail(&append, "kexec", &parts);
}

/// Step 3: the server cannot serve ranges, and the whole image does not fit into memory.
#[test]
fn no_ranges_and_too_little_memory() {
    let server = Server::of_image(images::witness(&Witness::default()));
    server.misbehave(|_, _| Some(Fault::NoRange));
    let opts = Opts { memory: 320, ..Opts::with_arguments(server.netdir()) };
    fails(&opts, "source", &["cannot serve ranges", "do not fit", "e.g. nginx"]);
}

/// `inetboot.onfail=reboot` reboots after as many seconds as `panic=` says.
#[test]
fn onfail_reboot_reboots() {
    let mut machine = arguments_fail("inetboot.onfail=reboot panic=2", "config", &["there is no netdir="]);
    machine.expect("rebooting in 2 s", 10);
    machine.expect("reboot: Restarting system", 30);
}

/// `inetboot.onfail=shell` gives a shell that says what to try.
#[test]
fn onfail_shell_gives_a_shell() {
    let opts = Opts { second: Some(built("shell.img")), ..Opts::with_arguments("inetboot.onfail=shell") };
    let mut machine = fails(&opts, "config", &["there is no netdir="]);
    machine.expect("a shell; leave it with exit", 10);
    machine.expect("What to try:", 30);
    machine.type_line("echo $((6*7)) is the answer");
    machine.expect("42 is the answer", 30);
}

/// An address that is corrected in the menu after a failure is the only address then.
#[test]
fn corrected_address_replaces_the_old() {
    let server = serve(b"x");
    let with_address = |address: &str| {
        let gone = server.guest_url("/gone.iso");
        format!("netdir={gone} ip={address}::10.0.2.2:255.255.255.0::eth0:none console=ttyS0")
    };
    let opts = Opts { second: Some(built("shell.img")), ..Opts::with_arguments(with_address("10.0.2.50")) };
    let mut machine = fails(&opts, "source", &["404 Not Found"]);

    machine.press_any_key();
    let mut menu = machine.menu("source failed", 30);
    menu.pick("Other arguments");
    menu.type_text(&with_address("10.0.2.77"));
    machine.expect("press a key for a menu", SOON);
    machine.press_any_key();
    machine.menu("source failed", 30).pick("A shell");
    machine.expect("a shell; leave it with exit", 30);

    let addresses = machine.run("ip -4 address show eth0", 30);
    assert!(addresses.contains("10.0.2.77/24") && !addresses.contains("10.0.2.50"), "{addresses}");
    assert!(machine.run("ip route", 30).contains("default via 10.0.2.2"));
}

/// Step 5: `bootxen=1`, and no hypervisor on the medium.
#[test]
fn missing_hypervisor() {
    let server = Server::of_image(images::witness(&Witness::default()));
    let append = format!("{} bootxen=1", server.netdir());
    let parts = ["the hypervisor", "xen*.gz is missing", "bootxen=1 needs it"];
    arguments_fail(&append, "distro", &parts);
}

/// Step 3: `netdir=` is a directory, and no file in it has the name of a kernel.
#[test]
fn directory_without_a_kernel() {
    let server = serve(b"nothing of interest");
    let append = format!("netdir={}", server.guest_url("/"));
    let parts = ["has no kernel", "linux, vmlinuz", "kernel=URL initrd=URL"];
    arguments_fail(&append, "source", &parts);
}

/// Step 8: Xen on a machine with UEFI, where it would find no ACPI tables after kexec.
#[test]
fn hypervisor_under_uefi() {
    let server = Server::of_image(images::witness(&Witness::with_extra(Extra::Hypervisor)));
    let variables = tempfile::tempdir().expect("a directory");
    let opts = Opts {
        qemu: firmware::uefi(variables.path()),
        memory: 1024,
        ..Opts::with_arguments(format!("{} bootxen=1", server.netdir()))
    };
    fails(&opts, "kexec", &["does not find ACPI on a machine with UEFI", "without bootxen=1"]);
}

/// `kernel=` and `initrd=` start these files as they are: here it is InetBoot itself, which shows its menu
/// because it is given no arguments.
#[test]
fn named_kernel_and_initrd_boot() {
    let names = ["vmlinuz", "initramfs.img"];
    let builder = names.into_iter().fold(Server::builder(), |builder, name| {
        builder.file(&format!("/{name}"), Content::File(built(name)))
    });
    let server = builder.start().expect("starting a web server");
    let [kernel, initrd] = names.map(|name| server.guest_url(&format!("/{name}")));
    let mut machine = boot(&Opts::with_arguments(format!("kernel={kernel} initrd={initrd}")));
    machine.menu(OUR_MENU, SOON);
    assert!(machine.said().contains("plain \"as named\": kernel/vmlinuz"));
}
