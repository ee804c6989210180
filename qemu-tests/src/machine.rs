//! A virtual machine under test: QEMU in a process group of its own, its serial line, a deadline.

use crate::turn::Turn;
use crate::web::Server;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Lines of the serial log that a failing test prints.
const SERIAL_TAIL: usize = 60;

/// Lines of the request log that a failing test prints.
const REQUEST_TAIL: usize = 25;

/// No machine outlives this, whatever happens to its test: it runs under timeout(1).
const LIFE: Duration = Duration::from_secs(1200);

/// Which kernel of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian's, with modules.
    Stock,
    /// Our own.
    Own,
    /// Debian's with the initramfs of our own: without a module.
    Bare,
}

/// What starts our kernel.
#[derive(Clone, Debug)]
pub enum Loader {
    /// QEMU itself, with the initramfs that belongs to it.
    Qemu(Kernel),
    /// What the firmware finds on this disk.
    Disk(PathBuf),
    /// What it finds on this CD.
    Cd(PathBuf),
    /// What it finds on this USB stick.
    UsbStick(PathBuf),
    /// What it is given by way of its network card.
    Network,
}

impl Loader {
    /// QEMU's arguments for it, but those of the kernel.
    fn arguments(&self) -> Vec<String> {
        let drive = |file: &Path, device: &str| {
            let drive = format!("if=none,id=boot,format=raw,readonly=on,file={}", file.display());
            ["-drive", &drive, "-device", &format!("{device},drive=boot,bootindex=0")]
                .map(String::from)
                .to_vec()
        };
        match self {
            Self::Disk(file) => drive(file, "virtio-blk-pci"),
            Self::Cd(file) => drive(file, "ide-cd"),
            Self::UsbStick(file) => {
                let hub = ["-device", "qemu-xhci,id=usb"].map(String::from);
                [hub.to_vec(), drive(file, "usb-storage,bus=usb.0")].concat()
            }
            Self::Qemu(_) | Self::Network => Vec::new(),
        }
    }
}

/// What to boot on what.
#[derive(Clone, Debug)]
pub struct Opts {
    /// Kernel arguments beside `console=ttyS0`.
    pub append: String,
    /// Memory in MiB.
    pub memory: u32,
    /// A second initrd beside ours.
    pub second: Option<PathBuf>,
    /// Further initramfs segments, e.g. a CA certificate: files by name.
    pub files: Vec<(String, Vec<u8>)>,
    /// What starts our kernel. Unless it is QEMU, the arguments are there, too.
    pub loader: Loader,
    /// The network card's model; `None` for a machine without a network.
    pub card: Option<&'static str>,
    /// What the card is connected to, for QEMU's `-netdev`: its user network, or a [`crate::lan::Lan`].
    pub wire: String,
    /// Further QEMU arguments. The card is in slot 9, so that others can come before it.
    pub qemu: Vec<String>,
}

impl Default for Opts {
    fn default() -> Self {
        Self {
            append: String::new(),
            memory: 512,
            second: None,
            files: Vec::new(),
            loader: Loader::Qemu(Kernel::Own),
            card: Some("virtio-net-pci"),
            wire: "user".into(),
            qemu: Vec::new(),
        }
    }
}

impl Opts {
    /// With Debian's kernel and its modules; it takes longer than ours.
    pub fn stock() -> Self {
        Self { loader: Loader::Qemu(Kernel::Stock), ..Self::default() }
    }

    /// With a first card that hangs on a hub with nobody else.
    pub fn with_idle_card(mut self) -> Self {
        let idle = ["-netdev", "hubport,id=idle,hubid=7", "-device", "virtio-net-pci,netdev=idle,addr=2"];
        self.qemu.extend(idle.map(String::from));
        self
    }
}

/// A running machine; killed when dropped.
pub struct Machine {
    qemu: Child,
    stdin: ChildStdin,
    serial: Arc<Serial>,
    started: Instant,
    turn: Option<Turn>,
    _initrd: Option<tempfile::NamedTempFile>,
}

#[derive(Default)]
struct Serial {
    state: Mutex<SerialState>,
    changed: Condvar,
}

#[derive(Default)]
struct SerialState {
    text: String,
    /// Where the next expectation looks.
    read: usize,
    /// What the kernel said in the middle of the last line.
    held: String,
    ended: bool,
}

impl SerialState {
    /// The machine is off, and what the kernel said at last, behind a prompt, is not in the middle any more.
    fn end(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.text.push('\n');
        self.text.push_str(&held);
        self.ended = true;
    }

    /// More was said. The kernel speaks whenever it likes, also in the middle of somebody else's line:
    /// then what it said goes behind that line.
    fn hear(&mut self, more: &str) {
        let mut line = self.text.rfind('\n').map_or(0, |end| end + 1).max(self.read);
        self.text.push_str(more);
        while let Some(length) = self.text[line..].find('\n') {
            let end = line + length + 1;
            match kernels(&self.text[line..end]) {
                Some(at) if at > 0 => {
                    self.held.push_str(&self.text[line + at..end]);
                    self.text.replace_range(line + at..end, "");
                }
                _ => {
                    self.text.insert_str(end, &self.held);
                    line = end + std::mem::take(&mut self.held).len();
                }
            }
        }
    }
}

