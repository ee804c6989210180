//! InetBoot's tool for the desk. Thin: verbs to functions of `inetboot::desk`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // This is the command line; it may speak.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use inetboot::base::console;
use inetboot::config::{Access, Wanted, WantedDisk, WantedProfile};
use inetboot::desk::log::{self, Verdict};
use inetboot::desk::{cache, catalogue, cloop, files, image, mount, overlay, pcrs, predict, sort};
use inetboot::formats::trust::{Demand, Key, Pin};
use inetboot::formats::url::Url;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// InetBoot on the desk: publish images, and look at them the way the boot does.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make, sign, show and check indexes of images, and stores of their blocks.
    #[command(subcommand)]
    Image(Image),
    /// Make and show disks that keep what was fetched across boots (inetboot.cache=).
    #[command(subcommand)]
    Cache(Cache),
    /// Use the order in which a boot read an image (/run/inetboot/profile).
    #[command(subcommand)]
    Profile(Profile),
    /// Show event logs of measured boots (/run/inetboot/eventlog), and check them against a TPM.
    #[command(subcommand)]
    Log(Log),
    /// Tell what a boot will leave in the TPM, without booting: prints the PCRs of every bank.
    ///
    /// Example: inetbootctl predict --initramfs initramfs.img --out expected \
    ///              --arguments "netdir=http://192.0.2.1/debian-live.iso console=ttyS0"
    ///          inetbootctl log show expected
    #[command(verbatim_doc_comment)]
    Predict(Predict),
    /// Make menus of a catalogue: a TOML file that says what there is to boot.
    #[command(subcommand)]
    Catalogue(Menus),
    /// Make what boots an image without kexec: its own kernel and initrd, and an overlay beside them.
    ///
    /// Example: inetbootctl overlay --initramfs initramfs.img --out /boot/debian-live \
    ///              --arguments "netdir=http://192.0.2.1/debian-live.iso console=tty0"
    ///          then put /boot/debian-live/grub.cfg into GRUB's menu, with inetboot=/boot/debian-live
    #[command(verbatim_doc_comment)]
    Overlay(Overlay),
    /// Check a compressed image of KNOPPIX (cloop, version 2 or 4), and unpack it.
    ///
    /// Example: inetbootctl cloop KNOPPIX/KNOPPIX --out root.iso
    #[command(verbatim_doc_comment)]
    Cloop {
        /// The image.
        image: PathBuf,
        /// Where to write what is packed in it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Mount a remote image as one file in a directory; only what is read is fetched.
    ///
    /// Example: inetbootctl mount http://192.0.2.1/debian-live.iso /mnt
    ///          then, in another terminal: xorriso -indev /mnt/debian-live.iso -ls /live
    #[command(verbatim_doc_comment)]
    Mount(Box<Mount>),
}

#[derive(Args)]
struct Mount {
    /// The image or its index: an http:// or https:// address; several with commas are mirrors.
    #[arg(required = true, num_args = 1, value_delimiter = ',', value_parser = url)]
    url: Vec<Url>,
    /// An existing, empty directory.
    dir: PathBuf,
    /// The index of the image: ours, a .torrent, .meta4 or .caibx.
    #[arg(long, value_name = "URL", value_parser = url)]
    index: Option<Url>,
    /// What the index has to be: sha256:HEX.
    #[arg(long, value_parser = pin)]
    pin: Option<Pin>,
    /// Whose signature the index has to have: a minisign public key, RW...
    #[arg(long, value_parser = key)]
    key: Option<Key>,
    /// Fetch ahead in the order of this profile.
    #[arg(long, value_name = "URL", value_parser = url)]
    profile: Option<Url>,
    /// Write the order in which the image was read to this file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Make a block device of it too (this needs root).
    #[arg(long)]
    device: bool,
    /// Keep what is fetched on this disk or in this file, which "cache format" made.
    #[arg(long, value_name = "PATH")]
    cache: Option<PathBuf>,
    /// Trust only the certificates in this PEM file (for https://).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Go through this HTTP proxy.
    #[arg(long, value_name = "URL", value_parser = url)]
    proxy: Option<Url>,
}

