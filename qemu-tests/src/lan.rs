//! A network of a machine's own, for tests that QEMU's user network does not suffice for: a tap device
//! with real servers on it. `scripts/test` runs the machines in a network namespace, where the tests may
//! add devices.

use crate::machine::Machine;
use crate::promise::{promise, show_when_failing};
use crate::repository::{run, text};
use crate::switch::Switch;
use crate::web::{IMAGE, Server};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Seconds after which a server is ended, under timeout(1), whatever happens to its test.
const LIFE: &str = "1200";

/// The servers of a network.
#[derive(Clone, Debug)]
pub enum Service {
    /// A DHCP server that grants leases of so many seconds.
    Dhcp(u32),
    /// dnsmasq, whose shortest lease is two minutes.
    Dnsmasq,
    /// dnsmasq for firmware that boots by PXE: files of this directory by TFTP. Firmware gets iPXE for UEFI,
    /// and iPXE gets its script.
    Pxe(PathBuf),
    /// IPv6 alone; addresses by router advertisement (SLAAC), and the name server by DHCPv6.
    Slaac,
    /// IPv6 alone; addresses by DHCPv6.
    Dhcp6,
}

/// A network with its servers; both go away when it is dropped.
pub struct Lan {
    number: u8,
    server: Child,
    dir: tempfile::TempDir,
    switch: Option<Switch>,
}

impl Lan {
    /// A network. This machine is its gateway, and the web server `iso.inetboot.test` behind that.
    pub fn new(service: Service) -> Self {
        static NETWORKS: AtomicU8 = AtomicU8::new(0);
        // Different from those of other test processes, too.
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed) + (std::process::id() % 50) as u8 * 5;
        add_tap(number, &service);

        let dir = tempfile::tempdir().expect("a directory");
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

    /// The same network, behind a switch whose port carries it as VLAN `id` only.
    pub fn tagged(mut self, id: u16) -> Self {
        self.switch = Some(Switch::new(&tap(self.number), id, self.dir.path()));
        self
    }

    /// The network, for `Opts::wire`.
    pub fn wire(&self) -> String {
        match &self.switch {
            Some(switch) => switch.wire(),
            None => format!("tap,ifname={},script=no,downscript=no", tap(self.number)),
        }
    }

    /// The beginning of its IPv4 addresses.
    pub fn net(&self) -> String {
        format!("10.77.{}.", self.number)
    }

    /// The beginning of its IPv6 addresses.
    pub fn net6(&self) -> String {
        format!("fd77:{}:", self.number)
    }

    /// The output of the servers.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Checks that a machine whose own network service is `service` keeps its root and its network: while
    /// that is restarted, while the web server is gone for a minute and a half, and until the machine is
    /// five minutes old and has renewed its lease many times.
    pub fn check_network_survives(&self, machine: &mut Machine, server: &Server, service: &str) {
        const SECONDS: u64 = 300;
        /// A lease lasts a minute and is renewed after half of that.
        const RENEWALS: usize = 8;
        // A renewed lease needs no new offer. More of them would be answers to the system's own client.
        let offers = || self.log().matches("sending OFFER").count();
        let offers_before = offers();

        promise(&format!("the network survives a restart of {service}"), || {
            machine.run(&format!("systemctl restart {service}; sleep 3"), SECONDS);
            self.check_network(machine, server);
        });

        promise("reads wait while the web server is gone, and then go on", || {
            server.set_down(true);
            machine.give_up_turn();
            machine.type_line(
                "cat /usr/bin/* /usr/lib/x86_64-linux-gnu/* 2> /dev/null | wc -c; echo read-$((40+2))",
            );
            machine.expect("waiting for http://", 2 * SECONDS);
            std::thread::sleep(Duration::from_secs(90));
            server.set_down(false);
            machine.expect("is back after", SECONDS);
            machine.expect("read-42", 2 * SECONDS);
        });

        promise("InetBoot renews the lease, and no other client asks for one", || {
            std::thread::sleep(Duration::from_secs(SECONDS).saturating_sub(machine.age()));
            let leases = self.leases();
            assert!(leases.contains(&self.net()) && !leases.contains("expired"), "{leases}");
            let grants = self.log().matches("sending ACK").count();
            assert!(grants >= RENEWALS, "it was renewed {grants} times in {:?}", machine.age());
            assert_eq!(offers(), offers_before, "{service} asked for a lease of its own");
            self.check_network(machine, server);
        });

        promise("no read failed", || machine.check_no_read_failed());
    }