/// Where a message of the kernel begins in `line`: `[    5.826097] IPv6: ...`.
fn kernels(line: &str) -> Option<usize> {
    line.match_indices('[').map(|(at, _)| at).find(|at| {
        let stamp = line[at + 1..].split(']').next().unwrap_or_default().trim_start();
        let Some((seconds, fraction)) = stamp.split_once('.') else { return false };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number(seconds) && is_number(fraction) && fraction.len() == 6
    })
}

/// What `scripts/build` left to boot, or a panic that says to run it.
pub fn built(name: &str) -> PathBuf {
    let path = repository().join("target/boot").join(name);
    assert!(path.exists(), "{} is missing: run scripts/build (scripts/test does)", path.display());
    path
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository")
}

/// The output of one of our scripts, trimmed; its messages go through to the test's.
pub fn script(name: &str) -> String {
    output_of(&mut Command::new(repository().join("scripts").join(name)))
}

/// The output of `command`, trimmed; its messages go through to the test's.
pub fn output_of(command: &mut Command) -> String {
    let output =
        command.stderr(Stdio::inherit()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8(output.stdout).expect("scripts print text").trim().to_owned()
}

/// QEMU's arguments for a processor here, by booting something: KVM may be there and hang.
fn processor() -> impl Iterator<Item = &'static str> {
    static PROCESSOR: OnceLock<String> = OnceLock::new();
    PROCESSOR.get_or_init(|| script("accel")).split(' ')
}

/// The serial line, for QEMU; with `KEEP_LOGS=DIR` a file there, named after the test, has all of it, while
/// it is said.
fn serial_line() -> String {
    static MACHINES: AtomicU32 = AtomicU32::new(0);
    let number = MACHINES.fetch_add(1, Ordering::Relaxed);
    // libtest names a test's thread after it.
    let test = std::thread::current().name().unwrap_or("serial").replace("::", "-");
    match std::env::var("KEEP_LOGS") {
        Ok(dir) => format!("stdio,id=serial,logfile={dir}/{test}-{number}.log"),
        Err(_) => "stdio,id=serial".into(),
    }
}

/// Start a machine, when it is its turn: a test that wants a second one lets go of the first before.
pub fn boot(opts: &Opts) -> Machine {
    let files = match opts.loader {
        Loader::Qemu(Kernel::Own) => Some(("own/vmlinuz", "own/initramfs.img")),
        Loader::Qemu(Kernel::Stock) => Some(("vmlinuz", "initramfs.img")),
        Loader::Qemu(Kernel::Bare) => Some(("vmlinuz", "own/initramfs.img")),
        Loader::Disk(_) | Loader::Cd(_) | Loader::UsbStick(_) | Loader::Network => None,
    };
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=5")
        .arg(LIFE.as_secs().to_string())
        .arg("qemu-system-x86_64")
        .args(processor())
        .args(["-smp", "1", "-m", &opts.memory.to_string()])
        .args(["-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults"])
        .args(["-chardev", &serial_line(), "-serial", "chardev:serial"]);
    command.args(opts.loader.arguments());
    let mut joined = None;
    if let Some((kernel, initramfs)) = files {
        let mut initrd = built(initramfs);
        if !opts.files.is_empty() || opts.second.is_some() {
            let initrds: Vec<&Path> = std::iter::once(&*initrd).chain(opts.second.as_deref()).collect();
            let file = crate::images::with_files(&initrds, &opts.files).expect("making an initrd");
            initrd = file.path().to_owned();
            joined = Some(file);
        }
        command.arg("-kernel").arg(built(kernel)).arg("-initrd").arg(initrd);
        command.args(["-append", &format!("console=ttyS0 {}", opts.append)]);
    }
    // Before the card, which may hang on a bus that is among them.
    command.args(&opts.qemu);
    if let Some(card) = opts.card {
        command.args(["-netdev", &format!("{},id=net0", opts.wire)]);
        // USB has no slots; and a firmware that has to boot from the card looks at it first.
        let place = if card.starts_with("usb-") { "" } else { ",addr=9" };
        let index = if matches!(opts.loader, Loader::Network) { ",bootindex=0" } else { "" };
        command.args(["-device", &format!("{card},netdev=net0{place}{index}")]);
    }
    let turn = Turn::take();
    let mut qemu = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .expect("starting QEMU (scripts/setup installs it)");
    let serial = Arc::new(Serial::default());
    let mut stdout = qemu.stdout.take().expect("it was piped");
    let writing = Arc::clone(&serial);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let length = stdout.read(&mut buffer).unwrap_or(0);
            let mut state = writing.state.lock().unwrap();
            state.hear(&String::from_utf8_lossy(&buffer[..length]).replace('\r', ""));
            if length == 0 {
                state.end();
            }
            writing.changed.notify_all();
            if length == 0 {
                return;
            }
        }
    });
    let stdin = qemu.stdin.take().expect("it was piped");
    Machine { qemu, stdin, serial, started: Instant::now(), turn: Some(turn), _initrd: joined }
}

