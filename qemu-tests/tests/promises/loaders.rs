//! Every way to be started, with our own kernel, each up to the login prompt of the Debian ISO. The boots
//! are shared: each is with another card, and half of them with an image that is published in another
//! form. A unified kernel image is in `secure_boot`.

use crate::kept;
use crate::published::Published;
use qemu_tests::images::{self, Witness};
use qemu_tests::lan::{Lan, Service};
use qemu_tests::machine::{Loader, built, output_of, repository};
use qemu_tests::web::{Content, Server};
use qemu_tests::{Machine, Opts, boot, firmware, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Seconds until a boot menu is there, and for one stretch of a boot.
pub const SOON: u64 = 300;
pub const LONG: u64 = 600;

pub const UP: &str = "\x1b[A";
pub const END: &str = "\x1b[F";

pub fn site() -> Server {
    serve(images::debian())
}

fn serve(iso: PathBuf) -> Server {
    Server::builder().file("/live.iso", Content::File(iso)).start().expect("starting a web server")
}

pub fn netdir(server: &Server) -> String {
    format!("netdir={}", server.guest_url("/live.iso"))
}

/// In our own menu: an address that is in no catalogue, typed. What it takes stands near the end.
pub fn type_address(machine: &mut Machine, server: &Server, netdir: &str) {
    machine.expect("what shall be booted?", SOON, Some(server));
    let others = machine.expect("Restart this machine", SOON, Some(server));
    let shell = if others.contains("A shell") { UP } else { "" };
    machine.type_keys(&format!("{END}{UP}{shell}\r"));
    machine.expect("Esc goes back", SOON, Some(server));
    machine.type_keys(&format!("\x15{netdir} type=debian\r"));
}

/// Up to the login prompt, by way of kexec; by the card `driver` drives.
pub fn logs_in(machine: &mut Machine, server: &Server, driver: &str) {
    machine.expect("[8/8] kexec", LONG, Some(server));
    machine.log_in(LONG, Some(server));
    drives(machine, server, driver);
}

/// The same with a published image, whose address is typed into our menu.
pub fn boots(machine: &mut Machine, image: &Published, driver: &str) {
    type_address(machine, image.web(), &image.arguments);
    image.logs_in(machine);
    drives(machine, image.web(), driver);
}

/// The network card of the target is driven by `driver`.
fn drives(machine: &mut Machine, server: &Server, driver: &str) {
    let uses = machine.run("readlink /sys/class/net/[eu]*/device/driver", LONG, Some(server));
    assert!(uses.ends_with(driver), "{uses}");
}

/// What our menu of the CD looks like on the screen of a PC, left beside what was built.
#[test]
fn a_cd_in_a_pc_with_bios_shows_our_menu_and_boots_a_torrent_that_is_typed_there_by_e1000() {
    let image = Published::torrent();
    let dir = tempfile::tempdir().unwrap();
    let monitor = dir.path().join("monitor");
    let monitor_at = format!("unix:{},server=on,wait=off", monitor.display());
    let opts = Opts {
        loader: Loader::Cd(built("inetboot.iso")),
        card: Some("e1000"),
        qemu: ["-vga", "std", "-qmp", &monitor_at].map(String::from).to_vec(),
        ..Opts::default()
    };
    let mut machine = boot(&opts);
    machine.expect("own menu", SOON, Some(image.web()));
    machine.type_keys("m");
    // Somebody looks around; the screen shows it as the serial line does.
    for key in ["", "j", UP] {
        machine.type_keys(key);
        machine.expect("Restart this machine", SOON, Some(image.web()));
    }
    std::thread::sleep(Duration::from_secs(2));
    let picture = repository().join("target/boot/menu.png");
    screenshot(&monitor, &picture);
    assert!(fs::read(picture).unwrap().starts_with(b"\x89PNG"));
    machine.type_keys("j");
    boots(&mut machine, &image, "e1000");
}

fn screenshot(monitor: &Path, to: &Path) {
    let commands = format!(
        "{{\"execute\":\"qmp_capabilities\"}}\n{{\"execute\":\"screendump\",\"arguments\":{{\"filename\":\"{}\",\"format\":\"png\"}}}}\n",
        to.display()
    );
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(monitor).unwrap();
    stream.write_all(commands.as_bytes()).unwrap();
    // A greeting, and an answer to each.
    let answers: Vec<String> = BufReader::new(stream).lines().take(3).map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| !answer.contains("error")), "{answers:?}");
}

