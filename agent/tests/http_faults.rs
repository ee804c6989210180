//! The source against a web server that misbehaves: no wrong byte is ever given, passing troubles
//! are survived, lasting ones are named.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests stop the test
#![allow(clippy::unwrap_used)]

use inetboot::base::failure::{Explain, chain};
use inetboot::config::{Access, Wanted};
use inetboot::formats::url::Url;
use inetboot::source::fault::SourceError;
use inetboot::source::mirrors::Patience;
use inetboot::source::{self, Image};
use qemu_tests::pki::{Authority, Years};
use qemu_tests::web::{Content, Fault, Server};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

const LENGTH: usize = 3_000_000;
const SHORT: Patience = Patience::Bounded(Duration::from_millis(1500));
const LONG: Patience = Patience::Bounded(Duration::from_secs(60));

/// Bytes that tell their own place.
fn image() -> Arc<[u8]> {
    (0..LENGTH as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

fn server() -> Server {
    Server::builder().file("/x.iso", Content::Bytes(image())).start().unwrap()
}

fn open_url(url: &str, access: &Access, patience: Patience) -> Result<Image, SourceError> {
    Image::open(&Wanted::at(url.parse::<Url>().unwrap()), access, patience)
}

fn open(server: &Server, patience: Patience) -> Result<Image, SourceError> {
    open_url(&server.url("/x.iso"), &Access::default(), patience)
}

fn sentence(error: &SourceError) -> String {
    format!("{}. {}", chain(error), error.hint())
}

fn refusal(outcome: Result<Image, SourceError>) -> String {
    sentence(&outcome.err().expect("it was opened"))
}

/// Reads all of it in uneven pieces, from several threads, and compares every byte.
fn read_and_compare(image_: &Image) {
    let expected = image();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (source, expected) = (image_.source(), &expected);
            scope.spawn(move || {
                let mut offset = thread * 4096;
                while offset < LENGTH {
                    let length = (70_000 + thread * 1111).min(LENGTH - offset);
                    let mut buffer = vec![0; length];
                    source.read_at(offset as u64, &mut buffer).unwrap();
                    assert_eq!(buffer, expected[offset..offset + length], "at {offset}");
                    offset += length * 2;
                }
            });
        }
    });
}

#[test]
fn reads_are_exact_and_few() {
    let server = server();
    let opened = open(&server, SHORT).unwrap();
    assert_eq!(opened.source().len(), LENGTH as u64);
    read_and_compare(&opened);
    assert!(server.bytes_sent() <= LENGTH as u64 + 1024, "a byte crossed twice");
    assert_eq!(opened.traffic().bytes, server.bytes_sent());
    assert_eq!(opened.traffic().requests, server.log().len() as u64);
}

#[test]
fn delays_5xx_cuts_hang_ups_and_wrong_ranges_are_survived() {
    let server = server();
    let opened = open(&server, LONG).unwrap();
    server.misbehave(|number, _| match number % 7 {
        0 => Some(Fault::Delay(Duration::from_millis(100))),
        1 => Some(Fault::Status(503)),
        2 => Some(Fault::Cut),
        3 => Some(Fault::HangUp),
        4 => Some(Fault::WrongRange),
        _ => None,
    });
    read_and_compare(&opened);
}

#[test]
fn what_arrived_before_a_cut_is_not_fetched_again() {
    let server = server();
    let opened = open(&server, LONG).unwrap();
    // Guesses are requested at the same time, and may be the first.
    server.misbehave(|number, _| (number < 4).then_some(Fault::Cut));
    let mut buffer = vec![0; 3 << 18];
    opened.source().read_at(0, &mut buffer).unwrap();
    assert_eq!(buffer[..], image()[..3 << 18]);
    // Cut in the middle of the six pieces.
    let ranges: Vec<String> = server.log().into_iter().filter_map(|request| request.range).collect();
    assert!(ranges.contains(&"bytes=393216-786431".to_owned()), "{ranges:?}");
    assert_eq!(ranges.iter().filter(|range| *range == "bytes=0-786431").count(), 1, "{ranges:?}");
}

#[test]
fn a_stall_is_given_up_and_asked_again() {
    let server = server();
    let opened = open(&server, LONG).unwrap();
    server.misbehave(|number, _| (number == 0).then_some(Fault::Stall(Duration::from_secs(40))));
    let start = std::time::Instant::now();
    opened.source().read_at(0, &mut [0; 100_000]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(30), "it waited for the stalled answer");
}

