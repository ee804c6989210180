//! Packs InetBoot's own small root: the agent, device nodes, and the modules of a stock kernel that a network boot
//! may need. The result is reproducible: the same inputs give the same bytes.

mod list;
mod tree;

use anyhow::{Context, ensure};
use clap::Parser;
use inetboot::desk::terminal::{Output, remark};
use inetboot::desk::{explain, files};
use inetboot::formats::cpio::Archive;
use inetboot::formats::pieces::hex;
use list::{Item, Kind};
use lzma_rust2::filter::FilterType;
use lzma_rust2::{CheckType, XzOptions, XzWriter};
use sha2::{Digest, Sha256};
use std::io::{Stdout, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// zstd's level. The kernel unpacks all levels at the same speed.
const ZSTD_LEVEL: i32 = 19;

const XZ_PRESET: u32 = 9;

/// Pack InetBoot's initramfs and print what is in it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The agent, which becomes /init. Without it the archive has only the files of --add: a second initrd beside the
    /// first.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// The kernel's module directory (.../lib/modules/RELEASE, with depmod's files); leave it out for a kernel that has
    /// everything built in.
    #[arg(long, value_name = "DIR", requires = "agent")]
    modules: Option<PathBuf>,
    /// Another file, such as a CA certificate or a shell. May be repeated.
    #[arg(long, value_name = "FILE=/NAME")]
    add: Vec<String>,
    /// The initramfs to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let output = Output::stdout();
    let outcome = run(&Arguments::parse(), &output)
        .and_then(|()| output.finish().context("writing to standard output"));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            remark(&format!("mkinitramfs: {}", explain::sentence(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, output: &Output<Stdout>) -> anyhow::Result<()> {
    let inputs: Vec<&Path> = arguments.agent.iter().map(PathBuf::as_path).collect();
    files::ensure_no_input(&arguments.out, &inputs)?;
    files::ensure_replaceable(&arguments.out, files::INITRAMFS)?;

    let mut items = match &arguments.agent {
        Some(agent) => list::parse(include_str!("../initramfs.list"), agent)?,
        None => Vec::new(),
    };
    for added in &arguments.add {
        items.extend(list::added(added)?);
    }
    if let Some(modules) = &arguments.modules {
        items.extend(tree::pruned(modules)?);
    }
    ensure!(!items.is_empty(), "the initramfs would be empty: give --agent or --add");
    list::with_parents(&mut items);

    let archive = pack(&items)?;
    let packed = compressed(&archive, arguments.modules.is_some())?;
    files::write(&arguments.out, files::INITRAMFS, &packed)?;
    table(&items, archive.len(), &packed, arguments.modules.is_some(), output)
}

/// Modules are many megabytes, which zstd unpacks in a moment. Without them xz is 9 % smaller, and as quick.
fn compressed(archive: &[u8], is_large: bool) -> anyhow::Result<Vec<u8>> {
    if is_large {
        return zstd::encode_all(archive, ZSTD_LEVEL).context("compressing");
    }
    // Of xz's filters and checks, the kernel supports these.
    let mut options = XzOptions::with_preset(XZ_PRESET);
    options.set_check_sum_type(CheckType::Crc32);
    options.prepend_pre_filter(FilterType::BcjX86, 0);
    let packed = XzWriter::new(Vec::new(), options).and_then(|mut writer| {
        writer.write_all(archive)?;
        writer.finish()
    });
    packed.context("compressing")
}

fn pack(items: &[Item]) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    for item in items {
        match &item.kind {
            Kind::Directory => archive.directory(&item.name, item.mode),
            Kind::Device { major, minor } => archive.device(&item.name, item.mode, *major, *minor),
            Kind::File(contents) => archive.file(&item.name, item.mode, contents),
        }
        .with_context(|| format!("packing {}", item.name))?;
    }
    Ok(archive.finish()?)
}

/// Prints the size of each part, packed by itself as well; together they are a little more than the whole.
fn table(
    items: &[Item],
    archive: usize,
    packed: &[u8],
    is_large: bool,
    output: &Output<Stdout>,
) -> anyhow::Result<()> {
    let mut parts: Vec<(&str, usize, Vec<u8>)> = Vec::new();
    for item in items {
        if let Kind::File(contents) = &item.kind {
            match parts.iter_mut().find(|(part, ..)| *part == item.part) {
                Some((_, count, bytes)) => {
                    *count += 1;
                    bytes.extend_from_slice(contents);
                }
                None => parts.push((&item.part, 1, contents.clone())),
            }
        }
    }

    output.line(&format!("{:<34} {:>6} {:>12} {:>12}", "part", "files", "bytes", "packed"));
    for (part, count, bytes) in &parts {
        let alone = compressed(bytes, is_large)?.len();
        output.line(&format!("{part:<34} {count:>6} {:>12} {alone:>12}", bytes.len()));
    }
    output.line(&format!("{:<34} {:>6} {archive:>12} {:>12}", "initramfs", items.len(), packed.len()));
    output.line(&format!("sha256 {}", hex(&Sha256::digest(packed))));
    Ok(())
}
