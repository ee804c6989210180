//! Images with an index: published by our own tool and by the world's, fetched from
//! mirrors of which one lies and one dies. No wrong byte is ever given.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // helpers of tests stop the test

mod common;

use common::{LENGTH, LONG, ctl, image, is_right, open, refusal, serve, serve_index, site, wanted};
use inetboot::config::{Access, Wanted, WantedProfile};
use inetboot::formats::trust::Demand;
use inetboot::source::Image;
use qemu_tests::pki::{Authority, Years};
use qemu_tests::web::{Content, Fault, Server};
use qemu_tests::{publish, run};
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn a_store_is_fetched_piece_by_piece_and_packed() {
    for classic in [false, true] {
        let dir = site();
        let arguments = ["build", "x.iso", "--store", "store", "--classic"];
        let said = ctl(dir.path(), if classic { &arguments } else { &arguments[..4] });
        assert_eq!(said.contains("23 blocks"), classic, "{said}");
        assert!(said.contains("store:"), "{said}");
        fs::remove_file(dir.path().join("x.iso")).expect("the image is not needed any more");
        ctl(dir.path(), &["check", "x.iso.idx", "store"]);
        let server = serve(dir.path());
        let opened = is_right(&wanted(&[server.url("/x.iso.idx")]));
        assert_eq!(opened.trust().to_string(), "unverified: its index came without HTTPS, pin or signature");
        assert!(server.bytes_sent() < LENGTH as u64 * 9 / 10, "it is packed");
    }
}

#[test]
fn a_build_goes_on_where_it_stopped_and_a_second_release_adds_its_own_blocks() {
    let dir = site();
    ctl(dir.path(), &["build", "x.iso", "--store", "store"]);
    let again = ctl(dir.path(), &["build", "x.iso", "--store", "store"]);
    assert!(again.contains("0 new files"), "{again}");
    // One byte is changed, and what comes behind it begins elsewhere.
    let mut second = image();
    second[1_000_000] ^= 1;
    second.splice(1_100_000..1_100_000, [7; 100]);
    fs::write(dir.path().join("y.iso"), second).expect("writing the second release");
    let said = ctl(dir.path(), &["build", "y.iso", "--store", "store"]);
    let new: u32 =
        value(&said, "store: ").split(' ').next().and_then(|text| text.parse().ok()).expect("a count");
    assert!((1..=4).contains(&new), "{said}");
}

#[test]
fn an_index_of_an_image_that_stays_where_it_is() {
    let dir = site();
    ctl(dir.path(), &["index", "x.iso"]);
    ctl(dir.path(), &["check", "x.iso.idx", "x.iso"]);
    let server = serve(dir.path());
    is_right(&wanted(&[server.url("/x.iso.idx")]));
    let elsewhere = Wanted {
        index: Some(server.url("/x.iso.idx").parse().expect("a URL")),
        ..wanted(&[server.url("/x.iso")])
    };
    is_right(&elsewhere);
}

#[test]
fn the_indexes_of_the_world_are_read_as_their_tools_write_them() {
    let dir = site();
    let (one, two) = (serve(dir.path()), serve(dir.path()));
    let seeds = [one.url("/x.iso"), two.url("/x.iso")];
    publish::torrent(dir.path(), "x", &seeds);
    publish::torrents_2(dir.path(), "x", &seeds);
    publish::casync(dir.path(), "x");
    publish::metalink(dir.path(), "x", &seeds);
    let indexes = serve(dir.path());
    for index in ["/x.torrent", "/x.v2.torrent", "/x.hybrid.torrent", "/x.meta4", "/x.caibx"] {
        let opened = is_right(&wanted(&[indexes.url(index)]));
        assert!(opened.trust().to_string().starts_with("unverified: its index came"), "{index}");
        assert!(ctl(dir.path(), &["info", &index[1..]]).contains("inetboot.pin=sha256:"));
    }
    assert!(one.bytes_sent() + two.bytes_sent() > 0, "the web seeds were asked");
}

