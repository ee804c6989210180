//! Places that have the same image, and the patience to go on while any of them may deliver.
//!
//! The fastest place is asked; with several requests under way the others get a share. A place that
//! fails rests and is tried again later. A piece is checked before it is delivered: a place that sent
//! wrong bytes is named, and asked again only when there is no other. Without an index pieces cannot be
//! checked, so a further place is used only where it has the version of the first.

use crate::base::failure::chain;
use crate::base::lock::lock;
use crate::base::{console, thread};
use crate::formats::index::{Form, Place};
use crate::formats::pieces::{Pieces, hex};
use crate::formats::receipt::Report;
use crate::formats::recipe::{Condemned, MirrorRecord};
use crate::formats::unpack;
use crate::formats::url::Url;
use crate::formats::version::Version;
use crate::source::fault::{Fault, ImageFault, Refusal, SourceError, WireFault};
use crate::source::http::{Client, Http, Opened, Peek, SILENCE, pause};
use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// An outage shorter than this is not worth a line.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// The time between two reports of a longer one.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// The time that a place may be silent while another could be asked.
const HURRY: Duration = Duration::from_secs(3);

/// The longest rest of a place that failed again and again.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The time for the others, once the first place has answered at the start.
const GRACE: Duration = Duration::from_millis(150);

/// The rate that a place is credited with before it has delivered, in bytes a second; earlier places
/// more.
const UNTRIED: f64 = 1e6;

/// A packed piece may be a little longer than the piece.
const PACKING: u64 = 64 * 1024;

/// The time to go on without a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Give up after this long. For the first life, which can say why and start over.
    Bounded(Duration),
    /// Never give up: the root file system must not see an error while its bytes may come back.
    Endless,
}

/// The places of one image.
#[derive(Debug)]
pub struct Mirrors {
    pieces: Pieces,
    list: Vec<Mirror>,
    patience: Patience,
    outage: Mutex<Outage>,
    /// The image was closed: requests end without a further try.
    closed: AtomicBool,
}

#[derive(Debug)]
pub struct Mirror {
    place: Place,
    client: Client,
    /// The version that the file there has to have.
    version: Option<Version>,
    http: Mutex<Option<Arc<Http>>>,
    state: Mutex<State>,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes a second: a guess until it has delivered, then a moving average.
    rate: f64,
    delivered: bool,
    /// Requests under way.
    busy: u32,
    /// Failures since it last delivered.
    strikes: usize,
    rests_until: Option<Instant>,
    /// Its last failure may pass.
    passing: bool,
    /// The reason to ask it only when there is no other.
    condemned: Option<String>,
}

/// The order of preference, the least first. Among equals the faster place is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It failed. One that failed less often is preferred, so that each gets its turn.
    Resting {
        strikes: Reverse<usize>,
        is_honest: bool,
    },
    /// It sent wrong bytes. Its pieces are checked like all others.
    Condemned,
    Ready,
}

impl State {
    fn standing(&self, now: Instant) -> Standing {
        match (&self.rests_until, &self.condemned) {
            (Some(until), condemned) if *until > now => {
                Standing::Resting { strikes: Reverse(self.strikes), is_honest: condemned.is_none() }
            }
            (_, Some(_)) => Standing::Condemned,
            (_, None) => Standing::Ready,
        }
    }

    /// The standing, and the bytes a second that one more request may expect.
    fn rank(&self, now: Instant) -> (Standing, f64) {
        (self.standing(now), self.rate / f64::from(self.busy + 1))
    }
}

/// The time in which no place delivers, shared by all readers, so that it is reported once.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    reported: Option<Instant>,
    reason: Option<String>,
}

impl Mirror {
    /// A place as the recipe has it; `http` is the file there, where it was opened already.
    pub fn new(record: &MirrorRecord, client: &Client, http: Option<Http>) -> Self {
        Self {
            place: record.place.clone(),
            client: client.clone(),
            version: record.version.clone(),
            http: Mutex::new(http.map(Arc::new)),
            state: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    pub fn url(&self) -> &Url {
        self.place.address()
    }

    /// The version of the file there: the one it has to have, or the one it was found to have.
    pub fn version(&self) -> Option<Version> {
        let found = || lock(&self.http).as_ref().map(|http| http.version().clone());
        self.version.clone().or_else(found)
    }
}

/// The place that is asked next. While it lives, the request counts as one under way there.
struct Turn<'a> {
    number: usize,
    mirror: &'a Mirror,
}

impl<'a> Turn<'a> {
    fn new(number: usize, mirror: &'a Mirror) -> Self {
        lock(&mirror.state).busy += 1;
        Self { number, mirror }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.mirror.state).busy -= 1;
    }
}

