//! A small web server that can misbehave: HTTP/1.1 with ranges and keep-alive, over TCP or TLS,
//! with a log of every request. It listens on loopback only, which guests of QEMU's user network see
//! as 10.0.2.2.

use crate::promise::show_when_failing;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// This machine, as guests of QEMU's user network see it.
const GUESTS_HOST: &str = "10.0.2.2";

/// The path of the image on a server that has one.
pub const IMAGE: &str = "/live.iso";

/// Lines of the request log that a failing test prints.
const REQUEST_TAIL: usize = 25;

/// The source of a body.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file on disk.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

impl Content {
    fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(path) => Ok(std::fs::metadata(path)?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn read(&self, first: u64, length: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::File(path) => {
                let mut buffer = vec![0; length];
                File::open(path)?.read_exact_at(&mut buffer, first)?;
                Ok(buffer)
            }
            Self::Bytes(bytes) => Ok(bytes[first as usize..first as usize + length].to_vec()),
        }
    }
}

/// A fault in the answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer begins so much later.
    Delay(Duration),
    /// Half of the body, then silence for so long, then the end of the connection.
    Stall(Duration),
    /// Half of the body, then the end of the connection.
    Cut,
    /// The end of the connection instead of an answer.
    HangUp,
    /// This status, without a body.
    Status(u16),
    /// Other bytes than the requested ones, and a `Content-Range` that says so.
    WrongRange,
    /// The whole file, as from a server without ranges.
    NoRange,
    /// A redirection to this address.
    Redirect(String),
    /// This entity tag, as of another version of the file.
    OtherEtag(String),
    /// The body, with one bit flipped.
    Corrupt,
}

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Request {
    /// The time since the server was started.
    pub at: Duration,
    /// The requested path.
    pub path: String,
    /// The range header's value.
    pub range: Option<String>,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: u64,
    /// The fault in the answer.
    pub fault: Option<Fault>,
}

/// Decides on the fault of a request, by its number (from 0) and its path.
pub type Mischief = dyn Fn(u64, &str) -> Option<Fault> + Send + Sync;

/// A line that all connections share: every new connection and every request costs a round trip.
struct Line {
    round_trip: Duration,
    bytes_per_second: f64,
    /// The time at which all that was sent so far has crossed it.
    free: Mutex<Instant>,
}

impl Line {
    /// Waits until the line has room for so many bytes more.
    fn carry(&self, bytes: usize) {
        let free = {
            let mut free = lock(&self.free);
            *free =
                (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
            *free
        };
        std::thread::sleep(free.saturating_duration_since(Instant::now()));
    }
}

struct Site {
    line: Option<Line>,
    links: String,
    files: Vec<(String, Content)>,
    etag: String,
    mischief: Mutex<Arc<Mischief>>,
    log: Mutex<Vec<Request>>,
    count: AtomicU64,
    down: AtomicBool,
    stopping: AtomicBool,
    started: Instant,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A running server; stopped when dropped.
pub struct Server {
    site: Arc<Site>,
    address: SocketAddr,
}

/// The settings of a server that is not started yet.
pub struct Builder {
    line: Option<Line>,
    links: String,
    files: Vec<(String, Content)>,
    tls: Option<Identity>,
    on_ipv6: bool,
}

/// A certificate chain (leaf first) and its key, both DER.
pub struct Identity {
    /// The leaf and the certificates that signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Builder {
    /// Answers over a line with this round-trip time and so many million bits a second.
    pub fn line(mut self, round_trip: Duration, megabits: u64) -> Self {
        let free = Mutex::new(Instant::now());
        self.line = Some(Line { round_trip, bytes_per_second: megabits as f64 * 125_000.0, free });
        self
    }

    /// Serves `content` at `path`, which begins with `/`.
    pub fn file(mut self, path: &str, content: Content) -> Self {
        self.files.push((path.to_owned(), content));
        self
    }

    /// Serves the file `image` at [`IMAGE`].
    pub fn image(self, image: impl Into<PathBuf>) -> Self {
        self.file(IMAGE, Content::File(image.into()))
    }

