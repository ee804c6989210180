//! `inetbootctl overlay`: what boots an image without kexec. A boot loader starts the image's own
//! kernel, which may be signed, with its own initrd and behind that our overlay: the agent, and the
//! drivers of all cards for that kernel, out of the image's root.

use super::catalogue::grub_words;
use super::drivers;
use super::iso::Iso;
use super::predict;
use crate::alone::{ARGUMENTS, PREMOUNT};
use crate::config::{Access, Boot, Config};
use crate::distro::{self, Plan};
use crate::kexec::CMDLINE_MAX;
use crate::medium::{Cd, Root};
use crate::miniroot::bzimage::{HEADER, Kernel};
use crate::miniroot::handoff;
use crate::miniroot::{AGENT, newc};
use crate::source::Image;
use crate::source::mirrors::Patience;
use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server may be gone.
const PATIENCE: Patience = Patience::Bounded(Duration::from_secs(60));

/// Where the drivers lie in the overlay.
const MODULES: &str = "inetboot.d/lib/modules";

/// The argument that names certificates.
const CA: &str = "inetboot.ca";

/// What is made, and what it is called.
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";
const OVERLAY: &str = "overlay.img";

/// What an overlay is made of.
#[derive(Debug)]
pub struct Inputs {
    /// Our initramfs, which holds the agent.
    pub initramfs: PathBuf,
    /// The kernel arguments, as a first life would have them; they say which image.
    pub arguments: String,
    /// The directory for all of it.
    pub out: PathBuf,
}

