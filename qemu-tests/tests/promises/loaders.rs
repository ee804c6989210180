//! Every way to start InetBoot, with our own kernel, each to the login prompt of the Debian ISO. The boots
//! are shared: each has another card, and half of them an image that is published in another form. The
//! unified kernel image is in `secure_boot`.

use crate::published::Published;
use crate::{LONG, SOON, cache};
use qemu_tests::boot_disk::{self, STARTED};
use qemu_tests::images::{self, Witness};
use qemu_tests::lan::{Lan, Service};
use qemu_tests::machine::{Loader, arguments};
use qemu_tests::repository::{built, inetbootctl, repository, text};
use qemu_tests::web::{Builder, Content, IMAGE, Server};
use qemu_tests::{Machine, Opts, boot, firmware, promise};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The agent's own menu, by its heading, and its item for what is in no catalogue.
pub const OUR_MENU: &str = "what shall be booted?";
const ANOTHER_ADDRESS: &str = "Another address";

/// GRUB's menu on the CD, by its heading, and its item that starts the agent's menu.
const GRUB: &str = "GNU GRUB";
const OUR_MENU_IN_GRUB: &str = "own menu";

/// In the agent's menu, types `arguments`, which are in no catalogue.
pub fn type_arguments(machine: &mut Machine, arguments: &str) {
    let mut menu = machine.menu(OUR_MENU, SOON);
    menu.pick(ANOTHER_ADDRESS);
    menu.type_text(&format!("{arguments} type=debian"));
}

/// Boots to the login prompt by way of kexec; `driver` drives the target's card.
fn log_in(machine: &mut Machine, driver: &str) {
    promise("kexec starts the target, which boots to its login prompt", || {
        machine.expect("[8/8] kexec", LONG);
        machine.log_in(LONG);
    });
    check_driver(machine, driver);
}

/// Boots a published image, whose address is typed into the agent's menu.
pub fn log_in_to(machine: &mut Machine, image: &Published, driver: &str) {
    promise("an address can be typed into our menu", || type_arguments(machine, &image.arguments));
    image.log_in(machine);
    check_driver(machine, driver);
}

fn check_driver(machine: &mut Machine, driver: &str) {
    promise(&format!("{driver} drives the target's card"), || {
        let uses = machine.run("readlink /sys/class/net/[eu]*/device/driver", LONG);
        assert!(uses.ends_with(driver), "{uses}");
    });
}

/// The CD, in a PC with BIOS, a screen and an e1000; it boots a torrent. A picture of the menu is left
/// beside what was built.
#[test]
fn cd_bios_e1000_torrent() {
    let image = Published::torrent();
    let dir = tempfile::tempdir().unwrap();
    let monitor = dir.path().join("monitor");
    let monitor_at = format!("unix:{},server=on,wait=off", monitor.display());
    let mut machine = boot(&Opts {
        loader: Loader::Cd(built("inetboot.iso")),
        card: Some("e1000"),
        qemu: arguments(["-vga", "std", "-qmp", &monitor_at]),
        ..Opts::default()
    });

    promise("GRUB's menu on the CD starts our menu", || machine.menu(GRUB, SOON).pick(OUR_MENU_IN_GRUB));
    promise("the screen shows the menu that the serial line shows", || {
        let mut menu = machine.menu(OUR_MENU, SOON);
        menu.shows("Restart this machine");
        // A person looks around.
        menu.mark(ANOTHER_ADDRESS);
        menu.mark("Restart this machine");
        std::thread::sleep(Duration::from_secs(2));
        let picture = repository().join("target/boot/menu.png");
        take_screenshot(&monitor, &picture);
        assert!(fs::read(picture).unwrap().starts_with(b"\x89PNG"));
    });
    promise("an address can be typed into our menu", || {
        let mut menu = machine.shown_menu();
        menu.pick(ANOTHER_ADDRESS);
        menu.type_text(&format!("{} type=debian", image.arguments));
    });
    image.log_in(&mut machine);
    check_driver(&mut machine, "e1000");
}

