//! The command line of `inetbootctl`, as definitions alone. The program's dispatch, its manual pages and its
//! shell completions are all made of these.
//!
//! A doc comment here is the help of its verb, argument or option: its first paragraph for `-h`, all of it for
//! `--help` and the manual.

use crate::formats::trust::{Key, Pin};
use crate::formats::url::Url;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

/// Publishes images for InetBoot, and looks at them the way the boot does.
#[derive(Parser)]
#[command(name = "inetbootctl", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Make, sign, show and check indexes of images, and stores of their blocks.
    #[command(subcommand)]
    Image(Image),

    /// Make and show cache disks, which keep what was fetched for the next boots (inetboot.cache=).
    #[command(subcommand)]
    Cache(Cache),

    /// Use the order in which a boot read an image (/run/inetboot/profile).
    #[command(subcommand)]
    Profile(Profile),

    /// Show event logs of measured boots (/run/inetboot/eventlog), and check them against a TPM.
    #[command(subcommand)]
    Log(Log),

    /// Predict the PCRs that a boot will leave in the TPM, without booting; prints those of every bank.
    ///
    /// Example: inetbootctl predict --initramfs initramfs.img --out expected \
    ///              --arguments "netdir=http://192.0.2.1/debian-live.iso console=ttyS0"
    ///          inetbootctl log show expected
    #[command(verbatim_doc_comment)]
    Predict(Predict),

    /// Check a catalogue, the TOML file with the entries of a boot menu, and make menus of it.
    #[command(subcommand)]
    Catalogue(Catalogue),

    /// Make the files that boot an image without kexec: its own kernel and initrd, and an overlay for them.
    ///
    /// Example: inetbootctl overlay --initramfs initramfs.img --out /boot/debian-live \
    ///              --arguments "netdir=http://192.0.2.1/debian-live.iso console=tty0"
    ///          Then put /boot/debian-live/grub.cfg into GRUB's menu, with inetboot=/boot/debian-live.
    #[command(verbatim_doc_comment)]
    Overlay(Overlay),

    /// Check a compressed image of KNOPPIX (cloop, version 2 or 4), and unpack it.
    ///
    /// Example: inetbootctl cloop KNOPPIX/KNOPPIX --out root.iso
    #[command(verbatim_doc_comment)]
    Cloop(Cloop),

    /// Mount a remote image as one file in a directory; only the parts that are read are fetched.
    ///
    /// Example: inetbootctl mount http://192.0.2.1/debian-live.iso /mnt
    ///          Then, in another terminal: xorriso -indev /mnt/debian-live.iso -ls /live
    #[command(verbatim_doc_comment)]
    Mount(Box<Mount>),

    /// Write a manual page for every verb into a directory.
    ///
    /// Example: inetbootctl manual /usr/local/share/man/man1
    #[command(verbatim_doc_comment)]
    Manual {
        /// The directory; it is made if it does not exist.
        dir: PathBuf,
    },

    /// Print a completion script for a shell.
    ///
    /// Example: inetbootctl completions bash > /etc/bash_completion.d/inetbootctl
    #[command(verbatim_doc_comment)]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Subcommand)]
pub enum Image {
    /// Make an index and a store of block files; equal blocks are one file, within a release and across releases.
    ///
    /// A build that was stopped goes on where it was, and the next release adds only the blocks that are new.
    Build {
        /// The image.
        iso: PathBuf,
        /// The directory of the block files; the index is written beside it.
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// The index; NAME.idx beside the store by default.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write the classic HTTP-FUSE form: blocks of one size, SHA-1 and zlib.
        #[arg(long)]
        classic: bool,
        /// The address of the image's profile, relative to the index.
        #[arg(long, value_name = "URL")]
        profile: Option<String>,
    },

    /// Make an index of an image that stays as it is.
    Index {
        /// The image.
        iso: PathBuf,
        /// The index; NAME.idx beside the image by default.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The address of the image's profile, relative to the index.
        #[arg(long, value_name = "URL")]
        profile: Option<String>,
    },

