//! Step 7, and what comes before it: nothing is used that was not measured first.
//!
//! The [`Ledger`] takes everything that decides what runs, says what it is ([`evidence`]: the event
//! table), extends the TPM by it ([`chip`]), writes it into the event log ([`eventlog`]), and only
//! then gives it back as [`Measured`], which is what the steps of the boot ask for:
//!
//! ```
//! use inetboot::kexec::{self, Payload};
//! use inetboot::measure::Measured;
//! fn start(payload: Measured<Payload>) {
//!     let _ = kexec::load(payload, &[]);
//! }
//! ```
//!
//! What was not measured does not compile:
//!
//! ```compile_fail
//! use inetboot::kexec::{self, Payload};
//! fn start(payload: Payload) {
//!     let _ = kexec::load(payload, &[]);
//! }
//! ```

use crate::base::console;
use crate::base::failure::{Explain, Failure, chain};
use crate::base::step::Step;
use crate::formats::bank::{Bank, names};
use crate::formats::eventlog::{EventLog, initial};
use crate::formats::statement::{BYTES, Statement, WORDS, What};
use crate::formats::tpm_policy::TpmPolicy;
use crate::machine::chip::{self, Chip, ChipError};
use crate::machine::firmware;
use crate::measure::{Evidence, of_ledger};
use std::ops::Deref;
use std::{fs, io};

/// Something that was measured before it is used. Only [`Ledger::measure`] makes it.
#[derive(Debug)]
pub struct Measured<T>(T);

impl<T> Measured<T> {
    /// The thing itself, to be used now.
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

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// Its bytes cannot be read.
    #[error("cannot digest what is to be measured")]
    Digest(#[source] io::Error),
    /// The TPM is of no use, and `inetboot.tpm=require`.
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

/// This program.
#[derive(Debug)]
pub struct Agent(Vec<u8>);

impl Agent {
    /// The program that is running.
    pub fn running() -> Result<Self, MeasureError> {
        fs::read("/proc/self/exe").map(Self).map_err(MeasureError::Digest)
    }

    /// The program in `bytes`.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where the kernel shows the TPM.
pub const SYSFS: &str = "/sys/class/tpm/tpm0";

/// What can be said about this boot's being measured, on the screen and in the receipt.
pub const NOT_MEASURED: &str = "not measured";

#[derive(Debug)]
enum State {
    /// Into this TPM, into these banks.
    Measuring(Chip, Vec<Bank>),
    /// Nowhere; why was said.
    Not,
}

/// The record of measurements.
#[derive(Debug)]
pub struct Ledger {
    policy: TpmPolicy,
    state: State,
    log: EventLog,
    /// What was said in this attempt at the boot or, behind `place`, in the one before.
    trail: Vec<Statement>,
    place: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            policy: TpmPolicy::Off,
            state: State::Not,
            log: EventLog::classic(),
            trail: Vec::new(),
            place: 0,
        }
    }
}

impl Ledger {
    /// Begin a boot's record; or, where an attempt at it came before, go over it again: what that
    /// one said already is not extended twice.
    pub fn begin(&mut self, policy: TpmPolicy) -> Result<(), MeasureError> {
        self.begin_with(policy, open, firmware::log)
    }

    fn begin_with(
        &mut self,
        policy: TpmPolicy,
        open: impl FnOnce() -> Result<(Chip, Vec<Bank>), ChipError>,
        before: impl FnOnce() -> Option<EventLog>,
    ) -> Result<(), MeasureError> {
        self.place = 0;
        self.policy = policy;
        if matches!(self.state, State::Measuring(..)) {
            return Ok(());
        }
        if policy == TpmPolicy::Off {
            return self.give_up("inetboot.tpm=off".into());
        }
        if !self.trail.is_empty() {
            return self.give_up("the TPM failed in an earlier attempt".into());
        }
        let (chip, banks) = match open() {
            Err(error) => return self.give_up(chain(&error)),
            Ok(opened) => opened,
        };
        self.log = before().unwrap_or_else(|| new_log(&chip, &banks));
        console::say(&format!("  measuring into the {}", said_of(&chip, &banks)));
        self.state = State::Measuring(chip, banks);
        match self.unaccounted() {
            Ok(None) => {}
            Ok(Some(what)) => {
                console::say(&format!("  the event log begins too late: it does not account for {what}"));
            }
            Err(error) => return self.give_up(chain(&error)),
        }
        Ok(())
    }

