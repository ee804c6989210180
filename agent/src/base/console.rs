//! The screen: all of the program's output for people passes through here.
//!
//! Until the handover lines go to every console of the kernel; `/dev/console` alone would be the last
//! `console=` argument only. Afterwards they go to the kernel log, so that they do not land in a login
//! prompt. Before `/dev` exists they go to standard output, which the kernel connects to `/dev/console` for
//! process 1.

use crate::base::lock::lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The importance of a line, which is its level in the kernel log after the handover.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Info,
    /// Shown even on a `quiet` console: the machine waits for something.
    Loud,
}

/// The place that lines are written to.
enum Output {
    /// Standard output, before there is `/dev`.
    Stdout,
    /// Standard error, for `inetbootctl`: its standard output is for results.
    Stderr,
    /// The kernel's active consoles.
    Consoles(Vec<File>),
    /// The kernel log.
    Kmsg(File),
}

static OUTPUT: Mutex<Output> = Mutex::new(Output::Stdout);

/// Sends lines to all consoles of the kernel from now on, or to its log if none can be opened. Needs `/dev`
/// and `/sys`.
pub fn open() {
    let consoles = files(false);
    if consoles.is_empty() {
        leave_to_kernel_log();
    } else {
        set(Output::Consoles(consoles));
    }
}

/// Opens the kernel's active consoles for writing without blocking, and for reading if `and_read`.
pub fn files(and_read: bool) -> Vec<File> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();

    let open = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(and_read).append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        options.open(format!("/dev/{name}")).ok()
    };
    active.split_whitespace().filter_map(open).collect()
}

/// Sends lines to standard error from now on, for `inetbootctl`.
pub fn use_stderr() {
    set(Output::Stderr);
}

/// Sends lines to the kernel log from now on: the screen belongs to the target.
pub fn leave_to_kernel_log() {
    // By default the kernel drops all but ten lines in five seconds from each writer.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on");
    if let Ok(kmsg) = OpenOptions::new().append(true).open("/dev/kmsg") {
        set(Output::Kmsg(kmsg));
    }
}

fn set(output: Output) {
    *lock(&OUTPUT) = output;
}

/// Prints one line.
pub fn say(text: &str) {
    print(Weight::Info, &format!("inetboot: {text}"), true);
}

/// Prints one line that must be seen, even on a console that the target keeps quiet.
pub fn say_loud(text: &str) {
    print(Weight::Loud, &format!("inetboot: {text}"), true);
}

fn print(weight: Weight, text: &str, newline: bool) {
    let mut output = lock(&OUTPUT);
    let (end, console_end) = if newline { ("\n", "\r\n") } else { ("", "") };

    // An output that cannot be written to must not stop the boot, so errors are ignored.
    match &mut *output {
        Output::Stdout => {
            let mut out = std::io::stdout();
            let _ = write!(out, "{text}{end}").and_then(|()| out.flush());
        }
        Output::Stderr => {
            let _ = write!(std::io::stderr(), "{text}{end}");
        }
        Output::Consoles(consoles) => {
            for console in consoles {
                write_soon(console, format!("{text}{console_end}").as_bytes());
            }
        }
        Output::Kmsg(kmsg) => {
            // KERN_ERR passes `quiet`, KERN_INFO does not.
            let level = if weight == Weight::Loud { 3 } else { 6 };
            let _ = kmsg.write_all(format!("<{level}>{text}\n").as_bytes());
        }
    }
}

/// Writes `bytes` for as long as the console takes some of them every half a second. One that is stopped
/// (Ctrl-S, a serial line without CTS) loses the rest, and does not stop the boot.
pub fn write_soon(console: &mut File, mut bytes: &[u8]) {
    const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    while !bytes.is_empty() {
        match console.write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !matches!(poll(&mut [PollFd::new(console, PollFlags::OUT)], Some(&PATIENCE)), Ok(1..)) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// A line that is rewritten in place during a long transfer.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    done: u64,
    started: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// A transfer of `total` bytes of `what`.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        Self { what: what.into(), total, done: 0, started: Instant::now(), shown: None }
    }

    /// Counts `bytes` more. The line is redrawn at most twice a second, since a serial console is slow.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.shown.unwrap_or(self.started).elapsed() >= Duration::from_millis(500) {
            self.shown = Some(Instant::now());
            print(Weight::Info, &format!("\r{}", self.line()), false);
        }
    }

    /// Prints the last state, and ends the line.
    pub fn finish(self) {
        let start = if self.shown.is_some() { "\r" } else { "" };
        print(Weight::Info, &format!("{start}{}", self.line()), true);
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let left = if self.done < self.total && rate > 0.0 {
            format!(", {:.0} s left", (self.total - self.done) as f64 / rate)
        } else {
            String::new()
        };

        format!(
            "inetboot:   {} {} of {} ({percent} %), {}/s{left}   ",
            self.what,
            size(self.done),
            size(self.total),
            size(rate as u64),
        )
    }
}

/// A byte count as people read it, in decimal units.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes have decimal units and three digits.
    #[test]
    fn sizes_have_units() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(26_500_000), "26.5 MB");
        assert_eq!(size(4_700_000_000), "4.70 GB");
    }

    /// The line of a transfer has the bytes so far, all bytes, and the percentage.
    #[test]
    fn progress_is_told() {
        let mut progress = Progress::new("kernel", 1000);
        progress.add(250);
        assert!(progress.line().contains("kernel 250 B of 1.0 kB (25 %)"), "{}", progress.line());
    }
}