    /// Checks that the machine has its address, reaches the web server and looks up names.
    fn check_network(&self, machine: &mut Machine, server: &Server) {
        const SECONDS: u64 = 120;
        let address = machine.run("ip -4 -brief address", SECONDS);
        assert!(address.contains(&self.net()), "{address}");
        let fetch = format!("wget -q -O - {} | head -c 32774 | tail -c 5", server.guest_url(IMAGE));
        assert!(machine.run(&fetch, SECONDS).contains("CD001"));
        assert!(machine.run("getent hosts deb.inetboot.test", SECONDS).contains("10.0.2.2"));
    }

    /// The DHCP server's leases, one a line, with the time that is left.
    fn leases(&self) -> String {
        let leases = text(&self.dir.path().join("leases"));
        run(Path::new("/"), "/bin/busybox", &["dumpleases", "-r", "-f", &leases])
    }
}

/// Adds the tap device of a network, with this machine's address on it.
fn add_tap(number: u8, service: &Service) {
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
}

/// busybox' DHCP server: dnsmasq has no leases under two minutes.
fn udhcpd(number: u8, seconds: u32, dir: &Path) -> Command {
    let (at, tap) = (dir.display(), tap(number));
    let settings = [
        format!("interface {tap}"),
        format!("start 10.77.{number}.50"),
        format!("end 10.77.{number}.60"),
        format!("lease_file {at}/leases"),
        format!("pidfile {at}/pid"),
        "auto_time 1".into(),
        "min_lease 10".into(),
        "option subnet 255.255.255.0".into(),
        format!("option router 10.77.{number}.1"),
        "option dns 10.0.2.2".into(),
        format!("option lease {seconds}\n"),
    ]
    .join("\n");

    fs::write(dir.join("udhcpd.conf"), settings).expect("writing udhcpd.conf");
    fs::write(dir.join("leases"), "").expect("writing an empty lease file");

    let mut command = bounded();
    command.args(["/bin/busybox", "udhcpd", "-f"]).arg(dir.join("udhcpd.conf"));
    command
}

/// A DHCP server, or a router that advertises itself and a DHCPv6 server; and a name server.
fn dnsmasq(number: u8, range: &str) -> Command {
    // With IPv4 the web server is not on the network itself, but behind its router.
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
        // It answers for the whole domain: a name without an IPv4 address gets an answer that says so.
        .arg("--local=/inetboot.test/")
        .arg(format!("--host-record=iso.inetboot.test,{address}"));
    command
}

fn v4_range(number: u8) -> String {
    format!("10.77.{number}.50,10.77.{number}.60,2m")
}

fn pxe(mut dnsmasq: Command, files: &Path) -> Command {
    dnsmasq.arg("--enable-tftp").arg(format!("--tftp-root={}", files.display())).args([
        // iPXE is recognised by its option 175.
        "--dhcp-match=set:ipxe,175",
        "--dhcp-boot=tag:!ipxe,snponly.efi",
        "--dhcp-boot=tag:ipxe,inetboot.ipxe",
    ]);
    dnsmasq
}

/// A command that timeout(1) ends.
fn bounded() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIFE]);
    command
}

fn tap(number: u8) -> String {
    format!("tap{number}")
}

impl Drop for Lan {
    fn drop(&mut self) {
        show_when_failing("the DHCP and name servers of the network", || self.log());
        crate::end(&mut self.server);
        let _ = Command::new("ip").args(["link", "delete", &tap(self.number)]).status();
    }
}
