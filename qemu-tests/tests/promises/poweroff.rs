//! A machine goes down cleanly and quickly: systemd has nothing to complain of, and the web server may be
//! gone. Whatever can stay in the way of the last unmounting is there: each family has its own stack of
//! loop devices under the root.

use qemu_tests::web::{Content, Server};
use qemu_tests::{Machine, Opts, boot, images};
use std::path::Path;
use std::time::Duration;

/// Seconds for one stretch of a boot under TCG on a busy machine.
const LONG: u64 = 600;

/// Seconds from the command until the machine is off, under TCG on a busy machine.
const OFF: u64 = 150;

/// What the server waits before it cuts a shutdown short, with some seconds for each side.
const CUT_SHORT: u64 = 60;

/// What systemd, the kernel and we say where something is left.
const COMPLAINTS: [&str; 10] = [
    "Failed unmounting",
    "Could not detach",
    "Unable to finalize",
    "Cannot finalize",
    "Failed to",
    "cannot unmount",
    "still in use",
    "I/O error",
    "SQUASHFS error",
    "Kernel panic",
];

/// systemctl says this where there is no D-Bus to ask, as in the Debian sample.
const NO_BUS: &str = "Failed to connect to bus";

/// The last words of the kernel for each verb of systemctl.
const ENDS: [(&str, &str); 2] = [("poweroff", "reboot: Power down"), ("reboot", "reboot: Restarting system")];

fn serve(iso: &Path) -> Server {
    Server::builder().file("/live.iso", Content::File(iso.to_owned())).start().expect("starting a web server")
}

/// Boots to a shell of root's.
fn logged_in(server: &Server, opts: Opts) -> Machine {
    let append = format!("netdir={} {}", server.guest_url("/live.iso"), opts.append);
    let mut machine = boot(&Opts { append, ..opts });
    machine.log_in(LONG, Some(server));
    // Units that are still being started would be stopped halfway.
    machine.run("systemctl is-system-running --wait; true", LONG, Some(server));
    machine
}

/// Ends the machine by `systemctl VERB`; what it said meanwhile.
fn ends(machine: &mut Machine, server: &Server, verb: &str) -> String {
    let (_, end) = ENDS.iter().find(|(name, _)| *name == verb).expect("a verb of the table");
    machine.type_line(&format!("systemctl {verb}"));
    machine.expect(end, OFF, Some(server)).replace(NO_BUS, "")
}

fn goes_down_cleanly(iso: &Path, opts: Opts, verb: &str) {
    let server = serve(iso);
    let mut machine = logged_in(&server, opts);
    let said = ends(&mut machine, &server, verb);
    for complaint in COMPLAINTS {
        assert!(!said.contains(complaint), "\"{complaint}\" in\n{said}");
    }
    assert!(said.contains("inetboot: the root file system is unmounted"), "{said}");
    machine.has_ended(OFF);
}

/// live-boot: a squashfs on the image under an overlay.
#[test]
fn debian_powers_off() {
    goes_down_cleanly(&images::debian(), Opts::stock(), "poweroff");
}

#[test]
fn debian_restarts() {
    goes_down_cleanly(&images::debian(), Opts::stock(), "reboot");
}

/// dracut: mounts of its own in `/run/initramfs`, which stay there for the life of the machine.
#[test]
fn dracut_powers_off() {
    let opts = Opts { memory: 1024, ..Opts::stock() };
    goes_down_cleanly(&images::family("fedora", "flat"), opts, "poweroff");
}

/// casper: loop devices of its own on the squashfs files of the mounted image.
#[test]
fn casper_powers_off() {
    let opts = Opts { memory: 1024, ..Opts::stock() };
    goes_down_cleanly(&images::family("casper", "classic"), opts, "poweroff");
}

/// The web server is gone, and with it what was never read: the programs that stop services, and
/// systemd-shutdown. The machine is off all the same.
#[test]
fn debian_powers_off_without_its_server() {
    let server = serve(&images::debian());
    let mut machine = logged_in(&server, Opts::stock());
    server.set_down(true);
    // Nothing that was read stays by accident, not even systemctl: the shell itself sends the signal that
    // asks systemd for the same (systemd(1)).
    machine.run("echo 3 > /proc/sys/vm/drop_caches", LONG, Some(&server));
    machine.type_line("kill -s RTMIN+4 1");
    machine.expect("the web server is gone, so poweroff", CUT_SHORT + OFF, Some(&server));
    machine.expect("reboot: Power down", CUT_SHORT, Some(&server));
    machine.has_ended(OFF);
}

/// What the server hears of a shutdown by is not disturbed by a restart of systemd itself.
#[test]
fn casper_restarts_after_systemd_did() {
    let server = serve(&images::family("casper", "classic"));
    let mut machine = logged_in(&server, Opts { memory: 1024, ..Opts::stock() });
    machine.run("systemctl daemon-reexec", LONG, Some(&server));
    std::thread::sleep(Duration::from_secs(5));
    assert!(!machine.run("findmnt -n /run/initramfs; true", LONG, Some(&server)).contains("tmpfs"));
    let said = ends(&mut machine, &server, "reboot");
    assert!(said.contains("inetboot: the root file system is unmounted"), "{said}");
}
