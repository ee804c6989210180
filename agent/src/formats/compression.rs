//! Compression of initrd segments and of modules, told by their first bytes. Pure. We unpack to look, never
//! to change.

use std::io::{self, BufRead, Read};

/// The compression of a run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// None that is known here.
    Plain,
    /// gzip (RFC 1952)
    Gzip,
    Xz,
    /// Zstandard (RFC 8878)
    Zstd,
    /// One that the kernel can unpack and we cannot, by its name.
    Foreign(&'static str),
}

/// Bytes that [`Packing::of`] looks at.
pub const MAGIC: usize = 6;

impl Packing {
    /// Recognised by the magic numbers of the kernel's `lib/decompress.c`.
    pub fn of(start: &[u8]) -> Self {
        const MAGICS: [(&[u8], Packing); 8] = [
            (&[0x1f, 0x8b], Packing::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Packing::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Packing::Foreign("lz4")),
            (&[0x04, 0x22, 0x4d, 0x18], Packing::Foreign("lz4")),
            (b"BZh", Packing::Foreign("bzip2")),
            (&[0x89, b'L', b'Z', b'O'], Packing::Foreign("lzo")),
            (&[0x5d, 0, 0], Packing::Foreign("lzma")),
        ];
        MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map_or(Self::Plain, |(_, packing)| *packing)
    }
}

/// The contents of one packed stream. Reads no further than its end, so that what follows can be
/// read from `input` afterwards.
pub fn reader<'a>(packing: Packing, input: &'a mut dyn BufRead) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing {
        Packing::Plain => Box::new(input),
        Packing::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new(input, false)),
        Packing::Zstd => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
        Packing::Foreign(name) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{name} compression is not supported"),
            ));
        }
    })
}

/// Bytes of an unpacked module at most, so that a crafted file cannot eat the memory.
const LARGEST: u64 = 256 << 20;

/// The whole of a module, unpacked if it is packed.
///
/// # Errors
/// Damage, a packing that is not supported, or more than 256 MiB: a module that is cut would be loaded as if
/// it were whole.
pub fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    unpack_at_most(bytes, LARGEST)
}

fn unpack_at_most(bytes: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut input = bytes;
    let mut contents = Vec::new();
    reader(Packing::of(bytes), &mut input)?.take(most + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > most {
        let error = format!("it unpacks to more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn packings_are_told_by_their_magic() {
        assert_eq!(Packing::of(&[0x1f, 0x8b, 8]), Packing::Gzip);
        assert_eq!(Packing::of(b"\xfd7zXZ\0\0"), Packing::Xz);
        assert_eq!(Packing::of(b"\x28\xb5\x2f\xfd"), Packing::Zstd);
        assert_eq!(Packing::of(b"BZh9"), Packing::Foreign("bzip2"));
        assert_eq!(Packing::of(b"070701"), Packing::Plain);
        assert_eq!(Packing::of(b""), Packing::Plain);
    }

    #[test]
    fn a_gzipped_module_is_unpacked() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"module").unwrap();
        assert_eq!(unpack(&gzip.finish().unwrap()).unwrap(), b"module");
        assert_eq!(unpack(b"\x7fELF").unwrap(), b"\x7fELF");
    }

    /// A module that is too long is refused and not cut.
    #[test]
    fn too_long_is_an_error() {
        let packed = zstd::encode_all(&[0_u8; 100][..], 0).unwrap();
        for bytes in [&packed[..], &[0; 100]] {
            assert_eq!(unpack_at_most(bytes, 100).unwrap(), [0; 100]);
            assert!(unpack_at_most(bytes, 99).unwrap_err().to_string().contains("more than 99 bytes"));
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_named() {
        assert!(unpack(b"BZh91AY").unwrap_err().to_string().contains("bzip2"));
    }
}