#[test]
fn a_server_that_links_to_a_metalink_is_believed_as_far_as_the_metalink_is() {
    let dir = site();
    let mirror = serve(dir.path());
    publish::metalink(dir.path(), "x", &[mirror.url("/x.iso")]);
    let link = "<x.meta4>; rel=describedby; type=\"application/metalink4+xml\"";
    let server = |link: &str| {
        Server::builder().tree(dir.path()).expect("the site").link(link).start().expect("a server")
    };
    let plain = server(link);
    let opened = is_right(&wanted(&[plain.url("/x.iso")]));
    assert_eq!(opened.trust().to_string(), "unverified: its index came without HTTPS, pin or signature");
    assert!(mirror.bytes_sent() + plain.bytes_sent() > LENGTH as u64);

    // Said where it redirects to a mirror, and demanded by a pin.
    let to = mirror.url("/x.iso");
    plain.misbehave(move |_, path| path.ends_with(".iso").then(|| Fault::Redirect(to.clone())));
    let pin = value(&ctl(dir.path(), &["info", "x.meta4"]), "inetboot.pin=").parse().ok();
    let pinned = Wanted { demand: Demand { pin, key: None }, ..wanted(&[plain.url("/x.iso")]) };
    assert_eq!(is_right(&pinned).trust().to_string(), "verified, pinned");

    // One that is not there is passed over.
    let gone = server("<gone.meta4>; rel=describedby; type=\"application/metalink4+xml\"");
    assert_eq!(is_right(&wanted(&[gone.url("/x.iso")])).trust().to_string(), "unverified");

    // Other places that have it are asked where an index tells whether they do, and only there.
    let duplicate = format!("<{}>; rel=duplicate", mirror.url("/x.iso"));
    assert_eq!(is_right(&wanted(&[server(&duplicate).url("/x.iso")])).reports().len(), 1);
    let both = server(&format!("{link}, {duplicate}"));
    assert_eq!(is_right(&wanted(&[both.url("/x.iso")])).reports().len(), 2);

    // A link that came in the clear vouches for nothing, wherever it leads.
    let authority = Authority::new().expect("making an authority");
    let identity = authority.identity(&["127.0.0.1"], Years::NOW).expect("making a certificate");
    let secure =
        Server::builder().tree(dir.path()).expect("the site").tls(identity).start().expect("a server");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, authority.pem()).expect("writing the certificate");
    let access = Access { ca: Some(ca), ..Access::default() };
    let clear = server(&link.replace("x.meta4", &secure.url("/x.meta4")));
    let opened = Image::open(&wanted(&[clear.url("/x.iso")]), &access, LONG).expect("opening it");
    assert_eq!(opened.trust().to_string(), "unverified: its index came without HTTPS, pin or signature");
}

/// `inetboot.pin=` or `inetboot.key=` as the tool prints it.
fn value<'a>(said: &'a str, argument: &str) -> &'a str {
    said.lines().find_map(|line| line.strip_prefix(argument)).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn a_pin_or_a_signature_decides() {
    let dir = site();
    let said = ctl(dir.path(), &["index", "x.iso"]);
    let pin = value(&said, "inetboot.pin=").parse().ok();
    let key = value(&ctl(dir.path(), &["key", "secret.key"]), "inetboot.key=").parse().ok();
    let stranger = value(&ctl(dir.path(), &["key", "other.key"]), "inetboot.key=").parse().ok();
    let server = serve(dir.path());
    let demand = |pin: &Option<_>, key: &Option<_>| Wanted {
        demand: Demand { pin: Option::clone(pin), key: Option::clone(key) },
        ..wanted(&[server.url("/x.iso.idx")])
    };
    assert_eq!(is_right(&demand(&pin, &None)).trust().to_string(), "verified, pinned");
    assert!(refusal(&demand(&None, &key)).contains("demands a signature"));

    ctl(dir.path(), &["sign", "x.iso.idx", "--secret", "secret.key"]);
    let server = serve(dir.path());
    let signed = |key: &Option<_>, path: &str| Wanted {
        demand: Demand { pin: None, key: Option::clone(key) },
        ..wanted(&[server.url(path)])
    };
    assert!(is_right(&signed(&key, "/x.iso.idx")).trust().to_string().starts_with("verified, signed by RW"));
    assert!(refusal(&signed(&stranger, "/x.iso.idx")).contains("signature is not good"));
    let bare = refusal(&signed(&key, "/x.iso"));
    assert!(bare.contains("inetboot.key= is given") && bare.contains("without an index"), "{bare}");
}

