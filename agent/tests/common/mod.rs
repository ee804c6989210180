//! Helpers of the tests of published images: an image, a site that serves it, and ways to open and read it.
#![allow(clippy::expect_used, clippy::panic, dead_code)] // helpers of tests; no test uses all of them

use inetboot::base::failure::{Explain, chain};
use inetboot::config::{Access, Wanted, WantedProfile};
use inetboot::formats::trust::Demand;
use inetboot::formats::url::Url;
use inetboot::source::Image;
use inetboot::source::fault::SourceError;
use inetboot::source::mirrors::Patience;
use qemu_tests::run;
use qemu_tests::web::{Content, Server};
use std::fs;
use std::path::Path;
use std::time::Duration;

pub const LENGTH: usize = 6_000_000;
pub const SHORT: Patience = Patience::Bounded(Duration::from_millis(1500));
pub const LONG: Patience = Patience::Bounded(Duration::from_secs(60));

/// An image in four quarters: two that compress badly, one that compresses well, and the first again.
pub fn image() -> Vec<u8> {
    let hard =
        (0..LENGTH as u32 / 8).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_be_bytes());
    let mut image: Vec<u8> = hard.collect();
    image.resize(LENGTH * 3 / 4, b'x');
    let again = image[..LENGTH / 4].to_vec();
    image.extend(again);
    image
}

/// Runs `inetbootctl image` in `dir`, and gives its output.
pub fn ctl(dir: &Path, arguments: &[&str]) -> String {
    run(dir, env!("CARGO_BIN_EXE_inetbootctl"), &[&["image"], arguments].concat())
}

/// A directory with the image in it.
pub fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("x.iso"), image()).expect("writing the image");
    dir
}

pub fn serve(dir: &Path) -> Server {
    Server::builder().tree(dir).and_then(qemu_tests::web::Builder::start).expect("a server")
}

/// The index alone: the image that it names beside it is not there.
pub fn serve_index(dir: &Path) -> Server {
    let index = Content::File(dir.join("x.iso.idx"));
    Server::builder().file("/x.iso.idx", index).start().expect("a server")
}

pub fn wanted(urls: &[String]) -> Wanted {
    let urls = urls.iter().map(|url| url.parse::<Url>().expect("a URL")).collect();
    Wanted { urls, index: None, demand: Demand::default(), profile: WantedProfile::Published }
}

pub fn open(wanted: &Wanted, patience: Patience) -> Result<Image, SourceError> {
    Image::open(wanted, &Access::default(), patience)
}

/// The sentence that refuses the image that is `wanted`, when it is opened or when it is read.
pub fn refusal(wanted: &Wanted) -> String {
    let error = open(wanted, SHORT).and_then(|image| read(&image)).expect_err("it was trusted");
    format!("{}. {}", chain(&error), error.hint())
}

/// Reads all of the image.
pub fn read(image: &Image) -> Result<Vec<u8>, SourceError> {
    let mut bytes = vec![0; image.source().len() as usize];
    image.source().read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Opens the image that is `wanted`, and checks all of its bytes.
pub fn is_right(wanted: &Wanted) -> Image {
    let opened = open(wanted, LONG).unwrap_or_else(|error| panic!("{}. {}", chain(&error), error.hint()));
    assert!(read(&opened).expect("reading it") == image(), "wrong bytes");
    opened
}
