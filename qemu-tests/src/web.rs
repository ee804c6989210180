//! A small web server that can misbehave: HTTP/1.1 with ranges and keep-alive, over TCP or TLS,
//! with a log of every request. For tests only, and only on loopback: QEMU's user network shows
//! it to the guest as 10.0.2.2.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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

struct Site {
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
    files: Vec<(String, Content)>,
    tls: Option<Identity>,
}

/// A certificate chain (leaf first) and its key, both DER.
pub struct Identity {
    /// The leaf and what stands above it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Builder {
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

    /// Speak HTTPS.
    pub fn tls(mut self, identity: Identity) -> Self {
        self.tls = Some(identity);
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
        let accepting = Arc::clone(&site);
        std::thread::spawn(move || accept(&listener, &accepting));
        Ok(Server { site, address })
    }
}

impl Server {
    /// A server with nothing on it yet.
    pub fn builder() -> Builder {
        Builder { files: Vec::new(), tls: None }
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
        format!("{}://10.0.2.2:{}{path}", self.scheme(), self.port())
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
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
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
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || site.down.load(Ordering::SeqCst) {
            return Ok(());
        }
        let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
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
        if !answer(stream.get_mut(), site, &path, header("range"), header("if-range"), fault)? {
            return Ok(());
        }
    }
}

/// One answer; whether the connection goes on.
fn answer(
    out: &mut impl Write,
    site: &Site,
    path: &str,
    range: Option<&str>,
    if_range: Option<&str>,
    fault: Option<Fault>,
) -> io::Result<bool> {
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
        Some(Fault::Redirect(to)) => return empty(out, 302, &format!("Location: {to}\r\n")),
        _ => {}
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
    write!(
        out,
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n"
    )?;
    if status == 206 {
        write!(out, "Content-Range: bytes {first}-{}/{total}\r\n", first + length - 1)?;
    }
    write!(out, "\r\n")?;
    out.flush()?;

    let broken = matches!(fault, Some(Fault::Cut | Fault::Stall(_)));
    let to_send = if broken { length / 2 } else { length };
    let mut sent = 0;
    while sent < to_send {
        let mut bytes = content.read(first + sent, (to_send - sent).min(1 << 16) as usize)?;
        if fault == Some(Fault::Corrupt) && sent == 0 {
            bytes[0] ^= 1;
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
