//! How long it takes to be on the way: our own kernel from the loader's hand-over to the jump into the
//! target's kernel, beside a stock kernel's bare boot to its init, in turns in the same run. Run by
//! `scripts/bench-start`.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic)] // a program for the desk

use qemu_tests::machine::{Kernel, Loader};
use qemu_tests::web::{Content, Server};
use qemu_tests::{Opts, boot, images};
use std::fs;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

/// Seconds that nothing here takes.
const LONG: u64 = 300;

/// What SeaBIOS says to its debug port when it hands over.
const HANDS_OVER: &str = "Booting from";

/// Seconds from the hand-over until a machine says `until`, and what it said.
fn seconds(opts: &Opts, until: &str, server: &Server) -> (f64, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let debug = dir.path().join("seabios");
    let port = format!("file:{}", debug.display());
    // Nobody's machine has one core.
    let ours = ["-smp", "2", "-debugcon", &port, "-global", "isa-debugcon.iobase=0x402"];
    let qemu = opts.qemu.iter().cloned().chain(ours.map(String::from)).collect();
    let mut machine = boot(&Opts { qemu, ..opts.clone() });
    while !fs::read(&debug).is_ok_and(|said| String::from_utf8_lossy(&said).contains(HANDS_OVER)) {
        assert!(machine.age() < Duration::from_secs(60), "the firmware does not hand over");
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    let said = machine.expect(until, LONG, Some(server));
    (start.elapsed().as_secs_f64(), said)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let iso = images::debian();
    let server = Server::builder().file("/live.iso", Content::File(iso)).start().expect("a server");
    // QEMU's processors have one clock, but do not say so to Linux.
    let clock = "tsc=reliable";
    let netdir = format!("{clock} netdir={}", server.guest_url("/live.iso"));
    let own = Opts { append: netdir, ..Opts::default() };
    // Its init is the agent, too, but without its modules: the bare boot, with the smallest initramfs.
    let stock = Opts {
        loader: Loader::Qemu(Kernel::Bare),
        append: format!("{clock} inetboot.onfail=shell"),
        ..Opts::default()
    };
    let (mut to_init, mut to_kexec, mut receipt) = (Vec::new(), Vec::new(), String::new());
    println!(
        "{:<8} {:>24} {:>24} {:>7}",
        "round", "stock kernel to init, s", "InetBoot to kexec, s", "ratio"
    );
    for round in 1..=ROUNDS {
        let (stock, _) = seconds(&stock, "inetboot: InetBoot", &server);
        let (own, said) = seconds(&own, "leaving for", &server);
        println!("{round:<8} {stock:>24.2} {own:>24.2} {:>7.2}", own / stock);
        to_init.push(stock);
        to_kexec.push(own);
        receipt = said.lines().filter(|line| line.contains("receipt: ")).collect::<Vec<_>>().join("\n");
    }
    let (stock, own) = (median(to_init), median(to_kexec));
    println!(
        "{:<8} {stock:>24.2} {own:>24.2} {:>7.2}\n\nthe last one's receipt:\n{receipt}",
        "median",
        own / stock
    );
}