/// Lets QEMU write a picture of the machine's screen (its QMP).
fn take_screenshot(monitor: &Path, to: &Path) {
    let capabilities = r#"{"execute": "qmp_capabilities"}"#;
    let arguments = format!(r#"{{"filename": "{}", "format": "png"}}"#, to.display());
    let dump = format!(r#"{{"execute": "screendump", "arguments": {arguments}}}"#);
    let mut stream = UnixStream::connect(monitor).unwrap();
    stream.write_all(format!("{capabilities}\n{dump}\n").as_bytes()).unwrap();
    // A greeting, and an answer to each command.
    let answers: Vec<String> = BufReader::new(stream).lines().take(3).map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| !answer.contains("error")), "{answers:?}");
}

/// The CD, in a PC with UEFI, a screen and an e1000e; it boots from casync's store.
#[test]
fn cd_uefi_e1000e_casync() {
    let (image, dir) = (Published::casyncs_store(), tempfile::tempdir().unwrap());
    let mut machine = boot(&Opts {
        loader: Loader::Cd(built("inetboot.iso")),
        card: Some("e1000e"),
        qemu: [firmware::uefi(dir.path()), arguments(["-vga", "std"])].concat(),
        ..Opts::default()
    });
    promise("GRUB's menu on the CD starts our menu", || machine.menu(GRUB, SOON).pick(OUR_MENU_IN_GRUB));
    promise("our kernel has the screen", || {
        machine.expect("fb0: EFI VGA frame buffer device", SOON);
    });
    log_in_to(&mut machine, &image, "e1000e");
}

/// The CD's file on a USB stick, and an rtl8139; it boots from the mirrors of a metalink.
#[test]
fn usb_stick_rtl8139_metalink() {
    let image = Published::metalink();
    let mut machine = boot(&Opts {
        loader: Loader::UsbStick(built("inetboot.iso")),
        card: Some("rtl8139"),
        ..Opts::default()
    });
    promise("GRUB's menu on the stick starts our menu", || machine.menu(GRUB, SOON).pick(OUR_MENU_IN_GRUB));
    log_in_to(&mut machine, &image, "8139cp");
}

/// The files for a web server that `scripts/media` makes, in `dir`, but of a catalogue that has the image
/// on `server` alone, and with these arguments.
fn ipxe_tree(dir: &Path, server: &Server, arguments: &str) -> PathBuf {
    let (tree, catalogue) = (dir.join("ipxe"), dir.join("catalogue.toml"));
    let netdir = server.guest_url(IMAGE);
    let entry =
        format!("timeout = 1\n[[entry]]\nname = \"debian\"\ntitle = \"Debian\"\nnetdir = \"{netdir}\"\n");
    fs::write(&catalogue, entry).unwrap();

    let arguments = format!("console=ttyS0 {arguments}");
    let make = ["catalogue", "ipxe", &text(&catalogue), "--arguments", &arguments, "--out", &text(&tree)];
    inetbootctl(dir, &make);
    for file in ["vmlinuz", "initramfs.img"] {
        fs::copy(built(&format!("own/{file}")), tree.join(file)).unwrap();
    }
    tree
}

/// iPXE boots by addresses that it is given: first the one of a vmxnet3 under BIOS, then a program under
/// UEFI. Both machines have a disk for a cache.
#[test]
fn ipxe_bios_then_uefi_with_cache() {
    let (server, dir) = (Server::of_image(images::debian()), tempfile::tempdir().unwrap());
    let tree = ipxe_tree(dir.path(), &server, "inetboot.cache=LABEL=inetboot");
    let tree = Server::builder().tree(&tree).and_then(Builder::start).unwrap();
    let disk = cache::disk(dir.path(), 512 << 20, cache::VIRTIO);
    cache::format(dir.path());
    let wire = format!("user,bootfile={}", tree.guest_url("/inetboot.ipxe"));
    let fetched = |opts: Opts, driver: &str| {
        let before = server.bytes_sent();
        let qemu = [opts.qemu, disk.clone()].concat();
        let mut machine = boot(&Opts { wire: wire.clone(), qemu, ..opts });
        log_in(&mut machine, driver);
        promise("the cache is written", || machine.run("sync; grep boot=live /proc/cmdline", LONG));
        (server.bytes_sent() - before, machine.said())
    };

    let card = Opts { loader: Loader::Network, card: Some("vmxnet3"), ..Opts::default() };
    let (first, _) = fetched(card, "vmxnet3");
    promise("iPXE fetched our kernel", || {
        assert!(tree.log_tail(50).contains("/vmlinuz"), "{}", tree.log_tail(50));
    });

    let ipxe = boot_disk::with_files(dir.path(), &[(Path::new("/usr/lib/ipxe/ipxe.efi"), STARTED)]);
    let uefi = Opts { loader: Loader::Disk(ipxe), qemu: firmware::uefi(dir.path()), ..Opts::default() };
    let (second, said) = fetched(uefi, "virtio_net");
    println!("first boot {first} bytes, second {second} ({:.2} %)", second as f64 * 100.0 / first as f64);
    promise("with the cache a boot fetches less than a twentieth", || {
        assert!(second * 20 < first, "{second} bytes after {first}:\n{said}");
    });
}