#[derive(Subcommand)]
enum Image {
    /// Make an index and a store of block files: equal blocks are one file, of this release and the next.
    Build {
        /// The image.
        iso: PathBuf,
        /// The directory of the block files; the index goes beside it.
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// The index; NAME.idx beside the store by default.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The classic HTTP-FUSE form: blocks of one size, SHA-1 and zlib.
        #[arg(long)]
        classic: bool,
        /// Where the profile will lie; relative to the index.
        #[arg(long, value_name = "URL")]
        profile: Option<String>,
    },
    /// Make an index of an image that stays where it is.
    Index {
        /// The image.
        iso: PathBuf,
        /// The index; NAME.idx beside the image by default.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where the profile will lie; relative to the index.
        #[arg(long, value_name = "URL")]
        profile: Option<String>,
    },
    /// Show what an index says: ours, a .torrent, .meta4 or .caibx.
    Info {
        /// The index.
        index: PathBuf,
    },
    /// Check an image, or a store, against an index.
    Check {
        /// The index.
        index: PathBuf,
        /// The image, or the directory of the store.
        image: PathBuf,
    },
    /// Make a key pair to sign indexes with.
    Key {
        /// Where the secret key goes; the public one goes beside it.
        secret: PathBuf,
    },
    /// Sign an index; inetboot.key= asks for it.
    Sign {
        /// The index.
        index: PathBuf,
        /// The secret key.
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
}

#[derive(Subcommand)]
enum Cache {
    /// Make a cache on a disk, a partition or a file. What is there is deleted; it has to be empty
    /// unless --force is given.
    Format {
        /// The disk, the partition, or an existing file as long as the cache shall be.
        path: PathBuf,
        /// What inetboot.cache=LABEL= calls it.
        #[arg(long, default_value = "inetboot")]
        label: String,
        /// Delete what is there.
        #[arg(long)]
        force: bool,
    },
    /// Show what a cache is called and how full it is.
    Info {
        /// The disk, the partition or the file.
        path: PathBuf,
    },
}

#[derive(Subcommand)]
enum Log {
    /// Show the events, a line each.
    Show {
        /// The log.
        log: PathBuf,
        /// Only what InetBoot measured, as a policy has it.
        #[arg(long)]
        ours: bool,
    },
    /// Print the values of the PCRs that the log replays to, as tpm2_pcrread does.
    Replay {
        /// The log.
        log: PathBuf,
    },
    /// Check a log against the TPM. Ends with 0 where it is good, with 3 where it is not, with 1
    /// where that cannot be told.
    Verify(Verify),
}

#[derive(Args)]
struct Verify {
    /// The log.
    log: PathBuf,
    /// What the TPM's PCRs hold: the output of tpm2_pcrread.
    #[arg(long, value_name = "FILE")]
    pcrs: Option<PathBuf>,
    /// What the TPM signed: tpm2_quote --message.
    #[arg(long, value_name = "FILE", requires_all = ["signature", "key", "nonce"])]
    quote: Option<PathBuf>,
    /// Its signature: tpm2_quote --signature.
    #[arg(long, value_name = "FILE", requires = "quote")]
    signature: Option<PathBuf>,
    /// The public part of the attestation key: tpm2_createak --public.
    #[arg(long, value_name = "FILE", requires = "quote")]
    key: Option<PathBuf>,
    /// What was given to tpm2_quote --qualification, in hexadecimal.
    #[arg(long, value_name = "HEX", requires = "quote")]
    nonce: Option<String>,
    /// A log that this one has to agree with: of predict, or of a good boot.
    #[arg(long, value_name = "LOG")]
    expect: Option<PathBuf>,
    /// Lines that are known to be good, as "log show --ours" prints them; * stands for anything.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

#[derive(Args)]
struct Predict {
    /// The initramfs that will be booted.
    #[arg(long, value_name = "FILE")]
    initramfs: PathBuf,
    /// The kernel arguments it will be booted with.
    #[arg(long, value_name = "TEXT")]
    arguments: String,
    /// A log of that machine: what its firmware and boot loader measured is taken from it.
    #[arg(long, value_name = "LOG")]
    after: Option<PathBuf>,
    /// The alias (/sys/.../modalias) of a device that the target has no driver for in its initrd.
    #[arg(long = "device", value_name = "MODALIAS")]
    devices: Vec<String>,
    /// Write the log here.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Menus {
    /// Check it: every entry has to be one that can be booted.
    Check {
        /// The catalogue.
        catalogue: PathBuf,
    },
    /// Print a menu for GRUB; kernel and initramfs are in $inetboot, which has to be set before.
    Grub {
        #[command(flatten)]
        menu: Menu,
        /// It is the whole menu: it waits as long as the catalogue says.
        #[arg(long)]
        whole: bool,
    },
    /// Write a menu for iPXE and a script for each entry into a directory.
    Ipxe {
        #[command(flatten)]
        menu: Menu,
        /// The directory; vmlinuz and initramfs.img have to be put there too.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Args)]
struct Menu {
    /// The catalogue.
    catalogue: PathBuf,
    /// Kernel arguments for every entry.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    arguments: String,
    /// There is a shell.img beside initramfs.img: load it, and offer the shell.
    #[arg(long)]
    shell: bool,
}

fn run_menus(verb: Menus) -> anyhow::Result<()> {
    match verb {
        Menus::Check { catalogue: path } => {
            println!(
                "{}: {} entries, all can be booted",
                path.display(),
                catalogue::read(&path)?.entries.len()
            );
        }
        Menus::Grub { menu: Menu { catalogue: path, arguments, shell }, whole } => {
            print!("{}", catalogue::grub(&catalogue::read(&path)?, &arguments, shell, whole));
        }
        Menus::Ipxe { menu: Menu { catalogue: path, arguments, shell }, out } => {
            fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
            for (name, script) in catalogue::ipxe(&catalogue::read(&path)?, &arguments, shell) {
                files::write(&out.join(name), files::IPXE_SCRIPT, script.as_bytes())?;
            }
        }
    }
    Ok(())
}

#[derive(Args)]
struct Overlay {
    /// The initramfs that the agent is taken from.
    #[arg(long, value_name = "FILE")]
    initramfs: PathBuf,
    /// The kernel arguments, as for a boot with kexec.
    #[arg(long, value_name = "TEXT")]
    arguments: String,
    /// The directory for all of it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The exit code of a log that is not good.
const REFUSED: u8 = 3;

fn run_log(verb: Log) -> anyhow::Result<ExitCode> {
    match verb {
        Log::Show { log, ours } => log::show(&log::read(&log)?, ours, &mut |line| println!("{line}")),
        Log::Replay { log } => print!("{}", pcrs::encode(&log::replay(&log::read(&log)?))),
        Log::Verify(verify) => {
            let Verify { log, pcrs, quote, signature, key, nonce, expect, policy } = verify;
            let quote = match (quote, signature, key, nonce) {
                (Some(message), Some(signature), Some(key), Some(nonce)) => {
                    Some(log::Signed { message, signature, key, nonce })
                }
                _ => None,
            };
            match log::verify(&log::read(&log)?, &log::Against { pcrs, quote, expect, policy })? {
                Verdict::Good(stands_on) => {
                    println!("good: the log agrees with {}", stands_on.join(", and with "));
                }
                Verdict::Refused(why) => {
                    println!("refused: {why}");
                    return Ok(ExitCode::from(REFUSED));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_predict(verb: Predict) -> anyhow::Result<()> {
    let Predict { initramfs, arguments, after, devices, out } = verb;
    if let Some(out) = &out {
        let inputs: Vec<&Path> = after.as_deref().into_iter().chain([&*initramfs]).collect();
        files::ensure_no_input(out, &inputs)?;
        files::ensure_replaceable(out, files::EVENT_LOG)?;
    }
    let predicted = predict::predict(&predict::Inputs { initramfs, arguments, after, devices })?;
    if let Some(out) = out {
        files::write(&out, files::EVENT_LOG, predicted.encode())?;
    }
    print!("{}", pcrs::encode(&log::replay(&predicted)));
    Ok(())
}

#[derive(Subcommand)]
enum Profile {
    /// Write a sort file for mksquashfs -sort: what the boot read first is to lie first.
    Sort {
        /// The profile.
        profile: PathBuf,
        /// The image that it is of.
        iso: PathBuf,
        /// The index by which the image was read, if there was one.
        #[arg(long, value_name = "FILE")]
        index: Option<PathBuf>,
    },
}

fn run_cache(verb: Cache) -> anyhow::Result<()> {
    let say = |line: &str| println!("{line}");
    match verb {
        Cache::Format { path, label, force } => cache::format(&path, &label, force, &say),
        Cache::Info { path } => cache::info(&path, &say),
    }
}

fn pin(text: &str) -> Result<Pin, String> {
    text.parse().map_err(|()| "sha256: and 64 hexadecimal digits are wanted".into())
}

fn key(text: &str) -> Result<Key, String> {
    text.parse().map_err(|()| "the second line of a minisign public key is wanted".into())
}

fn run_image(verb: Image) -> anyhow::Result<()> {
    let say = |line: &str| println!("{line}");
    let index_of = |iso: &Path, beside: &Path| {
        beside.join(format!("{}.idx", iso.file_name().unwrap_or_default().to_string_lossy()))
    };
    let dir = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
    match verb {
        Image::Build { iso, store, out, classic, profile } => {
            let out = out.unwrap_or_else(|| index_of(&iso, &dir(&store)));
            let kind = if classic { image::Kind::Classic(store) } else { image::Kind::Store(store) };
            image::build(&image::Build { iso, out, kind, profile }, &say)
        }
        Image::Index { iso, out, profile } => {
            let out = out.unwrap_or_else(|| index_of(&iso, &dir(&iso)));
            image::build(&image::Build { iso, out, kind: image::Kind::Index, profile }, &say)
        }
        Image::Info { index } => image::info(&index, &say),
        Image::Check { index, image } => image::check(&index, &image, &say),
        Image::Key { secret } => image::key(&secret, &say),
        Image::Sign { index, secret } => image::sign(&index, &secret, &say),
    }
}

fn url(text: &str) -> Result<Url, String> {
    text.parse().map_err(|why| format!("{why}; write http://HOST/PATH or https://HOST/PATH"))
}

fn main() -> ExitCode {
    console::step_aside();
    let done = |outcome: anyhow::Result<()>| outcome.map(|()| ExitCode::SUCCESS);
    let outcome = match Arguments::parse().verb {
        Verb::Log(verb) => run_log(verb),
        Verb::Predict(verb) => done(run_predict(verb)),
        Verb::Image(verb) => done(run_image(verb)),
        Verb::Cache(verb) => done(run_cache(verb)),
        Verb::Profile(Profile::Sort { profile, iso, index }) => {
            let say = |line: &str| eprintln!("{line}");
            done(sort::sort(&profile, &iso, index.as_deref(), &mut |line| println!("{line}"), &say))
        }
        Verb::Catalogue(verb) => done(run_menus(verb)),
        Verb::Overlay(Overlay { initramfs, arguments, out }) => {
            let inputs = overlay::Inputs { initramfs, arguments, out };
            done(overlay::overlay(&inputs, &|line| println!("{line}")))
        }
        Verb::Cloop { image, out } => {
            done(cloop::cloop(&image, out.as_deref()).map(|what| println!("{what}")))
        }
        Verb::Mount(mount) => {
            let Mount { url, dir, index, pin, key, profile, record, device, cache, ca, proxy } = *mount;
            let disk = cache.map(WantedDisk::File);
            let profile = profile.map_or(WantedProfile::Published, WantedProfile::At);
            let image = Wanted { urls: url, index, demand: Demand { pin, key }, profile };
            let request = mount::Request {
                image,
                dir,
                access: Access { ca, proxy, disk, localise: false },
                record,
                device,
            };
            done(mount::run(&request, &mut |line| println!("{line}")))
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("inetbootctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
