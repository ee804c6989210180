//! A wire of a machine's own: a tap device with real servers on it, where QEMU's user network will
//! not do. `scripts/test` runs the machines in a network namespace, where we may make one.

use crate::machine::Machine;
use crate::run;
use crate::switch::Switch;
use crate::web::Server;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Who serves on a wire.
#[derive(Clone, Debug)]
pub enum Service {
    /// A DHCP server that grants leases of so many seconds, and no longer.
    Dhcp(u32),
    /// dnsmasq, which grants none of under two minutes.
    Dnsmasq,
    /// The same, for firmware that boots by PXE: files of this directory by TFTP, first iPXE for UEFI, and
    /// what that is to do then.
    Pxe(PathBuf),
    /// IPv6 alone, addresses by the router's word: SLAAC, and names by DHCPv6.
    Slaac,
    /// IPv6 alone, addresses by DHCPv6.
    Dhcp6,
}

/// A wire with servers; taken away when it is dropped.
pub struct Lan {
    number: u8,
    server: Child,
    dir: tempfile::TempDir,
    switch: Option<Switch>,
}

impl Lan {
    /// A wire. This machine is its gateway, and `iso.inetboot.test`, behind that.
    pub fn new(service: Service) -> Self {
        static WIRES: AtomicU8 = AtomicU8::new(0);
        // Also apart from those of other test processes.
        let number = WIRES.fetch_add(1, Ordering::Relaxed) + (std::process::id() % 50) as u8 * 5;
        let dir = tempfile::tempdir().expect("a directory");
        let tap = tap(number);
        let ip = |arguments: &[&str]| drop(run(Path::new("/"), "ip", arguments));
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap"]);
        match service {
            Service::Dhcp(_) | Service::Dnsmasq | Service::Pxe(_) => {
                ip(&["address", "add", &format!("10.77.{number}.1/24"), "dev", &tap]);
            }
            Service::Slaac | Service::Dhcp6 => {
                ip(&["address", "add", &format!("fd77:{number}::1/64"), "dev", &tap, "nodad"]);
            }
        }
        ip(&["link", "set", &tap, "up"]);
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let mut server = match service {
            Service::Dhcp(seconds) => udhcpd(number, seconds, dir.path()),
            Service::Dnsmasq => dnsmasq(number, &v4_range(number)),
            Service::Pxe(files) => pxe(dnsmasq(number, &v4_range(number)), &files),
            Service::Slaac => dnsmasq(number, &format!("fd77:{number}::,ra-stateless")),
            Service::Dhcp6 => dnsmasq(number, &format!("fd77:{number}::100,fd77:{number}::1ff,64,2m")),
        };
        let server = server
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{server:?}: {error} (scripts/setup installs it)"));
        Self { number, server, dir, switch: None }
    }

    /// The same wire, at a switch's port that carries it as VLAN `id` only.
    pub fn tagged(mut self, id: u16) -> Self {
        self.switch = Some(Switch::new(&tap(self.number), id, self.dir.path()));
        self
    }

    /// The wire, for `Opts::wire`.
    pub fn wire(&self) -> String {
        match &self.switch {
            Some(switch) => switch.wire(),
            None => format!("tap,ifname={},script=no,downscript=no", tap(self.number)),
        }
    }

    /// The beginning of the IPv4 addresses on it.
    pub fn net(&self) -> String {
        format!("10.77.{}.", self.number)
    }

    /// The beginning of the IPv6 addresses on it.
    pub fn net6(&self) -> String {
        format!("fd77:{}:", self.number)
    }

    /// What the servers said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A machine that runs `service` keeps its root and its network: when that is restarted, while the
    /// web server is gone for a minute and a half, and until five minutes are over, by when its
    /// lease has been renewed again and again.
    pub fn outlives(&self, machine: &mut Machine, server: &Server, service: &str) {
        const SECONDS: u64 = 300;
        let web = Some(server);
        // Who renews a lease makes no new offer necessary: more of them are somebody else's doing.
        let offers = || self.log().matches("sending OFFER").count();
        let offered = offers();
        machine.run(&format!("systemctl restart {service}; sleep 3"), SECONDS, web);
        let fetch = format!("wget -q -O - {} | head -c 32774 | tail -c 5", server.guest_url("/live.iso"));
        self.is_well(machine, &fetch, server);

        server.set_down(true);
        machine.gives_up_its_turn();
        machine.type_line(
            "cat /usr/bin/* /usr/lib/x86_64-linux-gnu/* 2> /dev/null | wc -c; echo read-$((40+2))",
        );
        machine.expect("waiting for http://", 2 * SECONDS, web);
        std::thread::sleep(Duration::from_secs(90));
        server.set_down(false);
        machine.expect("is back after", SECONDS, web);
        machine.expect("read-42", 2 * SECONDS, web);

        let left = Duration::from_secs(SECONDS).saturating_sub(machine.age());
        std::thread::sleep(left);
        let leases = self.leases();
        assert!(leases.contains(&self.net()) && !leases.contains("expired"), "{leases}");
        // Half a minute each.
        let grants = self.log().matches("sending ACK").count();
        assert!(grants >= 8, "it was renewed {grants} times in {:?}", machine.age());
        assert_eq!(offers(), offered, "{service} asked for a lease of its own:\n{}", self.log());
        self.is_well(machine, &fetch, server);
        let said = machine.said();
        for bad in ["I/O error", "SQUASHFS error", "Kernel panic"] {
            assert!(!said.contains(bad), "the serial line says {bad}");
        }
    }

