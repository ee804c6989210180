//! InetBoot's tool for the desk. Takes the arguments apart and calls `inetboot::desk`, which does the work.

use anyhow::Context;
use clap::Parser;
use inetboot::base::console;
use inetboot::config::{Access, Wanted, WantedDisk, WantedProfile};
use inetboot::desk::cli::{
    Arguments, Cache, Catalogue, Cloop, Image, Log, Menu, Mount, Overlay, Predict, Profile, Verb, Verify,
};
use inetboot::desk::log::{self, Verdict};
use inetboot::desk::terminal::{Output, remark};
use inetboot::desk::{
    cache, catalogue, cloop, explain, files, image, manual, mount, overlay, pcrs, predict, sort,
};
use inetboot::formats::trust::Demand;
use std::fs;
use std::io::Stdout;
use std::path::Path;
use std::process::ExitCode;

/// The exit code of `log verify` for a log that is not good.
const REFUSED: u8 = 3;

fn main() -> ExitCode {
    console::step_aside();
    let output = Output::stdout();
    let outcome = run(Arguments::parse().verb, &output).and_then(|code| {
        output.finish().context("writing to standard output")?;
        Ok(code)
    });
    outcome.unwrap_or_else(|error| {
        remark(&format!("inetbootctl: {}", explain::sentence(&error)));
        ExitCode::FAILURE
    })
}

fn run(verb: Verb, output: &Output<Stdout>) -> anyhow::Result<ExitCode> {
    let say = |line: &str| output.line(line);

    match verb {
        Verb::Log(Log::Verify(verify)) => return run_verify(verify, output),
        Verb::Log(Log::Show { log, ours }) => log::show(&log::read(&log)?, ours, &say),
        Verb::Log(Log::Replay { log }) => output.text(&pcrs::encode(&log::replay(&log::read(&log)?))),
        Verb::Predict(verb) => run_predict(verb, output)?,
        Verb::Image(verb) => run_image(verb, output)?,
        Verb::Cache(Cache::Format { path, label, force }) => cache::format(&path, &label, force, &say)?,
        Verb::Cache(Cache::Info { path }) => cache::info(&path, &say)?,
        Verb::Profile(Profile::Sort { profile, iso, index }) => {
            sort::sort(&profile, &iso, index.as_deref(), &say, &remark)?;
        }
        Verb::Catalogue(verb) => run_catalogue(verb, output)?,
        Verb::Overlay(Overlay { initramfs, arguments, out }) => {
            overlay::overlay(&overlay::Inputs { initramfs, arguments, out }, &say)?;
        }
        Verb::Cloop(Cloop { image, out }) => say(&cloop::cloop(&image, out.as_deref())?),
        Verb::Mount(mount) => run_mount(*mount, output)?,
        Verb::Manual { dir } => {
            let count = manual::write_pages(&dir)?;
            say(&format!("{}: {count} manual pages", dir.display()));
        }
        Verb::Completions { shell } => output.text(&manual::completions(shell)),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_verify(verify: Verify, output: &Output<Stdout>) -> anyhow::Result<ExitCode> {
    let Verify { log, pcrs, quote, signature, key, nonce, expect, policy } = verify;
    // clap sees to it that all four are given or none.
    let quote = match (quote, signature, key, nonce) {
        (Some(message), Some(signature), Some(key), Some(nonce)) => {
            Some(log::Signed { message, signature, key, nonce })
        }
        _ => None,
    };
    match log::verify(&log::read(&log)?, &log::Against { pcrs, quote, expect, policy })? {
        Verdict::Good(stands_on) => {
            output.line(&format!("good: the log agrees with {}", stands_on.join(", and with ")));
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Refused(why) => {
            output.line(&format!("refused: {why}"));
            Ok(ExitCode::from(REFUSED))
        }
    }
}

fn run_predict(verb: Predict, output: &Output<Stdout>) -> anyhow::Result<()> {
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
    output.text(&pcrs::encode(&log::replay(&predicted)));
    Ok(())
}

fn run_image(verb: Image, output: &Output<Stdout>) -> anyhow::Result<()> {
    let say = |line: &str| output.line(line);
    match verb {
        Image::Build { iso, store, out, classic, profile } => {
            let out = out.unwrap_or_else(|| image::index_beside(&store, &iso));
            let kind = if classic { image::Kind::Classic(store) } else { image::Kind::Store(store) };
            image::build(&image::Build { iso, out, kind, profile }, &say)
        }
        Image::Index { iso, out, profile } => {
            let out = out.unwrap_or_else(|| image::index_beside(&iso, &iso));
            image::build(&image::Build { iso, out, kind: image::Kind::Index, profile }, &say)
        }
        Image::Info { index } => image::info(&index, &say),
        Image::Check { index, image } => image::check(&index, &image, &say),
        Image::Key { secret } => image::key(&secret, &say),
        Image::Sign { index, secret } => image::sign(&index, &secret, &say),
    }
}

fn run_catalogue(verb: Catalogue, output: &Output<Stdout>) -> anyhow::Result<()> {
    match verb {
        Catalogue::Check { catalogue: path } => {
            let count = catalogue::read(&path)?.entries.len();
            output.line(&format!("{}: {count} entries, all can be booted", path.display()));
        }
        Catalogue::Grub { menu: Menu { catalogue: path, arguments, shell }, whole } => {
            output.text(&catalogue::grub(&catalogue::read(&path)?, &arguments, shell, whole));
        }
        Catalogue::Ipxe { menu: Menu { catalogue: path, arguments, shell }, out } => {
            let scripts = catalogue::ipxe(&catalogue::read(&path)?, &arguments, shell);
            fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
            for (name, script) in scripts {
                files::write(&out.join(name), files::IPXE_SCRIPT, script.as_bytes())?;
            }
        }
    }
    Ok(())
}

fn run_mount(mount: Mount, output: &Output<Stdout>) -> anyhow::Result<()> {
    let Mount { url, dir, index, pin, key, profile, record, device, cache, ca, proxy } = mount;
    let disk = cache.map(WantedDisk::File);
    let profile = profile.map_or(WantedProfile::Published, WantedProfile::At);
    let image = Wanted { urls: url, index, demand: Demand { pin, key }, profile };
    let access = Access { ca, proxy, disk, localise: false };
    let request = mount::Request { image, dir, access, record, device };
    mount::run(&request, &mut |line| output.line(line))
}
