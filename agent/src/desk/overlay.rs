//! `inetbootctl overlay`: makes the files that boot an image without kexec. A boot loader starts the image's own
//! kernel, which may be signed, with its own initrd and our overlay after it: the agent, and the drivers of all
//! network cards for that kernel, from the image's root.

use crate::config::{Boot, Config};
use crate::desk::catalogue::{grub_words, ipxe_mark};
use crate::desk::iso::Iso;
use crate::desk::subject::Subject;
use crate::desk::{Say, drivers, files};
use crate::distro::Plan;
use crate::formats::boot_menu::grub_quoted;
use crate::formats::cmdline::{self, Word};
use crate::formats::depmod::IN_ROOTS;
use crate::formats::{cpio, handoff};
use crate::medium::{Directory, Root};
use crate::miniroot::overlay::{self, AGENT};
use crate::miniroot::{self, Limit};
use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The argument that names certificates.
const CA: &str = "inetboot.ca";

/// The names of the files.
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";
const OVERLAY: &str = "overlay.img";
const GRUB: &str = "grub.cfg";
const IPXE: &str = "inetboot.ipxe";

/// All of them, the overlay last: one that is whole marks a directory as ours.
const MADE: [&str; 5] = [KERNEL, INITRD, GRUB, IPXE, OVERLAY];

/// The inputs of [`overlay()`].
#[derive(Debug)]
pub struct Inputs {
    /// Our initramfs, which holds the agent.
    pub initramfs: PathBuf,
    /// The kernel arguments, as for a boot with kexec; they name the image.
    pub arguments: String,
    /// The directory for the files.
    pub out: PathBuf,
}

/// Makes kernel, initrd, overlay, and entries for GRUB and iPXE; says what was made with `say`.
pub fn overlay(inputs: &Inputs, say: &Say) -> anyhow::Result<()> {
    let config =
        Config::parse(&cmdline::words(&inputs.arguments)).context("the kernel arguments cannot be used")?;
    ensure!(config.target.xen.is_none(), "Xen cannot be started so: its own entry in GRUB can");
    let Boot::Medium(wanted) = &config.boot else {
        bail!("{} is no image: GRUB and iPXE start kernel and initrd by themselves", config.boot.name())
    };
    files::own_directory(&inputs.out, &MADE)?;
    let Subject { agent, image, iso, plan } = Subject::open(&inputs.initramfs, &config, wanted)?;
    say(&format!("{}, {}", image.source(), image.trust()));
    say(&plan.to_string());

    // The image's own kernel and initrd, unchanged: their signatures stay good.
    let kernel = copy(&iso, std::slice::from_ref(&plan.kernel), &inputs.out.join(KERNEL))?;
    copy(&iso, &plan.initrds, &inputs.out.join(INITRD))?;
    let release = miniroot::kernel_header(&miniroot::kernel_start(&File::open(&kernel)?)?, &kernel)?.release;
    let modules = modules(&iso, &plan, &release)?;
    say(&format!("{} drivers and what they need, of kernel {release}", modules.len()));

    // The entries that start it.
    let words = miniroot::cmdline(&plan, Limit::Kernel)?;
    let words = words.to_string_lossy();
    write(&inputs.out.join(GRUB), grub_entry(&plan.title, &words).as_bytes())?;
    let script = inputs.out.join(IPXE);
    match ipxe_mark(&words) {
        None => write(&script, ipxe_script(&words).as_bytes())?,
        Some(mark) => {
            say(&format!("no {IPXE}: the target's arguments have \"{mark}\", which iPXE would interpret"));
            // One of an earlier run would start another release.
            let _ = fs::remove_file(&script);
        }
    }

    let arguments = ours(&config).join(" ");
    let packed =
        pack(&agent, image.ca(), &arguments, &plan, &release, &modules).context("making the overlay")?;
    write(&inputs.out.join(OVERLAY), &packed)?;
    let made = MADE.into_iter().filter(|name| inputs.out.join(name).exists());
    say(&format!("{} has {}", inputs.out.display(), made.collect::<Vec<_>>().join(", ")));
    Ok(())
}

