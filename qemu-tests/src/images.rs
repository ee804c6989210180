//! Images to boot: the witness, made here in a second, and the real Debian live ISO, made by
//! `scripts/debian-iso`.

use crate::machine::{built, output_of, repository, script};
use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What is special about a witness.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub struct Witness {
    /// Modules (by name, with what they need) that its initrd has; the others are in its root.
    pub initrd_modules: Vec<&'static str>,
    /// Modules left out of both.
    pub without: Vec<&'static str>,
    /// Files left out of the ISO, e.g. the kernel that its menu names.
    pub missing: Vec<&'static str>,
    /// Bytes of zeros beside its initrd's init, to make it large when it is unpacked.
    pub ballast: u64,
    /// Flip a bit in the kernel's code, so that its signature does not fit.
    pub forged_kernel: bool,
    /// Make an ISO that is no live system at all.
    pub no_family: bool,
    /// A file of the ISO that gets one byte more.
    pub longer: Option<&'static str>,
    /// Make its root an EROFS in place of a squashfs.
    pub erofs: bool,
    /// Put Debian's Xen onto the CD.
    pub hypervisor: bool,
    /// Put tpm2-tools of this machine onto the CD, as a root of their own in `tools`.
    pub tpm_tools: bool,
}

/// The modules of the witness: those of the cards the tests use, and what a live CD needs.
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

/// The path of the witness' ISO, made on first use and cached by its inputs.
pub fn witness(witness: &Witness) -> PathBuf {
    make_witness(witness).expect("making the witness")
}

/// The path of the real Debian live ISO.
pub fn debian() -> PathBuf {
    static ISO: OnceLock<PathBuf> = OnceLock::new();
    ISO.get_or_init(|| PathBuf::from(script("debian-iso"))).clone()
}

/// The same with a second squashfs, which has the file `etc/second` alone; cached beside it.
pub fn debian_in_layers() -> PathBuf {
    static ISO: OnceLock<PathBuf> = OnceLock::new();
    ISO.get_or_init(|| {
        let key = &hex(&Sha256::digest(include_str!("images.rs")))[..8];
        let iso = debian().with_extension(format!("layers-{key}.iso"));
        if !iso.exists() {
            add_layer(&debian(), &iso).expect("adding a layer to the ISO");
        }
        iso
    })
    .clone()
}

fn add_layer(from: &Path, to: &Path) -> anyhow::Result<()> {
    let work = tempfile::tempdir_in(to.parent().context("the cache has a directory")?)?;
    let dir = work.path().display();
    fs::create_dir_all(work.path().join("second/etc"))?;
    fs::write(work.path().join("second/etc/second"), "from the second squashfs\n")?;
    shell(&format!(
        "mksquashfs {dir}/second {dir}/second.squashfs -all-root -no-progress -quiet && \
         xorriso -report_about WARNING -indev {} -outdev {dir}/iso \
           -map {dir}/second.squashfs /live/second.squashfs -commit",
        from.display()
    ))?;
    Ok(fs::rename(work.path().join("iso"), to)?)
}

/// The path of the ISO that `qemu-tests/isos/FAMILY LAYOUT` makes.
pub fn family(family: &str, layout: &str) -> PathBuf {
    let maker = repository().join("qemu-tests/isos").join(family);
    PathBuf::from(output_of(Command::new(maker).arg(layout)))
}

/// The directory of the netboot files of Debian's installer.
pub fn netboot() -> PathBuf {
    PathBuf::from(output_of(&mut Command::new(repository().join("qemu-tests/isos/netboot"))))
}

fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| PathBuf::from(script("kernel")))
}

