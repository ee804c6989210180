//! A file on a web server, read by ranges (RFC 9110, sections 13 and 14), by single requests without
//! patience. The caller decides whether to try again, and from which server (`mirrors.rs`).
//!
//! The file is pinned when it is opened: its length and validator are compared on every answer, so that
//! an image that is replaced while we boot from it is noticed rather than mixed.

use crate::base::console;
use crate::base::failure::chain;
use crate::base::lock::lock;
use crate::config::Access;
use crate::formats::links::Links;
use crate::formats::url::Url;
use crate::formats::version::Version;
use crate::source::eyeballs::Eyeballs;
use crate::source::fault::{Fault, Refusal, SourceError, WireFault, fault};
use crate::source::tls;
use crate::source::wire::Wire;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, IF_RANGE, LINK, RANGE};
use ureq::http::{Response, StatusCode};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Body, ResponseExt};

/// A server that says nothing for this long is not going to.
pub const SILENCE: Duration = Duration::from_secs(10);

/// Pauses between tries; the last one repeats.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// The pause after `tries` failed tries, and one more.
pub(super) fn pause(tries: usize) -> Duration {
    PAUSES.get(tries).copied().unwrap_or(PAUSES[PAUSES.len() - 1])
}

/// The time for which an address may have passing faults when it is opened.
pub(super) const OPEN_BUDGET: Duration = Duration::from_secs(20);

/// Redirects before we believe in a loop.
const REDIRECTS: u32 = 5;

/// Bytes that tell an index from an image.
const PEEK: u64 = 1024;

/// The settings, connections and counters that all requests for one image share.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    wire: Arc<Wire>,
}