impl Machine {
    /// Wait until the serial line says `text`, after what earlier calls saw, for `seconds` at
    /// most. Gives what was said up to and with it; panics with the ends of both logs otherwise.
    pub fn expect(&mut self, text: &str, seconds: u64, web: Option<&Server>) -> String {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut state = self.serial.state.lock().unwrap();
        loop {
            if let Some(at) = state.text[state.read..].find(text) {
                let end = state.read + at + text.len();
                let said = state.text[state.read..end].to_owned();
                state.read = end;
                return said;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                let why = if state.ended { "the machine ended" } else { "it was waited for in vain" };
                let tail = tail(&state.text, SERIAL_TAIL);
                drop(state);
                let requests = web.map(|web| web.log_tail(REQUEST_TAIL)).unwrap_or_default();
                panic!(
                    "\"{text}\" was not said: {why} ({seconds} s).\n--- serial line, its end\n{tail}\n--- requests, the last\n{requests}"
                );
            }
            state = self.serial.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Type `text` and Enter.
    pub fn type_line(&mut self, text: &str) {
        self.type_keys(&format!("{text}\n"));
    }

    /// Press `keys`.
    pub fn type_keys(&mut self, keys: &str) {
        self.stdin
            .write_all(keys.as_bytes())
            .and_then(|()| self.stdin.flush())
            .expect("typing into the machine");
    }

    /// Type a command at a shell prompt, and give what it printed. It has to succeed.
    pub fn run(&mut self, command: &str, seconds: u64, web: Option<&Server>) -> String {
        // The shell puts the marks together, so that the echo of the line is not taken for them.
        self.type_line(&format!("echo inet''boot-begin; {command}; echo inet''boot-end-$?"));
        self.expect("inetboot-begin\n", seconds, web);
        let output = self.expect("inetboot-end-", seconds, web);
        let status = self.expect("\n", 10, web);
        assert_eq!(status.trim(), "0", "`{command}` failed:\n{output}");
        output.trim_end_matches("inetboot-end-").trim().to_owned()
    }

    /// Wait for the login prompt, for `seconds` at most, and log in as root, who needs no password.
    pub fn log_in(&mut self, seconds: u64, web: Option<&Server>) {
        self.expect("login: ", seconds, web);
        self.type_line("root");
        self.expect("# ", seconds, web);
    }

    /// From here on it mostly waits: another machine may have its turn.
    pub fn gives_up_its_turn(&mut self) {
        self.turn = None;
    }

    /// Everything said so far.
    pub fn said(&self) -> String {
        self.serial.state.lock().unwrap().text.clone()
    }

    /// Wait until QEMU ends by itself, as it does when the machine is off, for `seconds` at most.
    pub fn has_ended(&self, seconds: u64) {
        let serial = self.serial.state.lock().unwrap();
        let limit = Duration::from_secs(seconds);
        let (serial, _) =
            self.serial.changed.wait_timeout_while(serial, limit, |serial| !serial.ended).unwrap();
        assert!(serial.ended, "the machine is still on.\n{}", tail(&serial.text, SERIAL_TAIL));
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        crate::end(&mut self.qemu);
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_does_not_break_the_lines_of_others() {
        let mut serial = SerialState::default();
        for more in
            ["# echo begin\nbegin[    4.361545] IPv6: eth0: li", "nk becomes ready\n", "\nend\n[    4.5] x\n"]
        {
            serial.hear(more);
        }
        assert_eq!(
            serial.text,
            "# echo begin\nbegin\n[    4.361545] IPv6: eth0: link becomes ready\nend\n[    4.5] x\n"
        );
    }

    /// A power-off's last words come behind a shell's prompt, and no line of anything else follows them.
    #[test]
    fn the_kernels_last_words_are_heard() {
        let mut serial = SerialState::default();
        serial.hear("root@vm:~# [   14.082025] ACPI: PM\n[   14.146095] reboot: Power down\n");
        serial.end();
        assert_eq!(serial.text, "root@vm:~# \n[   14.082025] ACPI: PM\n[   14.146095] reboot: Power down\n");
    }

    #[test]
    fn what_was_read_stays_read() {
        let mut serial = SerialState::default();
        serial.hear("login: ");
        serial.read = serial.text.len();
        serial.hear("[    9.000001] loop0: x\nroot\n");
        assert_eq!(&serial.text[serial.read..], "[    9.000001] loop0: x\nroot\n");
    }
}
