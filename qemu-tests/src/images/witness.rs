//! The witness: a tiny live ISO whose init (`qemu-tests/witness/init`) reports what it finds, made here
//! in a second. Tests ask for one that differs from the usual in one point.

use crate::images::{cache_key, family};
use crate::initrd;
use crate::repository::{program, repository, run, script, text};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Part of the cache's key, beside the files of `qemu-tests/witness`: raise it when a change to this file
/// changes the ISO.
const VERSION: u32 = 1;

/// A witness; `Witness::default()` is the usual one, with no module in its initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Modules that its initrd has, with those that they need.
    pub initrd_modules: &'static [&'static str],
    /// The file system of its root, which has all [`MODULES`].
    pub root: Root,
    /// The point in which it is not as it should be.
    pub flaw: Option<Flaw>,
    /// More than a witness needs.
    pub extra: Option<Extra>,
}

/// The file system of the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    #[default]
    Squashfs,
    Erofs,
}

/// A point in which the ISO is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its files are in a directory that belongs to no family.
    UnknownFamily,
    /// This file is left out, though the boot menu names it.
    MissingFile(&'static str),
    /// This module is left out, of the initrd and of the root.
    MissingModule(&'static str),
    /// A bit of the kernel's code is flipped, so that its signature does not fit.
    ForgedKernel,
    /// This file has one byte more.
    LongerFile(&'static str),
    /// The initrd unpacks to so many bytes more.
    LargeInitrd(u64),
}

/// More than a witness needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Debian's Xen, beside the kernel.
    Hypervisor,
    /// The tpm2-tools of this machine, as a root of their own in the directory `tools`.
    TpmTools,
}

impl Witness {
    /// The usual one with this flaw.
    pub fn with_flaw(flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..Self::default() }
    }

    /// The usual one with this besides.
    pub fn with_extra(extra: Extra) -> Self {
        Self { extra: Some(extra), ..Self::default() }
    }

    fn has_flaw(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

/// The modules of the witness: those of the cards that the tests use, and those that a live CD needs.
const MODULES: [&str; 12] = [
    "virtio_net",
    "virtio_pci",
    "e1000",
    "virtio_blk",
    "ahci",
    "sd_mod",
    "fuse",
    "loop",
    "isofs",
    "squashfs",
    "overlay",
    "8021q",
];

/// The ISO, made on first use.
pub fn witness(witness: &Witness) -> PathBuf {
    let cache = kernel().parent().expect("the cache has a directory");
    let iso = cache.join(format!("witness-{}.iso", key(witness)));
    if !iso.exists() {
        let work = tempfile::tempdir_in(cache).expect("a directory in the cache");
        fs::rename(make(witness, work.path()), &iso).expect("putting the witness into the cache");
    }
    iso
}

/// The stock kernel: a directory with its image and its modules.
fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| PathBuf::from(script("kernel")))
}

/// A file of `qemu-tests/witness`.
fn part(name: &str) -> PathBuf {
    repository().join("qemu-tests/witness").join(name)
}

/// The cache's key: everything that the ISO is made from.
fn key(witness: &Witness) -> String {
    let mut parts: Vec<PathBuf> = fs::read_dir(part(""))
        .expect("listing the parts of the witness")
        .map(|entry| entry.expect("a part of the witness").path())
        .collect();
    parts.sort();

    let contents = parts.iter().map(|path| fs::read(path).expect("reading a part of the witness"));
    let knobs = format!("{VERSION} {witness:?} {}", kernel().display());
    cache_key(contents.chain([knobs.into_bytes()]))
}

/// Makes the ISO in `work`.
fn make(witness: &Witness, work: &Path) -> PathBuf {
    let (cd, iso) = (work.join("cd"), work.join("witness.iso"));
    let live = cd.join(if witness.has_flaw(Flaw::UnknownFamily) { "nothing" } else { "live" });
    fs::create_dir_all(&live).expect("a directory");

    fs::write(live.join("vmlinuz"), vmlinuz(witness)).expect("writing the kernel");
    make_initrd(witness, &work.join("initrd"), &live.join("initrd.img"));
    make_root(witness, &work.join("root"), &live.join("filesystem.squashfs"));
    fs::create_dir_all(cd.join("boot/grub")).expect("a directory");
    fs::copy(part("grub.cfg"), cd.join("boot/grub/grub.cfg")).expect("copying the menu");
    // Something to read that is not zeros, for the tests that read while the network fails.
    fs::write(cd.join("numbers"), numbers()).expect("writing the numbers");

    match witness.flaw {
        Some(Flaw::MissingFile(path)) => fs::remove_file(cd.join(path)).expect("leaving out a file"),
        Some(Flaw::LongerFile(path)) => {
            let file = fs::OpenOptions::new().append(true).open(cd.join(path));
            file.and_then(|mut file| file.write_all(&[0])).expect("making a file longer");
        }
        _ => {}
    }
    match witness.extra {
        Some(Extra::Hypervisor) => copy_hypervisor(&live),
        Some(Extra::TpmTools) => copy_tools(&cd.join("tools")),
        None => {}
    }

    let arguments = ["-as", "mkisofs", "-quiet", "-r", "-J", "-V", "WITNESS", "-o", &text(&iso), &text(&cd)];
    run(work, "xorriso", &arguments);
    iso
}

