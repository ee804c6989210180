//! The end of a thread that met a bug of ours. The release build aborts after a panic's hook, which for
//! process 1 is a kernel panic and for the server the loss of the root file system: so no hook returns.

use crate::base::console;
use crate::config::OnFailure;
use crate::formats::cmdline;
use crate::lives::Life;
use crate::lives::last_words::{self, kernel_arguments};
use crate::person::shell;

/// Answer panics as `life` can.
pub fn handle(life: Life) {
    match life {
        Life::Process1(_) => set_hook(stop),
        // Those who wait for a thread of a shutdown do so with a limit.
        Life::Server | Life::Shutdown => set_hook(rest),
        Life::Stray => {}
    }
}

fn set_hook(and_then: impl Fn() + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        console::say_loud(&format!("a bug in InetBoot: {panic}. Please report it with this line"));
        and_then();
    }));
}

/// Nothing runs on this machine yet, so it may restart if that was asked for.
fn stop() {
    let arguments = cmdline::words(&kernel_arguments());
    if let OnFailure::Reboot(after) = OnFailure::of(&arguments) {
        shell::restart_after(after);
    }
    last_words::wait_for_a_person()
}

/// The machine is in use: it never restarts because of one of our threads. The others serve on.
fn rest() {
    loop {
        std::thread::park();
    }
}