    /// Show the contents of an index: ours, a .torrent, .meta4 or .caibx.
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
        /// The secret key, readable by its owner alone; the public key is written beside it, as NAME.pub.
        secret: PathBuf,
    },

    /// Sign an index, for boots that demand it by inetboot.key=.
    Sign {
        /// The index; the signature is written beside it, as NAME.minisig.
        index: PathBuf,
        /// The secret key.
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum Cache {
    /// Make a cache on a disk, a partition or a file. Its contents are lost; it has to be empty unless
    /// --force is given.
    Format {
        /// The disk, the partition, or an existing file of the size that the cache shall have.
        path: PathBuf,
        /// The cache's name, for inetboot.cache=LABEL=NAME.
        #[arg(long, value_name = "NAME", default_value = "inetboot")]
        label: String,
        /// Delete what is on it.
        #[arg(long)]
        force: bool,
    },

    /// Show a cache's name, and how full it is.
    Info {
        /// The disk, the partition or the file.
        path: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum Profile {
    /// Print a sort file for mksquashfs -sort, so that the files a boot read first lie first in the next release.
    Sort {
        /// The profile.
        profile: PathBuf,
        /// The image that was read.
        iso: PathBuf,
        /// The index by which it was read, if there was one.
        #[arg(long, value_name = "FILE")]
        index: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub enum Log {
    /// Print the events of a log, one a line.
    Show {
        /// The log.
        log: PathBuf,
        /// Only the events that InetBoot measured, as lines of a policy.
        #[arg(long)]
        ours: bool,
    },

    /// Print the values of the PCRs to which a log replays, in the form of tpm2_pcrread.
    Replay {
        /// The log.
        log: PathBuf,
    },

    /// Check a log against a TPM, and against expectations.
    ///
    /// Exits with 0 where the log is good, with 3 where it is not, and with 1 where that cannot be told.
    Verify(Verify),
}

#[derive(Args)]
pub struct Verify {
    /// The log.
    pub log: PathBuf,
    /// The values of the TPM's PCRs: the output of tpm2_pcrread.
    #[arg(long, value_name = "FILE")]
    pub pcrs: Option<PathBuf>,
    /// A quote, which the TPM signed: tpm2_quote --message.
    #[arg(long, value_name = "FILE", requires_all = ["signature", "key", "nonce"])]
    pub quote: Option<PathBuf>,
    /// The quote's signature: tpm2_quote --signature.
    #[arg(long, value_name = "FILE", requires = "quote")]
    pub signature: Option<PathBuf>,
    /// The public part of the attestation key: tpm2_createak --public.
    #[arg(long, value_name = "FILE", requires = "quote")]
    pub key: Option<PathBuf>,
    /// The value given to tpm2_quote --qualification, in hexadecimal.
    #[arg(long, value_name = "HEX", requires = "quote")]
    pub nonce: Option<String>,
    /// A log with which this one has to agree: a prediction, or the log of a good boot.
    #[arg(long, value_name = "LOG")]
    pub expect: Option<PathBuf>,
    /// A file of lines that are known to be good, as "log show --ours" prints them; * stands for any text.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

#[derive(Args)]
pub struct Predict {
    /// The initramfs that will be booted.
    #[arg(long, value_name = "FILE")]
    pub initramfs: PathBuf,
    /// The kernel arguments that it will be booted with.
    #[arg(long, value_name = "TEXT")]
    pub arguments: String,
    /// A log of the same machine, from which the events of its firmware and boot loader are taken.
    #[arg(long, value_name = "LOG")]
    pub after: Option<PathBuf>,
    /// The alias (/sys/.../modalias) of a device whose driver the target's initrd lacks. May be repeated.
    #[arg(long = "device", value_name = "MODALIAS")]
    pub devices: Vec<String>,
    /// Write the predicted log to this file.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Catalogue {
    /// Check that every entry of a catalogue can be booted.
    Check {
        /// The catalogue.
        catalogue: PathBuf,
    },

    /// Print a menu for GRUB, which looks for kernel and initramfs in $inetboot; set that before.
    Grub {
        #[command(flatten)]
        menu: Menu,
        /// This is the whole menu: let it wait as long as the catalogue says.
        #[arg(long)]
        whole: bool,
    },

    /// Write a menu for iPXE, and a script for each entry.
    Ipxe {
        #[command(flatten)]
        menu: Menu,
        /// The directory for the scripts; put vmlinuz and initramfs.img there too.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Args)]
pub struct Menu {
    /// The catalogue.
    pub catalogue: PathBuf,
    /// Kernel arguments for every entry.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub arguments: String,
    /// Load shell.img, which lies beside initramfs.img, and offer the shell.
    #[arg(long)]
    pub shell: bool,
}

#[derive(Args)]
pub struct Overlay {
    /// The initramfs from which the agent is taken.
    #[arg(long, value_name = "FILE")]
    pub initramfs: PathBuf,
    /// The kernel arguments, as for a boot with kexec.
    #[arg(long, value_name = "TEXT")]
    pub arguments: String,
    /// The directory for the files.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Args)]
pub struct Cloop {
    /// The image.
    pub image: PathBuf,
    /// Write the unpacked image to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct Mount {
    /// The address of the image or of its index; several, separated by commas, are mirrors.
    #[arg(required = true, num_args = 1, value_delimiter = ',', value_parser = url)]
    pub url: Vec<Url>,
    /// An existing, empty directory.
    pub dir: PathBuf,
    /// The address of the image's index: ours, a .torrent, .meta4 or .caibx.
    #[arg(long, value_name = "URL", value_parser = url)]
    pub index: Option<Url>,
    /// The digest that the index has to have: sha256:HEX.
    #[arg(long, value_parser = pin)]
    pub pin: Option<Pin>,
    /// The minisign public key by which the index has to be signed: RW...
    #[arg(long, value_parser = key)]
    pub key: Option<Key>,
    /// Fetch ahead in the order of this profile.
    #[arg(long, value_name = "URL", value_parser = url)]
    pub profile: Option<Url>,
    /// Write the order in which the image was read to this file, as a profile.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Make a block device of the image as well; this needs root.
    #[arg(long)]
    pub device: bool,
    /// Keep what is fetched on this disk or in this file; make it by "cache format".
    #[arg(long, value_name = "PATH")]
    pub cache: Option<PathBuf>,
    /// Trust only the certificates in this PEM file for https://.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Use this HTTP proxy.
    #[arg(long, value_name = "URL", value_parser = url)]
    pub proxy: Option<Url>,
}

fn url(text: &str) -> Result<Url, String> {
    text.parse().map_err(|why| format!("{why}; write http://HOST/PATH or https://HOST/PATH"))
}

fn pin(text: &str) -> Result<Pin, String> {
    text.parse().map_err(|()| Pin::WANTED.into())
}

fn key(text: &str) -> Result<Key, String> {
    text.parse().map_err(|()| Key::WANTED.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, CommandFactory};

    fn lacking(command: &Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        let is_sentence = |text: String| text.starts_with(|c: char| c.is_ascii_uppercase());
        if !command.get_about().is_some_and(|about| is_sentence(about.to_string())) {
            found.push(path.clone());
        }
        for argument in command.get_arguments() {
            if !argument.get_help().is_some_and(|help| is_sentence(help.to_string())) {
                found.push(format!("{path} {}", argument.get_id()));
            }
        }
        command.get_subcommands().for_each(|verb| lacking(verb, &path, found));
    }

    /// Every verb and every argument has a sentence of help.
    #[test]
    fn everything_has_help() {
        let mut found = Vec::new();
        lacking(&Arguments::command(), "", &mut found);
        assert_eq!(found, Vec::<String>::new(), "these have no help");
    }

    /// clap's own checks: no name twice, no requirement of an option that does not exist.
    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }
}
