//! TPMs for machines: swtpm, with a tap on the line between QEMU and it that records what is extended and
//! can make the TPM fail.
//!
//! QEMU passes swtpm one end of a socket pair over a control socket (`SCM_RIGHTS`) and then sends plain TPM
//! commands through it. The tap accepts the control socket, keeps that end, and passes swtpm another one.

use crate::machine::arguments;
use crate::repository::{run, text};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Seconds after which an swtpm is ended, whatever happens to its test.
const LIFE: &str = "1300";

/// Bound for an swtpm to accept connections.
const START: Duration = Duration::from_secs(20);

/// The PCRs that InetBoot extends.
const OURS: [u32; 2] = [8, 9];

/// The answer of a TPM that failed: `TPM_RC_FAILURE`.
const FAILURE: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1];

/// The version of the TPM specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TPM 1.2
    V12,
    /// TPM 2.0
    V20,
}

/// A fault that begins after so many extends of PCR 8 and 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Every command is answered by a failure.
    Errors(usize),
    /// No command is answered.
    Silence(usize),
}

/// Extends, in order: the time and the PCR.
type Extends = Arc<Mutex<Vec<(Instant, u32)>>>;

/// A running TPM; ended when dropped.
pub struct Tpm {
    swtpm: Child,
    dir: tempfile::TempDir,
    extends: Extends,
}

impl Tpm {
    /// A new TPM, with SHA-1 and SHA-256 banks.
    pub fn new(version: Version) -> Self {
        Self::with(version, None)
    }

    /// A new TPM that fails at some point.
    pub fn with(version: Version, trouble: Option<Trouble>) -> Self {
        let dir = set_up(version);
        let behind = dir.path().join("behind");
        let mut swtpm = Command::new("timeout");
        swtpm
            .args(["--kill-after=5", LIFE, "swtpm", "socket", "--tpmstate"])
            .arg(format!("dir={}", text(dir.path())))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", behind.display()));
        if version == Version::V20 {
            swtpm.arg("--tpm2");
        }
        let swtpm = start(swtpm);

        let extends = Extends::default();
        let tap = Tap { trouble, extends: Arc::clone(&extends) };
        let listener = UnixListener::bind(dir.path().join("control")).expect("a control socket");
        std::thread::spawn(move || {
            while let Ok((qemu, _)) = listener.accept() {
                tap.clone().pass_control(qemu, &behind);
            }
        });
        Self { swtpm, dir, extends }
    }

    /// QEMU's arguments for a machine that has it, as this device.
    pub fn qemu(&self, device: &str) -> Vec<String> {
        let chardev = format!("socket,id=tpm-line,path={}", self.dir.path().join("control").display());
        let device = format!("{device},tpmdev=tpm0");
        arguments(["-chardev", &chardev, "-tpmdev", "emulator,id=tpm0,chardev=tpm-line", "-device", &device])
    }

    /// The extends so far: the time and the PCR.
    pub fn extends(&self) -> Vec<(Instant, u32)> {
        self.extends.lock().unwrap().clone()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        crate::end(&mut self.swtpm);
    }
}

/// The state of a new TPM, in a directory.
fn set_up(version: Version) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory for a TPM");
    let path = text(dir.path());
    let mut setup = vec!["--tpmstate", &path, "--overwrite"];
    match version {
        Version::V12 => {}
        Version::V20 => setup.extend(["--tpm2", "--pcr-banks", "sha1,sha256"]),
    }
    run(dir.path(), "swtpm_setup", &setup);
    dir
}

fn start(mut swtpm: Command) -> Child {
    swtpm.stdout(Stdio::null()).process_group(0).spawn().expect("starting swtpm (scripts/setup installs it)")
}

/// The line between QEMU and swtpm.
#[derive(Clone)]
struct Tap {
    trouble: Option<Trouble>,
    extends: Extends,
}

