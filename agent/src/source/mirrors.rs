//! Places that have the same image, and the patience to go on while any of them may deliver.
//!
//! The one that has delivered best is asked; with several requests under way the others get a
//! share. A place that fails rests and is tried again later. A piece is checked before anybody
//! sees it: a place with wrong bytes is named, and asked again only when there is no other.

use crate::base::console;
use crate::base::failure::chain;
use crate::base::lock::lock;
use crate::formats::index::{Form, Place};
use crate::formats::pieces::{Pieces, hex};
use crate::formats::receipt::Report;
use crate::formats::unpack;
use crate::formats::version::Version;
use crate::source::fault::{Fault, SourceError};
use crate::source::http::{Client, Http, Opened, SILENCE, pause};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// An outage shorter than this is not worth a line.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// How often a longer one is said.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// How long a place may be silent while another could be asked.
const HURRY: Duration = Duration::from_secs(3);

/// How long a place rests that failed again and again.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// How long the others may take, once the first place has answered at the start.
const GRACE: Duration = Duration::from_millis(150);

/// What a place is thought to deliver before it was tried, in bytes a second; earlier ones more.
const UNTRIED: f64 = 1e6;

/// A packed piece may be a little longer than the piece.
const PACKING: u64 = 64 * 1024;

/// How long to go on when nobody delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Give up after this long without a byte. For the first life, which can say why and start over.
    Bounded(Duration),
    /// Never: the root file system must not see an error while its bytes may come back.
    Endless,
}

/// The places of one image.
#[derive(Debug)]
pub struct Mirrors {
    pieces: Pieces,
    list: Vec<Mirror>,
    patience: Patience,
    outage: Mutex<Outage>,
}

/// One place.
#[derive(Debug)]
pub struct Mirror {
    place: Place,
    client: Client,
    /// Which version of the file it has to have.
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
    /// Whether its last failure may pass.
    passing: bool,
    /// Why it is asked only when there is no other.
    condemned: Option<String>,
}

impl State {
    /// Whether it does not rest.
    fn is_ready(&self, now: Instant) -> bool {
        self.rests_until.is_none_or(|until| until <= now)
    }
}

/// The state of "nobody delivers", shared by all readers, so that it is said once.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    said: Option<Instant>,
    reason: Option<String>,
}

impl Mirror {
    /// A place that has yet to be looked at, or the file that was found there.
    pub fn new(place: Place, client: &Client, version: Option<Version>, http: Option<Http>) -> Self {
        Self {
            place,
            client: client.clone(),
            version,
            http: Mutex::new(http.map(Arc::new)),
            state: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        match &self.place {
            Place::File(url) | Place::Store { url, .. } => url,
        }
    }

    /// Which version of the file it has to have; found out where it was looked at.
    pub fn version(&self) -> Option<Version> {
        let found = || lock(&self.http).as_ref().map(|http| http.version().clone());
        self.version.clone().or_else(found)
    }

    /// The file there, looked at when it is first needed.
    fn file(&self, url: &str, pieces: &Pieces, silence: Duration) -> Result<Arc<Http>, Fault> {
        if let Some(http) = &*lock(&self.http) {
            return Ok(Arc::clone(http));
        }
        let Opened::Ranged(http) = self.client.probe(url, silence)?.opened else {
            return Err(Fault::NoRange);
        };
        let got = http.version().length;
        if got != pieces.length() {
            return Err(Fault::Length { got, wanted: pieces.length() });
        }
        let http = match &self.version {
            None if pieces.are_checked() => http.of_any_version(),
            // Nothing else tells one image from the next: what it is now it has to stay.
            None => http,
            Some(version) if version.agrees(http.version()) => http,
            Some(version) => {
                return Err(Fault::Changed { was: version.clone(), is: http.version().to_string() });
            }
        };
        let http = Arc::new(http);
        *lock(&self.http) = Some(Arc::clone(&http));
        Ok(http)
    }
}

/// A run of pieces under way.
struct Draft {
    /// The piece that is being filled, and the one that is not wanted any more.
    piece: u64,
    end: u64,
    buffer: Vec<u8>,
    filled: usize,
    /// Who delivered the beginning of the piece, and whether somebody else went on.
    by: Option<usize>,
    mixed: bool,
}

/// What becomes of a piece that arrived and was checked.
pub type Deliver<'a> = &'a mut dyn FnMut(u64, Arc<[u8]>);

impl Mirrors {
    /// The image of `pieces`, which all of `list` have; at least one.
    pub fn new(pieces: Pieces, list: Vec<Mirror>, patience: Patience) -> Self {
        for (order, mirror) in list.iter().enumerate() {
            lock(&mirror.state).rate = UNTRIED / (1.0 + order as f64);
        }
        Self { pieces, list, patience, outage: Mutex::default() }
    }

