//! The end of a thread that met a bug of ours. The release build aborts after a panic's hook, which for
//! process 1 is a kernel panic and for the server the loss of the root file system: so no hook returns once
//! the machine depends on it.

use crate::base::console;
use crate::config::OnFailure;
use crate::formats::cmdline;
use crate::lives::last_words::{self, kernel_arguments};
use crate::lives::{Life, server, shutdown};
use crate::person::shell;

/// Answer panics as `life` can.
pub fn handle(life: Life) {
    match life {
        Life::Process1(_) => set_hook(stop),
        Life::Server => set_hook(rest),
        Life::Shutdown => set_hook(power_off),
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

/// A machine in use never restarts because of one of our threads. The others serve on, unless that thread
/// held a lock which they need. Before the image is served, process 1 has to hear of the server's end.
fn rest() {
    if !server::is_serving() {
        return;
    }
    loop {
        std::thread::park();
    }
}

/// The machine is going down. A shutdown waits for its threads with a limit, so a parked one cannot stop it.
fn power_off() {
    if std::thread::current().name() == Some("main") {
        shutdown::power_off();
    }
    loop {
        std::thread::park();
    }
}
