//! The world's own indexes of an image, made by the world's own tools; of metalinks, for which
//! Debian has none, by hand.

use crate::run;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Bytes of a piece.
const PIECE: usize = 1 << 18;

/// `x.torrent` of `x.iso` in `dir`, with web seeds.
pub fn torrent(dir: &Path, name: &str, seeds: &[String]) {
    let (seeds, out, image) = (seeds.join(","), format!("{name}.torrent"), format!("{name}.iso"));
    let power = PIECE.ilog2().to_string();
    let tracker = "udp://tracker.invalid";
    run(dir, "mktorrent", &["-l", &power, "-a", tracker, "-w", &seeds, "-o", &out, &image]);
}

/// Torrents as BEP 52 has them: version 2 alone, or both.
const MAKE_TORRENT_2: &str = r#"
import libtorrent, sys
name, flag, seeds = sys.argv[1], sys.argv[2], sys.argv[3:]
files = libtorrent.file_storage()
libtorrent.add_files(files, name + ".iso")
flags = {"v2": libtorrent.create_torrent.v2_only, "hybrid": 0}[flag]
torrent = libtorrent.create_torrent(files, 1 << 18, flags)
for seed in seeds:
    torrent.add_url_seed(seed)
libtorrent.set_piece_hashes(torrent, ".")
open(f"{name}.{flag}.torrent", "wb").write(libtorrent.bencode(torrent.generate()))
"#;

/// `x.v2.torrent` and `x.hybrid.torrent` of `x.iso` in `dir`, with web seeds.
pub fn torrents_2(dir: &Path, name: &str, seeds: &[String]) {
    for flag in ["v2", "hybrid"] {
        let seeds = seeds.iter().map(String::as_str);
        let arguments: Vec<&str> = ["-c", MAKE_TORRENT_2, name, flag].into_iter().chain(seeds).collect();
        // Debian's own, which has the library.
        run(dir, "/usr/bin/python3", &arguments);
    }
}

/// `x.caibx` of `x.iso` in `dir`, and casync's store beside it.
pub fn casync(dir: &Path, name: &str) {
    let (out, image) = (format!("{name}.caibx"), format!("{name}.iso"));
    run(dir, "casync", &["make", "--store=default.castr", &out, &image]);
}

/// `x.meta4` of `x.iso` in `dir`, the first mirror preferred.
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
