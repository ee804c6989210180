//! A virtual machine under test: QEMU in a process group of its own, its serial line, a deadline.

use crate::initrd;
use crate::menu::Menu;
use crate::promise::show_when_failing;
use crate::repository::{built, script};
use crate::serial::{Serial, Silence};
use crate::terminal::Terminal;
use crate::turn::Turn;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Lines of the serial line that a failing test prints.
const SERIAL_TAIL: usize = 60;

/// The longest life of a machine, under timeout(1), whatever happens to its test.
const LIFE: Duration = Duration::from_secs(1200);

/// The slot of the network card, so that other cards can come before it.
const CARD_SLOT: u32 = 9;

/// A kernel of InetBoot, with the initramfs that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian's, with modules.
    Stock,
    /// Our own, with its drivers built in.
    Own,
    /// Debian's with the initramfs of our own: without a module.
    Bare,
}

impl Kernel {
    /// Its kernel and its initramfs, as `scripts/build` calls them.
    fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Own => ("own/vmlinuz", "own/initramfs.img"),
            Self::Stock => ("vmlinuz", "initramfs.img"),
            Self::Bare => ("vmlinuz", "own/initramfs.img"),
        }
    }
}

/// The way in which InetBoot is started.
#[derive(Clone, Debug)]
pub enum Loader {
    /// QEMU loads the kernel and its initramfs.
    Qemu(Kernel),
    /// The firmware boots this disk.
    Disk(PathBuf),
    /// The firmware boots this CD.
    Cd(PathBuf),
    /// The firmware boots this USB stick.
    UsbStick(PathBuf),
    /// The firmware boots from its network card.
    Network,
}

impl Loader {
    /// QEMU's arguments for the medium, if there is one.
    fn medium(&self) -> Vec<String> {
        let drive = |file: &Path, device: &str| {
            let drive = format!("if=none,id=boot,format=raw,readonly=on,file={}", file.display());
            arguments(["-drive", &drive, "-device", &format!("{device},drive=boot,bootindex=0")])
        };
        match self {
            Self::Disk(file) => drive(file, "virtio-blk-pci"),
            Self::Cd(file) => drive(file, "ide-cd"),
            Self::UsbStick(file) => {
                let controller = arguments(["-device", "qemu-xhci,id=usb"]);
                [controller, drive(file, "usb-storage,bus=usb.0")].concat()
            }
            Self::Qemu(_) | Self::Network => Vec::new(),
        }
    }
}

/// A machine and the boot it is to make.
#[derive(Clone, Debug)]
pub struct Opts {
    /// Kernel arguments besides `console=ttyS0`. Only for [`Loader::Qemu`]: other loaders bring theirs.
    pub append: String,
    /// Memory in MiB.
    pub memory: u32,
    /// A second initrd besides ours.
    pub second: Option<PathBuf>,
    /// Further files in the initramfs, by name, e.g. a CA certificate.
    pub files: Vec<(String, Vec<u8>)>,
    /// The way in which InetBoot is started.
    pub loader: Loader,
    /// The network card's model; `None` for a machine without a network.
    pub card: Option<&'static str>,
    /// The network of the card, for QEMU's `-netdev`: its user network, or a [`crate::lan::Lan`].
    pub wire: String,
    /// Further QEMU arguments.
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
    /// A machine with these kernel arguments.
    pub fn with_arguments(append: impl Into<String>) -> Self {
        Self { append: append.into(), ..Self::default() }
    }

    /// A machine with Debian's kernel and its modules; it takes longer than ours.
    pub fn stock() -> Self {
        Self { loader: Loader::Qemu(Kernel::Stock), ..Self::default() }
    }

    /// Adds a first card, on a hub to which no other machine is connected.
    pub fn with_idle_card(mut self) -> Self {
        self.qemu.extend(idle_card(2));
        self
    }

    /// Leaves the machine with one card, on a hub to which no other machine is connected.
    pub fn with_idle_card_alone(mut self) -> Self {
        self.card = None;
        self.qemu.extend(idle_card(CARD_SLOT));
        self
    }
}