/// An entry for GRUB, which finds the files in `$inetboot`.
fn grub_entry(title: &str, words: &str) -> String {
    let (title, words) = (grub_quoted(title), grub_words(words));
    format!(
        "menuentry {title} {{\n\tlinux $inetboot/{KERNEL}{words}\n\tinitrd $inetboot/{INITRD} $inetboot/{OVERLAY}\n}}\n"
    )
}

/// A script for iPXE, which finds the files beside it.
fn ipxe_script(words: &str) -> String {
    format!(
        "#!ipxe\nkernel {KERNEL} initrd={INITRD} initrd={OVERLAY} {words}\ninitrd {INITRD}\ninitrd {OVERLAY}\nboot\n"
    )
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Copies files of the ISO into one, each on the boundary that the kernel wants for initrds.
fn copy(iso: &Iso, paths: &[PathBuf], to: &Path) -> anyhow::Result<PathBuf> {
    let what = || format!("writing {}", to.display());
    let mut out = File::create(to).with_context(what)?;
    for path in paths {
        iso.fetch(path)?;
        io::copy(&mut File::open(iso.dir().join(path)).with_context(what)?, &mut out).with_context(what)?;
        overlay::align(&out).with_context(what)?;
    }
    Ok(to.to_owned())
}

/// The drivers that a network boot may need, from the first root that has modules for this kernel.
fn modules(iso: &Iso, plan: &Plan, release: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let of_families: String = plan.modules.iter().map(|name| format!("*/{name}.ko*\n")).collect();
    let list = format!("{}{of_families}", drivers::LIST);
    for path in &plan.roots {
        let root: Box<dyn Root> = iso.root(path)?;
        for parent in IN_ROOTS {
            let dir = Path::new(parent).join(release);
            if root.read(&dir.join("modules.dep")).is_ok() {
                return drivers::pruned(&list, &|name| root.read(&dir.join(name)));
            }
        }
    }
    bail!("no root of the image has modules for kernel {release}")
}

/// Packs the overlay, by gzip, which every kernel unpacks.
fn pack(
    agent: &[u8],
    ca: Option<&[u8]>,
    arguments: &str,
    plan: &Plan,
    release: &str,
    modules: &[(String, Vec<u8>)],
) -> io::Result<Vec<u8>> {
    let file = |path: &str, contents| (path.to_owned(), 0o644, contents);
    let mut files = vec![(AGENT.to_owned(), 0o755, agent)];
    files.push(file(handoff::ARGUMENTS_PATH, arguments.as_bytes()));
    files.extend(ca.map(|ca| file(handoff::CA_PATH, ca)));
    files.extend(plan.premount.map(|dir| file(handoff::PREMOUNT_PATH, dir.as_bytes())));
    for (name, contents) in modules {
        files.push(file(&format!("{}/{release}/{name}", handoff::MODULES_PATH), contents));
    }

    let mut archive = cpio::Archive::new(GzEncoder::new(Vec::new(), Compression::best()));
    overlay::add_devices(&mut archive)?;
    let mut made = BTreeSet::new();
    for (path, mode, contents) in &files {
        let path = overlay::inside(path);
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        for parent in parents.filter(|parent| made.insert((*parent).to_owned())) {
            archive.directory(parent, 0o755)?;
        }
        archive.file(path, *mode, contents)?;
    }
    archive.finish()?.finish()
}

/// The arguments for the agent. They lie in the overlay: on the kernel's command line the target would obey some of
/// them too, above all those about the network.
fn ours(config: &Config) -> Vec<String> {
    let ca = format!("{CA}={}", handoff::CA_PATH);
    let is_theirs = |word: &Word| config.target.pass_on.contains(&word.raw);
    let words = config.understood.iter().filter(|word| !is_theirs(word));
    words.map(|word| if word.key == CA { ca.clone() } else { word.raw.clone() }).collect()
}
