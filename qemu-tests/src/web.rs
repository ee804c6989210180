//! A small web server that can misbehave: HTTP/1.1 with ranges and keep-alive, over TCP or TLS,
//! with a log of every request. For tests only, and only on loopback: QEMU's user network shows
//! it to the guest as 10.0.2.2.

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

/// Where a body comes from.
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

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer begins this much later.
    Delay(Duration),
    /// Half of the body, then silence for this long, then the end.
    Stall(Duration),
    /// Half of the body, then the end.
    Cut,
    /// No answer but the end of the connection.
    HangUp,
    /// This status and no body of use.
    Status(u16),
    /// Other bytes than the ones asked for, and a header that admits it.
    WrongRange,
    /// The whole file, as if ranges were unknown.
    NoRange,
    /// Elsewhere.
    Redirect(String),
    /// Another version of the file: another entity tag.
    OtherEtag(String),
    /// One bit is flipped.
    Corrupt,
}

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Request {
    /// Since the server was started.
    pub at: Duration,
    /// Path asked for.
    pub path: String,
    /// The range header's value.
    pub range: Option<String>,
    /// Status answered.
    pub status: u16,
    /// Bytes of body sent.
    pub sent: u64,
    /// What was made to go wrong.
    pub fault: Option<Fault>,
}

/// Decides what goes wrong: the request's number (from 0) and its path to a fault.
pub type Mischief = dyn Fn(u64, &str) -> Option<Fault> + Send + Sync;

/// A line that all connections share: every new connection and every request costs a round trip.
struct Line {
    round_trip: Duration,
    bytes_per_second: f64,
    /// When all that was sent so far has crossed it.
    free: Mutex<Instant>,
}

impl Line {
    /// `bytes` more are sent: wait until there is room for them.
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

/// A server to be.
pub struct Builder {
    line: Option<Line>,
    links: String,
    files: Vec<(String, Content)>,
    tls: Option<Identity>,
    on_ipv6: bool,
}

/// A certificate chain (leaf first) and its key, both DER.
pub struct Identity {
    /// The leaf and what stands above it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Builder {
    /// Answer over a line with this round-trip time and as many million bits a second.
    pub fn line(mut self, round_trip: Duration, megabits: u64) -> Self {
        let free = Mutex::new(Instant::now());
        self.line = Some(Line { round_trip, bytes_per_second: megabits as f64 * 125_000.0, free });
        self
    }

    /// Serve `content` at `path`, which begins with `/`.
    pub fn file(mut self, path: &str, content: Content) -> Self {
        self.files.push((path.to_owned(), content));
        self
    }

    /// Serve every file below `dir` at its path below `/`.
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

    /// Say this of every file in a `Link:` header (RFC 6249).
    pub fn link(mut self, link: &str) -> Self {
        self.links += &format!("Link: {link}\r\n");
        self
    }

    /// Speak HTTPS.
    pub fn tls(mut self, identity: Identity) -> Self {
        self.tls = Some(identity);
        self
    }

    /// Listen on all addresses of IPv6, too: of the network namespace that `scripts/test` makes.
    pub fn on_ipv6(mut self) -> Self {
        self.on_ipv6 = true;
        self
    }

    /// Start on a free port of loopback.
    pub fn start(self) -> io::Result<Server> {
        let tls = match self.tls {
            None => None,
            Some(Identity { chain, key }) => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = rustls::ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(io::Error::other)?
                    .with_no_client_auth()
                    .with_single_cert(chain, key)
                    .map_err(io::Error::other)?;
                Some(Arc::new(config))
            }
        };
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
        // Where scripts/test gave this machine the address that guests know it by.
        let known_to_guests = TcpListener::bind((GUESTS_HOST, address.port())).ok();
        let on_ipv6 = if self.on_ipv6 { Some(listen_on_ipv6(address.port())?) } else { None };
        for listener in [Some(listener), known_to_guests, on_ipv6].into_iter().flatten() {
            let accepting = Arc::clone(&site);
            std::thread::spawn(move || accept(&listener, &accepting));
        }
        Ok(Server { site, address })
    }
}

/// All addresses of IPv6, and no others.
fn listen_on_ipv6(port: u16) -> io::Result<TcpListener> {
    let fd = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
    listen(&fd, Backlog::new(64)?)?;
    Ok(TcpListener::from(fd))
}

impl Server {
    /// A server with nothing on it yet.
    pub fn builder() -> Builder {
        Builder { line: None, links: String::new(), files: Vec::new(), tls: None, on_ipv6: false }
    }

    /// Its port on 127.0.0.1, and on 10.0.2.2 as the guest sees it.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A file's address as this machine sees it.
    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme(), self.port())
    }

    /// A file's address as a guest sees it.
    pub fn guest_url(&self, path: &str) -> String {
        format!("{}://{GUESTS_HOST}:{}{path}", self.scheme(), self.port())
    }

    /// How long a file is.
    pub fn length(&self, path: &str) -> u64 {
        let content = self.site.files.iter().find(|(name, _)| name == path).map(|(_, content)| content);
        content.unwrap_or_else(|| panic!("there is no {path}")).len().expect("its length")
    }

    fn scheme(&self) -> &'static str {
        if self.site.tls.is_some() { "https" } else { "http" }
    }

    /// From now on `mischief` decides what goes wrong. Requests are counted from now.
    pub fn misbehave(&self, mischief: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static) {
        self.site.count.store(0, Ordering::SeqCst);
        *lock(&self.site.mischief) = Arc::new(mischief);
    }

    /// Refuse service (connections are accepted and closed), or take it up again.
    pub fn set_down(&self, down: bool) {
        self.site.down.store(down, Ordering::SeqCst);
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Request> {
        lock(&self.site.log).clone()
    }

    /// Bytes of bodies sent so far.
    pub fn bytes_sent(&self) -> u64 {
        self.log().iter().map(|request| request.sent).sum()
    }

    /// The last `count` lines of the log, for a failing test's output.
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
        self.site.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting threads.
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
            // A client that goes away ends its connection; that is no error here.
            let _ = match &site.tls {
                None => converse(stream, &site),
                Some(config) => rustls::ServerConnection::new(Arc::clone(config))
                    .map_err(io::Error::other)
                    .and_then(|connection| converse(rustls::StreamOwned::new(connection, stream), &site)),
            };
        });
    }
}