impl Tap {
    /// Passes control messages on to swtpm, which listens at `behind`, and its answers back.
    fn pass_control(self, qemu: UnixStream, behind: &Path) {
        let swtpm = connect(behind);
        let (mut answers, mut back) = (swtpm.try_clone().unwrap(), qemu.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        std::thread::spawn(move || while self.pass_message(&qemu, &swtpm).is_some() {});
    }

    /// Passes one control message on. If it carries the socket for TPM commands, another socket goes to
    /// swtpm, and the tap is between the two. `None` when a side hung up.
    fn pass_message(&self, qemu: &UnixStream, swtpm: &UnixStream) -> Option<()> {
        let (bytes, socket) = receive(qemu)?;
        let passed = socket.map(|data| {
            let (here, there) = UnixStream::pair().unwrap();
            let tap = self.clone();
            std::thread::spawn(move || tap.pass_commands(data, here));
            there
        });

        let fds: Vec<RawFd> = passed.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(swtpm.as_raw_fd(), &[IoSlice::new(&bytes)], rights, MsgFlags::empty(), None).ok()?;
        Some(())
    }

    /// Passes TPM commands on and the answers back, until the trouble begins.
    fn pass_commands(self, mut qemu: UnixStream, mut swtpm: UnixStream) {
        let mut extended = 0;
        while let Some(command) = message(&mut qemu) {
            if let Some(pcr) = extended_pcr(&command) {
                self.extends.lock().unwrap().push((Instant::now(), pcr));
                extended += usize::from(OURS.contains(&pcr));
            }

            let answer = match self.trouble {
                Some(Trouble::Errors(from)) if extended > from => Some(FAILURE.to_vec()),
                Some(Trouble::Silence(from)) if extended > from => None,
                _ => swtpm.write_all(&command).ok().and_then(|()| message(&mut swtpm)),
            };
            match answer {
                Some(answer) if qemu.write_all(&answer).is_err() => return,
                Some(_) => {}
                None => std::thread::sleep(Duration::from_secs(3600)),
            }
        }
    }
}

/// A control message of QEMU's, and the socket that it carries. `None` when QEMU hung up.
fn receive(qemu: &UnixStream) -> Option<(Vec<u8>, Option<UnixStream>)> {
    let mut bytes = [0; 4096];
    let mut space = cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(qemu.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty()).ok()?;
    let length = message.bytes;
    let fd = message.cmsgs().into_iter().flatten().find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let socket = fd.map(|fd| {
        // SAFETY: the kernel just made this descriptor for us; it is used nowhere else.
        #[allow(unsafe_code)]
        UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) })
    });
    (length > 0).then(|| (bytes[..length].to_vec(), socket))
}

/// Reads a command or an answer: a header of ten bytes, with the length of the whole in it.
fn message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    from.read_exact(&mut message).ok()?;
    let length = u32::from_be_bytes(message[2..6].try_into().unwrap()) as usize;
    message.resize(length, 0);
    from.read_exact(&mut message[10..]).ok()?;
    Some(message)
}

/// The PCR that a command extends: `TPM2_PCR_Extend`, or `TPM_Extend`.
fn extended_pcr(command: &[u8]) -> Option<u32> {
    let number = |at: usize| Some(u32::from_be_bytes(command.get(at..at + 4)?.try_into().ok()?));
    matches!((command[0], number(6)?), (0x80, 0x182) | (0, 0x14)).then(|| number(10)).flatten()
}

fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + START;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > deadline => panic!("swtpm does not come up: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A TPM 2.0 without a machine, for tools on this one; ended when dropped.
pub struct Bare {
    swtpm: Child,
    _dir: tempfile::TempDir,
    port: u16,
}

impl Bare {
    /// A new TPM, started.
    pub fn new() -> Self {
        let dir = set_up(Version::V20);
        let (port, control) = two_ports();
        let mut swtpm = Command::new("timeout");
        swtpm
            .args([LIFE, "swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", text(dir.path())))
            .arg("--server")
            .arg(format!("type=tcp,port={port}"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={control}"));
        let swtpm = start(swtpm);

        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", control)).is_err() {
            assert!(Instant::now() < deadline, "swtpm does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { swtpm, _dir: dir, port }
    }

    /// Runs a program of tpm2-tools or of IBM's tools with this TPM, in `dir`, and gives its output.
    pub fn run(&self, dir: &Path, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(dir)
            .env("TPM2TOOLS_TCTI", format!("swtpm:host=127.0.0.1,port={}", self.port))
            .env("TPM_INTERFACE_TYPE", "socsim")
            .env("TPM_SERVER_TYPE", "raw")
            .env("TPM_COMMAND_PORT", self.port.to_string())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error} (scripts/setup installs it)"));
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Default for Bare {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        crate::end(&mut self.swtpm);
    }
}

/// Two free ports; the tools expect the control port right after the first. No pair is tried twice: another
/// test may be about to use it.
fn two_ports() -> (u16, u16) {
    static PAIRS: AtomicU16 = AtomicU16::new(0);
    let pairs = std::iter::repeat_with(|| PAIRS.fetch_add(1, Ordering::Relaxed));
    let mut ports = pairs.map(|pair| 21_000 + std::process::id() as u16 % 10_000 + 2 * pair);
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let port = ports.find(|port| is_free(*port) && is_free(port + 1)).expect("two free ports");
    (port, port + 1)
}