    /// Go on with the record that the first life began, whose log is `log`; it has none where it
    /// measured nothing.
    pub fn resume(policy: TpmPolicy, log: Option<EventLog>) -> Result<Self, MeasureError> {
        let Some(log) = log else {
            let mut ledger = Self { policy, ..Self::default() };
            return ledger.give_up("nothing was measured before".into()).map(|()| ledger);
        };
        let said: Vec<Statement> = log.events().iter().filter_map(Statement::of_event).collect();
        let first_life =
            said.iter().rposition(|statement| statement.what <= What::Target).map_or(0, |last| last + 1);
        let trail = said.into_iter().skip(first_life).collect();
        let mut ledger = Self { policy, log, trail, ..Self::default() };
        match open() {
            Err(error) => ledger.give_up(chain(&error))?,
            Ok((chip, banks)) => ledger.state = State::Measuring(chip, banks),
        }
        Ok(ledger)
    }

    /// Measure `thing`, before it is used.
    pub fn measure<T: Evidence>(&mut self, thing: T) -> Result<Measured<T>, MeasureError> {
        for statement in thing.statements() {
            if statement.row().pcr == BYTES {
                console::say(&format!("  {}: {}", statement.row().word, statement.says));
            }
            self.state(statement)?;
        }
        Ok(Measured(thing))
    }

    fn state(&mut self, statement: Statement) -> Result<(), MeasureError> {
        if matches!(self.state, State::Not) {
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
        let State::Measuring(chip, banks) = &self.state else { return Ok(()) };
        if let Err(error) = chip.extend(statement.row().pcr, &statement.digests(banks)) {
            return self.give_up(chain(&error));
        }
        self.log.push(statement.event(&self.log.banks()));
        Ok(())
    }

    /// Nothing is measured from here on: said, or the end of this boot.
    fn give_up(&mut self, why: String) -> Result<(), MeasureError> {
        self.state = State::Not;
        if self.policy == TpmPolicy::Require {
            return Err(MeasureError::Required(why));
        }
        console::say(&format!("  {NOT_MEASURED}: {why}"));
        Ok(())
    }

    /// Say, last of all, whether this log accounts for what the TPM's PCRs hold.
    pub fn close(&mut self) -> Result<(), MeasureError> {
        if !matches!(self.state, State::Measuring(..)) {
            return Ok(());
        }
        match self.unaccounted() {
            Ok(what) => self.state(of_ledger(what.as_deref())),
            Err(error) => self.give_up(chain(&error)),
        }
    }

    /// Which of our PCRs holds something else than the log says, if any.
    fn unaccounted(&self) -> Result<Option<String>, ChipError> {
        let State::Measuring(chip, banks) = &self.state else { return Ok(None) };
        let logged = self.log.banks();
        for bank in banks.iter().filter(|bank| logged.contains(bank)) {
            let replayed = self.log.replay(*bank);
            for pcr in [WORDS, BYTES] {
                let holds = chip.read(pcr, *bank)?;
                if replayed.get(&pcr).cloned().unwrap_or_else(|| initial(*bank, pcr)) != holds {
                    return Ok(Some(format!("PCR {pcr} of bank {}", bank.name())));
                }
            }
        }
        Ok(None)
    }

    /// What can be said about this boot's being measured.
    pub fn word(&self) -> String {
        match &self.state {
            State::Measuring(chip, banks) => format!("measured into the {}", said_of(chip, banks)),
            State::Not => NOT_MEASURED.into(),
        }
    }

    /// The event log; none where nothing was measured.
    pub fn log(&self) -> Option<&EventLog> {
        matches!(self.state, State::Measuring(..)).then_some(&self.log)
    }

    /// The event log, and the TPM is let go.
    pub fn into_log(self) -> Option<EventLog> {
        matches!(self.state, State::Measuring(..)).then_some(self.log)
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
fn said_of(chip: &Chip, banks: &[Bank]) -> String {
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
        good: usize,
    }

    impl Fake {
        fn new(good: usize) -> Self {
            Self { extends: Arc::default(), good }
        }

        /// A TPM 1.2: its two commands need no codec here.
        fn open(&self) -> Result<(Chip, Vec<Bank>), ChipError> {
            let (extends, good) = (Arc::clone(&self.extends), self.good);
            let mut pcrs = HashMap::new();
            let answer = move |command: &[u8]| {
                let value = pcrs.entry(command[13]).or_insert_with(|| vec![0; 20]);
                let mut result = 0;
                if command[9] == 0x14 {
                    let mut extends = extends.lock().unwrap();
                    *extends += 1;
                    *value = Bank::Sha1.extend(value, &command[14..]);
                    result = u8::from(*extends > good);
                }
                Some([&[0, 0xc4, 0, 0, 0, 30, 0, 0, 0, result][..], value].concat())
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
            self.0.iter().map(|says| Statement::words(What::Arguments, *says)).collect()
        }
    }

    fn said(ledger: &Ledger) -> Vec<String> {
        let said = |event| Statement::of_event(event).map(|statement| statement.says);
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