#[test]
fn an_index_over_https_is_vouched_for_by_its_site_unless_it_leads_elsewhere() {
    let dir = site();
    ctl(dir.path(), &["index", "x.iso"]);
    let authority = Authority::new().expect("making an authority");
    let identity = authority.identity(&["127.0.0.1"], Years::NOW).expect("making a certificate");
    let server =
        Server::builder().tree(dir.path()).expect("the site").tls(identity).start().expect("a server");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, authority.pem()).expect("writing the certificate");
    let access = Access { ca: Some(ca), ..Access::default() };

    let of = |wanted: &Wanted| Image::open(wanted, &access, LONG).expect("opening it").trust().to_string();
    let over_https = wanted(&[server.url("/x.iso.idx")]);
    assert!(of(&over_https).starts_with("verified against the site 127.0.0.1"));
    let plain = serve(dir.path());
    let to = plain.url("/x.iso.idx");
    server.misbehave(move |_, path| path.ends_with(".idx").then(|| Fault::Redirect(to.clone())));
    assert_eq!(of(&over_https), "unverified: its index came without HTTPS, pin or signature");

    // One hop in the clear is enough to be led astray, wherever the chain ends.
    let (hop, end) = (plain.url("/hop"), server.url("/end.idx"));
    fs::copy(dir.path().join("x.iso.idx"), dir.path().join("end.idx")).expect("copying the index");
    let identity = authority.identity(&["127.0.0.1"], Years::NOW).expect("making a certificate");
    let last = Server::builder().tree(dir.path()).expect("the site").tls(identity).start().expect("a server");
    let end = end.replace(&server.url(""), &last.url(""));
    server.misbehave(move |_, path| path.ends_with(".idx").then(|| Fault::Redirect(hop.clone())));
    plain.misbehave(move |_, path| path.ends_with("hop").then(|| Fault::Redirect(end.clone())));
    assert_eq!(of(&over_https), "unverified: its index came without HTTPS, pin or signature");
    assert!(!last.log().is_empty(), "the chain was followed to its end");

    // A chain that is https all the way is as good as its first address.
    let end = last.url("/end.idx");
    server.misbehave(move |_, path| path.ends_with(".idx").then(|| Fault::Redirect(end.clone())));
    assert!(of(&over_https).starts_with("verified against the site 127.0.0.1"));
}

#[test]
fn what_was_tampered_with_is_refused_before_it_is_used() {
    let dir = site();
    let said = ctl(dir.path(), &["build", "x.iso", "--store", "store"]);
    let pin = value(&said, "inetboot.pin=").parse().ok();
    let pinned = |server: &Server| Wanted {
        demand: Demand { pin: Option::clone(&pin), key: None },
        ..wanted(&[server.url("/x.iso.idx")])
    };

    // The index.
    let good = fs::read(dir.path().join("x.iso.idx")).expect("reading the index");
    let mut bad = good.clone();
    *bad.last_mut().expect("it has digests") ^= 1;
    fs::write(dir.path().join("x.iso.idx"), &bad).expect("tampering");
    assert!(refusal(&pinned(&serve(dir.path()))).contains("inetboot.pin= demands"));
    fs::write(dir.path().join("x.iso.idx"), &good[..good.len() - 7]).expect("cutting");
    assert!(refusal(&wanted(&[serve(dir.path()).url("/x.iso.idx")])).contains("its table is cut"));
    fs::write(dir.path().join("x.iso.idx"), &good).expect("mending");

    // A block file: damaged, cut, swapped, a bomb, missing.
    let mut files = Vec::new();
    for dir in fs::read_dir(dir.path().join("store")).expect("the store").flatten() {
        files.extend(fs::read_dir(dir.path()).expect("a directory").flatten().map(|file| file.path()));
    }
    let (one, other) = (&files[0], &files[1]);
    let right = fs::read(one).expect("a block file");
    let bomb = zstd_of_zeros();
    let mut damaged = right.clone();
    damaged[right.len() / 2] ^= 4;
    for wrong in [&damaged, &right[..right.len() / 2].to_vec(), &fs::read(other).expect("another"), &bomb] {
        fs::write(one, wrong).expect("tampering");
        let said = refusal(&pinned(&serve(dir.path())));
        assert!(said.contains("other bytes") || said.contains("cannot be unpacked"), "{said}");
    }
    fs::remove_file(one).expect("removing a block file");
    assert!(refusal(&pinned(&serve(dir.path()))).contains("404"));
}

