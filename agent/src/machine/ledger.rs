//! The record of measurements. Whatever decides what runs passes through it before it is used.
//!
//! The [`Ledger`] asks a value for its statements ([`Evidence`]), extends the TPM by them
//! (`chip`), writes them into the event log, and only then gives the value back as
//! [`Measured`]. That type is what the steps of the boot ask for:
//!
//! ```
//! use inetboot::kexec;
//! use inetboot::machine::ledger::Measured;
//! use inetboot::miniroot::payload::Payload;
//! fn start(payload: Measured<Payload>) {
//!     let _ = kexec::load(payload, &[]);
//! }
//! ```
//!
//! A value that was not measured does not compile:
//!
//! ```compile_fail
//! use inetboot::kexec;
//! use inetboot::miniroot::payload::Payload;
//! fn start(payload: Payload) {
//!     let _ = kexec::load(payload, &[]);
//! }
//! ```

use crate::base::console;
use crate::base::failure::{Explain, Failure, chain};
use crate::base::step::Step;
use crate::formats::bank::{Bank, names};
use crate::formats::eventlog::{EventLog, initial};
use crate::formats::statement::{BYTES, Statement, Topic, WORDS};
use crate::formats::tpm_policy::TpmPolicy;
use crate::machine::chip::{self, Chip, ChipError};
use crate::machine::firmware;
use std::io;
use std::ops::Deref;

/// The kernel shows the TPM here.
pub const SYSFS: &str = "/sys/class/tpm/tpm0";

/// The words for a boot that was not measured, on the screen and in the receipt.
const NOT_MEASURED: &str = "not measured";

/// A value that was measured before it is used. Only [`Ledger::measure`] makes it.
#[derive(Debug)]
pub struct Measured<T>(T);

impl<T> Measured<T> {
    /// The value itself, to be used now.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Measured<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A value that can be measured. All implementations are in [`measure`](crate::measure).
pub trait Evidence {
    /// Everything to be said of it before it is used, in order.
    fn statements(&self) -> Vec<Statement>;
}

/// The reason why a value could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error("cannot read the running program, which has to be measured")]
    Digest(#[source] io::Error),
    #[error("inetboot.tpm=require, and {0}")]
    Required(String),
}

impl Explain for MeasureError {
    fn hint(&self) -> String {
        match self {
            Self::Digest(_) => "Check the machine's memory".into(),
            Self::Required(_) => {
                "Restart the machine, with the TPM switched on in its set-up; or boot with inetboot.tpm=try"
                    .into()
            }
        }
    }
}

impl From<MeasureError> for Failure {
    fn from(error: MeasureError) -> Self {
        Self::at(Step::Measure, error)
    }
}

#[derive(Debug)]
enum State {
    /// Into this TPM, into these banks.
    Measuring(Chip, Vec<Bank>),
    /// Not now: the TPM is missing, switched off for this attempt, or released. The log still accounts for
    /// all that was extended, so a further attempt may continue it.
    Idle,
    /// An extend failed. It is not known whether the TPM took it, so no log can account for it any more.
    Failed,
}

/// The record of one boot, over all attempts at it.
#[derive(Debug)]
pub struct Ledger {
    policy: TpmPolicy,
    state: State,
    /// `None` until a TPM was seen.
    log: Option<EventLog>,
    /// The statements of this attempt up to `place`, and behind it those of the attempt before.
    trail: Vec<Statement>,
    place: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { policy: TpmPolicy::Off, state: State::Idle, log: None, trail: Vec::new(), place: 0 }
    }
}

impl Ledger {
    /// Begins a boot's record. A further attempt goes over it again: what an earlier attempt stated is not
    /// extended twice.
    pub fn begin(&mut self, policy: TpmPolicy) -> Result<(), MeasureError> {
        self.begin_with(policy, open, firmware::log)
    }

    /// The same after the ledger was [released](Self::release) to a server, which left `log`.
    pub fn begin_again(&mut self, policy: TpmPolicy, log: Option<EventLog>) -> Result<(), MeasureError> {
        if log.is_some() {
            self.log = log;
        }
        self.begin(policy)
    }

