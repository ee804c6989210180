//! The TCG event log: the events that were extended into PCRs, in order. Pure.
//!
//! TCG PC Client Platform Firmware Profile 1.06, section 10: the crypto-agile form of TPM 2.0
//! (`TCG_PCR_EVENT2` after a `Spec ID Event03`), and the SHA-1 form of TPM 1.2 (`TCG_PCR_EVENT`).
//! A log that the firmware began is kept byte for byte, and continued in its own form.

use crate::formats::bank::Bank;
use crate::formats::pcr::Pcr;
use std::collections::BTreeMap;
use std::fmt;

/// `EV_NO_ACTION`: an event about the log itself, which was not extended.
pub const NO_ACTION: u32 = 3;

/// `EV_IPL`: an event of a boot loader.
pub const IPL: u32 = 0xd;

/// The signature of the first event of a crypto-agile log.
const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";

/// The signature of the event that tells the locality from which the TPM was started.
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// PCRs of the dynamic root of trust, whose bits are ones at first.
const DYNAMIC: std::ops::RangeInclusive<Pcr> = Pcr::ALL[17]..=Pcr::ALL[22];

/// Algorithms of a log at most; no TPM has nearly as many.
const MOST_ALGORITHMS: u32 = 16;

/// The names of event types (section 10.4.1).
const KINDS: [(u32, &str); 38] = [
    (0x0000_0000, "EV_PREBOOT_CERT"),
    (0x0000_0001, "EV_POST_CODE"),
    (0x0000_0002, "EV_UNUSED"),
    (NO_ACTION, "EV_NO_ACTION"),
    (0x0000_0004, "EV_SEPARATOR"),
    (0x0000_0005, "EV_ACTION"),
    (0x0000_0006, "EV_EVENT_TAG"),
    (0x0000_0007, "EV_S_CRTM_CONTENTS"),
    (0x0000_0008, "EV_S_CRTM_VERSION"),
    (0x0000_0009, "EV_CPU_MICROCODE"),
    (0x0000_000a, "EV_PLATFORM_CONFIG_FLAGS"),
    (0x0000_000b, "EV_TABLE_OF_DEVICES"),
    (0x0000_000c, "EV_COMPACT_HASH"),
    (IPL, "EV_IPL"),
    (0x0000_000e, "EV_IPL_PARTITION_DATA"),
    (0x0000_000f, "EV_NONHOST_CODE"),
    (0x0000_0010, "EV_NONHOST_CONFIG"),
    (0x0000_0011, "EV_NONHOST_INFO"),
    (0x0000_0012, "EV_OMIT_BOOT_DEVICE_EVENTS"),
    (0x0000_0013, "EV_POST_CODE2"),
    (0x8000_0001, "EV_EFI_VARIABLE_DRIVER_CONFIG"),
    (0x8000_0002, "EV_EFI_VARIABLE_BOOT"),
    (0x8000_0003, "EV_EFI_BOOT_SERVICES_APPLICATION"),
    (0x8000_0004, "EV_EFI_BOOT_SERVICES_DRIVER"),
    (0x8000_0005, "EV_EFI_RUNTIME_SERVICES_DRIVER"),
    (0x8000_0006, "EV_EFI_GPT_EVENT"),
    (0x8000_0007, "EV_EFI_ACTION"),
    (0x8000_0008, "EV_EFI_PLATFORM_FIRMWARE_BLOB"),
    (0x8000_0009, "EV_EFI_HANDOFF_TABLES"),
    (0x8000_000a, "EV_EFI_PLATFORM_FIRMWARE_BLOB2"),
    (0x8000_000b, "EV_EFI_HANDOFF_TABLES2"),
    (0x8000_000c, "EV_EFI_VARIABLE_BOOT2"),
    (0x8000_000d, "EV_EFI_GPT_EVENT2"),
    (0x8000_0010, "EV_EFI_HCRTM_EVENT"),
    (0x8000_00e0, "EV_EFI_VARIABLE_AUTHORITY"),
    (0x8000_00e1, "EV_EFI_SPDM_FIRMWARE_BLOB"),
    (0x8000_00e2, "EV_EFI_SPDM_FIRMWARE_CONFIG"),
    (0x8000_00e3, "EV_EFI_SPDM_DEVICE_POLICY"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub pcr: PcrField,
    /// The event type, `EV_…`.
    pub kind: u32,
    /// The digests that were extended, by algorithm number.
    pub digests: Vec<(u16, Vec<u8>)>,
    /// The event's description of itself. Only for some types the digests are of this.
    pub data: Vec<u8>,
}

/// The field of an event that names a PCR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PcrField {
    /// The PCR that the digests were extended into.
    Extended(Pcr),
    /// The field of an `EV_NO_ACTION` event, which was not extended. Firmware writes 0 or 0xffffffff.
    Unused(u32),
}

