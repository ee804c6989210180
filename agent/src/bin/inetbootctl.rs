//! InetBoot's tool for the desk. Thin: verbs to functions of `inetboot::desk`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // This is the command line; it may speak.

use clap::{Parser, Subcommand};
use inetboot::config::{Access, Url};
use inetboot::desk::mount;
use std::path::PathBuf;
use std::process::ExitCode;

/// InetBoot on the desk: look at images on web servers the way the boot does.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Mount a remote image as one file in a directory; only what is read is fetched.
    ///
    /// Example: inetbootctl mount http://192.0.2.1/debian-live.iso /mnt
    ///          then, in another terminal: xorriso -indev /mnt/debian-live.iso -ls /live
    #[command(verbatim_doc_comment)]
    Mount {
        /// The image: an http:// or https:// address of a server that supports ranges.
        #[arg(value_parser = url)]
        url: Url,
        /// An existing, empty directory.
        dir: PathBuf,
        /// Trust only the certificates in this PEM file (for https://).
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Go through this HTTP proxy.
        #[arg(long, value_name = "URL", value_parser = url)]
        proxy: Option<Url>,
    },
}

fn url(text: &str) -> Result<Url, String> {
    text.parse().map_err(|why| format!("{why}; write http://HOST/PATH or https://HOST/PATH"))
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Mount { url, dir, ca, proxy } => {
            let request = mount::Request { url, dir, access: Access { ca, proxy } };
            mount::run(&request, &mut |line| println!("{line}"))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inetbootctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