    /// The image's pieces.
    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// The places.
    pub fn list(&self) -> &[Mirror] {
        &self.list
    }

    /// Which image this is, for whoever keeps pieces that have no digests; nothing where the server
    /// says too little to tell one image from the next.
    pub fn identity(&self) -> Option<String> {
        if self.pieces.are_checked() {
            return Some(String::new());
        }
        let first = self.list.first()?;
        let version = first.version()?;
        let tag = version.strong_etag().or(version.modified.as_deref())?;
        Some(format!("{} {} {tag}", first.url(), version.length))
    }

    /// What each place did.
    pub fn reports(&self) -> Vec<Report> {
        let report = |mirror: &Mirror| Report {
            url: mirror.url().to_owned(),
            bytes: mirror.bytes.load(Ordering::Relaxed),
            wrong: lock(&mirror.state).condemned.clone(),
        };
        self.list.iter().map(report).collect()
    }

    /// Ask the place at `url` last, for the reason that the first life found.
    pub fn condemn(&self, url: &str, why: &str) {
        for mirror in self.list.iter().filter(|mirror| mirror.url() == url) {
            lock(&mirror.state).condemned = Some(why.to_owned());
        }
    }

    /// Look at all places at once, so that the nearest is asked first. Returns soon after the
    /// first has answered; those that do not answer are found out when they are needed.
    pub fn race(self: &Arc<Self>) {
        if self.list.len() < 2 {
            return;
        }
        let (sender, answers) = mpsc::channel();
        for number in 0..self.list.len() {
            let (mirrors, sender) = (Arc::clone(self), sender.clone());
            let look = move || {
                let mirror = &mirrors.list[number];
                let start = Instant::now();
                let outcome = match &mirror.place {
                    Place::File(url) => mirror.file(url, &mirrors.pieces, SILENCE).map(drop),
                    Place::Store { .. } => Ok(()),
                };
                match &outcome {
                    Ok(()) => lock(&mirror.state).rate /= start.elapsed().as_secs_f64().max(0.001),
                    Err(fault) => mirrors.strike(mirror, fault),
                }
                // Nobody listens any more when the race is over.
                let _ = sender.send(outcome.is_ok());
            };
            if std::thread::Builder::new().name("race".into()).spawn(look).is_err() {
                return;
            }
        }
        drop(sender);
        if answers.iter().any(|good| good) {
            let end = Instant::now() + GRACE;
            while answers.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        }
    }

    /// Pieces `run` to `deliver`, each checked, in order, and as soon as it is here.
    pub fn fetch(&self, run: Range<u64>, deliver: Deliver<'_>) -> Result<(), SourceError> {
        let mut draft =
            Draft { piece: run.start, end: run.end, buffer: Vec::new(), filled: 0, by: None, mixed: false };
        let mut tries = 0;
        while draft.piece < draft.end {
            let (number, mirror) = self.choose();
            let before = draft.piece;
            let outcome = self.advance(number, mirror, &mut draft, deliver);
            lock(&mirror.state).busy -= 1;
            if draft.piece > before {
                tries = 0;
            }
            if let Err(fault) = outcome {
                self.strike(mirror, &fault);
                if !self.endure(&fault) {
                    let bytes = self.pieces.bytes(draft.piece..draft.end);
                    let act = format!(
                        "cannot read {} bytes at {} of {}",
                        bytes.end - bytes.start,
                        bytes.start,
                        mirror.url()
                    );
                    return Err(SourceError::Request { act, fault });
                }
                if !self.somebody_is_ready() {
                    std::thread::sleep(pause(tries));
                }
                tries += 1;
            }
        }
        Ok(())
    }

