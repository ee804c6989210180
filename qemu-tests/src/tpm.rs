//! A TPM for a machine: swtpm, with somebody on the line between the two who writes down what is
//! extended, and who can spoil it.
//!
//! QEMU hands swtpm one end of a socket pair over a control socket (`SCM_RIGHTS`) and then speaks
//! plain TPM commands through it. Here it hands it to us.

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// No swtpm outlives this.
const LIFE: &str = "1300";

/// Which TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TPM 1.2
    V12,
    /// TPM 2.0
    V20,
}

/// What is wrong with it, from a certain extend of PCR 8 or 9 on, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Every command is answered by a failure.
    Errors(usize),
    /// Nothing is answered.
    Silence(usize),
}

/// A running TPM; ended when dropped.
pub struct Tpm {
    swtpm: Child,
    dir: tempfile::TempDir,
    extends: Arc<Mutex<Vec<(Instant, u32)>>>,
}

impl Tpm {
    /// A new one, with SHA-1 and SHA-256 banks.
    pub fn new(version: Version) -> Self {
        Self::with(version, None)
    }

    /// A new one that gets into trouble.
    pub fn with(version: Version, trouble: Option<Trouble>) -> Self {
        let dir = tempfile::tempdir().expect("a directory for a TPM");
        let path = dir.path().to_string_lossy().into_owned();
        let mut setup = vec!["--tpmstate", &path, "--overwrite"];
        match version {
            Version::V12 => {}
            Version::V20 => setup.extend(["--tpm2", "--pcr-banks", "sha1,sha256"]),
        }
        crate::run(dir.path(), "swtpm_setup", &setup);
        let behind = dir.path().join("behind");
        let mut swtpm = Command::new("timeout");
        swtpm.args(["--kill-after=5", LIFE, "swtpm", "socket", "--tpmstate"]).arg(format!("dir={path}"));
        swtpm.arg("--ctrl").arg(format!("type=unixio,path={}", behind.display())).stdout(Stdio::null());
        if version == Version::V20 {
            swtpm.arg("--tpm2");
        }
        let swtpm = swtpm.process_group(0).spawn().expect("starting swtpm (scripts/setup installs it)");
        let extends = Arc::new(Mutex::new(Vec::new()));
        let line = Line { trouble, extends: Arc::clone(&extends) };
        let listener = UnixListener::bind(dir.path().join("control")).expect("a control socket");
        std::thread::spawn(move || {
            while let Ok((qemu, _)) = listener.accept() {
                line.clone().control(qemu, &behind);
            }
        });
        Self { swtpm, dir, extends }
    }

    /// QEMU's arguments for a machine that has it.
    pub fn qemu(&self, device: &str) -> Vec<String> {
        let control = self.dir.path().join("control");
        let chardev = format!("socket,id=tpm-line,path={}", control.display());
        let device = format!("{device},tpmdev=tpm0");
        ["-chardev", &chardev, "-tpmdev", "emulator,id=tpm0,chardev=tpm-line", "-device", &device]
            .map(str::to_owned)
            .to_vec()
    }

    /// What was extended so far: when, and which PCR.
    pub fn extends(&self) -> Vec<(Instant, u32)> {
        self.extends.lock().unwrap().clone()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        crate::end(&mut self.swtpm);
    }
}

#[derive(Clone)]
struct Line {
    trouble: Option<Trouble>,
    extends: Arc<Mutex<Vec<(Instant, u32)>>>,
}

