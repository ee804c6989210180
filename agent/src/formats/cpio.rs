//! The initramfs format (`Documentation/driver-api/early-userspace/buffer-format.rst`): cpio
//! "newc" archives, plain or packed, one after the other, each on a 4-byte boundary. Single
//! archives are read and written by the `cpio` crate; the sequence is ours.

use crate::formats::compression::{MAGIC, Packing, reader};
use cpio::newc::{Builder, Reader, trailer};
use std::io::{self, BufRead, Read, Write};

/// Archives begin at multiples of this many bytes.
pub const ALIGNMENT: u64 = 4;

/// Type bits of a mode, as in `stat(2)`.
const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

/// An archive being written. Deterministic: no times, owned by root, inodes counted.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Begins an archive in `out`, which must be at an aligned place.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds a directory. It must not have the name of a symbolic link in the initrd to which this archive is
    /// appended: the kernel would replace the link by the directory.
    pub fn directory(&mut self, name: &str, mode: u32) -> io::Result<()> {
        let entry = self.entry(name, DIRECTORY | mode).nlink(2);
        entry.write(&mut self.out, 0).finish().map(drop)
    }

    /// Adds a regular file.
    pub fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let length = u32::try_from(contents.len())
            .map_err(|_| io::Error::other(format!("{name} is too large for a cpio archive")))?;
        let mut writer = self.entry(name, REGULAR | mode).write(&mut self.out, length);
        writer.write_all(contents)?;
        writer.finish().map(drop)
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        let entry = self.entry(name, CHARACTER | mode).rdev_major(major).rdev_minor(minor);
        entry.write(&mut self.out, 0).finish().map(drop)
    }

    /// Ends the archive, and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        trailer(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32) -> Builder {
        self.inode += 1;
        Builder::new(name).ino(self.inode).mode(mode).nlink(1).mtime(0)
    }
}

/// One member of an initrd, with its contents still to be read.
pub struct Member<'a> {
    /// A path without a leading `./` or `/`.
    pub name: &'a str,
    /// Bytes of the contents.
    pub length: u64,
    pub contents: &'a mut dyn Read,
}

/// Shows every regular file of an initrd to `visit`, in order: of all its archives, packed or not.
///
/// # Errors
/// The bytes are not those of an initrd; the files before have been visited.
pub fn walk(input: &mut dyn BufRead, visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut input = Counted { inner: input, place: 0 };
    while input.skip_padding()? {
        let start = input.start()?;
        let place = input.place - start.len() as u64;
        let mut rest = start.as_slice().chain(&mut input);

        match Packing::of(&start) {
            Packing::Plain if start.starts_with(b"0707") => archive(&mut rest, visit)?,
            Packing::Plain => {
                let error = format!("no cpio archive at byte {place}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            packing => {
                let mut contents = reader(packing, &mut rest)?;
                archive(&mut contents, visit)?;
                // A packed stream goes on after the archive: padding, then a checksum.
                io::copy(&mut contents, &mut io::sink())?;
            }
        }
    }
    Ok(())
}

fn archive(input: &mut dyn Read, visit: &mut dyn FnMut(Member<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut input = input;
    loop {
        let mut entry = Reader::new(input)?;
        if entry.entry().is_trailer() {
            entry.finish()?;
            return Ok(());
        }
        let header = entry.entry().clone();
        if header.mode() & 0o170_000 == REGULAR {
            let name = header.name().trim_start_matches("./").trim_start_matches('/');
            visit(Member { name, length: header.file_size().into(), contents: &mut entry })?;
        }
        input = entry.finish()?;
    }
}

/// A reader that counts its bytes.
struct Counted<'a> {
    inner: &'a mut dyn BufRead,
    place: u64,
}

impl Counted<'_> {
    /// Passes over the zeros between archives. False at the end of the initrd.
    fn skip_padding(&mut self) -> io::Result<bool> {
        loop {
            let ahead = self.inner.fill_buf()?;
            if ahead.is_empty() {
                return Ok(false);
            }
            let zeros = ahead.iter().take_while(|byte| **byte == 0).count();
            let more = zeros < ahead.len();
            self.consume(zeros);
            if more {
                return Ok(true);
            }
        }
    }

    /// Reads the [`MAGIC`] bytes by which an archive's packing is recognised; fewer at the end.
    fn start(&mut self) -> io::Result<Vec<u8>> {
        let mut start = Vec::with_capacity(MAGIC);
        self.take(MAGIC as u64).read_to_end(&mut start)?;
        Ok(start)
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.place += length as u64;
        Ok(length)
    }
}

impl BufRead for Counted<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.place += amount as u64;
        self.inner.consume(amount);
    }
}

/// Zeros that bring `length` to the next boundary.
pub fn padding(length: u64) -> usize {
    (length.next_multiple_of(ALIGNMENT) - length) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.directory("dir", 0o755).unwrap();
        for (name, contents) in files {
            archive.file(name, 0o644, contents).unwrap();
        }
        archive.finish().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    fn list(initrd: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        walk(&mut { initrd }, &mut |member| {
            let mut contents = Vec::new();
            member.contents.read_to_end(&mut contents)?;
            found.push((member.name.to_owned(), contents));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn microcode_main_and_overlay_are_all_seen() {
        let mut initrd = plain(&[("kernel/x86/microcode/x.bin", b"early")]);
        initrd.resize(initrd.len().next_multiple_of(512), 0);
        initrd.extend(gzip(&plain(&[("init", b"#!/bin/sh"), ("a", b"")])));
        initrd.resize(initrd.len() + padding(initrd.len() as u64), 0);
        initrd.extend(plain(&[("inetboot", b"elf")]));
        let names: Vec<String> = list(&initrd).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["kernel/x86/microcode/x.bin", "init", "a", "inetboot"]);
    }

    #[test]
    fn a_segment_may_begin_at_the_edge_of_a_buffer() {
        let mut initrd = plain(&[("a", b"1")]);
        let edge = initrd.len();
        initrd.extend(gzip(&plain(&[("init", b"2")])));
        for capacity in edge..edge + 8 {
            let mut names = Vec::new();
            let mut input = io::BufReader::with_capacity(capacity, initrd.as_slice());
            walk(&mut input, &mut |member| {
                names.push(member.name.to_owned());
                Ok(())
            })
            .unwrap();
            assert_eq!(names, ["a", "init"], "{capacity}");
        }
    }

    #[test]
    fn what_is_no_initrd_is_refused_with_its_place() {
        let mut initrd = plain(&[("init", b"x")]);
        initrd.extend(b"rubbish");
        assert!(list(&initrd).unwrap_err().to_string().contains("no cpio archive at byte"));
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let files: [(&str, &[u8]); 2] = [("b", b"1"), ("a", b"2")];
        assert_eq!(plain(&files), plain(&files));
    }

    proptest! {
        #[test]
        fn files_survive(contents in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let found = list(&plain(&[("some/file", &contents)])).unwrap();
            prop_assert_eq!(&found[0].1, &contents);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = list(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(at: prop::sample::Index, byte: u8) {
            let mut initrd = plain(&[("init", b"0123456789")]);
            let at = at.index(initrd.len());
            initrd[at] = byte;
            let _ = list(&initrd);
        }
    }
}
