//! A file on a web server, read by ranges (RFC 9110, sections 13 and 14).
//!
//! The file is pinned when it is opened: its length and validator are compared on every answer,
//! so that an image that is replaced while we boot from it is noticed rather than mixed. Bytes
//! that arrived before a connection broke are kept; the retry asks for the rest.

use super::Source;
use super::tls::{self, CaError, TlsFault};
use super::wire::Wire;
use crate::config::Access;
use crate::console;
use crate::failure::{Explain, chain};
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use ureq::http::{Response, StatusCode};
use ureq::{Body, ResponseExt};

/// A server that says nothing for this long is not going to.
const SILENCE: Duration = Duration::from_secs(10);

/// Pauses between tries; the last one repeats.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// An outage shorter than this is not worth a line.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// How often a longer one is said.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// Redirects before we believe in a loop.
const REDIRECTS: u32 = 5;

/// How long to go on when a server does not deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Give up after this long without a byte. For the first life, which can say why and start over.
    Bounded(Duration),
    /// Never: the root file system must not see an error while its bytes may come back.
    Endless,
}

/// What identifies one version of the file on the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// How long it is.
    pub length: u64,
    /// Its entity tag, as sent.
    pub etag: Option<String>,
    /// When it was modified, as sent.
    pub modified: Option<String>,
}

impl Version {
    fn of(headers: &HeaderMap, length: u64) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { length, etag: text(ETAG), modified: text(LAST_MODIFIED) }
    }

    /// Only a strong entity tag may be used with If-Range (RFC 9110, 13.1.5).
    fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }

    /// Whether `other` may be the same file. Servers leave out what they do not know.
    fn agrees(&self, other: &Self) -> bool {
        fn same(a: Option<&String>, b: Option<&String>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.length == other.length
            && same(self.etag.as_ref(), other.etag.as_ref())
            && same(self.modified.as_ref(), other.modified.as_ref())
    }

    /// Refuse `found` at `url` where it cannot be this version: the one the first life booted from.
    pub fn insist(&self, url: &str, found: &Self) -> Result<(), HttpError> {
        if self.agrees(found) {
            return Ok(());
        }
        let fault = Fault::Changed { was: self.clone(), is: found.to_string() };
        Err(HttpError::Request { act: format!("cannot go on with {url}"), fault })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.length)?;
        match (&self.etag, &self.modified) {
            (Some(tag), _) => write!(f, ", ETag {tag}"),
            (None, Some(date)) => write!(f, ", of {date}"),
            (None, None) => Ok(()),
        }
    }
}

/// What was being done, and what went wrong.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A request that failed for good.
    #[error("{act}")]
    Request {
        /// What was being done to which object.
        act: String,
        /// What went wrong.
        #[source]
        fault: Fault,
    },
    /// The CA certificates cannot be used.
    #[error(transparent)]
    Ca(CaError),
    /// `proxy=` cannot be used.
    #[error("proxy={proxy} cannot be used: {error}")]
    Proxy {
        /// As it was written.
        proxy: String,
        /// Why not.
        error: Box<ureq::Error>,
    },
    /// The image has to be read whole, and does not fit.
    #[error(
        "{url} is on a server that cannot serve ranges, and its {} do not fit into the {} of free memory",
        console::size(*length), console::size(*available)
    )]
    TooBig {
        /// The image.
        url: String,
        /// Its length.
        length: u64,
        /// What is free.
        available: u64,
    },
    /// The copy of the image in memory cannot be used.
    #[error("cannot use the copy of the image in memory")]
    Memory(#[source] io::Error),
}