#[test]
fn a_cd_in_a_pc_with_uefi_by_e1000e_from_casyncs_store() {
    let (image, dir) = (Published::casyncs_store(), tempfile::tempdir().unwrap());
    let opts = Opts {
        loader: Loader::Cd(built("inetboot.iso")),
        card: Some("e1000e"),
        qemu: [firmware::uefi(dir.path()), ["-vga", "std"].map(String::from).to_vec()].concat(),
        ..Opts::default()
    };
    let mut machine = boot(&opts);
    machine.expect("own menu", SOON, Some(image.web()));
    machine.type_keys("m");
    // There is a screen.
    machine.expect("fb0: EFI VGA frame buffer device", SOON, Some(image.web()));
    boots(&mut machine, &image, "e1000e");
}

#[test]
fn the_same_file_on_a_usb_stick_by_rtl8139_from_a_metalink() {
    let image = Published::metalink();
    let opts =
        Opts { loader: Loader::UsbStick(built("inetboot.iso")), card: Some("rtl8139"), ..Opts::default() };
    let mut machine = boot(&opts);
    machine.expect("own menu", SOON, Some(image.web()));
    machine.type_keys("m");
    boots(&mut machine, &image, "8139cp");
}

/// What `scripts/media` makes for a web server, but for a catalogue of our own, with `arguments`.
fn ipxe_tree(dir: &Path, server: &Server, arguments: &str) -> PathBuf {
    let tree = dir.join("ipxe");
    let catalogue = dir.join("catalogue.toml");
    let entry = format!(
        "timeout = 1\n[[entry]]\nname = \"debian\"\ntitle = \"Debian\"\nnetdir = \"{}\"\n",
        server.guest_url("/live.iso")
    );
    fs::write(&catalogue, entry).unwrap();
    let (catalogue, out) = (catalogue.to_string_lossy(), tree.to_string_lossy());
    let ctl = built("inetbootctl");
    let arguments = format!("console=ttyS0 {arguments}");
    let verb = ["catalogue", "ipxe", &catalogue, "--arguments", &arguments, "--out", &out];
    run(dir, &ctl.to_string_lossy(), &verb);
    for file in ["vmlinuz", "initramfs.img"] {
        fs::copy(built(&format!("own/{file}")), tree.join(file)).unwrap();
    }
    tree
}

fn serve_tree(tree: &Path) -> Server {
    let files = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().path());
    let builder = files.fold(Server::builder(), |builder, path| {
        let name = format!("/{}", path.file_name().unwrap().to_string_lossy());
        builder.file(&name, Content::File(path))
    });
    builder.start().expect("starting a web server")
}

/// Two boots by addresses that iPXE is given: the one of the card under BIOS, then a program under UEFI.
/// What the first reads is kept on a disk, which the second has, too.
#[test]
fn ipxe_under_bios_by_vmxnet3_and_again_under_uefi_which_fetches_less_than_a_twentieth() {
    let (server, dir) = (site(), tempfile::tempdir().unwrap());
    let tree = serve_tree(&ipxe_tree(dir.path(), &server, "inetboot.cache=LABEL=inetboot"));
    let cache = kept::disk(dir.path(), 512 << 20, &kept::VIRTIO);
    kept::format(dir.path());
    let wire = format!("user,bootfile={}", tree.guest_url("/inetboot.ipxe"));
    let fetched = |opts: Opts, driver: &str| {
        let before = server.bytes_sent();
        let qemu = [opts.qemu, cache.clone()].concat();
        let mut machine = boot(&Opts { wire: wire.clone(), qemu, ..opts });
        logs_in(&mut machine, &server, driver);
        machine.run("sync; grep boot=live /proc/cmdline", LONG, Some(&server));
        (server.bytes_sent() - before, machine.said())
    };

    let card = Opts { loader: Loader::Network, card: Some("vmxnet3"), ..Opts::default() };
    let (first, _) = fetched(card, "vmxnet3");
    assert!(tree.log_tail(50).contains("/vmlinuz"), "{}", tree.log_tail(50));
    let disk = images::esp(dir.path(), &[(Path::new("/usr/lib/ipxe/ipxe.efi"), images::STARTED)]).unwrap();
    let uefi = Opts { loader: Loader::Disk(disk), qemu: firmware::uefi(dir.path()), ..Opts::default() };
    let (second, said) = fetched(uefi, "virtio_net");
    println!("first boot {first} bytes, second {second} ({:.2} %)", second as f64 * 100.0 / first as f64);
    assert!(second * 20 < first, "{second} bytes after {first}:\n{said}");
}

