//! The codecs, as functions of bytes. The fuzzer feeds them, and `tests/corpus.rs` repeats the inputs that the
//! fuzzer kept. None may panic, and a value that is read and written has to be read again as the same value.
//!
//! A codec in `src/formats` has the name of its file; `tests/corpus.rs` looks for one for each file.

use inetboot::config::Config;
use inetboot::desk::{pcrs, quote};
use inetboot::formats::catalogue::Catalogue;
use inetboot::formats::cmdline::{self, Word};
use inetboot::formats::compression::{self, Packing};
use inetboot::formats::disk_layout::{Name, Page, Superblock};
use inetboot::formats::eventlog::EventLog;
use inetboot::formats::handoff::Handoff;
use inetboot::formats::index::{self, Form, ours};
use inetboot::formats::links::Links;
use inetboot::formats::mac::Mac;
use inetboot::formats::multiboot::{self, Layout, Module, Region, RegionKind};
use inetboot::formats::pieces::{Algorithm, Pieces, hex, unhex};
use inetboot::formats::profile::Profile;
use inetboot::formats::statement::Statement;
use inetboot::formats::trust::{Demand, Key, Pin, Trust};
use inetboot::formats::url::Url;
use inetboot::formats::{boot_menu, bzimage, cpio, depmod, tpm2, tpm12, unpack};
use inetboot::machine::memfd;
use inetboot::net::advert::Advert;
use inetboot::net::dhcp::Conversation;
use inetboot::net::dhcp6::{Ask, Conversation6};
use inetboot::person::keys::Keys;
use inetboot::person::menu::{Item, Menu};
use inetboot::source::Source;
use inetboot::source::cloop::Cloop;
use inetboot::source::file::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

/// A codec that is given any bytes.
pub type Target = fn(&[u8]);

