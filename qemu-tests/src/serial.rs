//! The serial line of a machine: everything that was said on it, as text and as the screen of a
//! terminal, and a way to wait for what a test wants to see there.

use crate::terminal::Terminal;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Shared by the test and by the thread that reads from QEMU.
#[derive(Default)]
pub(crate) struct Serial {
    state: Mutex<Said>,
    changed: Condvar,
}

/// The reason why nothing more was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    MachineEnded,
    TimeOver,
}

#[derive(Default)]
pub(crate) struct Said {
    /// All of it, without carriage returns. Messages of the kernel are moved behind the line that
    /// they interrupt.
    pub(crate) text: String,
    /// The place in `text` where the next expectation looks.
    pub(crate) read: usize,
    /// The same bytes, as a screen shows them.
    pub(crate) terminal: Terminal,
    /// Messages of the kernel that wait for the end of the line that they interrupted.
    interruptions: String,
    ended: bool,
}

impl Serial {
    /// Reads `line` to its end, in a thread of its own.
    pub(crate) fn read(mut line: impl Read + Send + 'static) -> Arc<Self> {
        let serial = Arc::new(Self::default());
        let reading = Arc::clone(&serial);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let length = line.read(&mut buffer).unwrap_or(0);
                let mut said = reading.state.lock().unwrap();
                match length {
                    0 => said.end(),
                    _ => said.hear(&String::from_utf8_lossy(&buffer[..length])),
                }
                reading.changed.notify_all();
                if said.ended {
                    return;
                }
            }
        });
        serial
    }

    /// Waits until `look` gives something, for `bound` at most.
    pub(crate) fn wait<T>(
        &self,
        bound: Duration,
        mut look: impl FnMut(&mut Said) -> Option<T>,
    ) -> Result<T, Silence> {
        let deadline = Instant::now() + bound;
        let mut said = self.state.lock().unwrap();
        loop {
            if let Some(found) = look(&mut said) {
                return Ok(found);
            }
            if said.ended {
                return Err(Silence::MachineEnded);
            }

            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::TimeOver);
            }
            said = self.changed.wait_timeout(said, left).unwrap().0;
        }
    }

    pub(crate) fn text(&self) -> String {
        self.state.lock().unwrap().text.clone()
    }

    /// The last lines that were said.
    pub(crate) fn end(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Said {
    /// Takes in what was said next. The kernel prints its messages whenever it likes, also in the
    /// middle of a program's line: such a message goes behind that line.
    fn hear(&mut self, more: &str) {
        self.terminal.show(more);
        // What was already read stays where it is.
        let mut line = self.text.rfind('\n').map_or(0, |end| end + 1).max(self.read);
        self.text.push_str(&more.replace('\r', ""));

        while let Some(length) = self.text[line..].find('\n') {
            let end = line + length + 1;
            match kernel_message(&self.text[line..end]) {
                Some(at) if at > 0 => {
                    self.interruptions.push_str(&self.text[line + at..end]);
                    self.text.replace_range(line + at..end, "");
                }
                _ => {
                    self.text.insert_str(end, &self.interruptions);
                    line = end + std::mem::take(&mut self.interruptions).len();
                }
            }
        }
    }

    /// The machine ended. Messages of the kernel that still wait for the end of a line, such as a shell's
    /// prompt, come after it.
    fn end(&mut self) {
        let interruptions = std::mem::take(&mut self.interruptions);
        self.text.push('\n');
        self.text.push_str(&interruptions);
        self.ended = true;
    }
}

/// The place in `line` where a message of the kernel begins: `[    5.826097] IPv6: ...`.
fn kernel_message(line: &str) -> Option<usize> {
    line.match_indices('[').map(|(at, _)| at).find(|at| {
        let stamp = line[at + 1..].split(']').next().unwrap_or_default().trim_start();
        let Some((seconds, fraction)) = stamp.split_once('.') else { return false };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number(seconds) && is_number(fraction) && fraction.len() == 6
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_messages_do_not_break_the_lines_of_programs() {
        let mut said = Said::default();
        for more in
            ["# echo begin\nbegin[    4.361545] IPv6: eth0: li", "nk becomes ready\n", "\nend\n[    4.5] x\n"]
        {
            said.hear(more);
        }
        assert_eq!(
            said.text,
            "# echo begin\nbegin\n[    4.361545] IPv6: eth0: link becomes ready\nend\n[    4.5] x\n"
        );
    }

    /// At a power-off they come after a shell's prompt, and no further line ends that.
    #[test]
    fn the_kernels_last_messages_are_heard() {
        let mut said = Said::default();
        said.hear("root@vm:~# [   14.082025] ACPI: PM\n[   14.146095] reboot: Power down\n");
        said.end();
        assert_eq!(said.text, "root@vm:~# \n[   14.082025] ACPI: PM\n[   14.146095] reboot: Power down\n");
    }

    #[test]
    fn what_was_read_stays_in_its_place() {
        let mut said = Said::default();
        said.hear("login: ");
        said.read = said.text.len();
        said.hear("[    9.000001] loop0: x\nroot\n");
        assert_eq!(&said.text[said.read..], "[    9.000001] loop0: x\nroot\n");
    }
}