    /// The place to ask now: the best of those that are ready, or else one that had wrong bytes
    /// (what it sends is checked like everything), or else the one that failed least.
    fn choose(&self) -> (usize, &Mirror) {
        let now = Instant::now();
        let mut best = (0, f64::MIN);
        for (number, mirror) in self.list.iter().enumerate() {
            let state = lock(&mirror.state);
            let mut worth = state.rate / f64::from(state.busy + 1);
            if state.condemned.is_some() {
                worth -= 1e11;
            }
            if !state.is_ready(now) {
                // Whoever is asked in vain has one strike more: each gets its turn.
                worth -= 1e12 * (1.0 + state.strikes as f64);
            }
            if worth > best.1 {
                best = (number, worth);
            }
        }
        let mirror = &self.list[best.0];
        lock(&mirror.state).busy += 1;
        (best.0, mirror)
    }

    fn somebody_is_ready(&self) -> bool {
        let now = Instant::now();
        self.list.iter().any(|mirror| lock(&mirror.state).is_ready(now))
    }

    /// Whether somebody other than place `number` would be asked next.
    fn another_is_ready(&self, number: usize) -> bool {
        let now = Instant::now();
        self.list.iter().enumerate().any(|(other, mirror)| {
            let state = lock(&mirror.state);
            other != number && state.condemned.is_none() && state.is_ready(now)
        })
    }

    /// One request to `mirror` for the rest of the run, or for one piece of it.
    fn advance(
        &self,
        number: usize,
        mirror: &Mirror,
        draft: &mut Draft,
        deliver: Deliver<'_>,
    ) -> Result<(), Fault> {
        let start = Instant::now();
        let silence = if self.another_is_ready(number) { HURRY } else { SILENCE };
        let mut got = 0;
        let outcome = match &mirror.place {
            Place::File(url) => self.read_file(number, mirror, (url, silence), draft, deliver, &mut got),
            Place::Store { url, form } => {
                let piece = self.stored(mirror, (url, silence), *form, draft.piece);
                piece.and_then(|piece| {
                    got = piece.len() as u64;
                    (draft.filled, draft.by, draft.mixed) = (piece.len(), Some(number), false);
                    draft.buffer = piece;
                    self.settle(mirror, draft, deliver)
                })
            }
        };
        mirror.bytes.fetch_add(got, Ordering::Relaxed);
        if got > 0 {
            let rate = got as f64 / start.elapsed().as_secs_f64().max(0.000_1);
            let mut state = lock(&mirror.state);
            state.rate = if state.delivered { 0.7 * state.rate + 0.3 * rate } else { rate };
            state.delivered = true;
        }
        outcome
    }

    fn read_file(
        &self,
        number: usize,
        mirror: &Mirror,
        (url, silence): (&str, Duration),
        draft: &mut Draft,
        deliver: Deliver<'_>,
        got: &mut u64,
    ) -> Result<(), Fault> {
        let http = mirror.file(url, &self.pieces, silence)?;
        let bytes = self.pieces.bytes(draft.piece..draft.end);
        let from = bytes.start + draft.filled as u64;
        let mut answer = http.range(from, bytes.end - from, silence)?;
        while draft.piece < draft.end {
            draft.mixed |= draft.by.is_some_and(|by| by != number);
            draft.by.get_or_insert(number);
            draft.buffer.resize(self.pieces.size(draft.piece) as usize, 0);
            let (filled, outcome) = answer.fill(draft.buffer.get_mut(draft.filled..).unwrap_or_default());
            draft.filled += filled;
            *got += filled as u64;
            outcome?;
            self.settle(mirror, draft, deliver)?;
        }
        Ok(())
    }