    /// Serves every file below `dir` at its path below `/`.
    pub fn tree(self, dir: &std::path::Path) -> io::Result<Self> {
        let mut builder = self;
        let mut dirs = vec![dir.to_owned()];
        while let Some(next) = dirs.pop() {
            for entry in std::fs::read_dir(next)? {
                let path = entry?.path();
                if path.is_dir() {
                    dirs.push(path);
                } else if let Ok(name) = path.strip_prefix(dir) {
                    let name = format!("/{}", name.display());
                    builder.files.push((name, Content::File(path)));
                }
            }
        }
        Ok(builder)
    }

    /// Sends this `Link:` header with every file (RFC 6249).
    pub fn link(mut self, link: &str) -> Self {
        self.links += &format!("Link: {link}\r\n");
        self
    }

    /// Speaks HTTPS.
    pub fn tls(mut self, identity: Identity) -> Self {
        self.tls = Some(identity);
        self
    }

    /// Listens on all IPv6 addresses, too, of the network namespace that `scripts/test` makes.
    pub fn on_ipv6(mut self) -> Self {
        self.on_ipv6 = true;
        self
    }

    /// Starts on a free port of loopback.
    pub fn start(self) -> io::Result<Server> {
        let tls = self.tls.map(tls_config).transpose()?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let site = Arc::new(Site {
            line: self.line,
            links: self.links,
            files: self.files,
            etag: "\"first\"".into(),
            mischief: Mutex::new(Arc::new(|_, _| None)),
            log: Mutex::default(),
            count: AtomicU64::new(0),
            down: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            tls,
        });

        // Also at the guests' address for this machine, if scripts/test has added it here.
        let known_to_guests = TcpListener::bind((GUESTS_HOST, address.port())).ok();
        let on_ipv6 = if self.on_ipv6 { Some(listen_on_ipv6(address.port())?) } else { None };
        for listener in [Some(listener), known_to_guests, on_ipv6].into_iter().flatten() {
            let accepting = Arc::clone(&site);
            std::thread::spawn(move || accept(&listener, &accepting));
        }
        Ok(Server { site, address })
    }
}

fn tls_config(identity: Identity) -> io::Result<Arc<rustls::ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

/// A socket on all IPv6 addresses, and on no IPv4 address.
fn listen_on_ipv6(port: u16) -> io::Result<TcpListener> {
    let fd = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
    listen(&fd, Backlog::new(64)?)?;
    Ok(TcpListener::from(fd))
}

impl Server {
    /// A server without files yet.
    pub fn builder() -> Builder {
        Builder { line: None, links: String::new(), files: Vec::new(), tls: None, on_ipv6: false }
    }

    /// A running server with the file `image` at [`IMAGE`].
    pub fn of_image(image: impl Into<PathBuf>) -> Self {
        Self::builder().image(image).start().expect("starting a web server")
    }

    /// The kernel argument by which a guest boots [`IMAGE`].
    pub fn netdir(&self) -> String {
        format!("netdir={}", self.guest_url(IMAGE))
    }

    /// Its port on 127.0.0.1, and on 10.0.2.2 as the guest sees it.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL of a file for this machine.
    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme(), self.port())
    }

    /// The URL of a file for a guest.
    pub fn guest_url(&self, path: &str) -> String {
        format!("{}://{GUESTS_HOST}:{}{path}", self.scheme(), self.port())
    }

    /// The length of a file.
    pub fn length(&self, path: &str) -> u64 {
        let content = self.site.files.iter().find(|(name, _)| name == path).map(|(_, content)| content);
        content.unwrap_or_else(|| panic!("there is no {path}")).len().expect("its length")
    }