/// QEMU's arguments for a card without a network.
fn idle_card(slot: u32) -> Vec<String> {
    let device = format!("virtio-net-pci,netdev=idle,addr={slot}");
    arguments(["-netdev", "hubport,id=idle,hubid=7", "-device", &device])
}

/// Arguments of QEMU, which [`Opts::qemu`] owns.
pub fn arguments<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
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

/// QEMU's arguments for the processor. `scripts/accel` boots something to find them: KVM may be there
/// and hang.
fn processor() -> impl Iterator<Item = &'static str> {
    static PROCESSOR: OnceLock<String> = OnceLock::new();
    PROCESSOR.get_or_init(|| script("accel")).split(' ')
}

/// QEMU's argument for the serial line. `KEEP_LOGS=DIR` writes it to a file there as well, which is named
/// after the test.
fn serial_line() -> String {
    static MACHINES: AtomicU32 = AtomicU32::new(0);
    let number = MACHINES.fetch_add(1, Ordering::Relaxed);
    // libtest names a test's thread after it.
    let test = std::thread::current().name().unwrap_or("serial").replace("::", "-");
    match std::env::var("KEEP_LOGS") {
        Ok(dir) => {
            std::fs::create_dir_all(&dir).expect("making the directory of KEEP_LOGS");
            format!("stdio,id=serial,logfile={dir}/{test}-{number}.log")
        }
        Err(_) => "stdio,id=serial".into(),
    }
}

/// Starts a machine as soon as there is a turn for it. A test that wants a second machine drops the first
/// one before.
pub fn boot(opts: &Opts) -> Machine {
    let (mut command, initrd) = command(opts);
    let turn = Turn::take();
    let mut qemu = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .expect("starting QEMU (scripts/setup installs it)");

    let serial = Serial::read(qemu.stdout.take().expect("it was piped"));
    let stdin = qemu.stdin.take().expect("it was piped");
    Machine { qemu, stdin, serial, started: Instant::now(), turn: Some(turn), _initrd: initrd }
}

/// QEMU's command line for `opts`, and the initrd that was put together for it.
fn command(opts: &Opts) -> (Command, Option<tempfile::NamedTempFile>) {
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=5")
        .arg(LIFE.as_secs().to_string())
        .arg("qemu-system-x86_64")
        .args(processor())
        .args(["-smp", "1", "-m", &opts.memory.to_string()])
        .args(["-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults"])
        .args(["-chardev", &serial_line(), "-serial", "chardev:serial"])
        .args(opts.loader.medium());

    let mut joined = None;
    if let Loader::Qemu(kernel) = opts.loader {
        let (kernel, initramfs) = kernel.files();
        let mut initrd = built(initramfs);
        if !opts.files.is_empty() || opts.second.is_some() {
            let initrds: Vec<&Path> = std::iter::once(&*initrd).chain(opts.second.as_deref()).collect();
            let file = initrd::with_files(&initrds, &opts.files);
            initrd = file.path().to_owned();
            joined = Some(file);
        }
        command.arg("-kernel").arg(built(kernel)).arg("-initrd").arg(initrd);
        command.args(["-append", &format!("console=ttyS0 {}", opts.append)]);
    }

    // Before the card, whose bus may be among them.
    command.args(&opts.qemu);
    if let Some(card) = opts.card {
        command.args(["-netdev", &format!("{},id=net0", opts.wire)]);
        // USB has no slots; and a firmware that has to boot from the card tries it first.
        let place = if card.starts_with("usb-") { String::new() } else { format!(",addr={CARD_SLOT}") };
        let index = if matches!(opts.loader, Loader::Network) { ",bootindex=0" } else { "" };
        command.args(["-device", &format!("{card},netdev=net0{place}{index}")]);
    }
    (command, joined)
}

