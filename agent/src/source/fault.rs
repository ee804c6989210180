//! Failures between this machine and the servers: a [`Fault`] of one request, and the [`SourceError`]
//! that ends a read. The type of a fault says whether the same request may succeed in a moment, and
//! whether the server has another image.

use crate::base::console;
use crate::base::failure::Explain;
use crate::formats::index::IndexError;
use crate::formats::trust::TrustError;
use crate::formats::url::Url;
use crate::source::cloop::CloopError;
use crate::source::tls::{CaError, TlsFault};
use std::io;
use ureq::http::StatusCode;

/// The reason why the image cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A request that failed for good; `act` is what was being done to which object.
    #[error("{act}")]
    Request {
        act: String,
        #[source]
        fault: Fault,
    },
    #[error(transparent)]
    Ca(CaError),
    #[error("cannot use the index {url}")]
    Index {
        url: Url,
        #[source]
        error: IndexError,
    },
    /// An index that is not what was demanded.
    #[error("{url} is not trusted")]
    Trust {
        url: Url,
        #[source]
        error: Box<TrustError>,
    },
    /// `demand` is `inetboot.pin=` or `inetboot.key=`.
    #[error("{demand} is given, but {url} is an image without an index")]
    NoIndex { demand: &'static str, url: Url },
    #[error("the index {url} names no place that has the image")]
    NoPlace { url: String },
    /// A directory without `what`, a kernel or an initrd; `names` were tried.
    #[error("the directory {dir} has no {what}: it was looked for as {names}")]
    NotThere { dir: String, what: &'static str, names: String },
    #[error("proxy={proxy} cannot be used: {error}")]
    Proxy { proxy: String, error: Box<ureq::Error> },
    /// The image has to be read whole, and does not fit; lengths in bytes.
    #[error(
        "{url} is on a server that cannot serve ranges, and its {} do not fit into the {} of free memory",
        console::size(*length), console::size(*available)
    )]
    TooBig { url: Url, length: u64, available: u64 },
    /// A file of this machine.
    #[error("cannot read {name}")]
    File {
        name: String,
        #[source]
        error: io::Error,
    },
    #[error("cannot read the compressed image {name}")]
    Cloop {
        name: String,
        #[source]
        error: CloopError,
    },
    #[error("cannot use the copy of the image in memory")]
    Memory(#[source] io::Error),
}

/// The failure of one request, by what follows from it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The same request may succeed in a moment.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// The server will answer the same in a moment; that says nothing about its image.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The server does not have the image that is wanted.
    #[error(transparent)]
    Image(#[from] ImageFault),
}

/// A fault of the line or of a server under load.
#[derive(Debug, thiserror::Error)]
pub enum WireFault {
    #[error("the name {host} was not found")]
    Name { host: String },
    #[error("the connection was refused")]
    Refused,
    /// It cannot be made, or broke.
    #[error("the connection failed")]
    Connection(#[source] io::Error),
    #[error("the server fell silent")]
    Silence,
    #[error("the connection was cut after {got} of {wanted} bytes")]
    Cut { got: u64, wanted: u64 },
    /// 5xx, and those of 4xx that ask for patience.
    #[error("the server said {0}")]
    Status(StatusCode),
    /// `got` is its Content-Range.
    #[error("the server sent {got:?} where bytes {first}-{last} were asked for")]
    WrongRange { got: String, first: u64, last: u64 },
    /// The original address knows a better one.
    #[error("the redirect has lapsed ({0})")]
    Lapsed(StatusCode),
    /// Anything else in the protocol.
    #[error("{0}")]
    Protocol(String),
}

/// A lasting fault of a server or of a file there.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the server said {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Tls(TlsFault),
    #[error("the server does not serve ranges")]
    NoRange,
    /// The file is not the one that was opened; `is` is as far as the answer says.
    #[error("the image on the server has changed: it was {was}, it is {is}")]
    Changed { was: String, is: String },
    /// A file that should be small.
    #[error("it is longer than {limit} bytes")]
    Long { limit: u64 },
    #[error("the server does not say how long the image is")]
    NoLength,
    #[error("the image is empty")]
    Empty,
    /// Anyone on the way could have led to another place.
    #[error("a redirect of this https:// address leads over http://")]
    InTheClear,
}

/// A proof that a server has another image, or no proof that it has this one.
#[derive(Debug, thiserror::Error)]
pub enum ImageFault {
    #[error("piece {piece} has other bytes than the index says")]
    Corrupt { piece: u64 },
    #[error("piece {piece} cannot be unpacked")]
    Packed { piece: u64 },
    /// Another length than the index or the other mirrors say.
    #[error("the image there has {got} bytes, and should have {wanted}")]
    Length { got: u64, wanted: u64 },
    /// Without an index, only an equal version proves that two servers have the same image.
    #[error("nothing proves that the image there is the same: it has {is}, the first address {wanted}")]
    Unproven { is: String, wanted: String },
}