    fn scheme(&self) -> &'static str {
        if self.site.tls.is_some() { "https" } else { "http" }
    }

    /// Lets `mischief` decide on the faults from now on. Requests are counted from now.
    pub fn misbehave(&self, mischief: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static) {
        self.site.count.store(0, Ordering::SeqCst);
        *lock(&self.site.mischief) = Arc::new(mischief);
    }

    /// Refuses service (connections are accepted and closed), or takes it up again.
    pub fn set_down(&self, down: bool) {
        self.site.down.store(down, Ordering::SeqCst);
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Request> {
        lock(&self.site.log).clone()
    }

    /// Bytes of all bodies that were sent so far.
    pub fn bytes_sent(&self) -> u64 {
        self.log().iter().map(|request| request.sent).sum()
    }

    /// The last `count` requests, a line each.
    pub fn log_tail(&self, count: usize) -> String {
        let log = self.log();
        let lines = log[log.len().saturating_sub(count)..].iter().map(|request| {
            let Request { at, path, range, status, sent, fault } = request;
            let range = range.as_deref().unwrap_or("-");
            let fault = fault.as_ref().map(|fault| format!(" {fault:?}")).unwrap_or_default();
            format!("{:8.3} {path} {range} -> {status}, {sent} bytes{fault}\n", at.as_secs_f64())
        });
        lines.collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let heading = format!("the last requests to the web server on port {}", self.port());
        show_when_failing(&heading, || self.log_tail(REQUEST_TAIL));
        self.site.stopping.store(true, Ordering::SeqCst);
        // To wake the accepting threads.
        for host in ["127.0.0.1", GUESTS_HOST, "::1"] {
            let _ = TcpStream::connect((host, self.address.port()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, site: &Arc<Site>) {
    for stream in listener.incoming() {
        if site.stopping.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(stream), site) = (stream, Arc::clone(site)) else { continue };
        std::thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
            // It is no error when the client closes the connection.
            let _ = match &site.tls {
                None => converse(stream, &site),
                Some(config) => rustls::ServerConnection::new(Arc::clone(config))
                    .map_err(io::Error::other)
                    .and_then(|connection| converse(rustls::StreamOwned::new(connection, stream), &site)),
            };
        });
    }
}

/// Answers the requests of one connection, one after the other.
fn converse(stream: impl Read + Write, site: &Site) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let round_trip = || std::thread::sleep(site.line.as_ref().map_or(Duration::ZERO, |line| line.round_trip));

    round_trip();
    while let Some(asked) = Asked::read(&mut stream)? {
        if site.down.load(Ordering::SeqCst) {
            return Ok(());
        }
        let number = site.count.fetch_add(1, Ordering::SeqCst);
        let mischief = Arc::clone(&lock(&site.mischief));
        let fault = mischief(number, &asked.path);
        round_trip();
        let goes_on =
            Answer { site, asked: &asked, fault, at: site.started.elapsed() }.send(stream.get_mut())?;
        if !goes_on {
            return Ok(());
        }
    }
    Ok(())
}

/// A request, as far as the server reads it.
struct Asked {
    is_head: bool,
    path: String,
    range: Option<String>,
    if_range: Option<String>,
}

impl Asked {
    /// The next request of a connection; `None` when the client has closed it.
    fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let is_head = words.next() == Some("HEAD");
        let path = words.next().unwrap_or_default().to_owned();

        let mut asked = Self { is_head, path, range: None, if_range: None };
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { return Ok(Some(asked)) };
            let value = Some(value.trim().to_owned());
            match name.to_ascii_lowercase().as_str() {
                "range" => asked.range = value,
                "if-range" => asked.if_range = value,
                _ => {}
            }
        }
    }
}

/// The answer to a request. Each of the functions that send one says whether the connection goes on.
struct Answer<'a> {
    site: &'a Site,
    asked: &'a Asked,
    fault: Option<Fault>,
    at: Duration,
}

