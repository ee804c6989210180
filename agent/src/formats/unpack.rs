//! Unpacking a piece to exactly its size: unpacking stops one byte beyond it, so that a bomb does no harm.

use crate::formats::index::Form;
use std::io::Read;

/// The `size` bytes that `bytes` pack, or nothing where they do not.
pub fn piece(form: Form, bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    let reader: Box<dyn Read + '_> = match form {
        Form::Plain => Box::new(bytes),
        Form::Zlib => Box::new(flate2::read::ZlibDecoder::new(bytes)),
        Form::Zstd | Form::Casync => Box::new(zstd::Decoder::with_buffer(bytes).ok()?.single_frame()),
    };
    let mut unpacked = Vec::with_capacity(size);
    // One more, to see that it ends.
    reader.take(size as u64 + 1).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() == size).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn only_the_right_size_is_accepted() {
        let packed = zlib(&[7; 1000]);
        assert_eq!(piece(Form::Zlib, &packed, 1000), Some(vec![7; 1000]));
        assert_eq!(piece(Form::Zlib, &packed, 999), None);
        assert_eq!(piece(Form::Zlib, &packed, 1001), None);
        assert_eq!(piece(Form::Plain, b"abc", 3), Some(b"abc".to_vec()));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        assert_eq!(piece(Form::Zlib, &zlib(&vec![0; 64 << 20]), 4096), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for form in [Form::Plain, Form::Zlib, Form::Zstd] {
                let _ = piece(form, &bytes, 100);
                let _ = piece(form, &[&[0x28, 0xb5, 0x2f, 0xfd], &bytes[..]].concat(), 100);
            }
        }
    }
}
