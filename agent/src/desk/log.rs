//! `inetbootctl log`: shows event logs, and checks them.
//!
//! A log is *true* if it replays to the values of the TPM's PCRs: those that were read from it, or those that
//! it signed. A log is *right* if its lines are those of a prediction, or are allowed by a policy. The first
//! difference is reported in words.

use crate::base::glob;
use crate::desk::Say;
use crate::desk::pcrs::{self, Values};
use crate::desk::quote::{self, Quote, QuoteError};
use crate::formats::bank::{Bank, tagged};
use crate::formats::eventlog::{Event, EventLog, initial};
use crate::formats::pcr::Pcr;
use crate::formats::pieces::{hex, unhex};
use crate::formats::statement::{BYTES, Row, Statement, TABLE, Topic, WORDS};
use anyhow::{Context, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The files that a log is checked against.
#[derive(Debug, Default)]
pub struct Against {
    /// Values of PCRs, as `tpm2_pcrread` prints them.
    pub pcrs: Option<PathBuf>,
    pub quote: Option<Signed>,
    /// A log with the lines that are expected.
    pub expect: Option<PathBuf>,
    /// Lines that are allowed.
    pub policy: Option<PathBuf>,
}

/// The files of a quote, and the nonce that was asked for.
#[derive(Debug)]
pub struct Signed {
    /// `tpm2_quote --message`
    pub message: PathBuf,
    /// `tpm2_quote --signature`
    pub signature: PathBuf,
    /// `tpm2_createak --public`
    pub key: PathBuf,
    /// In hexadecimal.
    pub nonce: String,
}

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log is true and right; these are the things it agrees with.
    Good(Vec<String>),
    /// It is not, by this first difference.
    Refused(String),
}

/// The firmware's events whose digest is always that of their data: `EV_SEPARATOR`,
/// `EV_S_CRTM_VERSION`, `EV_EFI_VARIABLE_DRIVER_CONFIG`, `EV_EFI_GPT_EVENT`.
const DIGESTED: [u32; 4] = [0x4, 0x8, 0x8000_0001, 0x8000_0006];

/// Reads a log from a file.
pub fn read(path: &Path) -> anyhow::Result<EventLog> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    EventLog::decode(&bytes).with_context(|| format!("{} is no TCG event log", path.display()))
}

/// Shows the events of a log, one a line. With `ours`, only those of InetBoot, as lines of a policy.
pub fn show(log: &EventLog, ours: bool, out: &Say) {
    for event in log.events() {
        match Statement::of_event(event) {
            Some(statement) if ours => out(&statement.line()),
            None if ours => {}
            _ => out(&event.to_string()),
        }
    }
}

/// The values that the PCRs have after `log`, for each of its banks.
pub fn replay(log: &EventLog) -> Values {
    let of_bank = |bank| log.replay(bank).into_iter().map(move |(pcr, value)| ((bank, pcr), value));
    log.banks().into_iter().flat_map(of_bank).collect()
}

/// Checks `log` against the given files, first its truth and then its lines.
///
/// # Errors
/// A file cannot be read or is not of its kind, so that there is no verdict.
pub fn verify(log: &EventLog, against: &Against) -> anyhow::Result<Verdict> {
    ensure!(
        against.pcrs.is_some() || against.quote.is_some(),
        "a log alone proves nothing: give --pcrs, or --quote with --signature, --key and --nonce"
    );
    let mut agrees_with = Vec::new();
    let refused = |why: String| Ok(Verdict::Refused(why));

    // The values: signed by the TPM, read from it, or both.
    let values = against.pcrs.as_deref().map(read_pcrs).transpose()?;
    if let Some(signed) = &against.quote {
        let (quote, nonce) = match read_quote(signed)? {
            (Ok(quote), nonce) => (quote, nonce),
            (Err(error), _) => return refused(error.to_string()),
        };
        if let Some(why) = unlike_quote(log, &quote, &nonce, values.as_ref()) {
            return refused(why);
        }
        let pcrs = quote.selection.iter().map(|(bank, pcrs)| format!("{} {pcrs:?}", bank.name()));
        agrees_with.push(format!("the quote of {}", pcrs.collect::<Vec<_>>().join(", ")));
    }
    if let Some(values) = &values {
        if let Some(why) = unlike_values(log, values) {
            return refused(why);
        }
        agrees_with.push(format!("the values of {} PCRs", values.len()));
    }

    // The words: only digests are extended, so the text beside them is checked by itself.
    if let Some(why) = altered(log) {
        return refused(why);
    }

    // The expectations.
    if let Some(path) = &against.expect {
        if let Some(why) = unlike_expected(log, &read(path)?) {
            return refused(why);
        }
        agrees_with.push(format!("every line that {} expects", path.display()));
    }
    if let Some(path) = &against.policy {
        let policy = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let outside = outside(log, &policy).with_context(|| format!("{} is not a policy", path.display()))?;
        if let Some(why) = outside {
            return refused(why);
        }
        agrees_with.push(format!("the policy {}", path.display()));
    }
    Ok(Verdict::Good(agrees_with))
}