/// A request to one place, which may be silent for as long as `silence`.
#[derive(Clone, Copy)]
struct Request<'a> {
    number: usize,
    mirror: &'a Mirror,
    silence: Duration,
}

/// The places that the bytes of a piece come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    None,
    One(usize),
    Several,
}

impl Origin {
    fn and(self, number: usize) -> Self {
        match self {
            Self::None => Self::One(number),
            Self::One(other) if other == number => self,
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

/// The beginning of a piece: its bytes so far.
struct PieceInProgress {
    /// As long as the piece; empty where nothing of it has arrived.
    bytes: Arc<[u8]>,
    filled: usize,
    from: Origin,
}

impl PieceInProgress {
    fn nothing() -> Self {
        Self { bytes: Arc::new([]), filled: 0, from: Origin::None }
    }

    /// The part that is missing still, of a piece of `size` bytes.
    fn rest(&mut self, size: u64) -> &mut [u8] {
        if self.filled == 0 {
            self.bytes = std::iter::repeat_n(0, size as usize).collect();
        }
        // Nothing else refers to it before it is complete.
        Arc::get_mut(&mut self.bytes).and_then(|bytes| bytes.get_mut(self.filled..)).unwrap_or_default()
    }
}

/// The state of a fetch after a request.
struct Progress {
    /// Pieces that were not delivered, and the beginning of the first of them.
    rest: Range<u64>,
    begun: PieceInProgress,
    /// Bytes that this request brought.
    received: u64,
    outcome: Result<(), Fault>,
}

/// The receiver of a piece that arrived and was checked.
pub type Deliver<'a> = &'a mut dyn FnMut(u64, Arc<[u8]>);

impl Mirrors {
    /// The image of `pieces`, at the places in `list`; at least one.
    pub fn new(pieces: Pieces, list: Vec<Mirror>, patience: Patience) -> Self {
        for (order, mirror) in list.iter().enumerate() {
            lock(&mirror.state).rate = UNTRIED / (1.0 + order as f64);
        }
        Self { pieces, list, patience, outage: Mutex::default(), closed: AtomicBool::new(false) }
    }

    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    pub fn list(&self) -> &[Mirror] {
        &self.list
    }

    /// Begin no further request: the image is not needed any more.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// A name for this version of the image, for a store of pieces without digests; `None` where the
    /// server says too little to tell one version from the next.
    pub fn identity(&self) -> Option<String> {
        if self.pieces.are_checked() {
            return Some(String::new());
        }
        let first = self.list.first()?;
        let version = first.version()?;
        let tag = version.strong_etag().or(version.modified.as_deref())?;
        Some(format!("{} {} {tag}", first.url(), version.length))
    }

    /// The bytes that each place sent, and its faults.
    pub fn reports(&self) -> Vec<Report> {
        let report = |mirror: &Mirror| Report {
            url: mirror.url().to_string(),
            bytes: mirror.bytes.load(Relaxed),
            wrong: lock(&mirror.state).condemned.clone(),
        };
        self.list.iter().map(report).collect()
    }

    /// The places that do not have the image.
    pub fn condemned(&self) -> Vec<Condemned> {
        let condemned = |mirror: &Mirror| {
            let why = lock(&mirror.state).condemned.clone()?;
            Some(Condemned { url: mirror.url().clone(), why })
        };
        self.list.iter().filter_map(condemned).collect()
    }

    /// Ask this place last, for the reason that the first life found.
    pub fn condemn(&self, condemned: &Condemned) {
        for mirror in self.list.iter().filter(|mirror| *mirror.url() == condemned.url) {
            lock(&mirror.state).condemned = Some(condemned.why.clone());
        }
    }

    /// Open all places at once, so that the nearest is asked first. Returns soon after the first has
    /// answered; a place that does not answer is tried again when it is needed.
    pub fn race(self: &Arc<Self>) {
        if self.list.len() < 2 {
            return;
        }
        let (sender, answers) = mpsc::channel();
        for number in 0..self.list.len() {
            let (mirrors, sender) = (Arc::clone(self), sender.clone());
            let run = move || {
                // The race may be over: then no receiver is left for the answer.
                let _ = sender.send(mirrors.run_race(&mirrors.list[number]));
            };
            if thread::start("race", run).is_err() {
                return;
            }
        }
        drop(sender);

        if answers.iter().any(|answered| answered) {
            let end = Instant::now() + GRACE;
            while answers.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        }
    }

    /// Open one place, and credit it with the time that took. Returns whether it has the image.
    fn run_race(&self, mirror: &Mirror) -> bool {
        let start = Instant::now();
        let outcome = match &mirror.place {
            Place::File(url) => self.open(mirror, url, SILENCE).map(drop),
            Place::Store { .. } => Ok(()),
        };
        match &outcome {
            Ok(()) => lock(&mirror.state).rate /= start.elapsed().as_secs_f64().max(0.001),
            Err(fault) => self.strike(mirror, fault),
        }
        outcome.is_ok()
    }

    /// The file of a place, opened when it is first needed.
    fn open(&self, mirror: &Mirror, url: &Url, silence: Duration) -> Result<Arc<Http>, Fault> {
        if let Some(http) = &*lock(&mirror.http) {
            return Ok(Arc::clone(http));
        }
        let Peek { opened, is_elsewhere, .. } = mirror.client.probe(url, silence)?;
        let Opened::Ranged(http) = opened else {
            return Err(Refusal::NoRange.into());
        };
        self.check_version(mirror, http.version(), is_elsewhere)?;

        // Where pieces cannot be checked, the version of now is the one that the file has to keep, with the
        // marks that it had before: a server that left them out once must not lose them.
        let http = Arc::new(match &mirror.version {
            Some(was) => http.of_version(was),
            None if self.pieces.are_checked() => http.of_any_version(),
            None => http,
        });
        *lock(&mirror.http) = Some(Arc::clone(&http));
        Ok(http)
    }

    /// Refuse a file whose version cannot be, or is not known to be, the image's.
    fn check_version(&self, mirror: &Mirror, is: &Version, is_elsewhere: bool) -> Result<(), Fault> {
        let wanted = self.pieces.length();
        if is.length != wanted {
            return Err(ImageFault::Length { got: is.length, wanted }.into());
        }
        if let Some(was) = &mirror.version {
            let changed = || Refusal::Changed { was: was.to_string(), is: is.to_string() };
            return if was.allows(is, is_elsewhere) { Ok(()) } else { Err(changed().into()) };
        }
        if self.pieces.are_checked() {
            return Ok(());
        }
        // Equal lengths prove nothing: pieces of two releases would be mixed.
        match self.list.first().and_then(|first| first.version.as_ref()) {
            Some(first) if !first.is_proof_of(is) => {
                Err(ImageFault::Unproven { is: is.to_string(), wanted: first.to_string() }.into())
            }
            _ => Ok(()),
        }
    }

    /// Pieces `run` to `deliver`, each checked, in order, and as soon as it is here.
    pub fn fetch(&self, run: Range<u64>, deliver: Deliver<'_>) -> Result<(), SourceError> {
        let (mut rest, mut begun) = (run, PieceInProgress::nothing());
        let mut tries = 0;

        while !rest.is_empty() {
            let turn = self.choose();
            let before = rest.start;
            let progress = self.ask(&turn, rest, begun, deliver);
            (rest, begun) = (progress.rest, progress.begun);
            if rest.start > before {
                tries = 0;
            }

            if let Err(fault) = progress.outcome {
                self.strike(turn.mirror, &fault);
                if !self.endure(&fault) {
                    let bytes = self.pieces.bytes(rest);
                    let (count, start, url) = (bytes.end - bytes.start, bytes.start, turn.mirror.url());
                    let act = format!("cannot read {count} bytes at {start} of {url}");
                    return Err(SourceError::Request { act, fault });
                }
                drop(turn);
                if !self.is_any_ready() {
                    std::thread::sleep(pause(tries));
                }
                tries += 1;
            }
        }
        Ok(())
    }

    /// The place to ask now: the fastest that is ready, or else one that had wrong bytes, or else the one
    /// that failed least.
    fn choose(&self) -> Turn<'_> {
        let now = Instant::now();
        let ranks = self.list.iter().map(|mirror| lock(&mirror.state).rank(now)).enumerate();
        // Of equal places the first: the reverse is for `max_by`, which takes the last.
        let best = ranks.rev().max_by(|(_, (standing, rate)), (_, (other, theirs))| {
            standing.cmp(other).then(rate.partial_cmp(theirs).unwrap_or(Ordering::Equal))
        });
        let number = best.map_or(0, |(number, _)| number);
        Turn::new(number, &self.list[number])
    }

    fn is_any_ready(&self) -> bool {
        let now = Instant::now();
        let is_ready = |standing| !matches!(standing, Standing::Resting { .. });
        self.list.iter().any(|mirror| is_ready(lock(&mirror.state).standing(now)))
    }

    /// True where a place other than `number` could be asked.
    fn is_another_ready(&self, number: usize) -> bool {
        let now = Instant::now();
        self.list
            .iter()
            .enumerate()
            .any(|(other, mirror)| other != number && lock(&mirror.state).standing(now) == Standing::Ready)
    }

    /// One request for the rest of the run, or, of a store, for one piece of it.
    fn ask(
        &self,
        turn: &Turn<'_>,
        rest: Range<u64>,
        begun: PieceInProgress,
        deliver: Deliver<'_>,
    ) -> Progress {
        let Turn { number, mirror } = *turn;
        let silence = if self.is_another_ready(number) { HURRY } else { SILENCE };
        let request = Request { number, mirror, silence };

        let start = Instant::now();
        let progress = match &mirror.place {
            Place::File(url) => self.read_file(request, url, rest, begun, deliver),
            Place::Store { url, form } => self.read_store(request, url, *form, rest, deliver),
        };

        mirror.bytes.fetch_add(progress.received, Relaxed);
        if progress.received > 0 {
            let rate = progress.received as f64 / start.elapsed().as_secs_f64().max(0.000_1);
            let mut state = lock(&mirror.state);
            state.rate = if state.delivered { 0.7 * state.rate + 0.3 * rate } else { rate };
            state.delivered = true;
        }
        progress
    }

    /// Ask a file for the rest of the run, and go on in the middle of a piece where another place stopped.
    fn read_file(
        &self,
        request: Request<'_>,
        url: &Url,
        rest: Range<u64>,
        begun: PieceInProgress,
        deliver: Deliver<'_>,
    ) -> Progress {
        let Request { number, mirror, silence } = request;
        let mut progress = Progress { rest, begun, received: 0, outcome: Ok(()) };

        let bytes = self.pieces.bytes(progress.rest.clone());
        let from = bytes.start + progress.begun.filled as u64;
        let answer =
            self.open(mirror, url, silence).and_then(|http| http.range(from, bytes.end - from, silence));
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(fault) => return Progress { outcome: Err(fault), ..progress },
        };

        while !progress.rest.is_empty() && progress.outcome.is_ok() {
            let begun = &mut progress.begun;
            let (filled, outcome) = answer.fill(begun.rest(self.pieces.size(progress.rest.start)));
            begun.filled += filled;
            // A place that sent nothing has no part in a wrong piece.
            if filled > 0 {
                begun.from = begun.from.and(number);
            }
            progress.received += filled as u64;
            progress.outcome = match outcome {
                Ok(()) => {
                    let piece = std::mem::replace(begun, PieceInProgress::nothing());
                    self.complete(mirror, &mut progress.rest, piece, deliver)
                }
                failed => failed,
            };
        }
        progress
    }

    /// Ask a store for the first piece of the run, and unpack it.
    fn read_store(
        &self,
        request: Request<'_>,
        url: &Url,
        form: Form,
        mut rest: Range<u64>,
        deliver: Deliver<'_>,
    ) -> Progress {
        let Request { number, mirror, silence } = request;
        let piece = self.read_packed(mirror, url, form, rest.start, silence);
        let received = piece.as_ref().map(|bytes| bytes.len() as u64).unwrap_or_default();
        let outcome = piece.and_then(|bytes| {
            let filled = bytes.len();
            let piece = PieceInProgress { bytes: bytes.into(), filled, from: Origin::One(number) };
            self.complete(mirror, &mut rest, piece, deliver)
        });
        Progress { rest, begun: PieceInProgress::nothing(), received, outcome }
    }

    fn read_packed(
        &self,
        mirror: &Mirror,
        url: &Url,
        form: Form,
        number: u64,
        silence: Duration,
    ) -> Result<Vec<u8>, Fault> {
        let packed = || Fault::from(ImageFault::Packed { piece: number });
        let (_, digest) = self.pieces.digest(number).ok_or_else(packed)?;
        let size = self.pieces.size(number);
        let path = form.path(&hex(digest));
        let file = mirror.client.read_small(&format!("{url}{path}"), size + PACKING, silence)?;
        unpack::piece(form, &file.bytes, size as usize).ok_or_else(packed)
    }

    /// Check `piece`, the first of `rest`, and deliver it. A wrong one is thrown away.
    fn complete(
        &self,
        mirror: &Mirror,
        rest: &mut Range<u64>,
        piece: PieceInProgress,
        deliver: Deliver<'_>,
    ) -> Result<(), Fault> {
        let number = rest.start;
        if !self.pieces.accept(number, &piece.bytes) {
            let fault = ImageFault::Corrupt { piece: number };
            return Err(match piece.from {
                // Of several places that sent a wrong piece together, none is known to be the wrong one.
                Origin::Several => WireFault::Protocol(chain(&fault)).into(),
                Origin::None | Origin::One(_) => fault.into(),
            });
        }
        deliver(number, piece.bytes);
        rest.start += 1;

        let mut state = lock(&mirror.state);
        (state.strikes, state.rests_until) = (0, None);
        drop(state);
        self.recover();
        Ok(())
    }

    /// Note that a place has failed: it rests, and is named where it does not have the image.
    fn strike(&self, mirror: &Mirror, fault: &Fault) {
        let mut state = lock(&mirror.state);
        state.passing = fault.is_passing();
        state.strikes += 1;
        let rest = pause(state.strikes - 1) * 2_u32.saturating_pow(state.strikes.saturating_sub(4) as u32);
        // A place that only takes longer than we waited would be asked in vain again and again.
        let is_silent = matches!(fault, Fault::Wire(WireFault::Silence));
        let least = if is_silent { SILENCE } else { Duration::ZERO };
        state.rests_until = Some(Instant::now() + rest.clamp(least, LONGEST_REST));

        let why = chain(fault);
        match fault {
            Fault::Image(image) if state.condemned.is_none() => {
                let is_usable = matches!(image, ImageFault::Corrupt { .. } | ImageFault::Packed { .. });
                let verdict = if is_usable { "is asked last from now on" } else { "is not used" };
                console::say_loud(&format!("{} {verdict}: {why}", mirror.url()));
                state.condemned = Some(why);
            }
            _ if self.list.len() > 1 && state.strikes == 3 => {
                console::say_loud(&format!("{} rests: {why}", mirror.url()));
            }
            _ => {}
        }
    }

    /// Note and report that no place delivers. Returns whether to go on.
    fn endure(&self, fault: &Fault) -> bool {
        let mut outage = lock(&self.outage);
        let now = Instant::now();
        let since = *outage.since.get_or_insert(now);
        let reason = chain(fault);

        let due = outage.reported.map_or(now - since >= SAY_AFTER, |last| now - last >= SAY_EVERY);
        if due {
            outage.reported = Some(now);
            let lasted = (now - since).as_secs();
            console::say_loud(&format!("waiting for {} ({lasted} s so far): {reason}", self.name()));
        }
        outage.reason = Some(reason);

        let is_patient = match self.patience {
            Patience::Endless => true,
            Patience::Bounded(bound) => now - since < bound && self.may_pass(),
        };
        is_patient && !self.closed.load(Relaxed)
    }

    /// True where any place may deliver again by itself.
    fn may_pass(&self) -> bool {
        self.list.iter().any(|mirror| {
            let state = lock(&mirror.state);
            state.strikes == 0 || state.passing
        })
    }

    /// End the outage, and say so where it was reported.
    fn recover(&self) {
        let mut outage = lock(&self.outage);
        if let (Some(since), Some(_)) = (outage.since, outage.reported) {
            console::say_loud(&format!("{} is back after {} s", self.name(), since.elapsed().as_secs()));
        }
        *outage = Outage::default();
    }

    /// The reason of the outage, while it lasts.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.outage).reason.clone()
    }

    fn name(&self) -> String {
        match self.list.as_slice() {
            [first, others @ ..] if !others.is_empty() => {
                format!("{} and {} more", first.url(), others.len())
            }
            [only, ..] => only.url().to_string(),
            [] => String::new(),
        }
    }
}

impl fmt::Display for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.first().and_then(|mirror| mirror.version.as_ref()) {
            Some(version) => write!(f, "{} ({version})", self.name()),
            None => write!(f, "{} ({} bytes)", self.name(), self.pieces.length()),
        }
    }
}
