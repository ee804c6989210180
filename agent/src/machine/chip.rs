//! The TPM of this machine. It gets one command at a time through its device file, each within a bound.
//!
//! The kernel's TPM device (`drivers/char/tpm`) blocks its caller until the TPM has answered, `poll(2)`
//! included. So a thread of its own talks to the device, and the caller waits for that thread no longer than
//! [`BOUND`].

use crate::base::thread;
use crate::formats::bank::Bank;
use crate::formats::pcr::Pcr;
use crate::formats::tpm2::{self, ResponseError};
use crate::formats::tpm12;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// The time for one command and its repetitions. The slowest TPMs need a second to extend, and a few while
/// they test themselves.
const BOUND: Duration = Duration::from_secs(10);

/// The pause before a busy TPM gets its command again.
const PAUSE: Duration = Duration::from_millis(20);

/// The time for the device to be closed. Only a silent TPM needs more.
const CLOSING: Duration = Duration::from_secs(1);

/// The longest answer, in bytes (`TPM_MAX_RESPONSE_SIZE`).
const LONGEST: usize = 4096;

/// The device with the kernel's resource manager, which only a TPM 2.0 has, and the one without it.
const MANAGED: &str = "/dev/tpmrm0";
const PLAIN: &str = "/dev/tpm0";

/// The kernel's file with the version, 1 or 2. Old kernels have none.
const MAJOR: &str = "/sys/class/tpm/tpm0/tpm_version_major";

/// The reason why the TPM is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ChipError {
    #[error("this machine shows no TPM")]
    Missing,
    #[error("cannot open {path}")]
    Open {
        path: &'static str,
        #[source]
        error: io::Error,
    },
    #[error("cannot {act}: the TPM's device fails")]
    Device {
        act: String,
        #[source]
        error: io::Error,
    },
    #[error("cannot {act}: the TPM gave no answer within {} s", bound.as_secs())]
    Silent { act: String, bound: Duration },
    #[error("cannot {act}")]
    Response {
        act: String,
        #[source]
        error: ResponseError,
    },
    #[error("its bank {0:#06x} is active, and this program cannot make digests for it")]
    Bank(u16),
    #[error("none of its banks is active")]
    NoBank,
}

/// The version of a TPM, which decides its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V12,
    V20,
}

impl Version {
    /// `TPM 2.0`
    pub fn name(self) -> &'static str {
        match self {
            Self::V12 => "TPM 1.2",
            Self::V20 => "TPM 2.0",
        }
    }
}

/// An open TPM.
#[derive(Debug)]
pub struct Chip {
    version: Version,
    /// `None` tells the thread at the device to close it, and to end.
    commands: Option<Sender<Vec<u8>>>,
    answers: Receiver<io::Result<Vec<u8>>>,
    bound: Duration,
}

impl Chip {
    /// Opens the first TPM that the kernel shows.
    pub fn open() -> Result<Self, ChipError> {
        let path = [MANAGED, PLAIN].into_iter().find(|path| Path::new(path).exists());
        let path = path.ok_or(ChipError::Missing)?;

        let is_v20 = path == MANAGED || fs::read_to_string(MAJOR).is_ok_and(|major| major.trim() == "2");
        let version = if is_v20 { Version::V20 } else { Version::V12 };

        let device = File::options().read(true).write(true).open(path);
        let device = device.map_err(|error| ChipError::Open { path, error })?;
        Self::over(device, version, BOUND).map_err(|error| ChipError::Open { path, error })
    }