/// Make kernel, initrd, overlay, and entries for GRUB and iPXE; says what was made with `say`.
pub fn overlay(inputs: &Inputs, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let config = Config::parse(&inputs.arguments).context("the kernel arguments cannot be used")?;
    ensure!(config.target.xen.is_none(), "Xen cannot be started so: its own entry in GRUB can");
    let Boot::Medium(wanted) = &config.boot else {
        bail!("{} is no image: GRUB and iPXE start kernel and initrd by themselves", config.boot.name())
    };
    let (agent, ca) = predict::unpack(&inputs.initramfs, config.access.ca.as_deref())?;
    let ca_file = predict::kept(ca.as_deref())?;
    // The disk is the other machine's.
    let access = Access {
        ca: ca_file.as_ref().map(|file| file.path().to_owned()),
        disk: None,
        ..config.access.clone()
    };
    let image = Image::open(wanted, &access, PATIENCE)?;
    say(&format!("{}, {}", image.source(), image.trust()));
    let iso = Iso::open(image.source())?;
    let plan = distro::recognise(iso.dir(), &config.target)?;
    say(&plan.to_string());

    fs::create_dir_all(&inputs.out).with_context(|| format!("making {}", inputs.out.display()))?;
    let kernel = copy(&iso, std::slice::from_ref(&plan.kernel), &inputs.out.join(KERNEL))?;
    copy(&iso, &plan.initrds, &inputs.out.join(INITRD))?;
    let release = release(&kernel)?;
    let modules = modules(&iso, &plan, &release)?;
    say(&format!("{} drivers and what they need, of kernel {release}", modules.len()));
    let arguments = ours(&config).join(" ");
    let packed =
        pack(&agent, ca.as_deref(), &arguments, &plan, &release, &modules).context("making the overlay")?;
    write(&inputs.out.join(OVERLAY), &packed)?;

    let words = words(&plan)?;
    let title = &plan.title;
    let entry = format!(
        "menuentry '{}' {{\n\tlinux $inetboot/{KERNEL}{}\n\tinitrd $inetboot/{INITRD} $inetboot/{OVERLAY}\n}}\n",
        title.replace('\'', ""),
        grub_words(&words),
    );
    write(&inputs.out.join("grub.cfg"), entry.as_bytes())?;
    let script = format!(
        "#!ipxe\nkernel {KERNEL} initrd={INITRD} initrd={OVERLAY} {words}\ninitrd {INITRD}\ninitrd {OVERLAY}\nboot\n"
    );
    write(&inputs.out.join("inetboot.ipxe"), script.as_bytes())?;
    say(&format!("{} has {KERNEL}, {INITRD}, {OVERLAY}, grub.cfg and inetboot.ipxe", inputs.out.display()));
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// The files of the ISO, one behind the other as the kernel wants initrds.
fn copy(iso: &Iso, paths: &[PathBuf], to: &Path) -> anyhow::Result<PathBuf> {
    let what = || format!("writing {}", to.display());
    let mut out = File::create(to).with_context(what)?;
    for path in paths {
        iso.fetch(path)?;
        io::copy(&mut File::open(iso.dir().join(path)).with_context(what)?, &mut out).with_context(what)?;
        let length = out.stream_position().with_context(what)?;
        out.write_all(&[0; 4][..newc::padding(length)]).with_context(what)?;
    }
    Ok(to.to_owned())
}

fn release(kernel: &Path) -> anyhow::Result<String> {
    let mut start = Vec::new();
    File::open(kernel)?.take(HEADER as u64).read_to_end(&mut start)?;
    Ok(Kernel::parse(&start).with_context(|| format!("cannot start {}", kernel.display()))?.release)
}

/// The drivers that a network boot may need, of the first root that has any for this kernel.
fn modules(iso: &Iso, plan: &Plan, release: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let of_families: String = plan.modules.iter().map(|name| format!("*/{name}.ko*\n")).collect();
    let list = format!("{}{of_families}", drivers::LIST);
    for path in &plan.roots {
        let root: Box<dyn Root> = iso.root(path)?;
        for parent in ["usr/lib/modules", "lib/modules"] {
            let dir = Path::new(parent).join(release);
            if root.read(&dir.join("modules.dep")).is_ok() {
                return drivers::pruned(&list, &|name| root.read(&dir.join(name)));
            }
        }
    }
    bail!("no root of the image has modules for kernel {release}")
}

/// By gzip, which every kernel unpacks.
fn pack(
    agent: &[u8],
    ca: Option<&[u8]>,
    arguments: &str,
    plan: &Plan,
    release: &str,
    modules: &[(String, Vec<u8>)],
) -> io::Result<Vec<u8>> {
    let inside = |path: &str| path.trim_start_matches('/').to_owned();
    let mut files = vec![(inside(AGENT), 0o755, agent), (inside(ARGUMENTS), 0o644, arguments.as_bytes())];
    files.extend(ca.map(|ca| (inside(handoff::CA_PATH), 0o644, ca)));
    files.extend(plan.premount.map(|dir| (inside(PREMOUNT), 0o644, dir.as_bytes())));
    for (name, contents) in modules {
        files.push((format!("{MODULES}/{release}/{name}"), 0o644, contents));
    }
    let mut archive = newc::Archive::new(GzEncoder::new(Vec::new(), Compression::best()));
    // As in the overlay of a first life: a program in Rust wants its descriptors 0 to 2.
    archive.directory("dev", 0o755)?;
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.device("dev/null", 0o666, 1, 3)?;
    let mut made = std::collections::BTreeSet::new();
    for (path, mode, contents) in &files {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        for parent in parents.filter(|parent| made.insert(parent.to_string())) {
            archive.directory(parent, 0o755)?;
        }
        archive.file(path, *mode, contents)?;
    }
    archive.finish()?.finish()
}

/// The arguments for us. They lie in the overlay: on the kernel's line the target would obey some of them,
/// too, those about the network above all.
fn ours(config: &Config) -> Vec<String> {
    let ca = format!("{CA}={}", handoff::CA_PATH);
    let is_theirs = |word: &String| config.target.pass_on.contains(word);
    let words = config.understood.iter().filter(|word| !is_theirs(word));
    words.map(|word| if word.starts_with(&format!("{CA}=")) { ca.clone() } else { word.clone() }).collect()
}

/// The target's arguments.
fn words(plan: &Plan) -> anyhow::Result<String> {
    let theirs = plan.words.iter().filter(|word| !word.starts_with("rdinit=")).cloned();
    let words = std::iter::once(format!("rdinit={AGENT}")).chain(theirs).collect::<Vec<_>>().join(" ");
    ensure!(words.len() < CMDLINE_MAX, "the kernel arguments have {} bytes: shorten them", words.len());
    Ok(words)
}