#[test]
fn a_server_that_stays_away_is_named_with_the_reason() {
    let server = server();
    let opened = open(&server, SHORT).unwrap();
    server.misbehave(|_, _| Some(Fault::Status(502)));
    let error = opened.source().read_at(0, &mut [0; 10]).unwrap_err();
    let said = sentence(&error);
    assert!(said.contains("/x.iso") && said.contains("502"), "{said}");
    assert!(opened.source().trouble().unwrap().contains("502"));
}

#[test]
fn a_changed_image_is_noticed_and_never_mixed() {
    let server = server();
    let opened = open(&server, LONG).unwrap();
    server.misbehave(|_, _| Some(Fault::OtherEtag("\"second\"".into())));
    let said = sentence(&opened.source().read_at(0, &mut [0; 10]).unwrap_err());
    assert!(
        said.contains("has changed") && said.contains("\"first\"") && said.contains("\"second\""),
        "{said}"
    );
    // The old file is back: reading goes on.
    server.misbehave(|_, _| None);
    opened.source().read_at(0, &mut [0; 10]).unwrap();
}

#[test]
fn the_second_life_insists_on_the_version_of_the_first() {
    let server = server();
    let recipe = open(&server, SHORT).unwrap().recipe();
    Image::again(recipe.clone(), &Access::default(), SHORT).unwrap();
    server.misbehave(|_, _| Some(Fault::OtherEtag("\"newer\"".into())));
    let said = refusal(Image::again(recipe, &Access::default(), SHORT));
    assert!(said.contains("has changed"), "{said}");
}

#[test]
fn a_redirect_is_followed_once_and_remembered() {
    let target = server();
    let to = target.url("/x.iso");
    let front = Server::builder().start().unwrap();
    front.misbehave(move |_, _| Some(Fault::Redirect(to.clone())));
    let opened = open_url(&front.url("/latest"), &Access::default(), SHORT).unwrap();
    for block in 0..5 {
        opened.source().read_at(block * 262_144, &mut [0; 100]).unwrap();
    }
    // Once for what it says itself, once to follow it.
    assert_eq!(front.log().len(), 2, "the redirect was asked for again");
}

#[test]
fn a_redirect_that_lapses_is_asked_for_again() {
    let target = server();
    let to = target.url("/x.iso");
    let front = Server::builder().start().unwrap();
    front.misbehave(move |_, _| Some(Fault::Redirect(to.clone())));
    let opened = open_url(&front.url("/latest"), &Access::default(), LONG).unwrap();
    target.misbehave(|number, _| (number == 0).then_some(Fault::Status(403)));
    opened.source().read_at(0, &mut [0; 100]).unwrap();
    assert_eq!(front.log().len(), 3);
}

/// A server that serves ranges of `bytes` and says nothing about their version.
fn silent_server(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.iso", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let range = lines.take_while(|line| !line.is_empty()).find_map(|line| {
                let line = line.to_lowercase();
                let (first, last) = line.strip_prefix("range: bytes=")?.split_once('-')?;
                Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
            });
            let (first, last) = range.unwrap();
            let (length, total) = (last + 1 - first, bytes.len());
            let head = format!(
                "HTTP/1.1 206 x\r\nContent-Range: bytes {first}-{last}/{total}\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n"
            );
            // The client may have gone.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes[first..=last]));
        }
    });
    url
}

/// A redirect that leads to another server later on has to lead to the same image: a server that does
/// not say which version it has proves nothing.
#[test]
fn a_redirect_to_another_image_is_refused() {
    let target = server();
    let to = target.url("/x.iso");
    let front = Server::builder().start().unwrap();
    front.misbehave(move |_, _| Some(Fault::Redirect(to.clone())));
    let opened = open_url(&front.url("/latest"), &Access::default(), SHORT).unwrap();
    opened.source().read_at(0, &mut [0; 100]).unwrap();

    let other = silent_server(vec![7; LENGTH]);
    target.misbehave(|_, _| Some(Fault::Status(403)));
    front.misbehave(move |_, _| Some(Fault::Redirect(other.clone())));
    let mut buffer = [0; 100];
    let outcome = opened.source().read_at(2_000_000, &mut buffer);
    let said = sentence(&outcome.expect_err("it was read from another image"));
    assert!(said.contains("has changed"), "{said}");
}

