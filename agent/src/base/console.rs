//! The only room that speaks.
//!
//! Until the hand-over we write to every console the kernel uses (`/dev/console` alone is only
//! the last `console=` argument); afterwards to the kernel log, so that a login prompt is not
//! written over. Works before `/dev` exists: what is said then goes to standard output, which
//! the kernel connects to `/dev/console` for PID 1.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How much a line matters; decides the kernel log's level after the hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Worth a look in the log.
    Info,
    /// Shown even on a `quiet` console: the machine waits for something.
    Loud,
}

enum Voice {
    /// Standard output: before `/dev`.
    Stdout,
    /// Standard error: on the desk, where standard output is for results.
    Stderr,
    /// The kernel's active consoles.
    Consoles(Vec<File>),
    /// The kernel log.
    Kmsg(File),
}

static VOICE: Mutex<Voice> = Mutex::new(Voice::Stdout);

/// Speak on every console named in `/sys/class/tty/console/active`; needs `/dev` and `/sys`.
pub fn open() {
    let consoles = files(false);
    if consoles.is_empty() {
        leave_to_kernel_log();
    } else {
        set(Voice::Consoles(consoles));
    }
}

/// The consoles that the kernel uses, to write to and perhaps to read from; none of them blocks.
pub(crate) fn files(and_read: bool) -> Vec<File> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let open = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(and_read).append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        options.open(format!("/dev/{name}")).ok()
    };
    active.split_whitespace().filter_map(open).collect()
}

/// From now on speak on standard error: this is a desk.
pub fn step_aside() {
    set(Voice::Stderr);
}

/// From now on speak through the kernel log: somebody else owns the screen.
pub fn leave_to_kernel_log() {
    // The kernel drops all but ten lines in five seconds from each writer unless told otherwise.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on");
    if let Ok(kmsg) = OpenOptions::new().append(true).open("/dev/kmsg") {
        set(Voice::Kmsg(kmsg));
    }
}

fn set(voice: Voice) {
    *VOICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = voice;
}

/// Say one line.
pub fn say(text: &str) {
    utter(Weight::Info, &format!("inetboot: {text}"), true);
}

/// Say one line that must be seen.
pub fn say_loud(text: &str) {
    utter(Weight::Loud, &format!("inetboot: {text}"), true);
}

fn utter(weight: Weight, text: &str, newline: bool) {
    let mut voice = VOICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (end, console_end) = if newline { ("\n", "\r\n") } else { ("", "") };
    // A console that cannot be written to must not stop the boot.
    match &mut *voice {
        Voice::Stdout => {
            let mut out = std::io::stdout();
            let _ = write!(out, "{text}{end}").and_then(|()| out.flush());
        }
        Voice::Stderr => {
            let _ = write!(std::io::stderr(), "{text}{end}");
        }
        Voice::Consoles(consoles) => {
            for console in consoles {
                write_soon(console, format!("{text}{console_end}").as_bytes());
            }
        }
        Voice::Kmsg(kmsg) => {
            let level = if weight == Weight::Loud { 3 } else { 6 };
            let _ = kmsg.write_all(format!("<{level}>{text}\n").as_bytes());
        }
    }
}

/// Write what a console takes within a moment. One that is stopped (Ctrl-S, a serial line without
/// CTS) loses the rest: nobody may stop the boot by not listening.
pub(crate) fn write_soon(console: &mut File, mut bytes: &[u8]) {
    let moment = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    while !bytes.is_empty() {
        match console.write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if !matches!(poll(&mut [PollFd::new(console, PollFlags::OUT)], Some(&moment)), Ok(1..)) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// A line that is rewritten in place while something long goes on.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    done: u64,
    started: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// `what` is being done to `total` bytes.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        Self { what: what.into(), total, done: 0, started: Instant::now(), shown: None }
    }

    /// `bytes` more are done. Redraws at most twice a second: a serial line is slow.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.shown.unwrap_or(self.started).elapsed() >= Duration::from_millis(500) {
            self.shown = Some(Instant::now());
            utter(Weight::Info, &format!("\r{}", self.line()), false);
        }
    }

    /// All is done: leave the last line standing.
    pub fn finish(self) {
        let start = if self.shown.is_some() { "\r" } else { "" };
        utter(Weight::Info, &format!("{start}{}", self.line()), true);
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

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(26_500_000), "26.5 MB");
        assert_eq!(size(4_700_000_000), "4.70 GB");
    }

    #[test]
    fn progress_says_how_far_it_is() {
        let mut progress = Progress::new("kernel", 1000);
        progress.add(250);
        assert!(progress.line().contains("kernel 250 B of 1.0 kB (25 %)"), "{}", progress.line());
    }
}
