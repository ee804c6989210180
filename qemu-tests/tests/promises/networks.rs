//! Networks that are not QEMU's: IPv6 alone, and VLANs, by real servers on a wire of our own; both
//! lives get onto them, and names are looked up there.

use qemu_tests::images::{self, Witness};
use qemu_tests::lan::{Lan, Service};
use qemu_tests::web::{Content, Fault, Server};
use qemu_tests::{Machine, Opts, boot};

/// Seconds until the witness is ready; a boot takes 20 to 30 on an idle machine under TCG.
const SOON: u64 = 300;

fn serve() -> Server {
    let iso = images::witness(&Witness::default());
    Server::builder().file("/w.iso", Content::File(iso)).on_ipv6().start().expect("starting a web server")
}

/// Boots the witness over the wire, by name; what it said.
fn report(opts: Opts, lan: &Lan, server: &Server, arguments: &str) -> (Machine, String) {
    let mut machine = started(opts, lan, server, arguments);
    let said = is_ready(&mut machine, server);
    (machine, said)
}

fn started(opts: Opts, lan: &Lan, server: &Server, arguments: &str) -> Machine {
    let append = format!("netdir=http://iso.inetboot.test:{}/w.iso {arguments}", server.port());
    boot(&Opts { append, wire: lan.wire(), ..opts })
}

fn is_ready(machine: &mut Machine, server: &Server) -> String {
    let said = machine.expect("witness: ready", SOON, Some(server));
    assert!(said.contains("witness: cd boot live numbers"), "{said}");
    said
}

/// The second life goes on reading.
fn reads_on(machine: &mut Machine, server: &Server) {
    assert!(machine.run("cat /cd/numbers | wc -c", SOON, Some(server)).contains("8000000"));
}

/// Also in a second attempt, which takes back what the first was given.
#[test]
fn ipv6_alone_by_slaac() {
    let server = serve();
    let lan = Lan::new(Service::Slaac);
    server.misbehave(|_, _| Some(Fault::Status(404)));
    let mut machine = started(Opts::default(), &lan, &server, "");
    machine.expect("] source failed: ", SOON, Some(&server));
    server.misbehave(|_, _| None);
    let said = is_ready(&mut machine, &server);
    assert!(said.contains("an IPv6 address as routers say"), "{said}");
    assert!(said.contains(&format!("witness: address6 {}", lan.net6())), "{said}\n{}", lan.log());
    reads_on(&mut machine, &server);
}

#[test]
fn ipv6_alone_by_dhcpv6_whose_lease_is_renewed() {
    let server = serve();
    let lan = Lan::new(Service::Dhcp6);
    let (mut machine, said) = report(Opts::stock(), &lan, &server, "ip=dhcp6");
    assert!(said.contains(&format!("has {}:1", lan.net6())), "{said}\n{}", lan.log());
    // Half of two minutes, from the first life on.
    machine.gives_up_its_turn();
    let renewed = machine.run("sleep 75; echo slept", SOON, Some(&server));
    assert!(renewed.contains("slept"));
    assert!(lan.log().contains("DHCPRENEW"), "{}", lan.log());
    reads_on(&mut machine, &server);
}

#[test]
fn ipv6_alone_by_hand() {
    let server = serve();
    let lan = Lan::new(Service::Slaac);
    let net = lan.net6();
    let arguments = format!("ip=[{net}:77]::[{net}:1]:64::eth0:none nameserver=[{net}:1]");
    let (mut machine, said) = report(Opts::default(), &lan, &server, &arguments);
    assert!(said.contains(&format!("{net}:77/64")), "{said}");
    reads_on(&mut machine, &server);
}

#[test]
fn a_vlan_is_carried_into_both_lives_and_its_lease_is_renewed() {
    let server = serve();
    let lan = Lan::new(Service::Dnsmasq).tagged(7);
    let (mut machine, said) = report(Opts::stock(), &lan, &server, "vlan=7");
    assert!(said.contains("eth0.7 (52:54:00:12:34:56) has"), "{said}");
    assert!(said.contains("taking the module 8021q from"), "{said}");
    assert!(said.contains(&format!("witness: address {}", lan.net())), "{said}");
    let granted = lan.log().matches("DHCPACK").count();
    // Half of two minutes, from the first life on.
    machine.gives_up_its_turn();
    machine.run("sleep 75; echo slept", SOON, Some(&server));
    assert!(lan.log().matches("DHCPACK").count() > granted, "{}", lan.log());
    reads_on(&mut machine, &server);
}

#[test]
fn a_link_that_somebody_takes_down_is_put_back() {
    let server = serve();
    let lan = Lan::new(Service::Dnsmasq);
    let (mut machine, _) = report(Opts::default(), &lan, &server, "");
    for (harm, loss) in [
        ("ip link set eth0 down", "power"),
        ("ip address flush dev eth0", "address"),
        ("ip route delete default", "route"),
    ] {
        // What was said is done a moment later.
        machine.type_line(&format!("sleep 2; {harm}"));
        machine.expect(&format!("eth0 lost its {loss}; putting it back"), 60, Some(&server));
    }
    reads_on(&mut machine, &server);
}