impl Client {
    /// A client that trusts `ca` (PEM) alone or Mozilla's roots, and counts on `wire`.
    pub fn new(access: &Access, ca: Option<&[u8]>, wire: Arc<Wire>) -> Result<Self, SourceError> {
        let proxy =
            match &access.proxy {
                None => None,
                Some(proxy) => Some(ureq::Proxy::new(proxy.as_str()).map_err(|error| {
                    SourceError::Proxy { proxy: proxy.to_string(), error: Box::new(error) }
                })?),
            };

        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("inetboot/", env!("CARGO_PKG_VERSION")))
            // A compressed range is no range of the image.
            .accept_encoding("identity")
            // Not from the environment: the kernel puts unknown arguments there.
            .proxy(proxy)
            .tls_config(tls::settings(ca))
            // A chain of redirects is as trustworthy as its weakest hop.
            .save_redirect_history(true)
            .max_idle_connections_per_host(16)
            .build();
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), Eyeballs::default());
        Ok(Self { agent, wire })
    }

    /// All of a small file, of at most `limit` bytes. Passing faults are endured for `patience`.
    pub fn small(&self, url: &str, limit: u64, patience: Duration) -> Result<SmallFile, SourceError> {
        self.patiently(url, patience, || self.read_small(url, limit, SILENCE))
    }

    /// All of a small file, by one request.
    pub(super) fn read_small(&self, url: &str, limit: u64, silence: Duration) -> Result<SmallFile, Fault> {
        let response = self.send(url, &Options { silence, ..Options::default() })?;
        let over_https = is_over_https(&response);
        if response.status() != StatusCode::OK {
            return Err(Fault::status(response.status()));
        }
        let announced = header_text(response.headers(), &CONTENT_LENGTH).parse::<u64>().ok();
        if announced.is_some_and(|length| length > limit) {
            return Err(Refusal::Long { limit }.into());
        }

        let mut bytes = Vec::new();
        // One byte more than the limit shows that the file is longer.
        let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader().take(limit + 1);
        let outcome = reader.read_to_end(&mut bytes);
        let got = bytes.len() as u64;
        self.wire.received(got);
        match (outcome, announced) {
            (Err(error), _) => Err(fault(ureq::Error::from(error), url)),
            (Ok(_), Some(wanted)) if got < wanted => Err(WireFault::Cut { got, wanted }.into()),
            (Ok(_), _) if got > limit => Err(Refusal::Long { limit }.into()),
            (Ok(_), _) => Ok(SmallFile { bytes, over_https }),
        }
    }

    /// Open `url`: follow redirects, learn its length and version, whether ranges work, how it begins and
    /// what it links to. Passing faults are endured for a while.
    pub fn open(&self, url: &Url) -> Result<Peek, SourceError> {
        self.patiently(url.as_str(), OPEN_BUDGET, || self.probe(url, SILENCE))
    }

    fn patiently<T>(
        &self,
        url: &str,
        patience: Duration,
        attempt: impl Fn() -> Result<T, Fault>,
    ) -> Result<T, SourceError> {
        let deadline = Instant::now() + patience;
        let mut tries = 0;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(fault) if fault.is_passing() && Instant::now() < deadline => {
                    console::say(&format!("  {url}: {}; trying again", chain(&fault)));
                    std::thread::sleep(pause(tries));
                    tries += 1;
                }
                Err(fault) => return Err(SourceError::Request { act: format!("cannot open {url}"), fault }),
            }
        }
    }

    /// One attempt at [`Self::open`].
    pub(super) fn probe(&self, url: &Url, silence: Duration) -> Result<Peek, Fault> {
        let options = Options { range: Some((0, PEEK - 1)), silence, ..Options::default() };
        // A server that distributes the load over mirrors names them where it redirects.
        let first = self.send(url.as_str(), &Options { redirects: 0, ..options })?;
        let links = links_of(first.headers());
        let response =
            if first.status().is_redirection() { self.send(url.as_str(), &options)? } else { first };

        match response.status() {
            StatusCode::PARTIAL_CONTENT => self.probed_ranged(url, response, links),
            StatusCode::OK => self.probed_whole(url, response, links),
            // An empty file has no byte 0.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Refusal::Empty.into()),
            status => Err(Fault::status(status)),
        }
    }

    fn probed_ranged(&self, url: &Url, response: Response<Body>, links: Links) -> Result<Peek, Fault> {
        let range = ContentRange::of(response.headers());
        let Some(ContentRange { first: 0, total: Some(length), .. }) = range else {
            return Err(Refusal::NoLength.into());
        };
        let version = Version::of(response.headers(), length);
        let place = Mutex::new(response.get_uri().to_string());
        let home = Some(server_of(&response));
        let is_elsewhere = is_elsewhere(&response, url);

        let mut start = vec![0; PEEK.min(length) as usize];
        Answer::new(response, start.len() as u64, url.to_string(), self).fill(&mut start).1?;
        let http = Http { client: self.clone(), url: url.clone(), place, version, home };
        Ok(Peek { opened: Opened::Ranged(http), start, is_elsewhere, links })
    }

    fn probed_whole(&self, url: &Url, response: Response<Body>, links: Links) -> Result<Peek, Fault> {
        let length = header_text(response.headers(), &CONTENT_LENGTH).parse();
        let length = length.map_err(|_| Refusal::NoLength)?;
        if length == 0 {
            return Err(Refusal::Empty.into());
        }
        let version = Version::of(response.headers(), length);
        let is_elsewhere = is_elsewhere(&response, url);

        let mut start = vec![0; PEEK.min(length) as usize];
        let reader = &mut response.into_body().into_with_config().limit(length).reader();
        let outcome = reader.read_exact(&mut start);
        outcome.map_err(|error| fault(ureq::Error::from(error), url.as_str()))?;
        self.wire.received(start.len() as u64);
        let whole = Whole { client: self.clone(), url: url.clone(), version };
        Ok(Peek { opened: Opened::Whole(whole), start, is_elsewhere, links })
    }

    fn send(&self, url: &str, options: &Options<'_>) -> Result<Response<Body>, Fault> {
        let Options { range, if_range, redirects, silence } = *options;
        self.wire.request();
        let config = self.agent.get(url).config();
        let config = config.max_redirects(redirects).max_redirects_will_error(redirects > 0);
        let config = config.timeout_connect(Some(silence)).timeout_recv_response(Some(silence));
        let mut request = config.timeout_per_read(Some(silence)).build();

        if let Some((first, last)) = range {
            request = request.header(RANGE, format!("bytes={first}-{last}"));
        }
        if let Some(tag) = if_range {
            request = request.header(IF_RANGE, tag);
        }
        request.call().map_err(|error| fault(error, url))
    }
}

/// The details of a request.
#[derive(Clone, Copy)]
struct Options<'a> {
    /// The first and the last byte; all of the file without.
    range: Option<(u64, u64)>,
    /// The entity tag that the range has to be of.
    if_range: Option<&'a str>,
    /// Redirects that are followed; with none the answer is the redirect itself.
    redirects: u32,
    /// The time that the server may be silent.
    silence: Duration,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { range: None, if_range: None, redirects: REDIRECTS, silence: SILENCE }
    }
}

