//! A wire of a machine's own: a tap device with real servers on it, where QEMU's user network will
//! not do. `scripts/test` runs the machines in a network namespace, where we may make one.

use crate::run;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// A wire with a DHCP server; taken away when it is dropped.
pub struct Lan {
    number: u8,
    dhcp: Child,
    dir: tempfile::TempDir,
}

impl Lan {
    /// A wire whose DHCP server grants leases of `seconds`, and no longer. This machine is its
    /// gateway.
    pub fn new(seconds: u32) -> Self {
        static WIRES: AtomicU8 = AtomicU8::new(0);
        // Also apart from those of other test processes.
        let number = WIRES.fetch_add(1, Ordering::Relaxed) + (std::process::id() % 50) as u8 * 5;
        let dir = tempfile::tempdir().expect("a directory");
        let tap = tap(number);
        let ip = |arguments: &[&str]| drop(run(Path::new("/"), "ip", arguments));
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap"]);
        ip(&["address", "add", &format!("10.77.{number}.1/24"), "dev", &tap]);
        ip(&["link", "set", &tap, "up"]);
        let at = dir.path().display();
        fs::write(
            dir.path().join("udhcpd.conf"),
            format!(
                "interface {tap}\nstart 10.77.{number}.50\nend 10.77.{number}.60\nlease_file {at}/leases\n\
                 pidfile {at}/pid\nauto_time 1\nmin_lease 10\noption subnet 255.255.255.0\n\
                 option router 10.77.{number}.1\noption dns 10.0.2.2\noption lease {seconds}\n"
            ),
        )
        .expect("writing udhcpd.conf");
        fs::write(dir.path().join("leases"), "").expect("writing an empty lease file");
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let dhcp = Command::new("/bin/busybox")
            .args(["udhcpd", "-f"])
            .arg(dir.path().join("udhcpd.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("starting busybox udhcpd (scripts/setup installs busybox-static)");
        Self { number, dhcp, dir }
    }

    /// The wire, for `Opts::wire`.
    pub fn wire(&self) -> String {
        format!("tap,ifname={},script=no,downscript=no", tap(self.number))
    }

    /// The beginning of the addresses on it.
    pub fn net(&self) -> String {
        format!("10.77.{}.", self.number)
    }

    /// How often a lease was granted or renewed so far.
    pub fn grants(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.matches("sending ACK").count()
    }

    /// What the server says of its leases: one a line, with the time that is left.
    pub fn leases(&self) -> String {
        let leases = self.dir.path().join("leases");
        run(Path::new("/"), "/bin/busybox", &["dumpleases", "-r", "-f", leases.to_str().expect("a path")])
    }
}

fn tap(number: u8) -> String {
    format!("tap{number}")
}

impl Drop for Lan {
    fn drop(&mut self) {
        crate::end(&mut self.dhcp);
        let _ = Command::new("ip").args(["link", "delete", &tap(self.number)]).status();
    }
}
