//! A machine goes down cleanly and quickly: systemd has nothing to complain about, with each family's stack
//! of loop devices under the root, and the web server may be gone.

use qemu_tests::web::{Content, Server};
use qemu_tests::{Machine, Opts, boot, images};
use std::path::Path;

/// Seconds for one stretch of a boot under TCG on a busy machine.
const LONG: u64 = 600;

/// Seconds from the command until the machine is off, under TCG on a busy machine.
const OFF: u64 = 150;

/// What systemd, the kernel and the agent say where something is left.
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

/// systemctl says this where there is no D-Bus to ask, as in the Debian sample.
const NO_BUS: &str = "Failed to connect to bus";

/// The verbs of systemctl, and the kernel's last words for each.
const ENDS: [(&str, &str); 2] = [("poweroff", "reboot: Power down"), ("reboot", "reboot: Restarting system")];

fn serve(iso: &Path) -> Server {
    Server::builder().file("/live.iso", Content::File(iso.to_owned())).start().expect("starting a web server")
}

/// Boots with Debian's kernel to a shell of root's.
fn logged_in(server: &Server, memory: u32) -> Machine {
    let append = format!("netdir={}", server.guest_url("/live.iso"));
    let mut machine = boot(&Opts { append, memory, ..Opts::stock() });
    machine.log_in(LONG, Some(server));
    // Units that are still being started would be stopped halfway.
    machine.run("systemctl is-system-running --wait; true", LONG, Some(server));
    machine
}

/// Ends a machine, at whose shell's prompt we are, by `systemctl VERB`.
pub fn goes_down_cleanly(machine: &mut Machine, server: &Server, verb: &str) {
    let (_, end) = ENDS.iter().find(|(name, _)| *name == verb).expect("a verb of the table");
    machine.type_line(&format!("systemctl {verb}"));
    let said = machine.expect(end, OFF, Some(server)).replace(NO_BUS, "");
    for complaint in COMPLAINTS {
        assert!(!said.contains(complaint), "\"{complaint}\" in\n{said}");
    }
    assert!(said.contains("inetboot: the root file system is unmounted"), "{said}");
    // A cloop device lets go of its file by command alone.
    let is_cloop = machine.said().contains("inetboot:   knoppix ");
    assert!(is_cloop || said.contains("and the image is detached"), "{said}");
    machine.has_ended(OFF);
}

/// live-boot has the squashfs on the mounted image, under an overlay.
#[test]
fn debian_powers_off() {
    let server = serve(&images::debian());
    let mut machine = logged_in(&server, 512);
    goes_down_cleanly(&mut machine, &server, "poweroff");
}

/// dracut has mounts of its own in `/run/initramfs`, where they stay for the life of the machine.
#[test]
fn dracut_powers_off() {
    let server = serve(&images::family("fedora", "flat"));
    let mut machine = logged_in(&server, 1024);
    assert!(machine.run("findmnt -n /run/initramfs/live", LONG, Some(&server)).contains("/dev/loop0"));
    goes_down_cleanly(&mut machine, &server, "poweroff");
}

/// casper leaves squashfs files mounted in the initramfs, which systemd does not see.
#[test]
fn casper_powers_off() {
    let server = serve(&images::family("casper", "classic"));
    let mut machine = logged_in(&server, 1024);
    goes_down_cleanly(&mut machine, &server, "poweroff");
}

/// No `/run` comes from this initrd: systemd mounts it, and reads units at once.
#[test]
fn knoppix_powers_off() {
    let server = serve(&images::family("knoppix", "cd"));
    let mut machine = logged_in(&server, 1024);
    goes_down_cleanly(&mut machine, &server, "poweroff");
}

/// A restart of systemd itself is no shutdown, and the shutdown after it is noticed.
#[test]
fn a_restart_of_systemd_is_no_shutdown() {
    let server = serve(&images::family("casper", "classic"));
    let mut machine = logged_in(&server, 1024);
    machine.run("systemctl daemon-reexec; sleep 5", LONG, Some(&server));
    let mounted = machine.run("findmnt -n /run/initramfs; true", LONG, Some(&server));
    assert!(!mounted.contains("tmpfs"), "{mounted}");
    goes_down_cleanly(&mut machine, &server, "reboot");
}

/// The web server is gone, and with it what was never read, like the programs that stop services and
/// systemd-shutdown. The machine is off all the same.
#[test]
fn a_power_off_outlives_the_server() {
    let server = serve(&images::debian());
    let mut machine = logged_in(&server, 512);
    server.set_down(true);
    // Nothing that was read stays by accident, not even systemctl: the shell itself sends the signal that
    // asks systemd for the same (systemd(1)).
    machine.run("echo 3 > /proc/sys/vm/drop_caches", LONG, Some(&server));
    machine.type_line("kill -s RTMIN+4 1");
    machine.expect("the web server is gone: poweroff no longer waits", OFF, Some(&server));
    machine.expect("reboot: Power down", OFF, Some(&server));
    machine.has_ended(OFF);
}