    fn begin_with(
        &mut self,
        policy: TpmPolicy,
        open: impl FnOnce() -> Result<(Chip, Vec<Bank>), ChipError>,
        firmware_log: impl FnOnce() -> Option<EventLog>,
    ) -> Result<(), MeasureError> {
        self.place = 0;
        self.policy = policy;
        if policy == TpmPolicy::Off {
            return self.rest("inetboot.tpm=off".into());
        }
        match self.state {
            State::Failed => return self.rest("the TPM failed in an earlier attempt".into()),
            State::Measuring(..) => return Ok(()),
            State::Idle => {}
        }

        let (chip, banks) = match open() {
            Err(error) => return self.rest(chain(&error)),
            Ok(opened) => opened,
        };
        if self.log.is_none() {
            self.log = Some(firmware_log().unwrap_or_else(|| new_log(&chip, &banks)));
        }
        console::say(&format!("  measuring into the {}", describe(&chip, &banks)));
        self.state = State::Measuring(chip, banks);

        match self.unaccounted() {
            Ok(None) => {}
            Ok(Some(what)) => {
                console::say(&format!("  the event log begins too late: it does not account for {what}"));
            }
            // Nothing was extended: a TPM that is slow to start may answer the next attempt.
            Err(error) => return self.rest(chain(&error)),
        }
        Ok(())
    }

    /// Continues the record of the life before, whose log is `log`. That has none if it measured nothing.
    pub fn resume(policy: TpmPolicy, log: Option<EventLog>) -> Result<Self, MeasureError> {
        let idle = |why: &str| {
            let mut ledger = Self { policy, ..Self::default() };
            ledger.rest(why.into()).map(|()| ledger)
        };
        let log = match log {
            _ if policy == TpmPolicy::Off => return idle("inetboot.tpm=off"),
            None => return idle("nothing was measured before"),
            Some(log) => log,
        };

        // An earlier attempt of this life may have stated something already, behind the other life's.
        let stated: Vec<Statement> = log.events().iter().filter_map(Statement::of_event).collect();
        let of_the_life_before = |statement: &Statement| statement.topic <= Topic::Target;
        let first = stated.iter().rposition(of_the_life_before).map_or(0, |last| last + 1);
        let trail = stated.into_iter().skip(first).collect();

        let mut ledger = Self { policy, log: Some(log), trail, ..Self::default() };
        match open() {
            Err(error) => ledger.rest(chain(&error))?,
            Ok((chip, banks)) => ledger.state = State::Measuring(chip, banks),
        }
        Ok(ledger)
    }

    /// Lets go of the TPM: some have room for one user at a time.
    pub fn release(&mut self) {
        if matches!(self.state, State::Measuring(..)) {
            self.state = State::Idle;
        }
    }

    /// Measures `thing`, before it is used.
    pub fn measure<T: Evidence>(&mut self, thing: T) -> Result<Measured<T>, MeasureError> {
        for statement in thing.statements() {
            if statement.row().pcr == BYTES {
                console::say(&format!("  {}: {}", statement.row().word, statement.text));
            }
            self.state(statement)?;
        }
        Ok(Measured(thing))
    }

    fn state(&mut self, statement: Statement) -> Result<(), MeasureError> {
        if !matches!(self.state, State::Measuring(..)) {
            return Ok(());
        }
        let is_known = self.trail.get(self.place) == Some(&statement);
        if !is_known {
            self.trail.truncate(self.place);
            self.extend(&statement)?;
            self.trail.push(statement);
        }
        self.place += 1;
        Ok(())
    }

    fn extend(&mut self, statement: &Statement) -> Result<(), MeasureError> {
        let (State::Measuring(chip, banks), Some(log)) = (&self.state, &mut self.log) else { return Ok(()) };
        if let Err(error) = chip.extend(statement.row().pcr, &statement.digests(banks)) {
            self.state = State::Failed;
            return self.rest(chain(&error));
        }
        log.push(statement.event(&log.banks()));
        Ok(())
    }

