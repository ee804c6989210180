//! Networks other than QEMU's: IPv6 alone, and VLANs, by real servers on a network of our own. Both lives
//! use them, and look up names there.

use crate::SOON;
use qemu_tests::images::{self, Witness};
use qemu_tests::lan::{Lan, Service};
use qemu_tests::web::{Fault, IMAGE, Server};
use qemu_tests::{Machine, Opts, boot, promise};

fn serve() -> Server {
    let builder = Server::builder().image(images::witness(&Witness::default())).on_ipv6();
    builder.start().expect("starting a web server")
}

/// Starts a machine on the network, with the witness by its name there.
fn start(opts: Opts, lan: &Lan, server: &Server, arguments: &str) -> Machine {
    let append = format!("netdir=http://iso.inetboot.test:{}{IMAGE} {arguments}", server.port());
    boot(&Opts { append, wire: lan.wire(), ..opts })
}

/// Waits for the end of the witness' report, and gives what was said.
fn report(machine: &mut Machine) -> String {
    let said = machine.expect("witness: ready", SOON);
    assert!(said.contains("witness: cd boot live numbers"), "{said}");
    said
}

fn check_second_life_reads(machine: &mut Machine) {
    promise("the second life reads on", || {
        assert!(machine.run("cat /cd/numbers | wc -c", SOON).contains("8000000"));
    });
}

/// With router advertisements alone both lives have an address, also in a second attempt, before which the
/// first one's addresses are removed.
#[test]
fn ipv6_slaac_and_again_on_retry() {
    let server = serve();
    let lan = Lan::new(Service::Slaac);
    server.misbehave(|_, _| Some(Fault::Status(404)));
    let mut machine = start(Opts::default(), &lan, &server, "");
    promise("the first attempt reaches the web server", || {
        machine.expect("] source failed: ", SOON);
    });
    server.misbehave(|_, _| None);
    promise("the second attempt has an address by router advertisement, too", || {
        let said = report(&mut machine);
        assert!(said.contains("an IPv6 address by router advertisement"), "{said}");
        assert!(said.contains(&format!("witness: address6 {}", lan.net6())), "{said}");
    });
    check_second_life_reads(&mut machine);
}

/// With DHCPv6 alone the machine has an address, and its lease is renewed.
#[test]
fn ipv6_dhcpv6_lease_is_renewed() {
    let server = serve();
    let lan = Lan::new(Service::Dhcp6);
    let mut machine = start(Opts::stock(), &lan, &server, "ip=dhcp6");
    promise("the address is the server's", || {
        let said = report(&mut machine);
        assert!(said.contains(&format!("has {}:1", lan.net6())), "{said}");
    });
    promise("the lease is renewed", || {
        wait_for_renewal(&mut machine);
        assert!(lan.log().contains("DHCPRENEW"));
    });
    check_second_life_reads(&mut machine);
}

/// Waits for more than half of a lease, which lasts two minutes from the first life on.
fn wait_for_renewal(machine: &mut Machine) {
    machine.give_up_turn();
    assert!(machine.run("sleep 75; echo slept", SOON).contains("slept"));
}

/// `ip=` and `nameserver=` take IPv6 addresses.
#[test]
fn ipv6_fixed_address() {
    let server = serve();
    let lan = Lan::new(Service::Slaac);
    let net = lan.net6();
    let arguments = format!("ip=[{net}:77]::[{net}:1]:64::eth0:none nameserver=[{net}:1]");
    let mut machine = start(Opts::default(), &lan, &server, &arguments);
    promise("the address is the given one", || {
        let said = report(&mut machine);
        assert!(said.contains(&format!("{net}:77/64")), "{said}");
    });
    check_second_life_reads(&mut machine);
}

/// `vlan=` adds the VLAN in both lives, and the lease on it is renewed.
#[test]
fn vlan_reaches_both_lives() {
    let server = serve();
    let lan = Lan::new(Service::Dnsmasq).tagged(7);
    let mut machine = start(Opts::stock(), &lan, &server, "vlan=7");
    let said = report(&mut machine);
    promise("the first life has its lease on the VLAN", || {
        assert!(said.contains("eth0.7 (52:54:00:12:34:56) has"), "{said}");
    });
    promise("the second life has the module for VLANs, and the address", || {
        assert!(said.contains("taking the module 8021q from"), "{said}");
        assert!(said.contains(&format!("witness: address {}", lan.net())), "{said}");
    });
    promise("the lease is renewed", || {
        let granted = lan.log().matches("DHCPACK").count();
        wait_for_renewal(&mut machine);
        assert!(lan.log().matches("DHCPACK").count() > granted);
    });
    check_second_life_reads(&mut machine);
}

/// A link that is taken down, and an address or a route that is removed, are put back.
#[test]
fn broken_link_is_repaired() {
    let server = serve();
    let lan = Lan::new(Service::Dnsmasq);
    let mut machine = start(Opts::default(), &lan, &server, "");
    report(&mut machine);
    for (harm, loss) in [
        ("ip link set eth0 down", "power"),
        ("ip address flush dev eth0", "address"),
        ("ip route delete default", "route"),
    ] {
        promise(&format!("the link's {loss} is put back"), || {
            // The repair that was announced last is done a moment later.
            machine.type_line(&format!("sleep 2; {harm}"));
            machine.expect(&format!("eth0 lost its {loss}; putting it back"), 60);
        });
    }
    check_second_life_reads(&mut machine);
}