impl PcrField {
    fn number(self) -> u32 {
        match self {
            Self::Extended(pcr) => pcr.number(),
            Self::Unused(number) => number,
        }
    }
}

impl Event {
    /// The PCR that was extended, if any was.
    pub fn extended(&self) -> Option<Pcr> {
        match self.pcr {
            PcrField::Extended(pcr) => Some(pcr),
            PcrField::Unused(_) => None,
        }
    }

    fn kind_name(&self) -> String {
        let known = KINDS.iter().find(|(kind, _)| *kind == self.kind);
        known.map_or_else(|| format!("event type {:#x}", self.kind), |(_, name)| (*name).to_owned())
    }

    /// The digest that was extended into the PCR of `bank`.
    pub fn digest(&self, bank: Bank) -> Option<&[u8]> {
        self.digests.iter().find(|(id, _)| *id == bank.id()).map(|(_, digest)| digest.as_slice())
    }

    /// The data, if it is text.
    pub fn text(&self) -> Option<&str> {
        let text = str::from_utf8(&self.data).ok()?.trim_end_matches('\0');
        (!text.is_empty() && !text.contains(char::is_control)).then_some(text)
    }
}

/// The form in which the events of a log are written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// One SHA-1 digest for each event.
    Classic,
    /// A digest for each of these algorithms, with the bytes of a digest.
    Agile(Vec<(u16, usize)>),
}

/// A log, as bytes and as events.
#[derive(Clone, PartialEq, Eq)]
pub struct EventLog {
    bytes: Vec<u8>,
    form: Form,
    events: Vec<Event>,
}

/// Reasons why bytes are not a log. Events are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error("it ends in the middle of event {0}")]
    Cut(usize),
    #[error("event {event} has a digest by the algorithm {id:#06x}, which the log's head does not name")]
    Algorithm { event: usize, id: u16 },
    #[error("event {event} claims to have {count} digests")]
    Digests { event: usize, count: u32 },
    #[error("event {event} is for PCR {pcr}, which no TPM has")]
    Pcr { event: usize, pcr: u32 },
    #[error("its head is malformed")]
    Head,
}

impl EventLog {
    /// An empty crypto-agile log for `banks`.
    pub fn agile(banks: &[Bank]) -> Self {
        let mut head = SPEC_ID.to_vec();
        // Platform class: client; version 2.0, errata 0; UINTN has 8 bytes.
        head.extend_from_slice(&[0, 0, 0, 0, 0, 2, 0, 2]);
        head.extend_from_slice(&(banks.len() as u32).to_le_bytes());
        for bank in banks {
            head.extend_from_slice(&bank.id().to_le_bytes());
            head.extend_from_slice(&(bank.size() as u16).to_le_bytes());
        }
        head.push(0); // vendor information

        let digests = vec![(Bank::Sha1.id(), vec![0; Bank::Sha1.size()])];
        let first = Event { pcr: PcrField::Unused(0), kind: NO_ACTION, digests, data: head };
        let algorithms = banks.iter().map(|bank| (bank.id(), bank.size())).collect();
        let mut log = Self::classic();
        log.push(first);
        log.form = Form::Agile(algorithms);
        log
    }

    /// An empty log of the SHA-1 form.
    pub fn classic() -> Self {
        Self { bytes: Vec::new(), form: Form::Classic, events: Vec::new() }
    }

