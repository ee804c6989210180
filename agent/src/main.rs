//! Process 1. Which life is this, and then the boot from top to bottom.
//!
//! The first life runs in our own initramfs and ends in another kernel; the second in that
//! kernel's initrd, and ends in the distro's own init (see `lives/`). Which one it is follows
//! from facts, never from a flag.

use inetboot::base::console;
use inetboot::config::OnFailure;
use inetboot::lives::{first, handover, last_words, second, server, unaided};
use inetboot::machine::ledger::Ledger;
use inetboot::machine::mounts;
use inetboot::person::shell;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Pause before a boot is tried again; it doubles up to the longest.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some(server::SERVER) {
        never_panic();
        console::open();
        let Err(failure) = server::server();
        console::say_loud(&failure.sentence());
        return ExitCode::FAILURE;
    }
    if std::process::id() != 1 {
        console::say("this is the boot agent: it runs as process 1. On the desk use inetbootctl --help");
        return ExitCode::from(2);
    }
    never_panic();
    mounts::mount_all(Path::new("/"));
    console::open();
    let mut pause = RETRY_AFTER;
    let mut ledger = Ledger::default();
    let line = kernel_arguments();
    let given = if unaided::is_so() { unaided::arguments(&line) } else { line };
    let mut arguments = given.clone();
    loop {
        let Err(failure) = if handover::is_second_life() {
            second::run()
        } else if unaided::is_so() {
            let told = unaided::prepare(&arguments, &mut ledger, first::PATIENCE);
            told.and_then(|()| second::run()).inspect_err(|_| unaided::forget())
        } else {
            first::boot(&mut arguments, &mut ledger)
        };
        last_words::last_words(&failure, pause, &mut arguments, &given);
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

fn kernel_arguments() -> String {
    // Boot loaders pass on whatever bytes somebody typed.
    String::from_utf8_lossy(&std::fs::read("/proc/cmdline").unwrap_or_default()).into_owned()
}

/// A bug of ours must not be a kernel panic that scrolls its own cause away.
fn never_panic() {
    std::panic::set_hook(Box::new(|panic| {
        console::say_loud(&format!("a bug in InetBoot: {panic}. Please report it with this line"));
        if let OnFailure::Reboot(after) = OnFailure::of(&kernel_arguments()) {
            shell::restart_after(after);
        }
        last_words::wait_for_a_person()
    }));
}
