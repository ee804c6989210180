//! The real thing: an unmodified Debian live ISO, to its login prompt and beyond. One boot keeps
//! several promises, because it is the dear one.

use qemu_tests::lan::{Lan, Service};
use qemu_tests::web::{Content, Server};
use qemu_tests::{Machine, Opts, boot, dns, images};
use sha2::{Digest, Sha256};
use std::fs;
use std::time::Duration;

/// Seconds for one stretch of the boot under TCG on a busy machine.
const LONG: u64 = 600;

/// How long the server is gone.
const OUTAGE: Duration = Duration::from_secs(60);

/// Of the image, kernel and initrd included.
const BUDGET_PERCENT: u64 = 60;

#[test]
fn debian_boots_over_http_in_512_mib_reads_little_and_outlives_its_server() {
    dns::serve();
    let iso = images::debian();
    let digest = |path| Sha256::digest(fs::read(path).expect("reading the ISO"));
    let before = digest(&iso);
    let length = fs::metadata(&iso).expect("the ISO is there").len();
    let server = Server::builder()
        .file("/live.iso", Content::File(iso.clone()))
        .start()
        .expect("starting a web server");
    let lan = Lan::new(Service::Dhcp(60));
    let opts = Opts {
        append: format!("netdir=http://iso.inetboot.test:{}/live.iso", server.port()),
        memory: 512,
        wire: lan.wire(),
        ..Opts::stock()
    };
    let mut machine = boot(&opts);

    // The server is gone for a minute in the middle of the boot.
    machine.expect("handing over to the target's own /init", LONG, Some(&server));
    server.set_down(true);
    machine.expect("waiting for http://iso.inetboot.test", LONG, Some(&server));
    std::thread::sleep(OUTAGE);
    server.set_down(false);
    machine.expect("is back after", 60, Some(&server));
    machine.log_in(LONG, Some(&server));

    let sent = server.bytes_sent();
    let percent = sent * 100 / length;
    println!("login after {:?}, {sent} of {length} bytes ({percent} %)", machine.age());
    assert!(percent < BUDGET_PERCENT, "{percent} % of the image crossed the network");

    // The distro's own network service runs, and the network works.
    let run = |machine: &mut Machine, command: &str| machine.run(command, LONG, Some(&server));
    run(&mut machine, "systemctl is-active networking");
    assert!(run(&mut machine, "findmnt -n /run/live/medium").contains("/dev/loop0"));
    assert!(run(&mut machine, "findmnt -n /").contains("overlay"));
    assert!(run(&mut machine, "ip -4 addr show eth0").contains(&lan.net()));
    assert!(run(&mut machine, "getent hosts deb.inetboot.test").contains("10.0.2.2"));
    let fetch = format!(
        "wget -q -O - http://iso.inetboot.test:{}/live.iso | head -c 32774 | tail -c 5",
        server.port()
    );
    assert!(run(&mut machine, &fetch).contains("CD001"));
    assert!(run(&mut machine, "cat /run/inetboot/receipt.json").contains("\"version\": 1"));
    assert!(run(&mut machine, "cat /proc/meminfo | head -n 1").contains("MemTotal"));

    // Once more, after login, with somebody reading what was never read; and its network service
    // is restarted, which may take the link down.
    lan.outlives(&mut machine, &server, "networking");
    assert!(run(&mut machine, "cat /etc/network/interfaces").contains("inet manual"));
    assert!(run(&mut machine, "pgrep dhclient || echo none").contains("none"));

    // And it goes down without hanging on its root.
    machine.type_line("poweroff");
    machine.expect("reboot: Power down", LONG, Some(&server));
    assert_eq!(digest(&iso), before, "the ISO was changed");
}