/// The contents of the file `numbers` on the CD: 8 000 000 bytes.
pub fn numbers() -> Vec<u8> {
    (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect()
}

fn vmlinuz(witness: &Witness) -> Vec<u8> {
    let mut vmlinuz = fs::read(kernel().join("vmlinuz")).expect("reading the kernel");
    if witness.has_flaw(Flaw::ForgedKernel) {
        let middle = vmlinuz.len() / 2;
        vmlinuz[middle] ^= 1;
    }
    vmlinuz
}

fn make_initrd(witness: &Witness, dir: &Path, to: &Path) {
    fs::create_dir_all(dir.join("bin")).expect("a directory");
    fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("copying busybox (scripts/setup)");
    fs::copy(part("init"), dir.join("init")).expect("copying the init");
    fs::set_permissions(dir.join("init"), fs::Permissions::from_mode(0o755)).expect("making it executable");
    if !witness.initrd_modules.is_empty() {
        copy_modules(witness, witness.initrd_modules, dir);
    }
    if let Some(Flaw::LargeInitrd(bytes)) = witness.flaw {
        let ballast = fs::File::create(dir.join("ballast"));
        ballast.and_then(|file| file.set_len(bytes)).expect("making the initrd large");
    }

    let packed = to.with_extension("cpio");
    initrd::pack(dir, &packed);
    run(dir, "gzip", &["-n", &text(&packed)]);
    fs::rename(packed.with_extension("cpio.gz"), to).expect("naming the initrd");
}

fn make_root(witness: &Witness, dir: &Path, to: &Path) {
    copy_modules(witness, &MODULES, dir);
    let (from, to) = (text(dir), text(to));
    match witness.root {
        Root::Erofs => run(dir, "mkfs.erofs", &["--quiet", &to, &from]),
        Root::Squashfs => {
            run(dir, "mksquashfs", &[&from, &to, "-comp", "zstd", "-all-root", "-no-progress", "-quiet"])
        }
    };
}

/// Copies modules of the stock kernel, with those that they need, below `root`, and indexes them.
fn copy_modules(witness: &Witness, names: &[&str], root: &Path) {
    let mut trees = fs::read_dir(kernel().join("lib/modules")).expect("the kernel has modules");
    let tree = trees.next().expect("the kernel has modules").expect("the kernel has modules").path();
    let release = tree.file_name().expect("a release").to_str().expect("a release is text");
    let target = root.join("usr/lib/modules").join(release);
    let copy = |path: &str| {
        let to = target.join(path);
        fs::create_dir_all(to.parent().expect("a module is in a directory")).expect("a directory");
        fs::copy(tree.join(path), to).expect("copying a module");
    };

    ["modules.builtin", "modules.builtin.modinfo", "modules.order"].into_iter().for_each(copy);
    let dependencies = fs::read_to_string(tree.join("modules.dep")).expect("reading modules.dep");
    for (path, needed) in dependencies.lines().filter_map(|line| line.split_once(':')) {
        let name = module_name(path);
        if names.contains(&name.as_str()) && !is_left_out(witness, &name) {
            std::iter::once(path).chain(needed.split_whitespace()).for_each(copy);
        }
    }

    std::os::unix::fs::symlink("usr/lib", root.join("lib")).expect("linking lib");
    run(root, "env", &["PATH=/usr/sbin:/sbin:/usr/bin:/bin", "depmod", "-b", &text(root), release]);
}

/// `kernel/fs/overlayfs/overlay.ko` is called `overlay`; dashes are underscores in names.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn is_left_out(witness: &Witness, name: &str) -> bool {
    matches!(witness.flaw, Some(Flaw::MissingModule(left_out)) if left_out == name)
}

/// Xen of the root that most test ISOs are made from.
fn copy_hypervisor(live: &Path) {
    let boot = family("root", "bookworm").join("boot");
    let files =
        fs::read_dir(boot).expect("listing the root's boot").map(|entry| entry.expect("a file").path());
    let is_xen = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("xen-") && name.ends_with(".gz")
    };
    let xen = files.into_iter().find(is_xen).expect("the root has Xen");
    fs::copy(xen, live.join("xen.gz")).expect("copying Xen");
}

/// A root with tpm2-tools, and the script that runs them in it.
fn copy_tools(root: &Path) {
    fs::create_dir_all(root).expect("a directory");
    run(root, &program("copy-tpm-tools"), &[&text(root)]);
    fs::copy(part("run-tools"), root.join("run-tools")).expect("copying the script");
}