/// The second life holds a redirected address to the version of the first: a server that shows no mark does
/// not pass for it.
#[test]
fn reopening_needs_proof_behind_a_redirect() {
    let target = server();
    let to = target.url("/x.iso");
    let front = Server::builder().start().unwrap();
    front.misbehave(move |_, _| Some(Fault::Redirect(to.clone())));
    let access = Access::default();
    let recipe = open_url(&front.url("/latest"), &access, SHORT).unwrap().recipe();
    assert!(Image::again(recipe.clone(), &access, SHORT).is_ok(), "the same server has shown its version");

    let other = silent_server(vec![7; LENGTH]);
    front.misbehave(move |_, _| Some(Fault::Redirect(other.clone())));
    let said = refusal(Image::again(recipe, &access, SHORT));
    assert!(said.contains("has changed"), "{said}");
}

/// An image that is read as a whole comes from its one place in both lives, whatever else was named.
#[test]
fn whole_images_have_one_place() {
    let server = server();
    server.misbehave(|_, _| Some(Fault::NoRange));
    let wanted = Wanted {
        urls: vec![server.url("/x.iso").parse().unwrap(), "http://127.0.0.1:9/x.iso".parse().unwrap()],
        ..Wanted::at(server.url("/x.iso").parse().unwrap())
    };
    let access = Access::default();
    let recipe = Image::open(&wanted, &access, SHORT).unwrap().recipe();
    read_and_compare(&Image::again(recipe, &access, SHORT).unwrap());
}

/// A menu at an https address is not taken from a place that a redirect in the clear leads to.
#[test]
fn https_stays_https_for_small_files() {
    let authority = Authority::new().unwrap();
    let identity = authority.identity(&["127.0.0.1"], Years::NOW).unwrap();
    let menu = || Content::Bytes(b"[[entry]]"[..].into());
    let secure = Server::builder().file("/m", menu()).tls(identity).start().unwrap();
    let clear = Server::builder().file("/m", menu()).start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let access = Access { ca: Some(ca), ..Access::default() };

    let fetch = |server: &Server| {
        source::small(&server.url("/m").parse().unwrap(), &access, 100, Duration::from_secs(2))
    };
    assert_eq!(fetch(&secure).unwrap(), b"[[entry]]");
    assert_eq!(fetch(&clear).unwrap(), b"[[entry]]");
    let to = clear.url("/m");
    secure.misbehave(move |_, _| Some(Fault::Redirect(to.clone())));
    let said = sentence(&fetch(&secure).unwrap_err());
    assert!(said.contains("leads over http://"), "{said}");
}

#[test]
fn without_ranges_it_is_read_whole_where_it_fits() {
    let server = server();
    server.misbehave(|_, _| Some(Fault::NoRange));
    let opened = open(&server, SHORT).unwrap();
    assert!(opened.source().to_string().contains("read whole into memory"));
    read_and_compare(&opened);
}

#[test]
fn what_is_not_there_or_not_allowed_is_said() {
    let server = server();
    let said = refusal(open_url(&server.url("/y.iso"), &Access::default(), SHORT));
    assert!(said.contains("404 Not Found") && said.contains("Check the path"), "{said}");
    server.misbehave(|_, _| Some(Fault::Status(403)));
    let said = refusal(open(&server, SHORT));
    assert!(said.contains("403 Forbidden") && said.contains("readable"), "{said}");
}

#[test]
fn https_trusts_a_private_authority_and_only_that() {
    let authority = Authority::new().unwrap();
    let identity = authority.identity(&["127.0.0.1"], Years::NOW).unwrap();
    let server = Server::builder().file("/x.iso", Content::Bytes(image())).tls(identity).start().unwrap();
    let url = server.url("/x.iso");
    let said = refusal(open_url(&url, &Access::default(), SHORT));
    assert!(said.contains("authority that is not trusted") && said.contains("inetboot.ca="), "{said}");
    let opened = open_url(&url, &trusting(&authority).1, SHORT).unwrap();
    read_and_compare(&opened);
}

#[test]
fn each_fault_of_a_certificate_is_told_apart() {
    let authority = Authority::new().unwrap();
    let (_file, access) = trusting(&authority);
    let cases = [
        ("127.0.0.1", Years(2001, 2002), "expired on 2002-12-31"),
        ("127.0.0.1", Years(2150, 2160), "the clock is wrong"),
        ("elsewhere.example", Years::NOW, "is for another host"),
    ];
    for (name, years, expected) in cases {
        let identity = authority.identity(&[name], years).unwrap();
        let server = Server::builder().file("/x.iso", Content::Bytes(image())).tls(identity).start().unwrap();
        let said = refusal(open_url(&server.url("/x.iso"), &access, SHORT));
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

fn trusting(authority: &Authority) -> (tempfile::NamedTempFile, Access) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.pem().as_bytes()).unwrap();
    let access = Access { ca: Some(file.path().to_owned()), ..Access::default() };
    (file, access)
}
