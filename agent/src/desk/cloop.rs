//! `inetbootctl cloop`: checks a compressed image of KNOPPIX, and unpacks it.

use crate::desk::files;
use crate::source::cloop::Cloop;
use crate::source::{Source, file};
use anyhow::Context;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Bytes that are read at a time.
const STRIDE: u64 = 1 << 20;

/// Unpacks every block of the image at `path`, so that damage shows, into `out` if that is given. Returns a
/// sentence on the image.
pub fn cloop(path: &Path, out: Option<&Path>) -> anyhow::Result<String> {
    let opened = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let length = opened.metadata()?.len();
    let packed = file::File::new(opened, length, path.display().to_string());
    let cloop = Cloop::open(Arc::new(packed))?;
    let mut sink = out.map(|out| files::create_new(out, 0o666)).transpose()?;

    let mut buffer = vec![0; STRIDE as usize];
    for at in (0..cloop.len()).step_by(STRIDE as usize) {
        let now = &mut buffer[..STRIDE.min(cloop.len() - at) as usize];
        cloop.read_at(at, now)?;
        if let Some(sink) = &mut sink {
            sink.write_all(now).context("writing")?;
        }
    }
    Ok(format!("{cloop}: {length} bytes hold {}", cloop.len()))
}