/// What can go wrong with one request.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No such name.
    #[error("the name {host} was not found")]
    Name {
        /// The host.
        host: String,
    },
    /// Nobody listens there.
    #[error("the connection was refused")]
    Refused,
    /// The connection cannot be made, or broke.
    #[error("the connection failed")]
    Connection(#[source] io::Error),
    /// Nothing came.
    #[error("no answer within {} s", SILENCE.as_secs())]
    Silence,
    /// Less came than was announced.
    #[error("the connection was cut after {got} of {wanted} bytes")]
    Cut {
        /// What arrived.
        got: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// The server said no.
    #[error("the server said {0}")]
    Status(StatusCode),
    /// The certificate is not good.
    #[error(transparent)]
    Tls(TlsFault),
    /// Range is not honoured.
    #[error("the server does not serve ranges")]
    NoRange,
    /// Another range than the one asked for.
    #[error("the server sent {got:?} where bytes {first}-{last} were asked for")]
    WrongRange {
        /// Its Content-Range.
        got: String,
        /// The first byte asked for.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// The file is not the one that was opened.
    #[error("the image on the server has changed: it was {was}, it is {is}")]
    Changed {
        /// When we opened it.
        was: Version,
        /// Now, as far as the answer says.
        is: String,
    },
    /// A redirect that has lapsed; the original address knows better.
    #[error("the redirect has lapsed ({0})")]
    Lapsed(StatusCode),
    /// The server does not say how long the file is.
    #[error("the server does not say how long the image is")]
    NoLength,
    /// The file is empty.
    #[error("the image is empty")]
    Empty,
    /// Anything else in the protocol.
    #[error("{0}")]
    Protocol(String),
}

impl Fault {
    /// Whether the same request may succeed in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Name { .. }
            | Self::Refused
            | Self::Connection(_)
            | Self::Silence
            | Self::Cut { .. }
            | Self::WrongRange { .. }
            | Self::Lapsed(_)
            | Self::Protocol(_) => true,
            Self::Status(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
            Self::Tls(_) | Self::NoRange | Self::Changed { .. } | Self::NoLength | Self::Empty => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Name { .. } => "Check the name in netdir=, and that the name server (nameserver=) knows it",
            Self::Refused => "Check the port in netdir=, and that the web server runs",
            Self::Connection(_) | Self::Silence | Self::Cut { .. } => {
                "Check the address in netdir=, the route to it and any firewall between (proxy= for a proxy)"
            }
            Self::Status(status) => match status.as_u16() {
                404 | 410 => "Check the path in netdir=: the server has no such file",
                401 | 403 | 407 => "Make the file readable without a password, or check the path in netdir=",
                500..=599 => "Wait for the server to recover, or use another one",
                _ => "Check netdir= with curl -I",
            },
            Self::Tls(fault) => fault.hint(),
            Self::NoRange | Self::WrongRange { .. } => {
                "Use a web server that supports Range requests, e.g. nginx"
            }
            Self::Changed { .. } => {
                "Put the old image back or boot again, and publish new images under new names"
            }
            Self::Lapsed(_) | Self::NoLength | Self::Protocol(_) => {
                "Check netdir= with curl -I, or use another server"
            }
            Self::Empty => "Check the file on the server",
        }
    }
}

impl Explain for HttpError {
    fn hint(&self) -> String {
        match self {
            Self::Request { fault, .. } => fault.hint().into(),
            Self::Ca(_) => {
                "Put the PEM file into the initramfs (mkinitramfs --add) and check inetboot.ca=".into()
            }
            Self::Proxy { .. } => "Write proxy=http://HOST:PORT".into(),
            Self::TooBig { .. } => {
                "Use a web server that supports Range requests, e.g. nginx, or add memory".into()
            }
            Self::Memory(_) => "Add memory, or use a web server that supports Range requests".into(),
        }
    }
}

/// A client: what all requests of one life share.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    wire: Arc<Wire>,
}

impl Client {
    /// A client that trusts `ca` (PEM) alone or Mozilla's roots, and counts on `wire`.
    pub fn new(access: &Access, ca: Option<&[u8]>, wire: Arc<Wire>) -> Result<Self, HttpError> {
        let proxy = match &access.proxy {
            None => None,
            Some(proxy) => Some(
                ureq::Proxy::new(proxy.as_str())
                    .map_err(|error| HttpError::Proxy { proxy: proxy.to_string(), error: Box::new(error) })?,
            ),
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("inetboot/", env!("CARGO_PKG_VERSION")))
            // A compressed range is no range of the image.
            .accept_encoding("identity")
            .max_redirects(REDIRECTS)
            // Not from the environment: the kernel puts unknown arguments there.
            .proxy(proxy)
            .tls_config(tls::settings(ca))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .max_idle_connections_per_host(16)
            .build()
            .new_agent();
        Ok(Self { agent, wire })
    }

