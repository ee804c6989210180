//! Cloop images, as `create_compressed_fs` of cloop-utils makes them (version 2), and as version 4
//! has them: blocks of several packings, the head in front or at the end. No tool of today makes
//! the latter; they are put together here after `cloop.h`.
#![allow(clippy::unwrap_used, clippy::panic)]

use inetboot::desk::cloop;
use inetboot::source::Source;
use inetboot::source::cloop::Cloop;
use inetboot::source::file::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

const BLOCK: usize = 64 << 10;

/// Something that packs well in one place and not at all in another.
fn contents() -> Vec<u8> {
    let mut noise = 1_u32;
    let noise = std::iter::repeat_with(move || {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise as u8
    });
    let text = b"KNOPPIX ".repeat(30_000);
    text.iter().copied().chain(noise.take(150_000)).chain(text.iter().copied()).collect()
}

fn open(bytes: &[u8]) -> Result<Cloop, String> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let file = File::new(file, bytes.len() as u64, "x.cloop".into());
    Cloop::open(Arc::new(file)).map_err(|error| inetboot::base::failure::chain(&error))
}

fn reads_all(cloop: &Cloop, wanted: &[u8]) {
    assert_eq!(cloop.len(), wanted.len().next_multiple_of(BLOCK) as u64);
    let mut got = vec![0; wanted.len()];
    cloop.read_at(0, &mut got).unwrap();
    assert!(got == wanted, "the contents differ");
    let mut across = [0; 100];
    cloop.read_at(BLOCK as u64 - 50, &mut across).unwrap();
    assert_eq!(across, wanted[BLOCK - 50..][..100]);
}

/// As cloop-utils makes it.
fn version_2(contents: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let [plain, packed] = ["plain", "packed"].map(|name| dir.path().join(name));
    std::fs::write(&plain, contents).unwrap();
    let output = Command::new("create_compressed_fs")
        .args(["-q", "-B", "64K", "-L", "1"])
        .args([&plain, &packed])
        .output()
        .unwrap_or_else(|error| panic!("create_compressed_fs: {error} (scripts/setup installs it)"));
    assert!(output.status.success(), "{output:?}");
    std::fs::read(packed).unwrap()
}

fn xz(block: &[u8]) -> Vec<u8> {
    let mut xz = Command::new("xz")
        .args(["--check=crc32", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    xz.stdin.take().unwrap().write_all(block).unwrap();
    xz.wait_with_output().unwrap().stdout
}

fn zlib(block: &[u8]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(block).unwrap();
    zlib.finish().unwrap()
}

/// Blocks in turns by zlib, not at all, and by xz; the head in front or at the end.
fn version_4(contents: &[u8], in_front: bool) -> Vec<u8> {
    let blocks: Vec<(u64, Vec<u8>)> = contents
        .chunks(BLOCK)
        .enumerate()
        .map(|(number, block)| {
            let mut block = block.to_vec();
            block.resize(BLOCK, 0);
            match number % 3 {
                0 => (0, zlib(&block)),
                1 => (1, block),
                _ => (2, xz(&block)),
            }
        })
        .collect();
    let mut head = [0; 136];
    head[..15].copy_from_slice(b"#!/bin/sh\n#V4.0");
    head[128..132].copy_from_slice(&(BLOCK as u32).to_be_bytes());
    head[132..].copy_from_slice(&(blocks.len() as u32).to_be_bytes());
    let mut at = if in_front { (head.len() + (blocks.len() + 1) * 8) as u64 } else { 0 };
    let mut table = Vec::new();
    for (packing, bytes) in &blocks {
        table.extend_from_slice(&(packing << 60 | at).to_be_bytes());
        at += bytes.len() as u64;
    }
    table.extend_from_slice(&at.to_be_bytes());
    let data = blocks.into_iter().flat_map(|(_, bytes)| bytes).collect();
    if in_front { [head.to_vec(), table, data].concat() } else { [data, table, head.to_vec()].concat() }
}

#[test]
fn what_cloop_utils_packs_is_read() {
    let contents = contents();
    reads_all(&open(&version_2(&contents)).unwrap(), &contents);
}

#[test]
fn the_desk_unpacks_it_and_overwrites_nothing() {
    let contents = contents();
    let dir = tempfile::tempdir().unwrap();
    let [packed, out] = ["packed", "out"].map(|name| dir.path().join(name));
    std::fs::write(&packed, version_4(&contents, true)).unwrap();
    let said = cloop::cloop(&packed, Some(&out)).unwrap();
    assert!(said.contains("cloop version 4"), "{said}");
    assert!(std::fs::read(&out).unwrap().starts_with(&contents));
    let again = cloop::cloop(&packed, Some(&out)).unwrap_err().to_string();
    assert!(again.contains("never overwritten"), "{again}");
}

#[test]
fn version_4_is_read_with_its_head_in_front_and_at_its_end() {
    let contents = contents();
    for in_front in [true, false] {
        let cloop = open(&version_4(&contents, in_front)).unwrap();
        assert!(cloop.to_string().contains("cloop version 4"), "{cloop}");
        reads_all(&cloop, &contents);
    }
}

#[test]
fn damage_is_named() {
    let good = version_4(&contents(), true);
    let refusal = |bytes: &[u8]| open(bytes).err().unwrap();
    assert!(refusal(b"").contains("no cloop image"));
    assert!(refusal(&[0; 5000]).contains("no cloop image"));
    assert!(refusal(&good[..200]).contains("its head says 10 blocks"), "{}", refusal(&good[..200]));
    assert!(refusal(&good[..good.len() - 1]).contains("behind the file"));
    let mut huge = good.clone();
    huge[128] = 0xff;
    assert!(refusal(&huge).contains("bytes"));
    let reading = |bytes: &[u8]| {
        let mut all = vec![0; 10 * BLOCK];
        inetboot::base::failure::chain(&open(bytes).unwrap().read_at(0, &mut all).unwrap_err())
    };
    let mut flipped = good.clone();
    flipped[136 + 11 * 8 + 10] ^= 0xff;
    assert!(reading(&flipped).contains("block 0 is damaged"), "{}", reading(&flipped));
    let mut lz4 = good.clone();
    lz4[136 + 8] = 0x30;
    assert!(reading(&lz4).contains("block 1 is packed with lz4"), "{}", reading(&lz4));
}