impl Answer<'_> {
    fn send(&self, out: &mut impl Write) -> io::Result<bool> {
        match &self.fault {
            Some(Fault::Delay(delay)) => std::thread::sleep(*delay),
            Some(Fault::HangUp) => {
                self.note(0, 0);
                return Ok(false);
            }
            Some(Fault::Status(status)) => return self.send_empty(out, *status, ""),
            Some(Fault::Redirect(to)) => {
                return self.send_empty(out, 302, &format!("Location: {to}\r\n{}", self.site.links));
            }
            _ => {}
        }

        let path = &self.asked.path;
        let file = self.site.files.iter().find(|(known, _)| known == path);
        match file {
            _ if path == "/" => self.send_listing(out),
            None => self.send_empty(out, 404, ""),
            Some((_, content)) => self.send_file(out, content),
        }
    }

    fn note(&self, status: u16, sent: u64) {
        lock(&self.site.log).push(Request {
            at: self.at,
            path: self.asked.path.clone(),
            range: self.asked.range.clone(),
            status,
            sent,
            fault: self.fault.clone(),
        });
    }

    fn send_empty(&self, out: &mut impl Write, status: u16, headers: &str) -> io::Result<bool> {
        self.note(status, 0);
        write!(out, "HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n{headers}\r\n")?;
        out.flush()?;
        Ok(true)
    }

    /// For clients that only mount what they find in a listing.
    fn send_listing(&self, out: &mut impl Write) -> io::Result<bool> {
        let names = self.site.files.iter().map(|(name, _)| name.trim_start_matches('/'));
        let page: String = names.map(|name| format!("<a href=\"{name}\">{name}</a>\n")).collect();
        let length = page.len();
        let page = if self.asked.is_head { String::new() } else { page };

        self.note(200, page.len() as u64);
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}");
        out.write_all(answer.as_bytes())?;
        out.flush()?;
        Ok(true)
    }

    fn send_file(&self, out: &mut impl Write, content: &Content) -> io::Result<bool> {
        let total = content.len()?;
        let etag = match &self.fault {
            Some(Fault::OtherEtag(etag)) => etag,
            _ => &self.site.etag,
        };

        // A range counts only for the version of the file that the client knows (RFC 9110, section 13.1.5).
        let is_known = self.asked.if_range.as_ref().is_none_or(|tag| tag == etag);
        let wanted = self.asked.range.as_ref().filter(|_| self.fault != Some(Fault::NoRange) && is_known);
        let (status, mut first, length) = match wanted.and_then(|range| parse_range(range, total)) {
            Some((first, last)) => (206, first, last - first + 1),
            None if wanted.is_some() => {
                return self.send_empty(out, 416, &format!("Content-Range: bytes */{total}\r\n"));
            }
            None => (200, 0, total),
        };
        if self.fault == Some(Fault::WrongRange) {
            first = first.saturating_sub(1).min(total - length);
        }

        let content_range = match status {
            206 => format!("Content-Range: bytes {first}-{}/{total}\r\n", first + length - 1),
            _ => String::new(),
        };
        // In one write: some old clients want the header in a single packet.
        let header = format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n\
             Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{content_range}{}\r\n",
            self.site.links
        );
        out.write_all(header.as_bytes())?;
        out.flush()?;

        let is_broken = matches!(self.fault, Some(Fault::Cut | Fault::Stall(_)));
        let to_send = match (self.asked.is_head, is_broken) {
            (true, _) => 0,
            (false, true) => length / 2,
            (false, false) => length,
        };
        let sent = self.send_body(out, content, first, to_send)?;
        self.note(status, sent);
        if let Some(Fault::Stall(silence)) = self.fault {
            std::thread::sleep(silence);
        }
        Ok(!is_broken && sent == to_send)
    }

    /// Sends so many bytes of `content` from `first` on, and says how many the client took.
    fn send_body(&self, out: &mut impl Write, content: &Content, first: u64, length: u64) -> io::Result<u64> {
        const BLOCK: u64 = 1 << 16;
        let mut sent = 0;
        while sent < length {
            let mut bytes = content.read(first + sent, (length - sent).min(BLOCK) as usize)?;
            if self.fault == Some(Fault::Corrupt) && sent == 0 {
                bytes[0] ^= 1;
            }
            if let Some(line) = &self.site.line {
                line.carry(bytes.len());
            }
            if out.write_all(&bytes).is_err() {
                break;
            }
            sent += bytes.len() as u64;
        }
        let _ = out.flush();
        Ok(sent)
    }
}

/// Parses `bytes=FIRST-LAST` or `bytes=FIRST-`, for a file of `total` bytes.
fn parse_range(range: &str, total: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last = last.parse().unwrap_or(u64::MAX).min(total.checked_sub(1)?);
    (first <= last).then_some((first, last))
}