    fn is_well(&self, machine: &mut Machine, fetch: &str, server: &Server) {
        const SECONDS: u64 = 120;
        let web = Some(server);
        let address = machine.run("ip -4 -brief address", SECONDS, web);
        assert!(address.contains(&self.net()), "{address}");
        assert!(machine.run(fetch, SECONDS, web).contains("CD001"));
        assert!(machine.run("getent hosts deb.inetboot.test", SECONDS, web).contains("10.0.2.2"));
    }

    /// What the DHCP server says of its leases: one a line, with the time that is left.
    fn leases(&self) -> String {
        let leases = self.dir.path().join("leases");
        run(Path::new("/"), "/bin/busybox", &["dumpleases", "-r", "-f", leases.to_str().expect("a path")])
    }
}

/// busybox', because dnsmasq grants nothing under two minutes.
fn udhcpd(number: u8, seconds: u32, dir: &Path) -> Command {
    let (at, tap) = (dir.display(), tap(number));
    let settings = format!(
        "interface {tap}\nstart 10.77.{number}.50\nend 10.77.{number}.60\nlease_file {at}/leases\n\
         pidfile {at}/pid\nauto_time 1\nmin_lease 10\noption subnet 255.255.255.0\n\
         option router 10.77.{number}.1\noption dns 10.0.2.2\noption lease {seconds}\n"
    );
    fs::write(dir.join("udhcpd.conf"), settings).expect("writing udhcpd.conf");
    fs::write(dir.join("leases"), "").expect("writing an empty lease file");
    let mut command = bounded();
    command.args(["/bin/busybox", "udhcpd", "-f"]).arg(dir.join("udhcpd.conf"));
    command
}

/// A DHCP server, or a router that advertises itself and a DHCPv6 server; and a name server.
fn dnsmasq(number: u8, range: &str) -> Command {
    // The web server is not on the wire itself where that has IPv4: it is behind its router.
    let address = if range.starts_with("10.") { "10.0.2.2".into() } else { format!("fd77:{number}::1") };
    let mut command = bounded();
    command
        .args([
            "/usr/sbin/dnsmasq",
            "--no-daemon",
            "--log-dhcp",
            "--conf-file=/dev/null",
            "--user=root",
            "--group=root",
        ])
        .args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--except-interface=lo", "--leasefile-ro"])
        .args(["--enable-ra", "--dhcp-option=option6:dns-server,[::]", "--dhcp-authoritative"])
        .arg(format!("--interface={}", tap(number)))
        .arg(format!("--dhcp-range={range}"))
        // It answers for the whole domain: that there is no address of IPv4 is an answer, too.
        .arg("--local=/inetboot.test/")
        .arg(format!("--host-record=iso.inetboot.test,{address}"));
    command
}

fn v4_range(number: u8) -> String {
    format!("10.77.{number}.50,10.77.{number}.60,2m")
}

fn pxe(mut dnsmasq: Command, files: &Path) -> Command {
    dnsmasq.arg("--enable-tftp").arg(format!("--tftp-root={}", files.display())).args([
        // iPXE says who it is (option 175).
        "--dhcp-match=set:ipxe,175",
        "--dhcp-boot=tag:!ipxe,snponly.efi",
        "--dhcp-boot=tag:ipxe,inetboot.ipxe",
    ]);
    dnsmasq
}

/// No server outlives its test by much, whatever happens to that: it runs under timeout(1).
fn bounded() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "1200"]);
    command
}

fn tap(number: u8) -> String {
    format!("tap{number}")
}

impl Drop for Lan {
    fn drop(&mut self) {
        crate::end(&mut self.server);
        let _ = Command::new("ip").args(["link", "delete", &tap(self.number)]).status();
    }
}