/// All of a small file.
#[derive(Debug)]
pub struct SmallFile {
    pub bytes: Vec<u8>,
    /// Every address on the way to it was https: the one that was asked, and each that a redirect led
    /// to. A single hop in the clear could have led anywhere.
    pub over_https: bool,
}

fn is_over_https(response: &Response<Body>) -> bool {
    let hops = response.get_redirect_history().unwrap_or_default();
    !hops.is_empty() && hops.iter().all(|hop| hop.scheme_str() == Some("https"))
}

/// A file that was opened.
#[derive(Debug)]
pub struct Peek {
    pub opened: Opened,
    pub start: Vec<u8>,
    /// A redirect led to another server.
    pub is_elsewhere: bool,
    /// The other places that the server names.
    pub links: Links,
}

/// A file at an address.
#[derive(Debug)]
pub enum Opened {
    Ranged(Http),
    /// It can only be read from its beginning.
    Whole(Whole),
}

impl Opened {
    pub fn version(&self) -> &Version {
        match self {
            Self::Ranged(http) => http.version(),
            Self::Whole(whole) => whole.version(),
        }
    }
}

/// A file that can be read by ranges.
#[derive(Debug)]
pub struct Http {
    client: Client,
    url: Url,
    /// The address that redirects led to; asked first until it lapses.
    place: Mutex<String>,
    version: Version,
    /// The server that has shown this version; `None` where any version will do.
    home: Option<String>,
}

impl Http {
    /// The version when it was opened.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The same file, which has to keep the marks of `version` as well.
    pub fn of_version(mut self, version: &Version) -> Self {
        self.version = version.completed_by(&self.version);
        self
    }

    /// The same file, whichever version it is: for images whose pieces are checked anyway.
    pub fn of_any_version(mut self) -> Self {
        (self.version.etag, self.version.modified) = (None, None);
        self.home = None;
        self
    }

    /// Ask for `length` bytes from `offset`, by one request. A server that is silent for `silence` has
    /// failed.
    pub fn range(&self, offset: u64, length: u64, silence: Duration) -> Result<Answer, Fault> {
        let place = lock(&self.place).clone();
        let is_redirected = place != self.url.as_str();
        let answer = self.range_at(&place, offset, length, silence);

        // Addresses behind a redirect may live for minutes only, and their servers may go: the original
        // knows a better one.
        if answer.is_err() && is_redirected {
            *lock(&self.place) = self.url.to_string();
        }
        match answer {
            Err(Fault::Refusal(Refusal::Status(status))) if is_redirected => {
                Err(WireFault::Lapsed(status).into())
            }
            answer => answer,
        }
    }

    fn range_at(&self, place: &str, offset: u64, length: u64, silence: Duration) -> Result<Answer, Fault> {
        let range = (offset, offset + length - 1);
        let if_range = self.version.strong_etag();
        let options = Options { range: Some(range), if_range, silence, ..Options::default() };
        let response = self.client.send(place, &options)?;
        self.check(&response, range)?;
        if place == self.url.as_str() {
            *lock(&self.place) = response.get_uri().to_string();
        }
        Ok(Answer::new(response, length, place.to_owned(), &self.client))
    }

    /// Refuse an answer that is not the range that was asked for, of the file that was opened.
    fn check(&self, response: &Response<Body>, (first, last): (u64, u64)) -> Result<(), Fault> {
        let changed = |is: String| Err(Refusal::Changed { was: self.version.to_string(), is }.into());
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let wrong = || WireFault::WrongRange {
                    got: header_text(response.headers(), &CONTENT_RANGE),
                    first,
                    last,
                };
                let got = ContentRange::of(response.headers()).ok_or_else(wrong)?;
                let total = got.total.unwrap_or(self.version.length);
                let version = Version::of(response.headers(), total);
                if !self.version.agrees(&version) || !self.is_proven(response, &version) {
                    return changed(version.to_string());
                }
                if (got.first, got.last) == (first, last) { Ok(()) } else { Err(wrong().into()) }
            }
            // If-Range did not match, or the server does not serve ranges any more.
            StatusCode::OK => {
                let length = header_text(response.headers(), &CONTENT_LENGTH).parse().unwrap_or_default();
                let version = Version::of(response.headers(), length);
                if self.version.agrees(&version) {
                    Err(Refusal::NoRange.into())
                } else {
                    changed(version.to_string())
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => changed("shorter".into()),
            status => Err(Fault::status(status)),
        }
    }