    fn get(
        &self,
        url: &str,
        range: Option<(u64, u64)>,
        if_range: Option<&str>,
    ) -> Result<Response<Body>, Fault> {
        self.wire.request();
        let mut request = self.agent.get(url);
        if let Some((first, last)) = range {
            request = request.header(RANGE, format!("bytes={first}-{last}"));
        }
        if let Some(tag) = if_range {
            request = request.header(IF_RANGE, tag);
        }
        request.call().map_err(|error| fault(error, url))
    }
}

/// What opening an address found.
#[derive(Debug)]
pub enum Opened {
    /// A file that can be read by ranges.
    Ranged(Http),
    /// One that can only be read whole.
    Whole(Whole),
}

/// A file that can be read by ranges.
#[derive(Debug)]
pub struct Http {
    client: Client,
    url: String,
    /// Where the redirects led; asked first until it lapses.
    place: Mutex<String>,
    version: Version,
    patience: Patience,
    outage: Mutex<Outage>,
}

/// The state of "the server does not deliver", shared by all readers, so that it is said once.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    said: Option<Instant>,
    reason: Option<String>,
}

/// Open `url`: follow redirects, learn its length and version, and whether ranges work. Passing
/// troubles are retried for `budget`.
pub fn open(client: &Client, url: &str, patience: Patience, budget: Duration) -> Result<Opened, HttpError> {
    let deadline = Instant::now() + budget;
    let mut pauses = PAUSES.iter().chain(std::iter::repeat(&PAUSES[3]));
    loop {
        match probe(client, url, patience) {
            Ok(opened) => return Ok(opened),
            Err(fault) if fault.is_passing() && Instant::now() < deadline => {
                console::say(&format!("  {url}: {}; trying again", chain(&fault)));
                std::thread::sleep(*pauses.next().unwrap_or(&PAUSES[3]));
            }
            Err(fault) => {
                return Err(HttpError::Request { act: format!("cannot open {url}"), fault });
            }
        }
    }
}

fn probe(client: &Client, url: &str, patience: Patience) -> Result<Opened, Fault> {
    let response = client.get(url, Some((0, 0)), None)?;
    let place = response.get_uri().to_string();
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = ContentRange::of(response.headers());
            let Some(ContentRange { first: 0, total: Some(length), .. }) = range else {
                return Err(Fault::NoLength);
            };
            let version = Version::of(response.headers(), length);
            drain(response, &client.wire);
            Ok(Opened::Ranged(Http {
                client: client.clone(),
                url: url.to_owned(),
                place: Mutex::new(place),
                version,
                patience,
                outage: Mutex::default(),
            }))
        }
        // An empty file has no byte 0.
        StatusCode::RANGE_NOT_SATISFIABLE => Err(Fault::Empty),
        StatusCode::OK => {
            let length = response
                .headers()
                .get(CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .ok_or(Fault::NoLength)?;
            if length == 0 {
                return Err(Fault::Empty);
            }
            let version = Version::of(response.headers(), length);
            Ok(Opened::Whole(Whole { client: client.clone(), url: url.to_owned(), version }))
        }
        status => Err(Fault::Status(status)),
    }
}

/// Read a small body to its end, so that the connection can be used again.
fn drain(mut response: Response<Body>, wire: &Wire) {
    let mut sink = [0; 512];
    if let Ok(length) = response.body_mut().as_reader().read(&mut sink) {
        wire.received(length as u64);
        let _ = response.body_mut().as_reader().read(&mut sink);
    }
}