impl Machine {
    /// Waits until the serial line says `text`, after what earlier calls saw, for `seconds` at most.
    /// Gives what was said up to and with it.
    pub fn expect(&mut self, text: &str, seconds: u64) -> String {
        let found = self.serial.wait(Duration::from_secs(seconds), |said| {
            let end = said.read + said.text[said.read..].find(text)? + text.len();
            let found = said.text[said.read..end].to_owned();
            said.read = end;
            Some(found)
        });
        found.unwrap_or_else(|silence| self.fail(&format!("\"{text}\""), seconds, silence))
    }

    /// Waits until `look` finds `what` on the screen that the serial line draws.
    pub(crate) fn wait_for_screen<T>(
        &mut self,
        what: &str,
        seconds: u64,
        mut look: impl FnMut(&Terminal) -> Option<T>,
    ) -> T {
        let found = self.serial.wait(Duration::from_secs(seconds), |said| look(&said.terminal));
        found.unwrap_or_else(|silence| {
            let screen = self.serial.wait(Duration::ZERO, |said| Some(said.terminal.text()));
            println!("--- the screen\n{}", screen.unwrap_or_default());
            self.fail(what, seconds, silence)
        })
    }

    /// Waits until QEMU ends by itself, as it does when the machine is off or restarts, for `seconds` at most.
    pub fn expect_end(&mut self, seconds: u64) {
        // Nothing is looked for, so that only the end of the serial line or of the time is left.
        let silence = self.serial.wait::<()>(Duration::from_secs(seconds), |_| None).unwrap_err();
        assert_eq!(silence, Silence::MachineEnded, "the machine is still on after {seconds} s");
    }

    fn fail(&self, what: &str, seconds: u64, silence: Silence) -> ! {
        match silence {
            Silence::MachineEnded => panic!("the machine ended before there was {what}"),
            Silence::TimeOver => panic!("there was no {what} within {seconds} s"),
        }
    }

    /// Waits until the machine shows the menu whose heading has these words.
    pub fn menu(&mut self, heading: &str, seconds: u64) -> Menu<'_> {
        self.expect(heading, seconds);
        Menu::of(self)
    }

    /// The menu that the machine still shows.
    pub fn shown_menu(&mut self) -> Menu<'_> {
        Menu::of(self)
    }

    /// Types `text` and Enter.
    pub fn type_line(&mut self, text: &str) {
        self.press(&format!("{text}\n"));
    }

    /// Presses a key that stands for any key.
    pub fn press_any_key(&mut self) {
        self.press(" ");
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.stdin
            .write_all(keys.as_bytes())
            .and_then(|()| self.stdin.flush())
            .expect("typing into the machine");
    }

    /// Types a command at a shell prompt and gives its output. The command has to succeed.
    pub fn run(&mut self, command: &str, seconds: u64) -> String {
        // The shell joins the halves of each mark: the echo of the line itself does not have the mark.
        self.type_line(&format!("echo inet''boot-begin; {command}; echo inet''boot-end-$?"));
        self.expect("inetboot-begin\n", seconds);
        let output = self.expect("inetboot-end-", seconds);
        let status = self.expect("\n", 10);
        assert_eq!(status.trim(), "0", "`{command}` failed:\n{output}");
        output.trim_end_matches("inetboot-end-").trim().to_owned()
    }

    /// Waits for the login prompt, for `seconds` at most, and logs in as root, who needs no password.
    pub fn log_in(&mut self, seconds: u64) {
        self.expect("login: ", seconds);
        self.type_line("root");
        self.expect("# ", seconds);
    }

    /// Checks that the target reported no failed read so far.
    pub fn check_no_read_failed(&self) {
        let said = self.said();
        for complaint in ["I/O error", "SQUASHFS error", "Kernel panic"] {
            assert!(!said.contains(complaint), "the serial line says {complaint}");
        }
    }

    /// Lets another machine have this one's turn: from here on this one mostly waits.
    pub fn give_up_turn(&mut self) {
        self.turn = None;
    }

    /// Everything that was said so far.
    pub fn said(&self) -> String {
        self.serial.text()
    }

    /// The time since it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        show_when_failing("the end of the serial line", || self.serial.end(SERIAL_TAIL));
        crate::end(&mut self.qemu);
    }
}