/// The codecs by name, each with a corpus of that name in `corpus/`.
pub const TARGETS: [(&str, Target); 31] = [
    ("advert", |data| {
        let _ = Advert::parse(data);
    }),
    ("boot_menu", |data| {
        let menu = text(data);
        for path in ["boot/grub/grub.cfg", "isolinux/isolinux.cfg"] {
            let _ = boot_menu::entries(path, &menu, &|_| None);
        }
    }),
    ("bzimage", |data| {
        let _ = bzimage::Kernel::parse(data);
    }),
    ("casync", index),
    ("catalogue", |data| {
        let Ok(catalogue) = Catalogue::decode(&text(data)) else { return };
        assert!(!catalogue.entries.is_empty());
        for entry in &catalogue.entries {
            let _ = Config::parse(&cmdline::words(&entry.to_string()));
        }
    }),
    ("cloop", |data| {
        let mut file = memfd::file("cloop").expect("a file in memory");
        file.write_all(data).expect("writing to memory");
        let file = File::new(file, data.len() as u64, "fuzzed".into());
        let Ok(cloop) = Cloop::open(Arc::new(file)) else { return };
        let mut buffer = vec![0; cloop.len().min(1 << 20) as usize];
        let _ = cloop.read_at(0, &mut buffer);
    }),
    ("cmdline", |data| {
        if let Some(word) = Word::from_text(&text(data)) {
            assert_eq!(cmdline::words(&format!("{word} demanded")).len(), 2);
        }
        let _ = Config::parse(&cmdline::words(&text(data)));
    }),
    ("compression", |data| {
        let mut input = data;
        if let Ok(contents) = compression::reader(Packing::of(data), &mut input) {
            let _ = io::copy(&mut contents.take(1 << 20), &mut io::sink());
        }
    }),
    ("cpio", |data| {
        let _ =
            cpio::walk(&mut &data[..], &mut |member| io::copy(member.contents, &mut io::sink()).map(drop));
    }),
    ("depmod", |data| {
        let listing = text(data);
        if let Some(modules) = depmod::Index::parse(&|_| Some(listing.clone().into_bytes())) {
            let _ = modules.modules_for("pci:v00008086d0000100E").count();
            let _ = modules.load_order("e1000");
        }
    }),
    ("dhcp", |data| {
        let now = Instant::now();
        let mut talk = Conversation::new(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]), 7, now);
        let _ = talk.poll(now);
        let _ = talk.receive(data, now);
    }),
    ("dhcp6", |data| {
        let now = Instant::now();
        for ask in [Ask::Address, Ask::Information] {
            let mut talk = Conversation6::new(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]), 7, ask, now);
            let _ = talk.poll(now);
            let _ = talk.receive(data, now);
            let _ = talk.poll(now);
        }
    }),
    ("disk_layout", |data| {
        if let Some(block) = Superblock::decode(data) {
            assert_eq!(Superblock::decode(&block.encode()), Some(block));
        }
        let name = Name::of("piece", data.len() as u64);
        let mut page = Page::new(data.to_vec());
        let slot = page.give(&name, data.get(..100).unwrap_or(b"contents"));
        assert_eq!(page.find(&name).map(|entry| entry.slot), Some(slot));
    }),
    ("eventlog", |data| {
        let Ok(log) = EventLog::decode(data) else { return };
        assert_eq!(log.encode(), data);
        assert_eq!(log.first(log.events().len()).events(), log.events());
        log.banks().into_iter().for_each(|bank| drop(log.replay(bank)));
        for statement in log.events().iter().filter_map(Statement::of_event) {
            assert_eq!(Statement::of_line(&statement.line()), Some(statement));
        }
    }),
    ("handoff", |data| {
        if let Ok(handoff) = Handoff::decode(&text(data), Some(Vec::new()), None) {
            let again = Handoff::decode(&handoff.encode(), Some(Vec::new()), None);
            assert_eq!(again, Ok(handoff));
        }
    }),
    ("keys", |data| {
        let items = vec![Item::with_text("a", "netdir="), Item::to_type("b", ""), Item::new("c")];
        let mut menu = Menu::new("keys", items, None);
        let mut keys = Keys::default();
        for key in data.chunks(3).flat_map(|bytes| keys.feed(bytes)) {
            if let Some(chosen) = menu.press(key) {
                assert!(chosen.item < 3);
            }
            assert!(menu.picture(20, 8).len() <= 8);
        }
    }),
    ("links", |data| {
        let _ = Links::parse(text(data).lines());
    }),
    ("metalink", index),
    ("multiboot", |data| {
        let module = Module { what: "kernel", bytes: data, words: "quiet" };
        let memory = [Region { start: 0, end: 1 << 30, kind: RegionKind::Ram }];
        if let Ok(Layout { segments, start }) = multiboot::lay_out(data, "words", &[module], &memory) {
            assert!(segments.iter().all(|segment| segment.address + segment.length <= 1 << 30));
            assert!(segments.iter().any(|segment| segment.address == start));
        }
    }),
    ("ours", |data| {
        if let Ok(index) = index::decode(data, "http://h/x")
            && data.starts_with(b"inetboot-index")
        {
            let bytes = ours::encode(&index).expect("it has digests");
            assert_eq!(index::decode(&bytes, "http://h/x"), Ok(index));
        }
    }),
    ("pcrs", |data| {
        if let Ok(values) = pcrs::decode(&text(data)) {
            assert_eq!(pcrs::decode(&pcrs::encode(&values)), Ok(values));
        }
    }),
    ("pieces", |data| {
        if let Some(bytes) = unhex(&text(data)) {
            assert_eq!(hex(&bytes), text(data).to_lowercase());
        }
        let Some((head, digests)) = data.split_at_checked(16) else { return };
        let numbers: Vec<u64> =
            head.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default())).collect();
        let cuts = [
            Pieces::every(numbers[0], numbers[1], Algorithm::Sha256, digests.to_vec()),
            Pieces::ending(numbers, Algorithm::Sha1, digests.to_vec()),
        ];
        for pieces in cuts.into_iter().flatten() {
            let last = pieces.count() - 1;
            assert_eq!(pieces.bytes(0..pieces.count()), 0..pieces.length());
            assert!(pieces.digest(last).is_some() && pieces.at(pieces.length() - 1) == last);
        }
    }),
    ("profile", |data| {
        let text = text(data);
        if let Ok(profile) = Profile::decode(&text, 700) {
            assert_eq!(Profile::decode(&profile.encode(), 700), Ok(profile));
        }
    }),
    ("quote", |data| {
        let Some((which, file)) = data.split_first() else { return };
        let good = [MESSAGE, SIGNATURE, KEY];
        let mut files = good;
        files[usize::from(*which) % 3] = file;
        let [message, signature, key] = files;
        assert!(quote::verified(message, signature, key).is_err() || message == MESSAGE);
    }),
    ("statement", |data| {
        if let Some(statement) = Statement::of_line(&text(data)) {
            let line = statement.line();
            assert_eq!(Statement::of_line(&line).map(|again| again.line()), Some(line));
        }
    }),
    ("torrent", index),
    ("tpm12", |data| {
        let _ = tpm12::value(data);
    }),
    ("tpm2", |data| {
        let _ = (tpm2::banks(data), tpm2::extended(data), tpm2::value(data));
    }),
    ("trust", |data| {
        if let Ok(pin) = text(data).parse::<Pin>() {
            assert_eq!(pin.to_string().parse(), Ok(pin));
        }
        let key: Option<Key> = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse().ok();
        let _ = Trust::of(b"index", "http://h/x", &Demand { pin: None, key }, Some(data));
    }),
    ("unpack", |data| {
        let Some((form, packed)) = data.split_first() else { return };
        let form = [Form::Plain, Form::Zlib, Form::Zstd][usize::from(*form) % 3];
        if let Some(piece) = unpack::piece(form, packed, 4096) {
            assert_eq!(piece.len(), 4096);
        }
    }),
    ("url", |data| {
        let text = text(data);
        let (address, reference) = text.split_once('\n').unwrap_or((&text, ""));
        let Ok(url) = address.parse::<Url>() else { return };
        assert_eq!(url.to_string().parse(), Ok(url.clone()));
        assert!(!url.file_name().is_empty());
        let _ = url.join(reference);
    }),
];

/// A quote that is good.
const MESSAGE: &[u8] = include_bytes!("../../tests/fixtures/tpm/ecdsa.message");
const SIGNATURE: &[u8] = include_bytes!("../../tests/fixtures/tpm/ecdsa.signature");
const KEY: &[u8] = include_bytes!("../../tests/fixtures/tpm/ecdsa.pub");

fn index(data: &[u8]) {
    if let Ok(index) = index::decode(data, "http://h/x.caibx") {
        let pieces = &index.pieces;
        assert_eq!(pieces.bytes(0..pieces.count()), 0..pieces.length());
        assert!(pieces.digest(pieces.count() - 1).is_some());
    }
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