/// The firmware fetches iPXE by TFTP, and iPXE the rest. The image has two squashfs, and is to be copied
/// into memory.
#[test]
fn pxe_tftp_to_ram() {
    let (server, dir) = (Server::of_image(images::debian_in_layers()), tempfile::tempdir().unwrap());
    let tree = ipxe_tree(dir.path(), &server, "toram");
    fs::copy("/usr/lib/ipxe/snponly.efi", tree.join("snponly.efi")).unwrap();
    let lan = Lan::new(Service::Pxe(tree));
    let mut machine = boot(&Opts {
        loader: Loader::Network,
        wire: lan.wire(),
        qemu: firmware::uefi(dir.path()),
        memory: 1024,
        ..Opts::default()
    });

    log_in(&mut machine, "virtio_net");
    promise("TFTP sent our kernel", || {
        assert!(lan.log().contains("sent ") && lan.log().contains("vmlinuz"), "{}", lan.log());
    });
    promise("both squashfs are part of the root, and in memory", || {
        assert!(machine.run("cat /etc/second", LONG).contains("from the second squashfs"));
        assert!(machine.run("findmnt -n /run/live/medium", LONG).contains("tmpfs"));
    });
    promise("a system in memory needs no server", || {
        server.set_down(true);
        machine.run("cat /usr/bin/* > /dev/null", LONG);
    });
}

/// The GRUB of an installed machine, with the entry that our hook for `update-grub` adds, and a USB network
/// card; it boots from a store.
#[test]
fn installed_grub_usb_net_store() {
    let image = Published::classic_store();
    let mut machine = boot(&Opts {
        loader: Loader::Disk(images::installed_disk()),
        card: Some("usb-net"),
        qemu: arguments(["-device", "qemu-xhci"]),
        ..Opts::default()
    });
    log_in_to(&mut machine, &image, "cdc_ether");
}

/// A menu that is fetched, and the menu of a boot that failed.
#[test]
fn web_menu_and_menu_after_failure() {
    let server = Server::of_image(images::witness(&Witness::default()));
    let gone = server.guest_url("/gone.iso");
    let text = format!(
        "[[entry]]\nname = \"a\"\ntitle = \"First of the web\"\nnetdir = \"http://h.invalid/\"\n\
         [[entry]]\nname = \"b\"\ntitle = \"Second of the web\"\nnetdir = \"{gone}\"\n"
    );
    let menus = Server::builder().file("/m.toml", Content::Bytes(text.into_bytes().into())).start().unwrap();
    let mut machine =
        boot(&Opts::with_arguments(format!("witness=1 inetboot.menu={}", menus.guest_url("/m.toml"))));

    promise("a menu can come from a web server", || {
        let mut menu = machine.menu(OUR_MENU, SOON);
        menu.shows("Restart this machine");
        menu.pick("Second of the web");
    });
    promise("after a failure a key shows a menu of ways on", || {
        machine.expect("] source failed: ", SOON);
        machine.expect("press a key for a menu", SOON);
        machine.press_any_key();
        let ways = machine.menu("source failed", SOON).shows("Restart this machine");
        for words in ["404", "Try again", "From the beginning"] {
            assert!(ways.contains(words), "\"{words}\" is missing:\n{ways}");
        }
        assert!(!ways.contains("Another mirror"), "there is only one:\n{ways}");
    });
    promise("the editor can be left without a choice", || {
        let mut menu = machine.shown_menu();
        menu.pick("Other arguments");
        menu.leave();
        menu.shows("Try again");
    });
    promise("with a second mirror in other arguments the boot goes on", || {
        let mut menu = machine.shown_menu();
        menu.pick("Other arguments");
        // It is enough that one of the two is there.
        let good = server.guest_url(IMAGE);
        menu.type_text(&format!("netdir={gone},{good} witness=1 console=ttyS0"));
        machine.expect("witness: ready", LONG);
    });
}