fn read_pcrs(path: &Path) -> anyhow::Result<Values> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    pcrs::decode(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

/// Reads a quote and its nonce. A file that is not of its kind is an error; a quote that proves nothing is a
/// finding, the inner one.
fn read_quote(signed: &Signed) -> anyhow::Result<(Result<Quote, QuoteError>, Vec<u8>)> {
    let bytes = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let nonce =
        unhex(&signed.nonce).with_context(|| format!("the nonce {} is not hexadecimal", signed.nonce))?;
    let (message, signature, key) = (bytes(&signed.message)?, bytes(&signed.signature)?, bytes(&signed.key)?);
    match quote::verified(&message, &signature, &key) {
        Err(error @ QuoteError::Malformed { .. }) => bail!(error),
        outcome => Ok((outcome, nonce)),
    }
}

/// The reason why a good quote contradicts the log, if it does.
fn unlike_quote(log: &EventLog, quote: &Quote, asked: &[u8], values: Option<&Values>) -> Option<String> {
    if quote.nonce != asked {
        let (is, asked) = (hex(&quote.nonce), hex(asked));
        return Some(format!(
            "the quote answers the nonce {is}, and {asked} was asked for: it may be an old one"
        ));
    }
    for pcr in [WORDS, BYTES] {
        if !quote.selection.iter().any(|(_, pcrs)| pcrs.contains(&pcr)) {
            return Some(format!("the quote says nothing of PCR {pcr}"));
        }
    }

    // A bank without digests replays to zeros, which an unused PCR holds: its lines were never extended.
    let banks = log.banks();
    if let Some((bank, _)) = quote.selection.iter().find(|(bank, _)| !banks.contains(bank)) {
        return Some(format!("the quote is of bank {}, for which the log has no digests", bank.name()));
    }

    let replayed = replay(log);
    let of_log = |bank, pcr| replayed.get(&(bank, pcr)).cloned().unwrap_or_else(|| initial(bank, pcr));
    if digest(quote, &of_log) == quote.digest {
        return None;
    }

    // They differ. The rest finds the sentence that says where.
    // Values that were read are not signed. But if they are what was signed, they tell which PCR it is.
    let Some(values) = values else {
        return Some(
            "the log does not replay to what was quoted (--pcrs would tell which PCR differs)".into(),
        );
    };
    let of_values = |bank, pcr| values.get(&(bank, pcr)).cloned().unwrap_or_default();
    if digest(quote, &of_values) != quote.digest {
        return Some("neither the log nor the given values of the PCRs are what was quoted".into());
    }
    unlike_values(log, values)
}

fn digest(quote: &Quote, value: &dyn Fn(Bank, Pcr) -> Vec<u8>) -> Vec<u8> {
    let all = quote.selection.iter().flat_map(|(bank, pcrs)| pcrs.iter().flat_map(|pcr| value(*bank, *pcr)));
    quote.by.digest(&all.collect::<Vec<u8>>())
}

/// The first of the given values to which the log does not replay.
fn unlike_values(log: &EventLog, values: &Values) -> Option<String> {
    let replayed = replay(log);
    let banks = log.banks();
    if !values.keys().any(|(bank, _)| banks.contains(bank)) {
        return Some("the values are of other banks than the log".into());
    }
    // Without the values of our PCRs nothing says that our lines were extended.
    for pcr in [WORDS, BYTES] {
        if !values.keys().any(|(bank, of)| *of == pcr && banks.contains(bank)) {
            return Some(format!("the values have none for PCR {pcr}"));
        }
    }

    // A PCR that the log never mentions may have been extended by a program that keeps no log.
    let ours = |pcr: Pcr| pcr == WORDS || pcr == BYTES;
    for ((bank, pcr), holds) in values.iter().filter(|((bank, _), _)| banks.contains(bank)) {
        let value = match replayed.get(&(*bank, *pcr)) {
            Some(value) => value.clone(),
            None if ours(*pcr) => initial(*bank, *pcr),
            None => continue,
        };
        if value != *holds {
            let (is, holds_text) = (tagged(*bank, &value), tagged(*bank, holds));
            let guess = guess(log, *bank, *pcr, holds);
            return Some(format!("PCR {pcr} holds {holds_text}, and the log replays to {is}: {guess}"));
        }
    }
    None
}

/// Events of one PCR at most for which [`guess`] tries: its time grows with the cube of their number.
const GUESSED: usize = 200;

/// A change to the log that would explain why `pcr` holds `value`.
fn guess(log: &EventLog, bank: Bank, pcr: Pcr, value: &[u8]) -> String {
    let events: Vec<(usize, &Event)> =
        log.events().iter().enumerate().filter(|(_, event)| event.extended() == Some(pcr)).collect();
    let fits = |order: &[usize]| {
        let digests = order.iter().filter_map(|at| events.get(*at)?.1.digest(bank));
        digests.fold(initial(bank, pcr), |held, digest| bank.extend(&held, digest)) == value
    };
    let all: Vec<usize> = (0..events.len()).filter(|_| events.len() <= GUESSED).collect();
    let name = |at: usize| format!("event {} ({})", events[at].0 + 1, events[at].1);

    for at in &all {
        let without: Vec<usize> = all.iter().copied().filter(|other| other != at).collect();
        if fits(&without) {
            return format!("{} was added", name(*at));
        }
        for other in all.iter().skip(at + 1) {
            let mut swapped = all.clone();
            swapped.swap(*at, *other);
            if fits(&swapped) {
                return format!("{} and {} changed places", name(*at), name(*other));
            }
        }
        if fits(&all[..*at]) {
            return format!("{} and what follows were added", name(*at));
        }
    }
    "an event was edited or is missing".into()
}

/// The first event whose text is not what was extended. That can be told of InetBoot's, which are the last of a
/// log, and of some of the firmware's.
fn altered(log: &EventLog) -> Option<String> {
    let mut ours = false;
    for (number, event) in log.events().iter().enumerate() {
        let edited = |why: &str| Some(format!("event {} ({event}) was edited: {why}", number + 1));
        let digests = match Statement::of_event(event) {
            Some(statement) => {
                if !ours && statement.topic != Topic::Agent {
                    return edited("InetBoot says first which agent runs");
                }
                ours = true;
                statement.digests(&log.banks())
            }
            None if ours => return edited("it is none of InetBoot's, which are the last"),
            None if DIGESTED.contains(&event.kind) => {
                log.banks().into_iter().map(|bank| (bank, bank.digest(&event.data))).collect()
            }
            None => continue,
        };

        if digests.iter().any(|(bank, digest)| event.digest(*bank) != Some(digest)) {
            return edited("its digest is of something else");
        }
    }
    (!ours).then(|| "no line of the log is InetBoot's".into())
}

/// InetBoot's events of a log, as statements.
fn statements(log: &EventLog) -> Vec<(Pcr, Statement)> {
    let statement = |event: &Event| Some((event.extended()?, Statement::of_event(event)?));
    log.events().iter().filter_map(statement).collect()
}

/// The first of InetBoot's lines that is not that of the expected log.
fn unlike_expected(log: &EventLog, expected: &EventLog) -> Option<String> {
    let (is, expected) = (statements(log), statements(expected));
    let line = |(_, statement): &(Pcr, Statement)| statement.line();
    for (number, expected) in expected.iter().enumerate() {
        match is.get(number) {
            Some(is) if is == expected => {}
            Some(is) => {
                return Some(format!(
                    "the log says \"{}\", and \"{}\" is expected",
                    line(is),
                    line(expected)
                ));
            }
            None => return Some(format!("the log ends before \"{}\", which is expected", line(expected))),
        }
    }
    is.get(expected.len()).map(|extra| format!("the log says \"{}\", which is not expected", line(extra)))
}

/// The first of InetBoot's lines that no line of `policy` allows, or the first kind of line that the policy has
/// and the log lacks.
fn outside(log: &EventLog, policy: &str) -> anyhow::Result<Option<String>> {
    let lines = policy.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let statement = |line: &str| {
        Statement::of_line(line).with_context(|| format!("\"{line}\" is not a line of an event log"))
    };
    let allowed = lines.map(statement).collect::<anyhow::Result<Vec<Statement>>>()?;
    ensure!(!allowed.is_empty(), "it allows nothing");

    let said = statements(log);
    for (pcr, statement) in &said {
        let fits = |allowed: &Statement| {
            allowed.topic == statement.topic && glob::matches_text(&allowed.text, &statement.text)
        };
        if *pcr != statement.row().pcr || !allowed.iter().any(fits) {
            return Ok(Some(format!("the policy does not know \"{}\" in PCR {pcr}", statement.line())));
        }
    }

    let lacks = |row: &&Row| {
        allowed.iter().any(|line| line.topic == row.topic)
            && !said.iter().any(|(_, line)| line.topic == row.topic)
    };
    Ok(TABLE.iter().find(lacks).map(|row| format!("the log says nothing of the {}", row.word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::lock::lock;
    use crate::formats::eventlog::{IPL, NO_ACTION, PcrField};
    use std::io::Write;
    use std::sync::Mutex;

    fn log() -> EventLog {
        let mut log = EventLog::agile(&[Bank::Sha1, Bank::Sha256]);
        let banks = log.banks();
        let event = |pcr, kind, data: &[u8], digested: &[u8]| {
            let digests = banks.iter().map(|bank| (bank.id(), bank.digest(digested))).collect();
            let pcr = PcrField::Extended(Pcr::ALL[pcr]);
            Event { pcr, kind, digests, data: data.into() }
        };
        log.push(event(7, DIGESTED[0], &[0; 4], &[0; 4]));
        log.push(event(8, IPL, b"grub_cmd: linux /vmlinuz\0", b"linux /vmlinuz"));
        for (what, says) in [
            (Topic::Agent, "1.0, 3 bytes, sha256:00"),
            (Topic::Arguments, "netdir=http://h/x.iso"),
            (Topic::Image, "http://h/x.iso, unverified"),
            (Topic::Kernel, "live/vmlinuz, 8 bytes, sha256:01"),
            (Topic::Initrd, "live/initrd, 9 bytes, sha256:02"),
        ] {
            log.push(Statement::words(what, says).event(&log.banks()));
        }
        log
    }

    /// `log` with its events changed.
    fn spoiled(spoil: impl FnOnce(&mut Vec<Event>)) -> EventLog {
        let log = log();
        let mut events = log.events()[1..].to_vec();
        spoil(&mut events);
        let mut spoiled = log.first(1);
        events.into_iter().for_each(|event| spoiled.push(event));
        spoiled
    }

    fn file(contents: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    /// The verdict on `log`, against the PCRs of the good one.
    fn verdict(held: &EventLog, expect: Option<&EventLog>, policy: Option<&str>) -> Verdict {
        let pcrs = file(pcrs::encode(&replay(&log())).as_bytes());
        let expect = expect.map(|log| file(log.encode()));
        let policy = policy.map(|text| file(text.as_bytes()));
        let path = |file: &tempfile::NamedTempFile| file.path().to_owned();
        let against = Against {
            pcrs: Some(path(&pcrs)),
            quote: None,
            expect: expect.as_ref().map(path),
            policy: policy.as_ref().map(path),
        };
        verify(held, &against).unwrap()
    }

    fn refusal(log: &EventLog, expect: Option<&EventLog>, policy: Option<&str>) -> String {
        match verdict(log, expect, policy) {
            Verdict::Refused(why) => why,
            good => panic!("{good:?}"),
        }
    }

    fn lines(log: &EventLog) -> String {
        let lines = Mutex::new(String::new());
        show(log, true, &|line| lock(&lines).push_str(&format!("{line}\n")));
        lines.into_inner().unwrap()
    }

    /// Values that leave out a PCR of ours say nothing of our lines: a forged line would pass.
    #[test]
    fn values_have_to_cover_our_pcrs() {
        let all = replay(&log());
        for missing in [WORDS, BYTES] {
            let some: Values =
                all.iter().filter(|((_, pcr), _)| *pcr != missing).map(|(k, v)| (*k, v.clone())).collect();
            let why = unlike_values(&log(), &some).unwrap();
            assert!(why.contains(&format!("none for PCR {missing}")), "{why}");
        }
        assert_eq!(unlike_values(&log(), &all), None);
    }

    /// A quote of unused PCRs does not prove the lines of a log that has no digests for its bank.
    #[test]
    fn quotes_need_digests_of_their_bank() {
        let selection = vec![(Bank::Sha384, vec![WORDS, BYTES])];
        let zeros = vec![0; 2 * Bank::Sha384.size()];
        let quote =
            Quote { nonce: vec![1], digest: Bank::Sha256.digest(&zeros), selection, by: Bank::Sha256 };
        let why = unlike_quote(&log(), &quote, &[1], None).unwrap();
        assert!(why.contains("sha384, for which the log has no digests"), "{why}");
    }

    #[test]
    fn a_log_that_agrees_with_everything_is_good() {
        let policy = "# what we boot\n".to_owned() + &lines(&log()).replace("http://h/", "http://*/");
        assert!(matches!(verdict(&log(), Some(&log()), Some(&policy)), Verdict::Good(_)));
    }

    #[test]
    fn what_was_done_to_a_log_is_told() {
        let removed = refusal(&spoiled(|events| drop(events.remove(5))), None, None);
        assert!(
            removed.contains("PCR 9 holds sha1:") && removed.ends_with("edited or is missing"),
            "{removed}"
        );
        let added = spoiled(|events| events.insert(6, events[5].clone()));
        assert!(refusal(&added, None, None).contains("kernel: live/vmlinuz, 8 bytes, sha256:01) was added"));
        let swapped = refusal(&spoiled(|events| events.swap(5, 6)), None, None);
        assert!(swapped.contains("changed places"), "{swapped}");
        let digest = refusal(&spoiled(|events| events[5].digests[1].1[0] ^= 1), None, None);
        assert!(digest.contains("PCR 9 holds sha256:"), "{digest}");
    }

    #[test]
    fn a_line_that_was_edited_is_not_what_was_extended() {
        for (event, from, to) in [
            (6, "initrd: live", "initrd: love"),
            (2, "inetboot agent", "inetboot aGent"),
            (5, "inetboot kernel", "inetboat kernel"),
        ] {
            let edited = spoiled(|events| {
                let text = events[event].text().unwrap().replace(from, to) + "\0";
                events[event].data = text.into_bytes();
            });
            assert!(refusal(&edited, None, None).contains("was edited"), "{to}");
        }
        assert!(refusal(&spoiled(|events| events[0].data[0] = 1), None, None).contains("was edited"));
    }

    /// A line that was never extended proves nothing, though its digest is right and the log replays.
    #[test]
    fn lines_that_were_not_extended() {
        let forged = spoiled(|events| {
            for event in events.iter_mut().skip(2) {
                *event = Event { pcr: PcrField::Unused(9), kind: NO_ACTION, ..event.clone() };
            }
        });
        let pcrs = file(pcrs::encode(&replay(&forged)).as_bytes());
        let policy = file(lines(&log()).as_bytes());
        let expect = file(log().encode());
        for against in [
            Against { policy: Some(policy.path().to_owned()), ..Against::default() },
            Against { expect: Some(expect.path().to_owned()), ..Against::default() },
        ] {
            let against = Against { pcrs: Some(pcrs.path().to_owned()), ..against };
            let verdict = verify(&forged, &against).unwrap();
            assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
        }
    }

    #[test]
    fn the_first_unexpected_line_is_told() {
        let mut other = log().first(7);
        other.push(Statement::words(Topic::Initrd, "live/other, 9 bytes, sha256:02").event(&other.banks()));
        let why = refusal(&log(), Some(&other), None);
        assert!(
            why.contains("says \"inetboot initrd: live/initrd")
                && why.contains("\"inetboot initrd: live/other"),
            "{why}"
        );
        assert!(refusal(&log(), Some(&log().first(7)), None).ends_with("which is not expected"));
        let policy = lines(&log());
        let other = policy.replace("sha256:01", "sha256:ff");
        assert!(refusal(&log(), None, Some(&other)).contains("does not know \"inetboot kernel"));
        let more = policy + "inetboot overlay: *\n";
        assert_eq!(refusal(&log(), None, Some(&more)), "the log says nothing of the overlay");
    }

    /// A policy made of a log's own lines allows that log, whatever is in its addresses.
    #[test]
    fn a_log_matches_the_policy_made_of_it() {
        let mut log = EventLog::agile(&[Bank::Sha256]);
        for (what, says) in [
            (Topic::Agent, "1.0, 3 bytes, sha256:00"),
            (Topic::Arguments, "netdir=http://[fd00::1]/x.iso?a=b ip=[fd00::2]::[fd00::1]:64::eth0:none"),
        ] {
            log.push(Statement::words(what, says).event(&log.banks()));
        }
        assert_eq!(outside(&log, &lines(&log)).unwrap(), None);
        let other = lines(&log).replace("x.iso?a", "x?iso?a");
        assert!(outside(&log, &other).unwrap().is_some(), "a question mark stands for itself");
    }

    /// A file that `tests/fixtures/tpm/make` made.
    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tpm").join(name)
    }

    #[test]
    fn logs_of_machines_are_continued_where_their_firmware_stopped() {
        for (name, banks) in [("seabios-1.2", 1), ("seabios-2.0", 2), ("ovmf-2.0", 2)] {
            let log = read(&fixture(&format!("{name}.eventlog"))).unwrap();
            assert_eq!((log.banks().len(), altered(&log)), (banks, None), "{name}");
            let ours = log.events().iter().position(|event| Statement::of_event(event).is_some()).unwrap();
            assert!(ours > 1 && log.first(ours).events() == &log.events()[..ours], "{name}");
            let last = Statement::of_event(log.events().last().unwrap());
            assert_eq!(last.unwrap().text, "accounts for PCR 8 and 9", "{name}");
        }
    }

    #[test]
    fn a_log_alone_and_nonsense_beside_it_prove_nothing() {
        assert!(verify(&log(), &Against::default()).is_err());
        let nonsense = file(b"nonsense");
        let against = Against { pcrs: Some(nonsense.path().to_owned()), ..Against::default() };
        assert!(verify(&log(), &against).is_err());
        assert!(refusal(&log().first(3), None, None).contains("PCR 8 holds"));
    }

    #[test]
    fn quoted_values_have_to_be_those_of_the_log() {
        let signed = |nonce: &str| Signed {
            message: fixture("ecdsa.message"),
            signature: fixture("ecdsa.signature"),
            key: fixture("ecdsa.pub"),
            nonce: nonce.into(),
        };
        let against = |nonce, pcrs| Against { quote: Some(signed(nonce)), pcrs, ..Against::default() };
        let mut log = EventLog::agile(&[Bank::Sha256]);
        let refused = |log: &EventLog, against: &Against| match verify(log, against).unwrap() {
            Verdict::Refused(why) => why,
            good => panic!("{good:?}"),
        };
        assert!(refused(&log, &against("00", None)).contains("the nonce c0ffee"));
        assert!(
            refused(&log, &against("c0ffee", None)).contains("bank sha1, for which the log has no digests")
        );

        log = EventLog::agile(&[Bank::Sha1, Bank::Sha256]);
        assert!(refused(&log, &against("c0ffee", None)).contains("does not replay to what was quoted"));
        let why = refused(&log, &against("c0ffee", Some(fixture("values"))));
        assert!(why.contains("PCR 8 holds sha256:09e02bff"), "{why}");
    }
}