fn make_witness(witness: &Witness) -> anyhow::Result<PathBuf> {
    let init = repository().join("qemu-tests/witness/init");
    let mut key = Sha256::new();
    key.update(fs::read(&init)?);
    key.update(include_str!("images.rs"));
    key.update(format!("{witness:?} {}", kernel().display()));
    let key = &hex(&key.finalize())[..16];
    let cache = kernel().parent().context("the cache has a directory")?;
    let iso = cache.join(format!("witness-{key}.iso"));
    if iso.exists() {
        return Ok(iso);
    }
    let work = tempfile::tempdir_in(cache)?;
    let dir = |name: &str| -> anyhow::Result<PathBuf> {
        let dir = work.path().join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    };

    let root = dir("root")?;
    copy_modules(&root, &MODULES, &witness.without)?;
    let initrd = dir("initrd")?;
    fs::create_dir_all(initrd.join("bin"))?;
    fs::copy("/bin/busybox", initrd.join("bin/busybox")).context("copying busybox-static")?;
    fs::copy(&init, initrd.join("init"))?;
    fs::set_permissions(initrd.join("init"), fs::Permissions::from_mode(0o755))?;
    if witness.ballast > 0 {
        fs::File::create(initrd.join("ballast"))?.set_len(witness.ballast)?;
    }
    if !witness.initrd_modules.is_empty() {
        copy_modules(&initrd, &witness.initrd_modules, &witness.without)?;
    }

    let cd = dir("cd")?;
    let live = dir(if witness.no_family { "cd/nothing" } else { "cd/live" })?;
    let mut vmlinuz = fs::read(kernel().join("vmlinuz"))?;
    if witness.forged_kernel {
        let middle = vmlinuz.len() / 2;
        vmlinuz[middle] ^= 1;
    }
    fs::write(live.join("vmlinuz"), vmlinuz)?;
    shell(&format!(
        "cd {} && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -n > {}/initrd.img",
        initrd.display(),
        live.display()
    ))?;
    let (from, to) = (root.display(), format!("{}/filesystem.squashfs", live.display()));
    shell(&match witness.erofs {
        true => format!("mkfs.erofs --quiet {to} {from}"),
        false => format!("mksquashfs {from} {to} -comp zstd -all-root -no-progress -quiet"),
    })?;
    if witness.hypervisor {
        let xen = output_of(Command::new(repository().join("qemu-tests/isos/root")).arg("bookworm"));
        shell(&format!("cp {xen}/boot/xen-*.gz {}/xen.gz", live.display()))?;
    }
    fs::create_dir_all(cd.join("boot/grub"))?;
    fs::write(
        cd.join("boot/grub/grub.cfg"),
        "menuentry \"Witness\" {\n linux /live/vmlinuz boot=live witness=1 findiso=${iso_path}\n initrd /live/initrd.img\n}\n",
    )?;
    // Something to read that is not zeros, for the tests that read while the network fails.
    fs::write(cd.join("numbers"), (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<u8>>())?;
    for path in &witness.missing {
        fs::remove_file(cd.join(path))?;
    }
    if let Some(path) = witness.longer {
        fs::OpenOptions::new().append(true).open(cd.join(path))?.write_all(&[0])?;
    }
    if witness.tpm_tools {
        copy_tools(&dir("cd/tools")?)?;
    }
    let made = work.path().join("witness.iso");
    shell(&format!(
        "xorriso -as mkisofs -quiet -r -J -V WITNESS -o {} {} 2>&1",
        made.display(),
        cd.display()
    ))?;
    fs::rename(&made, &iso)?;
    Ok(iso)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Copy modules with what they need from the stock kernel, and index them.
fn copy_modules(root: &Path, names: &[&str], without: &[&str]) -> anyhow::Result<()> {
    let tree = fs::read_dir(kernel().join("lib/modules"))?.next().context("the kernel has modules")??;
    let release = tree.file_name().into_string().ok().context("its release is text")?;
    let target = root.join("usr/lib/modules").join(&release);
    fs::create_dir_all(&target)?;
    for text in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(tree.path().join(text), target.join(text))?;
    }
    let dep = fs::read_to_string(tree.path().join("modules.dep"))?;
    let name_of = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split(".ko").next().unwrap_or(file).replace('-', "_")
    };
    for line in dep.lines() {
        let Some((path, needs)) = line.split_once(':') else { continue };
        let name = name_of(path);
        if !names.contains(&name.as_str()) || without.contains(&name.as_str()) {
            continue;
        }
        for path in std::iter::once(path).chain(needs.split_whitespace()) {
            let to = target.join(path);
            fs::create_dir_all(to.parent().context("a module is in a directory")?)?;
            fs::copy(tree.path().join(path), to)?;
        }
    }
    std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    shell(&format!("PATH=$PATH:/usr/sbin:/sbin depmod -b {} {release}", root.display()))
}