/// Requests of one connection, one after the other.
fn converse(stream: impl Read + Write, site: &Site) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let round_trip = || std::thread::sleep(site.line.as_ref().map_or(Duration::ZERO, |line| line.round_trip));
    round_trip();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || site.down.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let head = words.next() == Some("HEAD");
        let path = words.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => break,
            }
        }
        let header =
            |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let number = site.count.fetch_add(1, Ordering::SeqCst);
        let mischief = Arc::clone(&lock(&site.mischief));
        let fault = mischief(number, &path);
        round_trip();
        let asked = Asked { head, path: &path, range: header("range"), if_range: header("if-range") };
        if !answer(stream.get_mut(), site, &asked, fault)? {
            return Ok(());
        }
    }
}

/// What a client wants.
struct Asked<'a> {
    head: bool,
    path: &'a str,
    range: Option<&'a str>,
    if_range: Option<&'a str>,
}

/// One answer; whether the connection goes on.
fn answer(out: &mut impl Write, site: &Site, asked: &Asked<'_>, fault: Option<Fault>) -> io::Result<bool> {
    let Asked { head, path, range, if_range } = *asked;
    let at = site.started.elapsed();
    let note = |status: u16, sent: u64| {
        lock(&site.log).push(Request {
            at,
            path: path.to_owned(),
            range: range.map(str::to_owned),
            status,
            sent,
            fault: fault.clone(),
        });
    };
    let empty = |out: &mut dyn Write, status: u16, extra: &str| -> io::Result<bool> {
        note(status, 0);
        write!(out, "HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n{extra}\r\n")?;
        out.flush()?;
        Ok(true)
    };
    match &fault {
        Some(Fault::Delay(delay)) => std::thread::sleep(*delay),
        Some(Fault::HangUp) => {
            note(0, 0);
            return Ok(false);
        }
        Some(Fault::Status(status)) => return empty(out, *status, ""),
        Some(Fault::Redirect(to)) => {
            return empty(out, 302, &format!("Location: {to}\r\n{}", site.links));
        }
        _ => {}
    }
    if path == "/" {
        // For clients that only mount what they find in a listing.
        let names = site.files.iter().map(|(name, _)| name.trim_start_matches('/'));
        let page: String = names.map(|name| format!("<a href=\"{name}\">{name}</a>\n")).collect();
        let length = page.len();
        let page = if head { String::new() } else { page };
        note(200, page.len() as u64);
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}");
        return out.write_all(answer.as_bytes()).and_then(|()| out.flush()).map(|()| true);
    }
    let Some((_, content)) = site.files.iter().find(|(known, _)| known == path) else {
        return empty(out, 404, "");
    };
    let etag = match &fault {
        Some(Fault::OtherEtag(etag)) => etag,
        _ => &site.etag,
    };
    let total = content.len()?;
    let wanted = range.filter(|_| fault != Some(Fault::NoRange) && if_range.is_none_or(|tag| tag == etag));
    let (status, mut first, length) = match wanted.and_then(|range| parse_range(range, total)) {
        Some((first, last)) => (206, first, last - first + 1),
        None if wanted.is_some() => return empty(out, 416, &format!("Content-Range: bytes */{total}\r\n")),
        None => (200, 0, total),
    };
    if fault == Some(Fault::WrongRange) {
        first = first.saturating_sub(1).min(total - length);
    }
    let content_range = match status {
        206 => format!("Content-Range: bytes {first}-{}/{total}\r\n", first + length - 1),
        _ => String::new(),
    };
    // At once: some old clients want a header in a single packet.
    let header = format!(
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n\
         Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{content_range}{}\r\n",
        site.links
    );
    out.write_all(header.as_bytes())?;
    out.flush()?;

    let broken = matches!(fault, Some(Fault::Cut | Fault::Stall(_)));
    let to_send = match (head, broken) {
        (true, _) => 0,
        (false, true) => length / 2,
        (false, false) => length,
    };
    let mut sent = 0;
    while sent < to_send {
        let mut bytes = content.read(first + sent, (to_send - sent).min(1 << 16) as usize)?;
        if fault == Some(Fault::Corrupt) && sent == 0 {
            bytes[0] ^= 1;
        }
        if let Some(line) = &site.line {
            line.carry(bytes.len());
        }
        if out.write_all(&bytes).is_err() {
            break;
        }
        sent += bytes.len() as u64;
    }
    let _ = out.flush();
    note(status, sent);
    if let Some(Fault::Stall(silence)) = fault {
        std::thread::sleep(silence);
    }
    Ok(!broken && sent == to_send)
}

/// `bytes=FIRST-LAST`, within a file of `total` bytes.
fn parse_range(range: &str, total: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last = last.parse().unwrap_or(u64::MAX).min(total.checked_sub(1)?);
    (first <= last).then_some((first, last))
}
