//! An unmodified Debian live ISO, to its login prompt and beyond. The boot takes long, so that several
//! promises share it.

use crate::{LONG, check_budget};
use qemu_tests::lan::{Lan, Service};
use qemu_tests::web::{IMAGE, Server};
use qemu_tests::{Opts, boot, dns, images, promise};
use sha2::{Digest, Sha256};
use std::fs;
use std::time::Duration;

/// The time for which the web server is gone.
const OUTAGE: Duration = Duration::from_secs(60);

/// The part of the image that a boot may fetch, kernel and initrd included.
const BUDGET_PERCENT: u64 = 60;

/// Debian boots over HTTP in 512 MiB, fetches little, waits while its server is gone, has a network of its
/// usual kind, and powers off.
#[test]
fn debian_boots_and_survives_an_outage() {
    dns::serve();
    let iso = images::debian();
    let digest = || Sha256::digest(fs::read(&iso).expect("reading the ISO"));
    let before = digest();
    let server = Server::of_image(&iso);
    let lan = Lan::new(Service::Dhcp(60));
    let image = format!("http://iso.inetboot.test:{}{IMAGE}", server.port());
    let opts = Opts { append: format!("netdir={image}"), memory: 512, wire: lan.wire(), ..Opts::stock() };
    let mut machine = boot(&opts);

    promise("a boot whose server is gone for a minute waits, and then goes on", || {
        machine.expect("handing over to the target's own /init", LONG);
        server.set_down(true);
        machine.expect("waiting for http://iso.inetboot.test", LONG);
        std::thread::sleep(OUTAGE);
        server.set_down(false);
        machine.expect("is back after", 60);
        machine.log_in(LONG);
    });

    promise("only a part of the image is fetched", || check_budget(&machine, &server, BUDGET_PERCENT));

    promise("the distribution's network service runs, and the network works", || {
        machine.run("systemctl is-active networking", LONG);
        assert!(machine.run("ip -4 addr show eth0", LONG).contains(&lan.net()));
        assert!(machine.run("getent hosts deb.inetboot.test", LONG).contains("10.0.2.2"));
        let fetch = format!("wget -q -O - {image} | head -c 32774 | tail -c 5");
        assert!(machine.run(&fetch, LONG).contains("CD001"));
    });

    promise("the root is an overlay over the remote medium", || {
        assert!(machine.run("findmnt -n /run/live/medium", LONG).contains("/dev/loop0"));
        assert!(machine.run("findmnt -n /", LONG).contains("overlay"));
        assert!(machine.run("cat /proc/meminfo | head -n 1", LONG).contains("MemTotal"));
    });

    promise("there is a receipt", || {
        assert!(machine.run("cat /run/inetboot/receipt.json", LONG).contains("\"version\": 1"));
    });

    // Once more, after login, while files are read that were never read before.
    lan.check_network_survives(&mut machine, &server, "networking");

    promise("the network service leaves the card to InetBoot", || {
        assert!(machine.run("cat /etc/network/interfaces", LONG).contains("inet manual"));
        assert!(machine.run("pgrep dhclient || echo none", LONG).contains("none"));
    });

    promise("the machine powers off and does not hang on its root", || {
        machine.type_line("poweroff");
        machine.expect("reboot: Power down", LONG);
        machine.expect_end(60);
    });

    promise("the ISO was not changed", || assert_eq!(digest(), before));
}