    /// False where a redirect has led to another server than before, and nothing proves that it has the
    /// same file: its silence about the version is no agreement.
    fn is_proven(&self, response: &Response<Body>, version: &Version) -> bool {
        let is_elsewhere = |home: &String| *home != server_of(response);
        !self.home.as_ref().is_some_and(is_elsewhere) || self.version.is_proof_of(version)
    }
}

/// The host and the port that gave an answer.
fn server_of(response: &Response<Body>) -> String {
    response.get_uri().authority().map(ToString::to_string).unwrap_or_default()
}

/// True if redirects led from `url` to another server.
fn is_elsewhere(response: &Response<Body>, url: &Url) -> bool {
    let asked = url.as_str().parse::<ureq::http::Uri>().ok();
    asked.and_then(|asked| asked.authority().map(ToString::to_string)) != Some(server_of(response))
}

/// The bytes of one answer, as they arrive.
pub struct Answer {
    reader: ureq::BodyReader<'static>,
    url: String,
    wanted: u64,
    got: u64,
    wire: Arc<Wire>,
}

impl Answer {
    fn new(response: Response<Body>, wanted: u64, url: String, client: &Client) -> Self {
        // One more than wanted: the reader has to see the end for the connection to be used again.
        let reader = response.into_body().into_with_config().limit(wanted + 1).reader();
        Self { reader, url, wanted, got: 0, wire: Arc::clone(&client.wire) }
    }

    /// Fill `buffer`. Returns how much of it was filled, even where it then failed.
    pub fn fill(&mut self, buffer: &mut [u8]) -> (usize, Result<(), Fault>) {
        let mut filled = 0;
        let outcome = loop {
            let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) else { break Ok(()) };
            let cut = || WireFault::Cut { got: self.got, wanted: self.wanted }.into();
            match self.reader.read(rest) {
                Ok(0) => break Err(cut()),
                Ok(length) => {
                    filled += length;
                    self.got += length as u64;
                    self.wire.received(length as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    break Err(match fault(ureq::Error::from(error), &self.url) {
                        Fault::Wire(WireFault::Connection(_) | WireFault::Protocol(_)) => cut(),
                        other => other,
                    });
                }
            }
        };

        // The reader has to see the end for the connection to be used again.
        if self.got == self.wanted {
            let _ = self.reader.read(&mut [0]);
        }
        (filled, outcome)
    }
}

/// A file that can only be read from its beginning.
#[derive(Debug)]
pub struct Whole {
    client: Client,
    url: Url,
    version: Version,
}

impl Whole {
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.version.length
    }

    /// Read all of it into `sink`. A cut connection cannot be continued without ranges: the caller starts
    /// over with an empty sink.
    pub fn read(&self, sink: &mut dyn io::Write) -> Result<(), SourceError> {
        let failed = |fault| SourceError::Request { act: format!("cannot read all of {}", self.url), fault };
        let response = self.client.send(self.url.as_str(), &Options::default()).map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(failed(Fault::status(response.status())));
        }
        let found = Version::of(response.headers(), self.length());
        if !self.version.agrees(&found) {
            let changed = Refusal::Changed { was: self.version.to_string(), is: found.to_string() };
            return Err(failed(changed.into()));
        }

        let mut reader = response.into_body().into_with_config().limit(self.length() + 1).reader();
        let mut progress = console::Progress::new("image", self.length());
        let mut buffer = vec![0; 1 << 18];
        let mut got = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    sink.write_all(&buffer[..length]).map_err(SourceError::Memory)?;
                    got += length as u64;
                    self.client.wire.received(length as u64);
                    progress.add(length as u64);
                }
                Err(error) => return Err(failed(fault(ureq::Error::from(error), self.url.as_str()))),
            }
        }
        progress.finish();

        let cut = || WireFault::Cut { got, wanted: self.length() };
        if got == self.length() { Ok(()) } else { Err(failed(cut().into())) }
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

fn links_of(headers: &HeaderMap) -> Links {
    Links::parse(headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()))
}

fn header_text(headers: &HeaderMap, name: &ureq::http::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
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
}