/// What is booted is of two squashfs, and told to come up from memory.
#[test]
fn pxe_of_the_firmware_by_tftp_then_ipxe_and_two_squashfs_into_memory() {
    let (server, dir) = (serve(images::debian_in_layers()), tempfile::tempdir().unwrap());
    let tree = ipxe_tree(dir.path(), &server, "toram");
    fs::copy("/usr/lib/ipxe/snponly.efi", tree.join("snponly.efi")).unwrap();
    let lan = Lan::new(Service::Pxe(tree.clone()));
    let opts = Opts {
        loader: Loader::Network,
        wire: lan.wire(),
        qemu: firmware::uefi(dir.path()),
        memory: 1024,
        ..Opts::default()
    };
    let mut machine = boot(&opts);
    logs_in(&mut machine, &server, "virtio_net");
    assert!(lan.log().contains("sent ") && lan.log().contains("vmlinuz"), "{}", lan.log());
    let mut run = |command| machine.run(command, LONG, Some(&server));
    assert!(run("cat /etc/second").contains("from the second squashfs"));
    assert!(run("findmnt -n /run/live/medium").contains("tmpfs"));
    // Whoever has it in memory needs nobody.
    server.set_down(true);
    run("cat /usr/bin/* > /dev/null");
}

#[test]
fn grub_of_an_installed_machine_by_its_hook_and_a_usb_dongle_from_a_classic_store() {
    let image = Published::classic_store();
    let disk = PathBuf::from(output_of(&mut Command::new(repository().join("qemu-tests/isos/installed"))));
    let opts = Opts {
        loader: Loader::Disk(disk),
        card: Some("usb-net"),
        qemu: ["-device", "qemu-xhci"].map(String::from).to_vec(),
        ..Opts::default()
    };
    let mut machine = boot(&opts);
    boots(&mut machine, &image, "cdc_ether");
}

/// A fetched menu, and the menu of a boot that failed.
#[test]
fn a_menu_from_the_web_and_after_a_failure_another_mirror() {
    let witness = images::witness(&Witness::default());
    let server = Server::builder().file("/w.iso", Content::File(witness)).start().unwrap();
    let (good, gone) = (server.guest_url("/w.iso"), server.guest_url("/gone.iso"));
    let text = format!(
        "[[entry]]\nname = \"a\"\ntitle = \"First of the web\"\nnetdir = \"http://h.invalid/\"\n\
         [[entry]]\nname = \"b\"\ntitle = \"Second of the web\"\nnetdir = \"{gone}\"\n"
    );
    let menus = Server::builder().file("/m.toml", Content::Bytes(text.into_bytes().into())).start().unwrap();
    let opts =
        Opts { append: format!("witness=1 inetboot.menu={}", menus.guest_url("/m.toml")), ..Opts::default() };
    let mut machine = boot(&opts);
    machine.expect("Second of the web", SOON, Some(&menus));
    machine.expect("Restart this machine", SOON, Some(&menus));
    machine.type_keys("j\r");
    machine.expect("] source failed: ", SOON, Some(&server));
    machine.expect("press a key for a menu", SOON, Some(&server));
    machine.type_keys(" ");
    let ways = machine.expect("Restart this machine", SOON, Some(&server));
    assert!(
        ways.contains("404") && ways.contains("Try again") && ways.contains("From the beginning"),
        "{ways}"
    );
    assert!(!ways.contains("Another mirror"), "there is only one: {ways}");
    // Other arguments: a second mirror, behind the one that is gone. It is enough that one is there.
    machine.type_keys("j\r");
    machine.expect("Esc goes back", SOON, Some(&server));
    machine.type_keys(&format!("\x15netdir={gone},{good} witness=1 console=ttyS0\r"));
    machine.expect("witness: ready", LONG, Some(&server));
}