    /// Stops measuring: the end of this boot where a TPM is required, and a line on the screen elsewhere. A
    /// failed extend is not forgotten.
    fn rest(&mut self, why: String) -> Result<(), MeasureError> {
        self.release();
        if self.policy == TpmPolicy::Require {
            return Err(MeasureError::Required(why));
        }
        console::say(&format!("  {NOT_MEASURED}: {why}"));
        Ok(())
    }

    /// States, last of all, whether the log accounts for the values in the TPM's PCRs.
    pub fn close(&mut self) -> Result<(), MeasureError> {
        if !matches!(self.state, State::Measuring(..)) {
            return Ok(());
        }
        match self.unaccounted() {
            Ok(what) => self.state(Statement::of_ledger(what.as_deref())),
            Err(error) => self.rest(chain(&error)),
        }
    }

    /// The first of our PCRs whose value is not the one that the log replays to.
    fn unaccounted(&self) -> Result<Option<String>, ChipError> {
        let (State::Measuring(chip, banks), Some(log)) = (&self.state, &self.log) else { return Ok(None) };
        let logged = log.banks();
        for bank in banks.iter().filter(|bank| logged.contains(bank)) {
            let replayed = log.replay(*bank);
            for pcr in [WORDS, BYTES] {
                let holds = chip.read(pcr, *bank)?;
                if replayed.get(&pcr).cloned().unwrap_or_else(|| initial(*bank, pcr)) != holds {
                    return Ok(Some(format!("PCR {pcr} of bank {}", bank.name())));
                }
            }
        }
        Ok(None)
    }

    /// The words for this boot, on the screen and in the receipt.
    pub fn word(&self) -> String {
        match &self.state {
            State::Measuring(chip, banks) => format!("measured into the {}", describe(chip, banks)),
            State::Idle | State::Failed => NOT_MEASURED.into(),
        }
    }

    /// The event log; `None` while nothing is measured.
    pub fn log(&self) -> Option<&EventLog> {
        self.log.as_ref().filter(|_| matches!(self.state, State::Measuring(..)))
    }

    /// Consumes the ledger, closes the TPM and gives the event log.
    pub fn into_log(self) -> Option<EventLog> {
        let is_measuring = matches!(self.state, State::Measuring(..));
        self.log.filter(|_| is_measuring)
    }
}

fn open() -> Result<(Chip, Vec<Bank>), ChipError> {
    let chip = Chip::open()?;
    let banks = chip.banks()?;
    Ok((chip, banks))
}

fn new_log(chip: &Chip, banks: &[Bank]) -> EventLog {
    match chip.version() {
        chip::Version::V12 => EventLog::classic(),
        chip::Version::V20 => EventLog::agile(banks),
    }
}