/// What firmware starts on a disk that it does not know.
pub const STARTED: &str = "EFI/BOOT/BOOTX64.EFI";

/// A disk for UEFI, made in `dir`, with these files by their names on it.
pub fn esp(dir: &Path, files: &[(&Path, &str)]) -> anyhow::Result<PathBuf> {
    let (disk, root) = (dir.join("esp"), tempfile::tempdir()?);
    for (from, to) in files {
        let to = root.path().join(to);
        fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
        fs::copy(from, to)?;
    }
    shell(&format!(
        "truncate -s 128M {disk} && PATH=$PATH:/sbin mkfs.vfat -n ESP {disk} && mcopy -s -i {disk} {root}/* ::/",
        disk = disk.display(),
        root = root.path().display()
    ))?;
    Ok(disk)
}

/// A disk for UEFI, made in `dir`, with GRUB, its `tpm` module, and an entry that starts us with
/// `arguments`. By the kernel's EFI stub: Debian's plain `linux` does not pass by it where Secure Boot is
/// off, and then nobody asks the firmware for its log.
pub fn grub_disk(dir: &Path, arguments: &str) -> anyhow::Result<PathBuf> {
    let (menu, grub) = (dir.join("grub.cfg"), dir.join("grub.efi"));
    fs::write(
        &menu,
        format!(
            "serial\nterminal_output serial\nsearch --no-floppy --file /initramfs.img --set=root\n\
             linuxefi /vmlinuz console=ttyS0 {arguments}\ninitrdefi /initramfs.img\nboot\n"
        ),
    )?;
    shell(&format!(
        "grub-mkstandalone -O x86_64-efi -o {} --fonts= --themes= --locales= \
           --modules='tpm linuxefi fat search serial' boot/grub/grub.cfg={}",
        grub.display(),
        menu.display()
    ))?;
    let (kernel, initramfs) = (built("vmlinuz"), built("initramfs.img"));
    esp(dir, &[(&grub, STARTED), (&kernel, "vmlinuz"), (&initramfs, "initramfs.img")])
}

/// tpm2-tools with the libraries they need, and places to mount what they want to see.
fn copy_tools(root: &Path) -> anyhow::Result<()> {
    for place in ["dev", "tmp", "bin"] {
        fs::create_dir_all(root.join(place))?;
    }
    fs::copy("/usr/bin/tpm2", root.join("bin/tpm2")).context("copying tpm2-tools (scripts/setup)")?;
    fs::copy("/bin/busybox", root.join("bin/sh"))?;
    let loaded = "/usr/lib/x86_64-linux-gnu/libtss2-tcti-device.so.0";
    shell(&format!(
        "for file in {loaded} $(ldd /usr/bin/tpm2 {loaded} | grep -o '/[^ :]*' | sort -u); do \
           mkdir -p {root}$(dirname $file) && cp -Ln $file {root}$file || exit 1; \
         done",
        root = root.display()
    ))
}

/// The `initrds` with a further segment that holds `files`.
pub fn with_files(initrds: &[&Path], files: &[(String, Vec<u8>)]) -> anyhow::Result<tempfile::NamedTempFile> {
    let work = tempfile::tempdir()?;
    for (name, contents) in files {
        let path = work.path().join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(&path, contents)?;
        // It may be a program.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let mut joined = tempfile::NamedTempFile::new()?;
    for initrd in initrds {
        let mut bytes = fs::read(initrd)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        joined.write_all(&bytes)?;
    }
    let segment = Command::new("sh")
        .arg("-c")
        .arg("find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0")
        .current_dir(work.path())
        .output()?;
    ensure!(segment.status.success(), "cpio failed");
    joined.write_all(&segment.stdout)?;
    Ok(joined)
}

fn shell(command: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").arg("-c").arg(command).output()?;
    ensure!(
        output.status.success(),
        "`{command}` failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
