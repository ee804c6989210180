//! Initrds that are put together for one test.

use crate::repository::{program, run, text};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The kernel wants each segment of an initrd at a multiple of this.
const ALIGNMENT: usize = 4;

/// The `initrds`, followed by a segment that holds `files` by their names.
pub fn with_files(initrds: &[&Path], files: &[(String, Vec<u8>)]) -> tempfile::NamedTempFile {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, contents) in files {
        let path = dir.path().join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        fs::write(&path, contents).expect("writing a file of the initrd");
        // Some of them are programs.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("making it executable");
    }

    let mut joined = tempfile::NamedTempFile::new().expect("a temporary file");
    for initrd in initrds {
        let mut bytes = fs::read(initrd).expect("reading an initrd");
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        joined.write_all(&bytes).expect("writing the initrd");
    }
    let segment = joined.path().with_extension("segment");
    pack(dir.path(), &segment);
    joined.write_all(&fs::read(&segment).expect("reading the segment")).expect("writing the initrd");
    fs::remove_file(&segment).expect("removing the segment");
    joined
}

/// Packs what is in `dir` as a segment of an initrd, uncompressed, into the file `to`.
pub(crate) fn pack(dir: &Path, to: &Path) {
    run(dir, &program("pack-initrd"), &[&text(dir), &text(to)]);
}
