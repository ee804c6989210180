//! Step 3: the source of the image's bytes.
//!
//! A [`Source`] is a length, `read_at`, and a `Display` for the user. Behind an [`image`] stand a cache
//! ([`cache`]), a store on a disk or in memory ([`store`]), the places that have the image ([`mirrors`]),
//! and single requests to them ([`http`]). The other steps need the image only.

pub mod ahead;
pub mod cache;
pub mod cloop;
pub mod disk;
mod eyeballs;
pub mod fault;
pub mod file;
mod find;
pub mod http;
pub mod image;
pub mod images;
pub mod mirrors;
mod schedule;
pub mod store;
pub mod supply;
pub mod tls;
pub mod wire;

pub use crate::source::image::Image;

use crate::config::Access;
use crate::formats::url::Url;
use crate::source::fault::{Refusal, SourceError};
use crate::source::http::Client;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An immutable run of bytes.
pub trait Source: fmt::Display + Send + Sync {
    /// Bytes of the image.
    fn len(&self) -> u64;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fill `buffer` from `offset`; the range must lie inside the image.
    ///
    /// # Errors
    /// When the bytes cannot be had within the source's patience. A patient source blocks instead.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError>;

    /// The reason why the last read failed, where the kernel only says "Input/output error".
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// All of a small file that is not an image: at most `limit` bytes, from a server that may be silent for as
/// long as `patience`. An `https://` address has to stay on https, whatever it is redirected to.
pub fn small(url: &Url, access: &Access, limit: u64, patience: Duration) -> Result<Vec<u8>, SourceError> {
    let ca = tls::read_ca(access).map_err(SourceError::Ca)?;
    let client = Client::new(access, ca.as_deref(), Arc::default())?;
    let file = client.small(url.as_str(), limit, patience)?;
    if url.is_https() && !file.over_https {
        let act = format!("cannot open {url}");
        return Err(SourceError::Request { act, fault: Refusal::InTheClear.into() });
    }
    Ok(file.bytes)
}