impl Fault {
    /// The fault of an answer with this status.
    pub(super) fn status(status: StatusCode) -> Self {
        if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
            WireFault::Status(status).into()
        } else {
            Refusal::Status(status).into()
        }
    }

    /// True where the same request may succeed in a moment.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Wire(_))
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Wire(fault) => fault.hint(),
            Self::Refusal(refusal) => refusal.hint(),
            Self::Image(fault) => fault.hint(),
        }
    }
}

const CHECK_SERVER: &str = "Check netdir= with curl -I, or use another server";

fn status_hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 | 410 => "Check the path in netdir=: the server has no such file",
        401 | 403 | 407 => "Make the file readable without a password, or check the path in netdir=",
        500..=599 => "Wait for the server to recover, or use another one",
        _ => "Check netdir= with curl -I",
    }
}

impl WireFault {
    fn hint(&self) -> &'static str {
        match self {
            Self::Name { .. } => "Check the name in netdir=, and that the name server (nameserver=) knows it",
            Self::Refused => "Check the port in netdir=, and that the web server runs",
            Self::Connection(_) | Self::Silence | Self::Cut { .. } => {
                "Check the address in netdir=, the route to it and any firewall between (proxy= for a proxy)"
            }
            Self::Status(status) => status_hint(*status),
            Self::WrongRange { .. } => "Use a web server that supports Range requests, e.g. nginx",
            Self::Lapsed(_) | Self::Protocol(_) => CHECK_SERVER,
        }
    }
}

impl Refusal {
    fn hint(&self) -> &'static str {
        match self {
            Self::Status(status) => status_hint(*status),
            Self::Tls(fault) => fault.hint(),
            Self::NoRange => "Use a web server that supports Range requests, e.g. nginx",
            Self::Changed { .. } => {
                "Put the old image back or boot again, and publish new images under new names"
            }
            Self::Long { .. } | Self::NoLength => CHECK_SERVER,
            Self::Empty => "Check the file on the server",
            Self::InTheClear => "Name an address that is not redirected, or write http:// to accept this",
        }
    }
}

impl ImageFault {
    fn hint(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } | Self::Packed { .. } | Self::Length { .. } => {
                "Use another mirror: this one has a damaged, older or newer image, or is not honest"
            }
            Self::Unproven { .. } => {
                "Publish an index (inetbootctl image index): with it each piece is checked, from any mirror"
            }
        }
    }
}

impl Explain for SourceError {
    fn hint(&self) -> String {
        match self {
            Self::Request { fault, .. } => fault.hint().into(),
            Self::Ca(_) => {
                "Put the PEM file into the initramfs (mkinitramfs --add) and check inetboot.ca=".into()
            }
            Self::Index { .. } => "Publish it anew with inetbootctl image build or image index".into(),
            Self::Trust { error, .. } => error.hint().into(),
            Self::NoIndex { .. } => {
                "Name its index with netdir= or inetboot.index= (inetbootctl image index makes one)".into()
            }
            Self::NoPlace { .. } => "Name the image with netdir= and this index with inetboot.index=".into(),
            Self::Proxy { .. } => "Write proxy=http://HOST:PORT".into(),
            Self::TooBig { .. } => {
                "Use a web server that supports Range requests, e.g. nginx, or add memory".into()
            }
            Self::NotThere { .. } => "Name the files: kernel=URL initrd=URL".into(),
            Self::File { .. } => "Check the disk or the memory of this machine".into(),
            Self::Cloop { .. } => "Check the image's checksum".into(),
            Self::Memory(_) => "Add memory, or use a web server that supports Range requests".into(),
        }
    }
}

/// The fault that an error of ureq's means.
pub(super) fn fault(error: ureq::Error, url: &str) -> Fault {
    match error {
        ureq::Error::HostNotFound => WireFault::Name { host: host(url) }.into(),
        ureq::Error::Timeout(_) => WireFault::Silence.into(),
        ureq::Error::Rustls(error) => Refusal::Tls(TlsFault::from(&error)).into(),
        ureq::Error::Io(error) => io_fault(error, url),
        ureq::Error::StatusCode(code) => {
            Fault::status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        }
        other => WireFault::Protocol(other.to_string()).into(),
    }
}

fn io_fault(error: io::Error, url: &str) -> Fault {
    // rustls' errors reach us wrapped by the stream that carried the handshake.
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Refusal::Tls(TlsFault::from(error)).into();
    }
    let fault = match error.kind() {
        io::ErrorKind::ConnectionRefused => WireFault::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => WireFault::Silence,
        // The standard library has no kind of its own for getaddrinfo's message.
        _ if error.to_string().starts_with("failed to lookup address") => WireFault::Name { host: host(url) },
        _ => WireFault::Connection(error),
    };
    fault.into()
}

fn host(url: &str) -> String {
    url.parse::<ureq::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
}
