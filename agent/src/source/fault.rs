//! What goes wrong between us and the servers: one fault of one request, and the error that ends
//! a read. A fault knows whether the same request may succeed in a moment.

use crate::base::console;
use crate::base::failure::Explain;
use crate::formats::index::IndexError;
use crate::formats::trust::TrustError;
use crate::formats::version::Version;
use crate::source::cloop::CloopError;
use crate::source::tls::{CaError, TlsFault};
use std::io;
use ureq::http::StatusCode;

/// Why the image cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
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
    /// An index that cannot be used.
    #[error("cannot use the index {url}")]
    Index {
        /// Where it came from.
        url: String,
        /// Why not.
        #[source]
        error: IndexError,
    },
    /// An index that is not what was demanded.
    #[error("{url} is not trusted")]
    Trust {
        /// Where it came from.
        url: String,
        /// Why not.
        #[source]
        error: Box<TrustError>,
    },
    /// Somebody has to vouch for the image, and nobody does.
    #[error("{demand} is given, but {url} is an image without an index")]
    NoIndex {
        /// `inetboot.pin=` or `inetboot.key=`.
        demand: &'static str,
        /// The image.
        url: String,
    },
    /// An index that says not where the image is.
    #[error("the index {url} names no place that has the image")]
    NoPlace {
        /// The index.
        url: String,
    },
    /// A directory that has not what a boot needs.
    #[error("the directory {dir} has no {what}: it was looked for as {names}")]
    NotThere {
        /// The directory.
        dir: String,
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The names that were tried.
        names: String,
    },
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
    /// A file of this machine cannot be read.
    #[error("cannot read {name}")]
    File {
        /// Which.
        name: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// A cloop image cannot be read.
    #[error("cannot read the compressed image {name}")]
    Cloop {
        /// Which.
        name: String,
        /// Why not.
        #[source]
        error: CloopError,
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
    #[error("the server fell silent")]
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
    /// Other bytes than the index says.
    #[error("piece {piece} has other bytes than the index says")]
    Corrupt {
        /// Which piece.
        piece: u64,
    },
    /// A packed piece that cannot be unpacked.
    #[error("piece {piece} cannot be unpacked")]
    Packed {
        /// Which piece.
        piece: u64,
    },
    /// A file of another length than the index or the other mirrors say.
    #[error("the image there has {got} bytes, and should have {wanted}")]
    Length {
        /// What the server says.
        got: u64,
        /// What it has to be.
        wanted: u64,
    },
    /// A file that should be small.
    #[error("it is longer than {limit} bytes")]
    Long {
        /// The most that is read.
        limit: u64,
    },
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
    pub(super) fn is_passing(&self) -> bool {
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
            Self::Tls(_)
            | Self::NoRange
            | Self::Changed { .. }
            | Self::Corrupt { .. }
            | Self::Packed { .. }
            | Self::Length { .. }
            | Self::Long { .. }
            | Self::NoLength
            | Self::Empty => false,
        }
    }

    /// Whether the server has proved that it has another image.
    pub(super) fn is_proof(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Packed { .. } | Self::Length { .. })
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
            Self::Corrupt { .. } | Self::Packed { .. } | Self::Length { .. } => {
                "Use another mirror: this one has a damaged, older or newer image, or is not honest"
            }
            Self::Long { .. } | Self::Lapsed(_) | Self::NoLength | Self::Protocol(_) => {
                "Check netdir= with curl -I, or use another server"
            }
            Self::Empty => "Check the file on the server",
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

/// What an error of ureq's means.
pub(super) fn fault(error: ureq::Error, url: &str) -> Fault {
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