impl Http {
    /// The file's version when it was opened.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// One request for the rest of `buffer` at `offset`; says how much of it was filled.
    fn fetch(&self, offset: u64, buffer: &mut [u8]) -> (usize, Result<(), Fault>) {
        let place = lock(&self.place).clone();
        let wanted = buffer.len() as u64;
        let range = (offset, offset + wanted - 1);
        let response = match self.client.get(&place, Some(range), self.version.strong_etag()) {
            Ok(response) => response,
            Err(fault) => return (0, Err(fault)),
        };
        if let Err(fault) = self.check(&response, range) {
            let redirected = place != self.url;
            return match fault {
                // Addresses behind a redirect may live for minutes only.
                Fault::Status(status) if status.is_client_error() && redirected => {
                    lock(&self.place).clone_from(&self.url);
                    (0, Err(Fault::Lapsed(status)))
                }
                fault => (0, Err(fault)),
            };
        }
        if place == self.url {
            *lock(&self.place) = response.get_uri().to_string();
        }
        let (got, outcome) = read_body(response, buffer, &place);
        self.client.wire.received(got as u64);
        (got, outcome)
    }

    /// Whether the answer is the range that was asked for, of the file that was opened.
    fn check(&self, response: &Response<Body>, (first, last): (u64, u64)) -> Result<(), Fault> {
        let changed = |is: String| Fault::Changed { was: self.version.clone(), is };
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let got = ContentRange::of(response.headers());
                let wrong = || Fault::WrongRange {
                    got: header_text(response.headers(), &CONTENT_RANGE),
                    first,
                    last,
                };
                let got = got.ok_or_else(wrong)?;
                let total = got.total.unwrap_or(self.version.length);
                let version = Version::of(response.headers(), total);
                if !self.version.agrees(&version) {
                    return Err(changed(version.to_string()));
                }
                if (got.first, got.last) == (first, last) { Ok(()) } else { Err(wrong()) }
            }
            // If-Range did not match, or the server has forgotten what ranges are.
            StatusCode::OK => {
                let length = header_text(response.headers(), &CONTENT_LENGTH).parse().unwrap_or_default();
                let version = Version::of(response.headers(), length);
                if self.version.agrees(&version) {
                    Err(Fault::NoRange)
                } else {
                    Err(changed(version.to_string()))
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(changed("shorter".into())),
            status => Err(Fault::Status(status)),
        }
    }

    /// Note and say that the server does not deliver; whether to go on.
    fn endure(&self, fault: &Fault) -> bool {
        let mut outage = lock(&self.outage);
        let now = Instant::now();
        let since = *outage.since.get_or_insert(now);
        let reason = chain(fault);
        let due = outage.said.map_or(now - since >= SAY_AFTER, |said| now - said >= SAY_EVERY);
        if due {
            outage.said = Some(now);
            let lasted = (now - since).as_secs();
            console::say_loud(&format!("waiting for {} ({lasted} s so far): {reason}", self.url));
        }
        outage.reason = Some(reason);
        match self.patience {
            Patience::Endless => true,
            Patience::Bounded(bound) => fault.is_passing() && now - since < bound,
        }
    }

    /// Note, and where the outage was said also say, that it delivers.
    fn recover(&self) {
        let mut outage = lock(&self.outage);
        if let (Some(since), Some(_)) = (outage.since, outage.said) {
            console::say_loud(&format!("{} is back after {} s", self.url, since.elapsed().as_secs()));
        }
        *outage = Outage::default();
    }
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.url, self.version)
    }
}

impl Source for Http {
    fn len(&self) -> u64 {
        self.version.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), HttpError> {
        let mut filled = 0;
        let mut pauses = PAUSES.iter();
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let (got, outcome) = self.fetch(at, &mut buffer[filled..]);
            filled += got;
            if got > 0 {
                self.recover();
                pauses = PAUSES.iter();
            }
            if let Err(fault) = outcome {
                if !self.endure(&fault) {
                    let act = format!("cannot read {} bytes at {at} of {}", buffer.len() - filled, self.url);
                    return Err(HttpError::Request { act, fault });
                }
                std::thread::sleep(*pauses.next().unwrap_or(&PAUSES[3]));
            }
        }
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.outage).reason.clone()
    }
}

