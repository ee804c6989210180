//! The end of a thread that met a bug of ours. The release build aborts after a panic's hook, which for
//! process 1 is a kernel panic and for the server the loss of the root file system: so no hook returns once
//! the machine depends on it.

use crate::base::console;
use crate::config::OnFailure;
use crate::lives::last_words::{self, kernel_arguments};
use crate::lives::{Life, server, shutdown};
use crate::person::shell;

/// The answer to a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Say what to do and wait for a person, or restart if `inetboot.onfail=reboot` asks for it.
    Stop,
    /// Park the thread for ever.
    Park,
    /// Let the process end.
    End,
    PowerOff,
}

impl Answer {
    fn of(life: Life, is_serving: bool, is_main_thread: bool) -> Self {
        match life {
            // Nothing runs on this machine yet.
            Life::Process1(_) => Self::Stop,
            // A machine in use never restarts because of one of our threads. The others serve on, unless that
            // thread held a lock which they need.
            Life::Server if is_serving => Self::Park,
            // Process 1 waits for the server, and retries once that has ended.
            Life::Server => Self::End,
            Life::Shutdown if is_main_thread => Self::PowerOff,
            // The main thread waits for the others with a limit.
            Life::Shutdown => Self::Park,
            Life::Stray => Self::End,
        }
    }
}

/// Answers panics of this process, whose life is `life`.
pub fn handle(life: Life) {
    std::panic::set_hook(Box::new(move |panic| {
        console::say_loud(&format!("a bug in InetBoot: {panic}. Please report it with this line"));
        let is_main_thread = std::thread::current().name() == Some("main");
        match Answer::of(life, server::is_serving(), is_main_thread) {
            Answer::Stop => stop(),
            Answer::Park => park(),
            Answer::End => {}
            Answer::PowerOff => {
                shutdown::power_off();
                park()
            }
        }
    }));
}

fn stop() -> ! {
    if let OnFailure::Reboot(after) = OnFailure::of(&kernel_arguments()) {
        shell::restart_after(after);
    }
    last_words::wait_for_a_person()
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lives::Process1;

    /// B9: a panic in the server of a machine in use neither restarts it nor ends the server. Only process 1,
    /// before anything runs, obeys `inetboot.onfail=reboot`.
    #[test]
    fn a_machine_in_use_goes_on() {
        for is_main_thread in [true, false] {
            assert_eq!(Answer::of(Life::Server, true, is_main_thread), Answer::Park);
            assert_eq!(Answer::of(Life::Server, false, is_main_thread), Answer::End);
            let first = Life::Process1(Process1::First);
            assert_eq!(Answer::of(first, false, is_main_thread), Answer::Stop);
        }
        assert_eq!(Answer::of(Life::Shutdown, false, true), Answer::PowerOff);
        assert_eq!(Answer::of(Life::Shutdown, false, false), Answer::Park);
    }
}
