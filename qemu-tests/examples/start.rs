//! Measures the start: the time of our own kernel from the loader's handover to kexec, and that of a stock
//! kernel's bare boot to its init, in turns in the same run. `scripts/bench-start` runs it.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic)] // a program for the desk

use qemu_tests::machine::{Kernel, Loader, arguments};
use qemu_tests::web::Server;
use qemu_tests::{Opts, boot, images};
use std::fs;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

/// Seconds; every boot is faster.
const LONG: u64 = 300;

/// The words of SeaBIOS on its debug port when it hands over to the loader.
const HANDS_OVER: &str = "Booting from";

/// Boots until the machine says `until`. Gives the seconds from the handover on, and all that was said.
fn seconds(opts: &Opts, until: &str) -> (f64, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let debug = dir.path().join("seabios");
    let port = format!("file:{}", debug.display());
    // As on a real machine, there is more than one core.
    let ours = arguments(["-smp", "2", "-debugcon", &port, "-global", "isa-debugcon.iobase=0x402"]);
    let mut machine = boot(&Opts { qemu: [opts.qemu.clone(), ours].concat(), ..opts.clone() });

    while !fs::read(&debug).is_ok_and(|said| String::from_utf8_lossy(&said).contains(HANDS_OVER)) {
        assert!(machine.age() < Duration::from_secs(60), "the firmware does not hand over");
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    let said = machine.expect(until, LONG);
    (start.elapsed().as_secs_f64(), said)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let server = Server::of_image(images::debian());
    // The processors of QEMU share a clock, but Linux cannot tell.
    let clock = "tsc=reliable";
    let own = Opts::with_arguments(format!("{clock} {}", server.netdir()));
    // The bare boot: the stock kernel with the smallest initramfs, whose init is the agent without modules.
    let stock = Opts {
        loader: Loader::Qemu(Kernel::Bare),
        ..Opts::with_arguments(format!("{clock} inetboot.onfail=shell"))
    };

    let (mut to_init, mut to_kexec, mut receipt) = (Vec::new(), Vec::new(), String::new());
    println!(
        "{:<8} {:>24} {:>24} {:>7}",
        "round", "stock kernel to init, s", "InetBoot to kexec, s", "ratio"
    );
    for round in 1..=ROUNDS {
        let (stock, _) = seconds(&stock, "inetboot: InetBoot");
        let (own, said) = seconds(&own, "leaving for");
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
