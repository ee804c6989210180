//! Step 7: nothing is started that was not digested first.
//!
//! [`Measured`] can only be made here, and [`crate::kexec::load`] takes nothing else. The TPM is
//! not extended yet: until then the honest word for every boot is [`WORD`].

use crate::failure::Explain;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Read};

/// What can be said about this boot's being measured.
pub const WORD: &str = "not measured";

/// Why: shown on the console.
pub const REASON: &str = "no TPM is used by this release: digests are shown, not measured";

/// Something whose digest was taken and recorded before it is used.
#[derive(Debug)]
pub struct Measured<T>(T);

impl<T> Measured<T> {
    /// The thing itself, to be used now.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest([u8; 32]);

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What runs, in parts that have names.
pub trait Parts {
    /// Show every part that will run or decide what runs: its name and its bytes.
    fn parts(&self, visit: &mut dyn FnMut(&'static str, &mut dyn Read) -> io::Result<()>) -> io::Result<()>;
}

/// A part could not be digested.
#[derive(Debug, thiserror::Error)]
#[error("cannot digest the {part}")]
pub struct MeasureError {
    part: &'static str,
    #[source]
    error: io::Error,
}

impl Explain for MeasureError {
    fn hint(&self) -> String {
        "Check the machine's memory".into()
    }
}

/// Digest every part of `thing`, and record each with `record`.
pub fn measure<T: Parts>(
    thing: T,
    record: &mut dyn FnMut(&'static str, Sha256Digest),
) -> Result<Measured<T>, MeasureError> {
    let mut current = "payload";
    let outcome = thing.parts(&mut |name, bytes| {
        current = name;
        record(name, digest(bytes)?);
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(Measured(thing)),
        Err(error) => Err(MeasureError { part: current, error }),
    }
}

fn digest(bytes: &mut dyn Read) -> io::Result<Sha256Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match bytes.read(&mut buffer)? {
            0 => return Ok(Sha256Digest(hasher.finalize().into())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Parts for Two {
        fn parts(
            &self,
            visit: &mut dyn FnMut(&'static str, &mut dyn Read) -> io::Result<()>,
        ) -> io::Result<()> {
            visit("kernel", &mut &b"abc"[..])?;
            visit("command line", &mut &b""[..])
        }
    }

    #[test]
    fn every_part_is_recorded_before_it_can_be_used() {
        let mut record = Vec::new();
        measure(Two, &mut |name, digest| record.push(format!("{name} {digest}"))).unwrap();
        // FIPS 180-2, appendix B.1, and the empty message.
        assert_eq!(
            record,
            [
                "kernel ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "command line e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ]
        );
    }
}
