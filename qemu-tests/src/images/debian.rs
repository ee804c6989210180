//! Debian: the live ISO that live-build makes, the idle one of `scripts/idle-iso`, the installer's netboot files, an installed disk.

use crate::images::{cache_key, family};
use crate::repository::{program, run, script, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The live ISO as Debian's live-build makes it.
pub fn live_build() -> PathBuf {
    PathBuf::from(script("live-iso"))
}

/// The live ISO whose units and drivers are masked, so that it boots quickly under emulation.
pub fn debian() -> PathBuf {
    static ISO: OnceLock<PathBuf> = OnceLock::new();
    ISO.get_or_init(|| PathBuf::from(script("idle-iso"))).clone()
}

/// The live ISO with a second squashfs, which has the file `etc/second` alone; cached beside it.
pub fn debian_in_layers() -> PathBuf {
    static ISO: OnceLock<PathBuf> = OnceLock::new();
    ISO.get_or_init(|| {
        let maker = program("add-layer");
        let key = cache_key([fs::read(&maker).expect("reading the maker")]);
        let iso = debian().with_extension(format!("layers-{key}.iso"));
        if !iso.exists() {
            run(Path::new("/"), &maker, &[&text(&debian()), &text(&iso)]);
        }
        iso
    })
    .clone()
}

/// The directory of the netboot files of Debian's installer.
pub fn netboot() -> PathBuf {
    family("netboot", "")
}

/// The disk of a machine with Debian's GRUB, on which `scripts/install` and `update-grub` were run.
pub fn installed_disk() -> PathBuf {
    family("installed", "")
}
