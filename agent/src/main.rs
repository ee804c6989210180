//! The boot agent. It runs as process 1 of our own initramfs, ends in another kernel, and runs once more
//! as process 1 of that kernel's initrd, where it ends in the distro's own init.
//!
//! [`lives::Life`] says which of its lives this is; `lives/first.rs` is the boot from top to bottom.

use inetboot::base::console;
use inetboot::base::failure::Failure;
use inetboot::lives::last_words::Attempts;
use inetboot::lives::{Life, Process1, first, panics, second, server, shutdown, unaided};
use inetboot::machine::ledger::Ledger;
use inetboot::machine::mounts;
use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let life = Life::of_this_process();
    panics::handle(life);

    match life {
        Life::Process1(life) => retry_for_ever(life),

        Life::Server => {
            console::open();
            let Err(failure) = server::serve();
            console::say_loud(&failure.sentence());
            ExitCode::FAILURE
        }

        Life::Shutdown => {
            console::open();
            shutdown::finish(std::env::args().nth(1).as_deref())
        }

        Life::Stray => {
            console::say("this is the boot agent, which runs as process 1. Use inetbootctl --help here");
            ExitCode::from(2)
        }
    }
}

/// Process 1 must never end. A boot that fails says why, and is tried again.
fn retry_for_ever(life: Process1) -> ! {
    mounts::mount_all(Path::new("/"));
    console::open();

    let mut attempts = Attempts::new(life);
    let mut ledger = Ledger::default();
    loop {
        let Err(failure) = attempt(life, &mut attempts, &mut ledger);
        attempts.after(&failure);
    }
}

fn attempt(life: Process1, attempts: &mut Attempts, ledger: &mut Ledger) -> Result<Infallible, Failure> {
    match life {
        Process1::First => first::boot(&mut attempts.arguments, ledger),
        Process1::Second => second::run(),
        Process1::Unaided => {
            unaided::prepare(&attempts.arguments, ledger)?;
            second::run()
        }
    }
}