/// Far more than a block, in few bytes.
fn zstd_of_zeros() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("zeros"), vec![0; 64 << 20]).expect("writing zeros");
    run(dir.path(), "zstd", &["-q", "zeros"]);
    fs::read(dir.path().join("zeros.zst")).expect("reading it")
}

#[test]
fn a_mirror_that_lies_is_named_and_one_that_dies_is_left() {
    let dir = site();
    ctl(dir.path(), &["index", "x.iso"]);
    let (lies, dies, slow) = (serve(dir.path()), serve(dir.path()), serve(dir.path()));
    lies.misbehave(|_, _| Some(Fault::Corrupt));
    slow.misbehave(|_, _| Some(Fault::Delay(Duration::from_millis(20))));
    let index = serve_index(dir.path());
    let wanted = Wanted {
        index: Some(index.url("/x.iso.idx").parse().expect("a URL")),
        ..wanted(&[lies.url("/x.iso"), dies.url("/x.iso"), slow.url("/x.iso")])
    };

    let opened = open(&wanted, LONG).expect("opening it");
    let expected = image();
    // It was there when the race was run, and is gone when it is needed.
    dies.set_down(true);
    for at in (0..LENGTH - 1000).step_by(200_000) {
        let mut buffer = vec![0; 1000];
        opened.source().read_at(at as u64, &mut buffer).expect("reading");
        assert_eq!(buffer, expected[at..at + 1000]);
    }

    let reports = opened.reports();
    let of = |server: &Server| {
        let url = server.url("/x.iso");
        reports.iter().find(|report| report.url == url).cloned().expect("it is reported")
    };
    assert!(of(&lies).wrong.is_some_and(|why| why.contains("other bytes")), "{reports:?}");
    assert_eq!(of(&dies).wrong, None, "dead is not dishonest");
    assert!(of(&slow).bytes > 0);

    // The second life is told.
    let again = Image::again(opened.recipe(), &Access::default(), LONG).expect("opening it again");
    assert!(again.reports().iter().any(|report| report.wrong.is_some()));
}

#[test]
fn a_mirror_that_stalls_is_not_waited_for_long() {
    let dir = site();
    let (stalls, good) = (serve(dir.path()), serve(dir.path()));
    let wanted = wanted(&[stalls.url("/x.iso"), good.url("/x.iso")]);
    let opened = open(&wanted, LONG).expect("opening it");
    stalls.misbehave(|_, _| Some(Fault::Stall(Duration::from_secs(30))));
    let start = Instant::now();
    assert!(common::read(&opened).expect("reading it") == image(), "wrong bytes");
    assert!(start.elapsed() < Duration::from_secs(9), "it took {:?}", start.elapsed());
}

#[test]
fn mirrors_of_an_image_without_an_index_have_to_be_alike_in_length() {
    let (dir, other) = (site(), site());
    fs::write(other.path().join("x.iso"), &image()[..LENGTH - 1]).expect("writing a shorter image");
    let (right, shorter) = (serve(dir.path()), serve(other.path()));
    let opened = is_right(&wanted(&[right.url("/x.iso"), shorter.url("/x.iso")]));
    let wrong = opened.reports().into_iter().find_map(|report| report.wrong).expect("one is wrong");
    assert!(wrong.contains("5999999 bytes") && wrong.contains("6000000"), "{wrong}");
}