    /// The piece is complete: check and deliver it. A wrong one is thrown away.
    fn settle(&self, mirror: &Mirror, draft: &mut Draft, deliver: Deliver<'_>) -> Result<(), Fault> {
        let (good, mixed) = (self.pieces.accept(draft.piece, &draft.buffer), draft.mixed);
        (draft.filled, draft.by, draft.mixed) = (0, None, false);
        if !good {
            // Of two who delivered a wrong piece together nobody knows whose fault it is.
            let fault = Fault::Corrupt { piece: draft.piece };
            return Err(if mixed { Fault::Protocol(chain(&fault)) } else { fault });
        }
        deliver(draft.piece, Arc::from(draft.buffer.as_slice()));
        draft.piece += 1;
        {
            let mut state = lock(&mirror.state);
            (state.strikes, state.rests_until) = (0, None);
        }
        self.recover();
        Ok(())
    }

    /// Piece `number` from a store, unpacked.
    fn stored(
        &self,
        mirror: &Mirror,
        (url, silence): (&str, Duration),
        form: Form,
        number: u64,
    ) -> Result<Vec<u8>, Fault> {
        let packed = || Fault::Packed { piece: number };
        let (_, digest) = self.pieces.digest(number).ok_or_else(packed)?;
        let size = self.pieces.size(number);
        let path = form.path(&hex(digest));
        let bytes = mirror.client.read_small(&format!("{url}{path}"), size + PACKING, silence)?.0;
        unpack::piece(form, &bytes, size as usize).ok_or_else(packed)
    }

    fn strike(&self, mirror: &Mirror, fault: &Fault) {
        let mut state = lock(&mirror.state);
        state.passing = fault.is_passing();
        state.strikes += 1;
        let rest = pause(state.strikes - 1) * 2_u32.saturating_pow(state.strikes.saturating_sub(4) as u32);
        // One that only takes longer than we waited would be asked in vain again and again.
        let least = if matches!(fault, Fault::Silence) { SILENCE } else { Duration::ZERO };
        state.rests_until = Some(Instant::now() + rest.clamp(least, LONGEST_REST));
        if fault.is_proof() && state.condemned.is_none() {
            let why = chain(fault);
            console::say_loud(&format!("{} is asked last from now on: {why}", mirror.url()));
            state.condemned = Some(why);
        } else if self.list.len() > 1 && state.strikes == 3 {
            console::say_loud(&format!("{} rests: {}", mirror.url(), chain(fault)));
        }
    }

    /// Note and say that nobody delivers; whether to go on.
    fn endure(&self, fault: &Fault) -> bool {
        let mut outage = lock(&self.outage);
        let now = Instant::now();
        let since = *outage.since.get_or_insert(now);
        let reason = chain(fault);
        let due = outage.said.map_or(now - since >= SAY_AFTER, |said| now - said >= SAY_EVERY);
        if due {
            outage.said = Some(now);
            let lasted = (now - since).as_secs();
            console::say_loud(&format!("waiting for {} ({lasted} s so far): {reason}", self.name()));
        }
        outage.reason = Some(reason);
        match self.patience {
            Patience::Endless => true,
            Patience::Bounded(bound) => now - since < bound && self.may_pass(),
        }
    }

    /// Whether any place may deliver again by itself.
    fn may_pass(&self) -> bool {
        self.list.iter().any(|mirror| {
            let state = lock(&mirror.state);
            state.strikes == 0 || state.passing
        })
    }

    /// Note, and where the outage was said also say, that somebody delivers.
    fn recover(&self) {
        let mut outage = lock(&self.outage);
        if let (Some(since), Some(_)) = (outage.since, outage.said) {
            console::say_loud(&format!("{} is back after {} s", self.name(), since.elapsed().as_secs()));
        }
        *outage = Outage::default();
    }

    /// Why nobody delivers.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.outage).reason.clone()
    }

    fn name(&self) -> String {
        match self.list.as_slice() {
            [first, others @ ..] if !others.is_empty() => {
                format!("{} and {} more", first.url(), others.len())
            }
            [only, ..] => only.url().to_owned(),
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
