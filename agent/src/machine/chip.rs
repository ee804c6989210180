//! The TPM of this machine: one command at a time through its device file, each within a bound.
//!
//! The kernel's TPM device (`drivers/char/tpm`) holds whoever asks it until the TPM has answered,
//! `poll(2)` included: so a thread of its own asks, and nobody waits for it longer than [`BOUND`].

use crate::formats::bank::Bank;
use crate::formats::pcr::Pcr;
use crate::formats::tpm2::{self, ResponseError};
use crate::formats::tpm12;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long one command may take. The slowest TPMs need a second to extend; one that tests itself
/// needs a few.
const BOUND: Duration = Duration::from_secs(10);

/// Pause before a TPM that is busy is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// No answer is longer (`TPM_MAX_RESPONSE_SIZE`).
const LONGEST: usize = 4096;

/// The device with the kernel's resource manager, which only a TPM 2.0 has, and without it.
const MANAGED: &str = "/dev/tpmrm0";
const PLAIN: &str = "/dev/tpm0";

/// Where the kernel says which version it is.
const MAJOR: &str = "/sys/class/tpm/tpm0/tpm_version_major";

/// Why the TPM is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ChipError {
    /// There is none.
    #[error("this machine shows no TPM")]
    Missing,
    /// It cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// Which device.
        path: &'static str,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// It cannot be asked.
    #[error("cannot {act}: the TPM's device fails")]
    Device {
        /// What was asked for.
        act: String,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
    /// It does not answer.
    #[error("cannot {act}: the TPM gave no answer within {} s", bound.as_secs())]
    Silent {
        /// What was asked for.
        act: String,
        /// How long was waited.
        bound: Duration,
    },
    /// It answers something else.
    #[error("cannot {act}")]
    Response {
        /// What was asked for.
        act: String,
        /// What it says.
        #[source]
        error: ResponseError,
    },
    /// It has banks that cannot be extended.
    #[error("its bank {0:#06x} is active, and this program cannot make digests for it")]
    Bank(u16),
    /// It has none.
    #[error("none of its banks is active")]
    NoBank,
}

/// Which commands it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TPM 1.2
    V12,
    /// TPM 2.0
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

/// A TPM.
#[derive(Debug)]
pub struct Chip {
    version: Version,
    commands: Sender<Vec<u8>>,
    answers: Receiver<io::Result<Vec<u8>>>,
    bound: Duration,
}

impl Chip {
    /// The TPM that the kernel shows.
    pub fn open() -> Result<Self, ChipError> {
        let path = [MANAGED, PLAIN].into_iter().find(|path| Path::new(path).exists());
        let path = path.ok_or(ChipError::Missing)?;
        let is_v20 = path == MANAGED || fs::read_to_string(MAJOR).is_ok_and(|major| major.trim() == "2");
        let version = if is_v20 { Version::V20 } else { Version::V12 };
        let device = File::options().read(true).write(true).open(path);
        let device = device.map_err(|error| ChipError::Open { path, error })?;
        Self::over(device, version, BOUND).map_err(|error| ChipError::Open { path, error })
    }

    /// A TPM behind `device`, each of whose answers may take `bound`.
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
                    return;
                }
            }
        };
        std::thread::Builder::new().name("tpm".into()).spawn(work)?;
        Ok(Self { version, commands, answers, bound })
    }

    /// Which commands it understands.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its active banks; all of them can be extended.
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

    /// Extend `pcr` in all banks that `digests` are for.
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

    /// What `pcr` holds in `bank`.
    pub fn read(&self, pcr: Pcr, bank: Bank) -> Result<Vec<u8>, ChipError> {
        let act = format!("read PCR {pcr}");
        match self.version {
            Version::V12 => self.ask(&act, Ok(tpm12::read(pcr)), tpm12::value),
            Version::V20 => self.ask(&act, tpm2::read(pcr, bank), tpm2::value),
        }
    }

    /// Give it a command, again while it is busy, and understand its answer.
    fn ask<T>(
        &self,
        act: &str,
        command: Result<Vec<u8>, ResponseError>,
        understand: impl Fn(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, ChipError> {
        let response = |error| ChipError::Response { act: act.to_owned(), error };
        let command = command.map_err(response)?;
        let deadline = Instant::now() + self.bound;
        loop {
            let answer = self.transact(act, &command, deadline)?;
            match understand(&answer) {
                Err(ResponseError::Retry) if Instant::now() + PAUSE < deadline => std::thread::sleep(PAUSE),
                outcome => return outcome.map_err(response),
            }
        }
    }

    fn transact(&self, act: &str, command: &[u8], deadline: Instant) -> Result<Vec<u8>, ChipError> {
        let gone = || ChipError::Device { act: act.to_owned(), error: io::ErrorKind::BrokenPipe.into() };
        self.commands.send(command.to_vec()).map_err(|_| gone())?;
        match self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(answer) => answer.map_err(|error| ChipError::Device { act: act.to_owned(), error }),
            Err(RecvTimeoutError::Timeout) => {
                Err(ChipError::Silent { act: act.to_owned(), bound: self.bound })
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A TPM that answers what `answer` says, and nothing where that is nothing.
    pub(in crate::machine) fn fake(
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
        Chip::over(ours, version, Duration::from_millis(300)).unwrap()
    }

    fn header(result: u32) -> Vec<u8> {
        [&[0x80, 1, 0, 0, 0, 10][..], &result.to_be_bytes()].concat()
    }

    #[test]
    fn a_tpm_that_says_nothing_is_not_waited_for_for_ever() {
        let chip = fake(Version::V20, |_| None);
        let error = chip.extend(Pcr::ALL[9], &[(Bank::Sha256, vec![0; 32])]).unwrap_err();
        assert!(matches!(error, ChipError::Silent { .. }), "{error}");
    }

    #[test]
    fn a_busy_tpm_is_asked_again_but_not_for_ever() {
        let mut asked = 0;
        let chip = fake(Version::V20, move |_| {
            asked += 1;
            // TPM_RC_RETRY, then a failure.
            Some(header(if asked < 3 { 0x922 } else { 0x101 }))
        });
        let error =
            crate::base::failure::chain(&chip.extend(Pcr::ALL[9], &[(Bank::Sha1, vec![0; 20])]).unwrap_err());
        assert!(error.contains("cannot extend PCR 9: the TPM answers"), "{error}");
        let chip = fake(Version::V20, |_| Some(header(0x922)));
        let error =
            crate::base::failure::chain(&chip.extend(Pcr::ALL[9], &[(Bank::Sha1, vec![0; 20])]).unwrap_err());
        assert!(error.contains("the TPM is busy"), "{error}");
    }

    #[test]
    fn an_extend_and_a_read_of_version_1_2_go_through() {
        let chip = fake(Version::V12, |command| {
            let value = vec![command[9]; 20];
            Some([&[0, 0xc4, 0, 0, 0, 30, 0, 0, 0, 0][..], &value].concat())
        });
        chip.extend(Pcr::ALL[8], &[(Bank::Sha1, vec![1; 20])]).unwrap();
        assert_eq!(chip.read(Pcr::ALL[8], Bank::Sha1).unwrap(), vec![0x15; 20]);
        assert_eq!(chip.banks().unwrap(), [Bank::Sha1]);
    }
}