/// Without an index, a second server is used only where its version proves that it has the same image:
/// pieces of two releases of one length are never mixed, not even where the first server dies.
#[test]
fn images_of_one_length_are_not_mixed() {
    let (dir, other) = (site(), site());
    let mut newer = image();
    newer.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(other.path().join("x.iso"), newer).expect("writing another release");
    let (first, second) = (serve(dir.path()), serve(other.path()));
    second.misbehave(|_, _| Some(Fault::OtherEtag("\"second\"".into())));
    first.misbehave(|_, _| Some(Fault::Delay(Duration::from_millis(30))));

    let both = wanted(&[first.url("/x.iso"), second.url("/x.iso")]);
    let opened = is_right(&both);
    let wrong = opened.reports().into_iter().find_map(|report| report.wrong).expect("one is not used");
    assert!(wrong.contains("nothing proves") && wrong.contains("second"), "{wrong}");

    let opened = open(&both, common::SHORT).expect("opening it");
    first.set_down(true);
    let sent = second.bytes_sent();
    opened.source().read_at(5_000_000, &mut [0; 100]).expect_err("it was read elsewhere");
    assert!(second.bytes_sent() - sent < 5000, "pieces of another image were fetched");
}

/// Spaces in the names of files do not make a place disappear.
#[test]
fn a_name_with_a_space_is_a_place() {
    let dir = site();
    fs::rename(dir.path().join("x.iso"), dir.path().join("my x.iso")).expect("renaming the image");
    ctl(dir.path(), &["index", "my x.iso", "--out", "x.idx"]);
    let server = Server::builder()
        .file("/my%20x.iso", Content::File(dir.path().join("my x.iso")))
        .file("/x.idx", Content::File(dir.path().join("x.idx")))
        .start()
        .expect("a server");
    is_right(&wanted(&[server.url("/x.idx")]));
}

#[test]
fn the_next_address_is_tried_where_the_first_has_nothing() {
    let dir = site();
    let server = serve(dir.path());
    is_right(&wanted(&[server.url("/gone.iso"), server.url("/x.iso")]));
}

#[test]
fn a_profile_is_fetched_ahead_and_a_wrong_one_is_passed_over() {
    let dir = site();
    ctl(dir.path(), &["index", "x.iso"]);
    let mut profile = String::from("inetboot-profile 1\npieces 46\n");
    profile += "20 3\n2 4\n";
    let server = Server::builder()
        .tree(dir.path())
        .expect("the site")
        .file("/good", Content::Bytes(profile.clone().into_bytes().into()))
        .file("/bad", Content::Bytes(profile.replace("46", "47").into_bytes().into()))
        .start()
        .expect("a server");
    let with = |path: &str| Wanted {
        profile: WantedProfile::At(server.url(path).parse().expect("a URL")),
        ..wanted(&[server.url("/x.iso.idx")])
    };

    let opened = Image::open_ahead(&with("/good"), &Access::default(), LONG).expect("opening it");
    std::thread::sleep(Duration::from_millis(500));
    let before = server.bytes_sent();
    let mut buffer = [0; 100];
    for piece in [20, 21, 22, 2, 3, 4, 5] {
        opened.source().read_at(piece << 17, &mut buffer).expect("reading");
    }
    assert!(before > 6 << 17, "{before}");
    is_right(&with("/bad"));
    // Named by the index.
    ctl(dir.path(), &["index", "x.iso", "--profile", "good"]);
    assert!(ctl(dir.path(), &["info", "x.iso.idx"]).contains("profile: good"));
    let opened = Image::open_ahead(&wanted(&[server.url("/x.iso.idx")]), &Access::default(), LONG);
    assert_eq!(opened.expect("opening it").recipe().profile, Some(profile));
}