impl Line {
    /// Pass control messages on, but for the socket in them: put ourselves into its place.
    fn control(self, qemu: UnixStream, behind: &Path) {
        let swtpm = connect(behind);
        let (mut answers, mut back) = (swtpm.try_clone().unwrap(), qemu.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            let mut space = cmsg_space!(RawFd);
            loop {
                let mut slices = [IoSliceMut::new(&mut bytes)];
                let received =
                    recvmsg::<()>(qemu.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty());
                let Ok(message) = received else { return };
                let length = message.bytes;
                let rights = message.cmsgs().into_iter().flatten().find_map(|part| match part {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
                if length == 0 {
                    return;
                }
                let mut ours = None;
                if let Some(fd) = rights {
                    // SAFETY: the kernel just made this descriptor for us, and nobody else knows of it.
                    #[allow(unsafe_code)]
                    let data = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
                    let (here, there) = UnixStream::pair().unwrap();
                    let line = self.clone();
                    std::thread::spawn(move || line.commands(data, here));
                    ours = Some(there);
                }
                let fds = ours.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
                let rights = [ControlMessage::ScmRights(&fds)];
                let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
                let slices = [IoSlice::new(&bytes[..length])];
                if sendmsg::<()>(swtpm.as_raw_fd(), &slices, rights, MsgFlags::empty(), None).is_err() {
                    return;
                }
            }
        });
    }

    /// Pass commands on, as long as there is no trouble.
    fn commands(self, mut qemu: UnixStream, mut swtpm: UnixStream) {
        let mut ours = 0;
        while let Some(command) = message(&mut qemu) {
            if let Some(pcr) = extended(&command) {
                self.extends.lock().unwrap().push((Instant::now(), pcr));
                ours += usize::from(pcr == 8 || pcr == 9);
            }
            let answer = match self.trouble {
                Some(Trouble::Errors(from)) if ours > from => {
                    // TPM_RC_FAILURE
                    Some([0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1].to_vec())
                }
                Some(Trouble::Silence(from)) if ours > from => None,
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

/// A command or an answer: a head of ten bytes, which says how long it is.
fn message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    from.read_exact(&mut message).ok()?;
    let length = u32::from_be_bytes(message[2..6].try_into().unwrap()) as usize;
    message.resize(length, 0);
    from.read_exact(&mut message[10..]).ok()?;
    Some(message)
}

/// The PCR that a command extends: `TPM2_PCR_Extend`, or `TPM_Extend`.
fn extended(command: &[u8]) -> Option<u32> {
    let number = |at: usize| Some(u32::from_be_bytes(command.get(at..at + 4)?.try_into().ok()?));
    matches!((command[0], number(6)?), (0x80, 0x182) | (0, 0x14)).then(|| number(10)).flatten()
}

fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > deadline => panic!("swtpm does not come up: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A TPM 2.0 without a machine, for tools on this one.
pub struct Bare {
    swtpm: Child,
    _dir: tempfile::TempDir,
    port: u16,
}

impl Bare {
    /// A new one, started.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for a TPM");
        let path = dir.path().to_string_lossy().into_owned();
        crate::run(
            dir.path(),
            "swtpm_setup",
            &["--tpm2", "--tpmstate", &path, "--overwrite", "--pcr-banks", "sha1,sha256"],
        );
        // The control port has to be the next one. No pair is tried twice: another test may be about to
        // take it.
        static PAIRS: AtomicU16 = AtomicU16::new(0);
        let pairs = std::iter::repeat_with(|| PAIRS.fetch_add(1, Ordering::Relaxed));
        let mut ports = pairs.map(|pair| 21_000 + std::process::id() as u16 % 10_000 + 2 * pair);
        let port = ports.find(|port| {
            let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            is_free(*port) && is_free(port + 1)
        });
        let port = port.expect("two free ports");
        let mut swtpm = Command::new("timeout");
        swtpm.args([LIFE, "swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        swtpm.arg("--tpmstate").arg(format!("dir={path}")).stdout(Stdio::null());
        swtpm
            .arg("--server")
            .arg(format!("type=tcp,port={port}"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={}", port + 1));
        let swtpm = swtpm.process_group(0).spawn().expect("starting swtpm (scripts/setup installs it)");
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port + 1)).is_err() {
            assert!(Instant::now() < deadline, "swtpm does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { swtpm, _dir: dir, port }
    }

    /// Run a program of tpm2-tools or of IBM's tools with it, in `dir`; what it prints.
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
