//! Indexes of an image that other tools read, made by those tools: torrents, casync's. Debian has no tool
//! that makes metalinks (RFC 5854), so those are written here.

use crate::repository::{program, run};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Bytes of a piece of the image.
const PIECE: usize = 1 << 18;

/// Makes `NAME.torrent` of `NAME.iso` in `dir`, with web seeds.
pub fn torrent(dir: &Path, name: &str, seeds: &[String]) {
    let (seeds, out, image) = (seeds.join(","), format!("{name}.torrent"), format!("{name}.iso"));
    let power = PIECE.ilog2().to_string();
    let tracker = "udp://tracker.invalid";
    run(dir, "mktorrent", &["-l", &power, "-a", tracker, "-w", &seeds, "-o", &out, &image]);
}

/// Makes `NAME.v2.torrent` and `NAME.hybrid.torrent` of `NAME.iso` in `dir`, with web seeds (BEP 52).
pub fn torrents_2(dir: &Path, name: &str, seeds: &[String]) {
    let maker = program("make-torrent.py");
    for version in ["v2", "hybrid"] {
        let seeds = seeds.iter().map(String::as_str);
        let arguments: Vec<&str> = [maker.as_str(), name, version].into_iter().chain(seeds).collect();
        // Debian's Python, which has the library.
        run(dir, "/usr/bin/python3", &arguments);
    }
}

/// Makes `NAME.caibx` of `NAME.iso` in `dir`, and casync's store beside it.
pub fn casync(dir: &Path, name: &str) {
    let (out, image) = (format!("{name}.caibx"), format!("{name}.iso"));
    run(dir, "casync", &["make", "--store=default.castr", &out, &image]);
}

/// Makes `NAME.meta4` of `NAME.iso` in `dir`; the first mirror is the preferred one.
pub fn metalink(dir: &Path, name: &str, mirrors: &[String]) {
    let image = fs::read(dir.join(format!("{name}.iso"))).expect("reading the image");
    let mut hashes = String::new();
    for piece in image.chunks(PIECE) {
        hashes += "<hash>";
        Sha256::digest(piece).iter().for_each(|byte| write!(hashes, "{byte:02x}").expect("it is a string"));
        hashes += "</hash>";
    }

    let urls: String = (1..)
        .zip(mirrors)
        .map(|(priority, url)| format!("<url priority=\"{priority}\">{url}</url>"))
        .collect();
    let metalink = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"{name}.iso\"><size>{}</size>\
         <pieces length=\"{PIECE}\" type=\"sha-256\">{hashes}</pieces>{urls}</file></metalink>\n",
        image.len()
    );
    fs::write(dir.join(format!("{name}.meta4")), metalink).expect("writing the metalink");
}
