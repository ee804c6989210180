//! A machine goes down cleanly and quickly: systemd has nothing to complain about, with each family's stack
//! of loop devices under the root, and the web server may be gone.

use crate::LONG;
use qemu_tests::images::{self, Casper, Fedora};
use qemu_tests::web::Server;
use qemu_tests::{Machine, Opts, boot, promise};
use std::path::PathBuf;

/// Seconds from the command until the machine is off, under TCG on a busy machine.
const OFF: u64 = 150;

/// Words of systemd, the kernel and the agent for something that was left behind.
const COMPLAINTS: [&str; 9] = [
    "Failed unmounting",
    "Could not detach",
    "Unable to finalize",
    "Cannot finalize",
    "Failed to",
    "cannot unmount",
    "I/O error",
    "SQUASHFS error",
    "Kernel panic",
];

/// systemctl says this where there is no D-Bus to ask, as in the idle Debian.
const NO_BUS: &str = "Failed to connect to bus";

/// A verb of systemctl, and the kernel's last words for it.
#[derive(Clone, Copy)]
struct End {
    verb: &'static str,
    words: &'static str,
}

const POWER_OFF: End = End { verb: "poweroff", words: "reboot: Power down" };
const REBOOT: End = End { verb: "reboot", words: "reboot: Restarting system" };

/// Boots `image` with Debian's kernel to a shell of root's.
fn log_in(image: PathBuf) -> (Machine, Server) {
    let server = Server::of_image(image);
    let mut machine = boot(&Opts { append: server.netdir(), memory: 1024, ..Opts::stock() });
    machine.log_in(LONG);
    // Units that are still being started would be stopped halfway.
    machine.run("systemctl is-system-running --wait; true", LONG);
    (machine, server)
}

/// Ends a machine, at whose shell's prompt we are.
fn check_clean_end(machine: &mut Machine, end: End) {
    machine.type_line(&format!("systemctl {}", end.verb));
    let said = promise("the machine ends", || machine.expect(end.words, OFF)).replace(NO_BUS, "");
    promise("nothing complains", || {
        for complaint in COMPLAINTS {
            assert!(!said.contains(complaint), "\"{complaint}\" in\n{said}");
        }
    });
    promise("the root is unmounted", || {
        assert!(said.contains("inetboot: the root file system is unmounted"), "{said}");
    });
    promise("the image is detached", || {
        // A cloop device lets go of its file by command alone.
        let is_cloop = machine.said().contains("inetboot:   knoppix ");
        assert!(is_cloop || said.contains("and the image is detached"), "{said}");
    });
    machine.expect_end(OFF);
}

/// live-boot has the squashfs on the mounted image, under an overlay.
#[test]
fn debian_powers_off() {
    let (mut machine, _server) = log_in(images::debian());
    check_clean_end(&mut machine, POWER_OFF);
}

/// dracut has mounts of its own in `/run/initramfs`, where they stay for the life of the machine.
#[test]
fn dracut_powers_off() {
    let (mut machine, _server) = log_in(images::fedora(Fedora::Flat));
    assert!(machine.run("findmnt -n /run/initramfs/live", LONG).contains("/dev/loop0"));
    check_clean_end(&mut machine, POWER_OFF);
}

/// casper leaves squashfs files mounted in the initramfs, which systemd does not see. A restart of systemd
/// itself is no shutdown, and the shutdown after it is noticed.
#[test]
fn casper_reboots() {
    let (mut machine, _server) = log_in(images::casper(Casper::Classic));
    machine.run("systemctl daemon-reexec; sleep 5", LONG);
    promise("a restart of systemd is no shutdown", || {
        let mounted = machine.run("findmnt -n /run/initramfs; true", LONG);
        assert!(!mounted.contains("tmpfs"), "{mounted}");
    });
    check_clean_end(&mut machine, REBOOT);
}

/// No `/run` comes from this initrd: systemd mounts it, and reads units at once.
#[test]
fn knoppix_powers_off() {
    let (mut machine, _server) = log_in(images::knoppix());
    check_clean_end(&mut machine, POWER_OFF);
}

/// The web server is gone, and with it the files that were never read, such as the programs that stop
/// services and systemd-shutdown. The machine is off all the same.
#[test]
fn a_lost_server_holds_up_no_power_off() {
    let (mut machine, server) = log_in(images::debian());
    server.set_down(true);
    // Not even systemctl stays in memory: the shell itself sends the signal that asks systemd for the same
    // (systemd(1)).
    machine.run("echo 3 > /proc/sys/vm/drop_caches", LONG);
    machine.type_line("kill -s RTMIN+4 1");
    machine.expect("the web server is gone: poweroff no longer waits", OFF);
    machine.expect("reboot: Power down", OFF);
    machine.expect_end(OFF);
}