/// Ten thousand reads against one mirror that does everything wrong and one that is right and slow.
#[test]
fn ten_thousand_reads_in_chaos_give_no_wrong_byte_and_no_error() {
    let dir = site();
    ctl(dir.path(), &["index", "x.iso"]);
    let (bad, slow) = (serve(dir.path()), serve(dir.path()));
    bad.misbehave(|number, _| match number.wrapping_mul(0x9E37_79B9) >> 7 & 7 {
        0 => Some(Fault::Cut),
        1 => Some(Fault::Status(503)),
        2 => Some(Fault::WrongRange),
        3 => Some(Fault::HangUp),
        4 => Some(Fault::Delay(Duration::from_millis(30))),
        5 => Some(Fault::Stall(Duration::from_millis(200))),
        // Not at first, or it would be left at once.
        6 if number > 200 => Some(Fault::Corrupt),
        _ => None,
    });
    slow.misbehave(|_, _| Some(Fault::Delay(Duration::from_millis(5))));
    let index = serve_index(dir.path());
    let wanted = Wanted {
        index: Some(index.url("/x.iso.idx").parse().expect("a URL")),
        ..wanted(&[bad.url("/x.iso"), slow.url("/x.iso")])
    };
    let expected = image();
    // Images anew, so that the cache does not hide the servers.
    for round in 0..25_u64 {
        let opened = open(&wanted, LONG).expect("opening it");
        std::thread::scope(|scope| {
            for reader in 0..4_u64 {
                let (opened, expected) = (&opened, &expected);
                scope.spawn(move || {
                    let mut state = round * 4 + reader + 1;
                    for _ in 0..100 {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let length = 1 + (state >> 40) as usize % 9000;
                        let at = (state >> 16) as usize % (LENGTH - length);
                        let mut buffer = vec![0; length];
                        opened.source().read_at(at as u64, &mut buffer).expect("an error");
                        assert!(buffer == expected[at..at + length], "wrong bytes at {at}");
                    }
                });
            }
        });
    }
}

#[test]
fn a_profile_becomes_mksquashfs_sort_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("a directory");
    for (number, content) in image().chunks(500_000).enumerate() {
        fs::write(root.join(format!("file {number}")), content).expect("writing a file");
    }
    let squash = |sort: &[&str]| {
        let _ = fs::remove_dir_all(dir.path().join("cd"));
        fs::create_dir(dir.path().join("cd")).expect("a directory");
        let options = ["root", "cd/root.squashfs", "-quiet", "-no-progress", "-noD", "-no-duplicates"];
        run(dir.path(), "mksquashfs", &[&options, sort].concat());
        run(dir.path(), "xorriso", &["-as", "mkisofs", "-quiet", "-r", "-o", "x.iso", "cd"]);
    };
    squash(&[]);
    let inetbootctl = env!("CARGO_BIN_EXE_inetbootctl");
    let pieces = fs::metadata(dir.path().join("x.iso")).expect("the ISO").len().div_ceil(128 << 10);
    // A boot that reads what lies in the middle.
    fs::write(dir.path().join("profile"), format!("inetboot-profile 1\npieces {pieces}\n24 2\n12 1\n"))
        .expect("writing a profile");
    let sorted = run(dir.path(), inetbootctl, &["profile", "sort", "profile", "x.iso"]);
    assert!(sorted.starts_with("file\\ ") && sorted.contains(" 32767\n"), "{sorted}");
    assert!((2..6).contains(&sorted.lines().count()), "{sorted}");
    fs::write(dir.path().join("sort"), &sorted).expect("writing the sort file");
    squash(&["-sort", "sort"]);
    // The pieces that were read in the middle now lie first.
    let again = fs::read(dir.path().join("x.iso")).expect("the ISO");
    let first =
        sorted.split([' ', '\\']).nth(2).and_then(|number| number.parse::<usize>().ok()).expect("a number");
    let content = image();
    let content = &content[first * 500_000..][..4096];
    let place = again.windows(4096).position(|window| window == content).expect("it is in the ISO");
    assert!(place < 1 << 20, "it lies at {place}");
}