    /// Reads a log of either form.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let mut reader = Reader { rest: bytes, event: 1 };
        let mut log = Self { bytes: bytes.to_vec(), ..Self::classic() };
        while !reader.rest.is_empty() {
            let event = reader.event(&log.form)?;
            if log.events.is_empty() && event.kind == NO_ACTION && event.data.starts_with(SPEC_ID) {
                log.form = Form::Agile(algorithms(&event.data).ok_or(LogError::Head)?);
            }
            log.events.push(event);
            reader.event += 1;
        }
        Ok(log)
    }

    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The supported banks for which the log has digests.
    pub fn banks(&self) -> Vec<Bank> {
        match &self.form {
            Form::Classic => vec![Bank::Sha1],
            Form::Agile(algorithms) => algorithms.iter().filter_map(|(id, _)| Bank::from_id(*id)).collect(),
        }
    }

    /// Adds an event, which must have the digests of [`Self::banks`].
    pub fn push(&mut self, event: Event) {
        let Event { pcr, kind, digests, data } = &event;
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(&pcr.number().to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        match &self.form {
            Form::Classic => digests.iter().take(1).for_each(|(_, digest)| bytes.extend_from_slice(digest)),
            Form::Agile(_) => {
                bytes.extend_from_slice(&(digests.len() as u32).to_le_bytes());
                for (id, digest) in digests {
                    bytes.extend_from_slice(&id.to_le_bytes());
                    bytes.extend_from_slice(digest);
                }
            }
        }
        bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
        self.events.push(event);
    }

    /// The log with its first `count` events alone.
    pub fn first(&self, count: usize) -> Self {
        let mut log = Self::classic();
        for (number, event) in self.events.iter().take(count).enumerate() {
            // The head of a crypto-agile log is itself of the other form.
            if number == 1 {
                log.form = self.form.clone();
            }
            log.push(event.clone());
        }
        log.form = self.form.clone();
        log
    }

    /// The value of every PCR of `bank` that the log extends or gives a first value.
    pub fn replay(&self, bank: Bank) -> BTreeMap<Pcr, Vec<u8>> {
        let mut pcrs = BTreeMap::new();
        for event in &self.events {
            let Some(pcr) = event.extended() else {
                if let Some(locality) =
                    event.data.strip_prefix(STARTUP_LOCALITY).and_then(|rest| rest.first())
                {
                    let mut value = vec![0; bank.size()];
                    value[bank.size() - 1] = *locality;
                    pcrs.insert(Pcr::ALL[0], value);
                }
                continue;
            };
            let Some(digest) = event.digest(bank) else { continue };
            let value = pcrs.entry(pcr).or_insert_with(|| initial(bank, pcr));
            *value = bank.extend(value, digest);
        }
        pcrs
    }
}

/// The value of PCR `pcr` of `bank` when the machine was switched on.
pub fn initial(bank: Bank, pcr: Pcr) -> Vec<u8> {
    vec![if DYNAMIC.contains(&pcr) { 0xff } else { 0 }; bank.size()]
}

/// The algorithms that the head of a crypto-agile log names, with the bytes of their digests.
fn algorithms(head: &[u8]) -> Option<Vec<(u16, usize)>> {
    let mut reader = Reader { rest: head.get(24..)?, event: 0 };
    let count = reader.u32().ok()?;
    if count > MOST_ALGORITHMS {
        return None;
    }
    let algorithm = |reader: &mut Reader<'_>| Some((reader.u16().ok()?, usize::from(reader.u16().ok()?)));
    let algorithms: Vec<_> = (0..count).map(|_| algorithm(&mut reader)).collect::<Option<_>>()?;
    let is_right = |(id, size): &(u16, usize)| Bank::from_id(*id).is_none_or(|bank| bank.size() == *size);
    algorithms.iter().all(is_right).then_some(algorithms)
}

struct Reader<'a> {
    rest: &'a [u8],
    event: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], LogError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(LogError::Cut(self.event))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, LogError> {
        Ok(self.take(4)?.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn u16(&mut self) -> Result<u16, LogError> {
        Ok(self.take(2)?.iter().rev().fold(0, |value, byte| value << 8 | u16::from(*byte)))
    }

    fn event(&mut self, form: &Form) -> Result<Event, LogError> {
        let (number, kind) = (self.u32()?, self.u32()?);
        let pcr = if kind == NO_ACTION {
            PcrField::Unused(number)
        } else {
            let pcr = Pcr::new(number).ok_or(LogError::Pcr { event: self.event, pcr: number })?;
            PcrField::Extended(pcr)
        };

        let mut digests = Vec::new();
        match form {
            Form::Classic => digests.push((Bank::Sha1.id(), self.take(Bank::Sha1.size())?.to_vec())),
            Form::Agile(algorithms) => {
                let count = self.u32()?;
                if count > MOST_ALGORITHMS {
                    return Err(LogError::Digests { event: self.event, count });
                }
                for _ in 0..count {
                    let id = self.u16()?;
                    let size = algorithms.iter().find(|(known, _)| *known == id).map(|(_, size)| *size);
                    let size = size.ok_or(LogError::Algorithm { event: self.event, id })?;
                    digests.push((id, self.take(size)?.to_vec()));
                }
            }
        }

        let length = self.u32()? as usize;
        Ok(Event { pcr, kind, digests, data: self.take(length)?.to_vec() })
    }
}

/// A line for each event.
impl fmt::Display for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        Ok(())
    }
}