/// Fill `buffer` from the body; says how much was filled.
fn read_body(response: Response<Body>, buffer: &mut [u8], url: &str) -> (usize, Result<(), Fault>) {
    let wanted = buffer.len() as u64;
    // One more than wanted: the reader has to see the end for the connection to be used again.
    let mut reader = response.into_body().into_with_config().limit(wanted + 1).reader();
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, Err(Fault::Cut { got: filled as u64, wanted })),
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let fault = match fault(ureq::Error::from(error), url) {
                    Fault::Connection(_) | Fault::Protocol(_) => Fault::Cut { got: filled as u64, wanted },
                    other => other,
                };
                return (filled, Err(fault));
            }
        }
    }
    let _ = reader.read(&mut [0]);
    (filled, Ok(()))
}

/// A file that can only be read from its beginning.
#[derive(Debug)]
pub struct Whole {
    client: Client,
    url: String,
    version: Version,
}

impl Whole {
    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Which version it is.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// How long it is.
    pub fn length(&self) -> u64 {
        self.version.length
    }

    /// Read all of it into `sink`. A cut connection cannot be continued without ranges: the
    /// caller starts over with an empty sink.
    pub fn read(&self, sink: &mut dyn io::Write) -> Result<(), HttpError> {
        let failed = |fault| HttpError::Request { act: format!("cannot read all of {}", self.url), fault };
        let response = self.client.get(&self.url, None, None).map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(failed(Fault::Status(response.status())));
        }
        let mut reader = response.into_body().into_with_config().limit(self.length() + 1).reader();
        let mut progress = console::Progress::new("image", self.length());
        let mut buffer = vec![0; 1 << 18];
        let mut got = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    sink.write_all(&buffer[..length]).map_err(HttpError::Memory)?;
                    got += length as u64;
                    self.client.wire.received(length as u64);
                    progress.add(length as u64);
                }
                Err(error) => return Err(failed(fault(ureq::Error::from(error), &self.url))),
            }
        }
        progress.finish();
        if got == self.length() { Ok(()) } else { Err(failed(Fault::Cut { got, wanted: self.length() })) }
    }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(CONTENT_RANGE)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        Some(Self { first: first.parse().ok()?, last: last.parse().ok()?, total })
    }
}

fn header_text(headers: &HeaderMap, name: &ureq::http::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What an error of ureq's means.
fn fault(error: ureq::Error, url: &str) -> Fault {
    match error {
        ureq::Error::HostNotFound => Fault::Name { host: host(url) },
        ureq::Error::Timeout(_) => Fault::Silence,
        ureq::Error::Rustls(error) => Fault::Tls(TlsFault::from(&error)),
        ureq::Error::Io(error) => io_fault(error, url),
        ureq::Error::StatusCode(code) => {
            Fault::Status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        }
        other => Fault::Protocol(other.to_string()),
    }
}

fn io_fault(error: io::Error, url: &str) -> Fault {
    // rustls' errors reach us wrapped by the stream that carried the handshake.
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Fault::Tls(TlsFault::from(error));
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Fault::Silence,
        // The standard library has no kind of its own for what getaddrinfo says.
        _ if error.to_string().starts_with("failed to lookup address") => Fault::Name { host: host(url) },
        _ => Fault::Connection(error),
    }
}

fn host(url: &str) -> String {
    url.parse::<ureq::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_strictly() {
        let range = ContentRange::parse("bytes 0-99/1234").unwrap();
        assert_eq!((range.first, range.last, range.total), (0, 99, Some(1234)));
        assert_eq!(ContentRange::parse("bytes 5-9/*").unwrap().total, None);
        for bad in ["", "bytes */10", "bytes 0-99", "0-99/1234", "bytes a-b/c"] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_both_say_can_disagree() {
        let version = |etag: Option<&str>, modified: Option<&str>| Version {
            length: 5,
            etag: etag.map(str::to_owned),
            modified: modified.map(str::to_owned),
        };
        assert!(version(Some("\"a\""), None).agrees(&version(None, Some("Monday"))));
        assert!(!version(Some("\"a\""), None).agrees(&version(Some("\"b\""), None)));
        assert!(!version(None, Some("Monday")).agrees(&version(None, Some("Tuesday"))));
        assert!(!version(None, None).agrees(&Version { length: 6, ..Version::default() }));
        assert_eq!(version(Some("W/\"a\""), None).strong_etag(), None);
    }
}