    /// A TPM behind `device`. Each command may take as long as `bound`.
    fn over(
        device: impl Read + Write + Send + 'static,
        version: Version,
        bound: Duration,
    ) -> io::Result<Self> {
        let (commands, to_do) = channel::<Vec<u8>>();
        let (done, answers) = channel();
        let mut device = device;
        let work = move || {
            for command in to_do {
                let mut answer = vec![0; LONGEST];
                let outcome = device.write_all(&command).and_then(|()| device.read(&mut answer));
                if done.send(outcome.map(|length| answer[..length].to_vec())).is_err() {
                    break;
                }
            }
            // Before `done`, whose end tells `drop` that the device is closed.
            drop(device);
            drop(done);
        };

        thread::start("tpm", work)?;
        Ok(Self { version, commands: Some(commands), answers, bound })
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Its active banks, in order. Fails if this program cannot extend all of them.
    pub fn banks(&self) -> Result<Vec<Bank>, ChipError> {
        let banks = match self.version {
            Version::V12 => return Ok(vec![Bank::Sha1]),
            Version::V20 => self.ask("read the TPM's banks", tpm2::ask_banks(), tpm2::banks)?,
        };
        if banks.is_empty() {
            return Err(ChipError::NoBank);
        }
        let mut banks: Vec<Bank> = banks
            .into_iter()
            .map(|id| Bank::from_id(id).ok_or(ChipError::Bank(id)))
            .collect::<Result<_, _>>()?;
        banks.sort();
        Ok(banks)
    }

    /// Extends `pcr` by the digest for each bank.
    pub fn extend(&self, pcr: Pcr, digests: &[(Bank, Vec<u8>)]) -> Result<(), ChipError> {
        let act = format!("extend PCR {pcr}");
        match self.version {
            Version::V12 => {
                let digest =
                    digests.iter().find(|(bank, _)| *bank == Bank::Sha1).map(|(_, digest)| digest.as_slice());
                let command = tpm12::extend(pcr, digest.ok_or(ChipError::NoBank)?);
                self.ask(&act, Ok(command), tpm12::value).map(drop)
            }
            Version::V20 => self.ask(&act, tpm2::extend(pcr, digests), tpm2::extended),
        }
    }

    /// The value of `pcr` in `bank`.
    pub fn read(&self, pcr: Pcr, bank: Bank) -> Result<Vec<u8>, ChipError> {
        let act = format!("read PCR {pcr}");
        match self.version {
            Version::V12 => self.ask(&act, Ok(tpm12::read(pcr)), tpm12::value),
            Version::V20 => self.ask(&act, tpm2::read(pcr, bank), tpm2::value),
        }
    }

    /// Sends `command` until the TPM is not busy any more, and parses its answer. `act` says for the screen
    /// what it is good for: "extend PCR 9".
    fn ask<T>(
        &self,
        act: &str,
        command: Result<Vec<u8>, ResponseError>,
        parse: impl Fn(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, ChipError> {
        let response = |error| ChipError::Response { act: act.to_owned(), error };
        let command = command.map_err(response)?;

        let deadline = Instant::now() + self.bound;
        loop {
            let answer = self.transact(act, &command, deadline)?;
            match parse(&answer) {
                Err(ResponseError::Retry) if Instant::now() + PAUSE < deadline => std::thread::sleep(PAUSE),
                outcome => return outcome.map_err(response),
            }
        }
    }

    /// Sends `command` to the thread at the device, and waits for its answer until `deadline`.
    fn transact(&self, act: &str, command: &[u8], deadline: Instant) -> Result<Vec<u8>, ChipError> {
        let gone = || ChipError::Device { act: act.to_owned(), error: io::ErrorKind::BrokenPipe.into() };
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.send(command.to_vec()).map_err(|_| gone())?;

        match self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(answer) => answer.map_err(|error| ChipError::Device { act: act.to_owned(), error }),
            Err(RecvTimeoutError::Timeout) => {
                Err(ChipError::Silent { act: act.to_owned(), bound: self.bound })
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

/// Some TPM devices can be open once at a time, so the device is closed when this returns, and its next user
/// can open it. A TPM that is still busy with a command gets a second.
impl Drop for Chip {
    fn drop(&mut self) {
        self.commands = None;
        let deadline = Instant::now() + CLOSING;
        while self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::failure::chain;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const SHORT: Duration = Duration::from_millis(300);

    /// A TPM that gives the answers of `answer`, and none for its `None`.
    pub(in crate::machine) fn fake(
        version: Version,
        answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Chip {
        fake_within(BOUND, version, answer)
    }

    /// The same with its own time for a command. A short one is for TPMs that use it up: any other may need
    /// longer on a busy machine.
    fn fake_within(
        bound: Duration,
        version: Version,
        answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Chip {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut answer = answer;
        std::thread::spawn(move || {
            let mut command = [0; LONGEST];
            while let Ok(length @ 1..) = theirs.read(&mut command) {
                if let Some(answer) = answer(&command[..length]) {
                    theirs.write_all(&answer).unwrap();
                }
            }
        });
        Chip::over(ours, version, bound).unwrap()
    }

    fn header(result: u32) -> Vec<u8> {
        [&[0x80, 1, 0, 0, 0, 10][..], &result.to_be_bytes()].concat()
    }

    /// A command to a TPM that never answers fails when its time is over.
    #[test]
    fn silence_is_bounded() {
        let chip = fake_within(SHORT, Version::V20, |_| None);
        let error = chip.extend(Pcr::ALL[9], &[(Bank::Sha256, vec![0; 32])]).unwrap_err();
        assert!(matches!(error, ChipError::Silent { .. }), "{error}");
    }

    /// A busy TPM gets its command again.
    #[test]
    fn busy_is_retried() {
        let mut asked = 0;
        let chip = fake(Version::V20, move |_| {
            asked += 1;
            // TPM_RC_RETRY, then a failure.
            Some(header(if asked < 3 { 0x922 } else { 0x101 }))
        });
        let error = chain(&chip.extend(Pcr::ALL[9], &[(Bank::Sha1, vec![0; 20])]).unwrap_err());
        assert!(error.contains("cannot extend PCR 9: the TPM answers"), "{error}");
    }

    /// A TPM that stays busy is given up when its time is over. A machine so busy that not even the first answer
    /// comes in time calls it silent.
    #[test]
    fn busy_is_bounded() {
        let chip = fake_within(SHORT, Version::V20, |_| Some(header(0x922)));
        let error = chain(&chip.extend(Pcr::ALL[9], &[(Bank::Sha1, vec![0; 20])]).unwrap_err());
        assert!(error.contains("the TPM is busy") || error.contains("gave no answer"), "{error}");
    }

    /// A device that takes its time to close.
    struct Slow(Arc<AtomicBool>);

    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(50));
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl Read for Slow {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A dropped TPM is closed: the server that opens it next finds it free.
    #[test]
    fn dropping_closes_the_device() {
        let is_closed = Arc::new(AtomicBool::new(false));
        drop(Chip::over(Slow(Arc::clone(&is_closed)), Version::V12, BOUND).unwrap());
        assert!(is_closed.load(Ordering::SeqCst));
    }

    /// A TPM 1.2 has SHA-1 alone, and commands of its own.
    #[test]
    fn version_1_2_extends_and_reads() {
        let chip = fake(Version::V12, |command| {
            let value = vec![command[9]; 20];
            Some([&[0, 0xc4, 0, 0, 0, 30, 0, 0, 0, 0][..], &value].concat())
        });
        chip.extend(Pcr::ALL[8], &[(Bank::Sha1, vec![1; 20])]).unwrap();
        assert_eq!(chip.read(Pcr::ALL[8], Bank::Sha1).unwrap(), vec![0x15; 20]);
        assert_eq!(chip.banks().unwrap(), [Bank::Sha1]);
    }
}