/// `PCR 9 EV_IPL inetboot kernel: …`
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR {} {}", self.pcr.number(), self.kind_name())?;
        self.text().map_or(Ok(()), |text| write!(f, " {text}"))
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog")
            .field("form", &self.form)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(banks: &[Bank], pcr: usize, text: &str) -> Event {
        let digests = banks.iter().map(|bank| (bank.id(), bank.digest(text.as_bytes()))).collect();
        Event { pcr: PcrField::Extended(Pcr::ALL[pcr]), kind: IPL, digests, data: text.into() }
    }

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let banks = [Bank::Sha1, Bank::Sha256];
        for mut log in [EventLog::agile(&banks), EventLog::classic()] {
            let banks = log.banks();
            log.push(event(&banks, 8, "one"));
            log.push(event(&banks, 9, ""));
            assert_eq!(EventLog::decode(log.encode()), Ok(log.clone()));
            for cut in 1..log.encode().len() {
                if let Ok(shorter) = EventLog::decode(&log.encode()[..cut]) {
                    assert!(shorter.events().len() < log.events().len());
                }
            }
        }
    }

    #[test]
    fn replaying_extends_in_order() {
        let mut log = EventLog::agile(&[Bank::Sha256]);
        log.push(event(&[Bank::Sha256], 8, "one"));
        log.push(event(&[Bank::Sha256], 8, "two"));
        let bank = Bank::Sha256;
        let one = bank.extend(&[0; 32], &bank.digest(b"one"));
        assert_eq!(
            log.replay(bank),
            BTreeMap::from([(Pcr::ALL[8], bank.extend(&one, &bank.digest(b"two")))])
        );
        assert_eq!(log.replay(Bank::Sha1), BTreeMap::new());
    }

    #[test]
    fn the_startup_locality_is_the_first_value() {
        let mut log = EventLog::agile(&[Bank::Sha1]);
        let data = [&STARTUP_LOCALITY[..], &[3]].concat();
        log.push(Event { pcr: PcrField::Unused(0), kind: NO_ACTION, digests: vec![(4, vec![0; 20])], data });
        let mut value = vec![0; 20];
        value[19] = 3;
        assert_eq!(log.replay(Bank::Sha1), BTreeMap::from([(Pcr::ALL[0], value)]));
    }

    #[test]
    fn malformed_logs_are_refused() {
        let mut log = EventLog::agile(&[Bank::Sha1]);
        log.push(event(&[Bank::Sha256], 8, "x"));
        let id = Bank::Sha256.id();
        assert_eq!(EventLog::decode(log.encode()), Err(LogError::Algorithm { event: 2, id }));
        let mut log = EventLog::classic();
        log.push(event(&[Bank::Sha1], 23, "x"));
        let mut bytes = log.encode().to_vec();
        assert_eq!(EventLog::decode(&bytes), Ok(log));
        bytes[0] = 24;
        assert_eq!(EventLog::decode(&bytes), Err(LogError::Pcr { event: 1, pcr: 24 }));
    }

    /// An event that was not extended may name any PCR, and keeps its number.
    #[test]
    fn events_without_a_pcr() {
        let mut log = EventLog::classic();
        let digests = vec![(Bank::Sha1.id(), vec![0; 20])];
        log.push(Event { pcr: PcrField::Unused(u32::MAX), kind: NO_ACTION, digests, data: Vec::new() });
        let decoded = EventLog::decode(log.encode()).unwrap();
        assert_eq!(decoded.first(1).encode(), log.encode());
        assert_eq!(decoded.replay(Bank::Sha1), BTreeMap::new());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let head = EventLog::agile(&[Bank::Sha1]).encode().to_vec();
            for bytes in [bytes.clone(), [head, bytes].concat()] {
                if let Ok(log) = EventLog::decode(&bytes) {
                    prop_assert_eq!(log.encode(), bytes);
                }
            }
        }
    }
}