/// `TPM 2.0 (sha1, sha256)`
fn describe(chip: &Chip, banks: &[Bank]) -> String {
    format!("{} ({})", chip.version().name(), names(banks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chip::Version;
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    /// Extends are counted, and from one on they fail.
    struct Fake {
        extends: Arc<Mutex<usize>>,
        pcrs: Arc<Mutex<HashMap<u8, Vec<u8>>>>,
        good: usize,
    }

    impl Fake {
        fn new(good: usize) -> Self {
            Self { extends: Arc::default(), pcrs: Arc::default(), good }
        }

        /// A TPM 1.2: its two commands need no codec here.
        fn open(&self) -> Result<(Chip, Vec<Bank>), ChipError> {
            let (extends, pcrs, good) = (Arc::clone(&self.extends), Arc::clone(&self.pcrs), self.good);
            let answer = move |command: &[u8]| {
                let mut pcrs = pcrs.lock().unwrap();
                let value = pcrs.entry(command[13]).or_insert_with(|| vec![0; 20]);
                let mut result = 0;
                if command[9] == 0x14 {
                    let mut extends = extends.lock().unwrap();
                    *extends += 1;
                    *value = Bank::Sha1.extend(value, &command[14..]);
                    result = u8::from(*extends > good);
                }
                Some([&[0, 0xc4, 0, 0, 0, 30, 0, 0, 0, result][..], value.as_slice()].concat())
            };
            Ok((chip::tests::fake(Version::V12, answer), vec![Bank::Sha1]))
        }

        fn begin(&self, ledger: &mut Ledger, policy: TpmPolicy) -> Result<(), MeasureError> {
            ledger.begin_with(policy, || self.open(), || None)
        }
    }

    #[derive(Debug)]
    struct Words(&'static [&'static str]);

    impl Evidence for Words {
        fn statements(&self) -> Vec<Statement> {
            self.0.iter().map(|says| Statement::words(Topic::Arguments, *says)).collect()
        }
    }

    fn said(ledger: &Ledger) -> Vec<String> {
        let said = |event| Statement::of_event(event).map(|statement| statement.text);
        ledger.log().unwrap().events().iter().filter_map(said).collect()
    }

    #[test]
    fn what_is_measured_is_extended_and_logged_in_order() {
        let (fake, mut ledger) = (Fake::new(9), Ledger::default());
        fake.begin(&mut ledger, TpmPolicy::Require).unwrap();
        ledger.measure(Words(&["a", "b"])).unwrap();
        ledger.close().unwrap();
        assert_eq!(said(&ledger), ["a", "b", "accounts for PCR 8 and 9"]);
        assert_eq!(*fake.extends.lock().unwrap(), 3);
        assert_eq!(ledger.word(), "measured into the TPM 1.2 (sha1)");
    }

    #[test]
    fn a_further_attempt_says_only_what_is_new() {
        let (fake, mut ledger) = (Fake::new(99), Ledger::default());
        for words in [&["a", "b"][..], &["a", "b", "c"], &["a"], &["a", "x"], &["a", "b"]] {
            fake.begin(&mut ledger, TpmPolicy::Try).unwrap();
            ledger.measure(Words(words)).unwrap();
        }
        assert_eq!(said(&ledger), ["a", "b", "c", "x", "b"]);
        ledger.close().unwrap();
        assert_eq!(said(&ledger).last().unwrap(), "accounts for PCR 8 and 9");
    }

    #[test]
    fn a_tpm_that_fails_ends_the_boot_only_where_it_is_required() {
        let mut ledger = Ledger::default();
        Fake::new(1).begin(&mut ledger, TpmPolicy::Require).unwrap();
        let error = ledger.measure(Words(&["a", "b"])).unwrap_err().to_string();
        assert!(error.contains("inetboot.tpm=require, and cannot extend PCR 8"), "{error}");
        // What it extended is in no log that could go on.
        let again = Fake::new(9).begin(&mut ledger, TpmPolicy::Require).unwrap_err().to_string();
        assert!(again.contains("in an earlier attempt"), "{again}");

        let mut ledger = Ledger::default();
        Fake::new(1).begin(&mut ledger, TpmPolicy::Try).unwrap();
        ledger.measure(Words(&["a", "b"])).unwrap();
        assert_eq!(ledger.word(), NOT_MEASURED);
        assert!(ledger.log().is_none());
    }

    #[test]
    fn a_tpm_that_comes_late_is_taken_by_the_next_attempt() {
        let mut ledger = Ledger::default();
        ledger.begin_with(TpmPolicy::Try, || Err(ChipError::Missing), || None).unwrap();
        ledger.measure(Words(&["a"])).unwrap();
        Fake::new(9).begin(&mut ledger, TpmPolicy::Try).unwrap();
        ledger.measure(Words(&["a"])).unwrap();
        assert_eq!(said(&ledger), ["a"]);
    }

    /// B6: `inetboot.tpm=off` in a later attempt leaves the TPM alone, and a later `try` continues the log.
    #[test]
    fn off_in_a_later_attempt_is_obeyed() {
        let (fake, mut ledger) = (Fake::new(99), Ledger::default());
        fake.begin(&mut ledger, TpmPolicy::Try).unwrap();
        ledger.measure(Words(&["a"])).unwrap();
        fake.begin(&mut ledger, TpmPolicy::Off).unwrap();
        ledger.measure(Words(&["b"])).unwrap();
        assert_eq!(*fake.extends.lock().unwrap(), 1);
        assert_eq!((ledger.word().as_str(), ledger.log().is_none()), (NOT_MEASURED, true));

        fake.begin(&mut ledger, TpmPolicy::Require).unwrap();
        ledger.measure(Words(&["a", "c"])).unwrap();
        ledger.close().unwrap();
        assert_eq!(said(&ledger), ["a", "c", "accounts for PCR 8 and 9"]);
    }

    /// A failed extend stays failed over an attempt without measuring: the log lacks what the TPM may have.
    #[test]
    fn off_does_not_heal_a_failed_extend() {
        let mut ledger = Ledger::default();
        Fake::new(0).begin(&mut ledger, TpmPolicy::Try).unwrap();
        ledger.measure(Words(&["a"])).unwrap();
        Fake::new(9).begin(&mut ledger, TpmPolicy::Off).unwrap();
        let again = Fake::new(9).begin(&mut ledger, TpmPolicy::Require).unwrap_err().to_string();
        assert!(again.contains("in an earlier attempt"), "{again}");
    }

    /// B6: a server that was told to leave the TPM alone does not continue an older log.
    #[test]
    fn off_is_obeyed_by_the_server() {
        let log = Some(EventLog::classic());
        assert!(Ledger::resume(TpmPolicy::Off, log).unwrap().log().is_none());
    }

    /// B7: after a server of the life without kexec measured into the same TPM and failed, the next attempt
    /// continues the log that the server left.
    #[test]
    fn an_attempt_continues_the_servers_log() {
        let (fake, mut ledger) = (Fake::new(99), Ledger::default());
        fake.begin(&mut ledger, TpmPolicy::Try).unwrap();
        ledger.measure(Words(&["a", "b"])).unwrap();
        let mut log = ledger.log().unwrap().clone();
        ledger.release();

        let (server, _) = fake.open().unwrap();
        let serving = Statement::words(Topic::Serving, "x");
        server.extend(WORDS, &serving.digests(&[Bank::Sha1])).unwrap();
        log.push(serving.event(&log.banks()));
        drop(server);

        ledger.log = Some(log);
        fake.begin(&mut ledger, TpmPolicy::Try).unwrap();
        ledger.measure(Words(&["a", "c"])).unwrap();
        ledger.close().unwrap();
        assert_eq!(said(&ledger), ["a", "b", "x", "c", "accounts for PCR 8 and 9"]);
    }

    #[test]
    fn a_second_life_without_a_log_measures_nothing() {
        assert!(Ledger::resume(TpmPolicy::Try, None).unwrap().log().is_none());
        assert!(Ledger::resume(TpmPolicy::Require, None).is_err());
    }

    #[test]
    fn without_a_tpm_or_with_one_left_alone_nothing_is_logged() {
        for policy in [TpmPolicy::Try, TpmPolicy::Off] {
            let mut ledger = Ledger::default();
            ledger.begin_with(policy, || Err(ChipError::Missing), || None).unwrap();
            ledger.measure(Words(&["a"])).unwrap();
            ledger.close().unwrap();
            assert!(ledger.log().is_none() && ledger.into_log().is_none());
        }
        let begun = Ledger::default().begin_with(TpmPolicy::Require, || Err(ChipError::Missing), || None);
        assert!(begun.unwrap_err().to_string().contains("shows no TPM"));
    }

    #[test]
    fn a_log_that_begins_too_late_is_told() {
        let (fake, mut ledger) = (Fake::new(9), Ledger::default());
        fake.begin(&mut ledger, TpmPolicy::Try).unwrap();
        let State::Measuring(chip, _) = &ledger.state else { panic!() };
        chip.extend(BYTES, &[(Bank::Sha1, vec![1; 20])]).unwrap();
        ledger.measure(Words(&["a"])).unwrap();
        ledger.close().unwrap();
        assert_eq!(said(&ledger), ["a", "does not account for PCR 9 of bank sha1"]);
    }
}
