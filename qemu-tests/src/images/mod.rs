//! Images to boot, a file for each family. The makers of the large ones are the scripts in
//! `qemu-tests/isos`, which say what is real about an image and what stands in for something; the
//! witness is made here. All of them are kept in the cache, by the contents of what makes them.

use crate::repository::{output_of, repository};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::Command;

mod casper;
mod debian;
mod fedora;
mod knoppix;
mod witness;

pub use casper::{Casper, casper};
pub use debian::{debian, debian_in_layers, installed_disk, live_build, netboot};
pub use fedora::{Fedora, fedora};
pub use knoppix::knoppix;
pub use witness::{Extra, Flaw, Root, Witness, numbers, witness};

/// The path that `qemu-tests/isos/FAMILY LAYOUT` prints, once it has made the image.
pub fn family(family: &str, layout: &str) -> PathBuf {
    let maker = repository().join("qemu-tests/isos").join(family);
    let mut command = Command::new(maker);
    if !layout.is_empty() {
        command.arg(layout);
    }
    PathBuf::from(output_of(&mut command))
}

/// The key of an image in the cache: a digest of all that it is made from.
fn cache_key(parts: impl IntoIterator<Item = Vec<u8>>) -> String {
    let mut digest = Sha256::new();
    parts.into_iter().for_each(|part| digest.update(part));
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
