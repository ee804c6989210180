//! UEFI firmware for machines: OVMF, whose variables are in a file of the machine's own. With Secure Boot
//! the variables hold certificates.

use crate::machine::arguments;
use crate::repository::{built, program, run, text};
use crate::{Opts, boot};
use std::fs;
use std::path::{Path, PathBuf};

/// Debian's directory of OVMF.
const OVMF: &str = "/usr/share/OVMF";

/// The variables of Secure Boot, in the order of enrolment, and their namespaces. The platform key comes
/// last: once it is there, the firmware checks who changes the others.
const VARIABLES: [(&str, &str); 3] = [
    ("db", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"),
    ("KEK", "8be4df61-93ca-11d2-aa0d-00e098032b8c"),
    ("PK", "8be4df61-93ca-11d2-aa0d-00e098032b8c"),
];

/// A variable's attributes: kept without power, for boot and run time, changed by signed values only (UEFI
/// 2.10, section 8.2).
const ATTRIBUTES: u32 = 0x27;

/// QEMU's arguments for a machine with UEFI firmware; its variables are in a copy in `dir`.
pub fn uefi(dir: &Path) -> Vec<String> {
    flash("OVMF_CODE_4M.fd", &copy(Path::new(OVMF).join("OVMF_VARS_4M.fd"), dir))
}

/// QEMU's arguments for a machine as it is sold: its firmware trusts what Microsoft signed and what Debian's
/// shim vouches for.
pub fn as_sold(dir: &Path) -> Vec<String> {
    secure(&copy(Path::new(OVMF).join("OVMF_VARS_4M.ms.fd"), dir))
}

/// QEMU's arguments for a machine whose firmware trusts `keys` alone.
pub fn owned(dir: &Path, keys: &Keys) -> Vec<String> {
    secure(&copy(keys.variables.clone(), dir))
}

fn copy(variables: PathBuf, dir: &Path) -> PathBuf {
    let copy = dir.join("uefi-variables.fd");
    fs::copy(variables, &copy).expect("copying OVMF's variables (scripts/setup)");
    copy
}

fn flash(code: &str, variables: &Path) -> Vec<String> {
    let code = format!("if=pflash,format=raw,file={OVMF}/{code},readonly=on");
    let variables = format!("if=pflash,format=raw,file={}", variables.display());
    arguments(["-drive", &code, "-drive", &variables])
}

/// Only the firmware itself, in system management mode, may write to the flash.
fn secure(variables: &Path) -> Vec<String> {
    let guard = "driver=cfi.pflash01,property=secure,value=on";
    let machine = arguments(["-machine", "q35,smm=on", "-global", guard, "-global", "ICH9-LPC.disable_s3=1"]);
    [machine, flash("OVMF_CODE_4M.secboot.fd", variables)].concat()
}

/// The keys of a machine's owner, enrolled.
pub struct Keys {
    dir: tempfile::TempDir,
    variables: PathBuf,
}

impl Keys {
    /// Makes a key and enrols its certificate, and the `others` (PEM), which the firmware then trusts, too.
    pub fn enrolled(others: &[PathBuf]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for keys");
        let others: Vec<String> = others.iter().map(|path| text(path)).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        run(dir.path(), &program("make-owner-key"), &others);

        let machine = dir.path().join("machine");
        fs::create_dir(&machine).expect("a directory");
        let variables = copy(Path::new(OVMF).join("OVMF_VARS_4M.fd"), &machine);
        enrol(dir.path(), &variables);
        Self { dir, variables }
    }

    /// Signs `program`, an EFI program, as kernels are, into the file `to`.
    pub fn sign(&self, program: &Path, to: &Path) {
        let arguments = ["--key", "key", "--cert", "crt", "--output", &text(to), &text(program)];
        run(self.dir.path(), "sbsign", &arguments);
    }
}

/// Enrols the signed values in `dir`. A firmware without a platform key lets any system do so: here it is
/// a boot into InetBoot's shell.
fn enrol(dir: &Path, variables: &Path) {
    let mut files = Vec::new();
    let mut commands = vec!["mount -t efivarfs efivarfs /sys/firmware/efi/efivars".to_owned()];
    for (name, namespace) in VARIABLES {
        // The file system wants the attributes and the value in one write.
        let mut value = ATTRIBUTES.to_le_bytes().to_vec();
        value.extend(fs::read(dir.join(format!("{name}.auth"))).expect("reading a signed value"));
        files.push((format!("/{name}"), value));
        let to = format!("/sys/firmware/efi/efivars/{name}-{namespace}");
        commands.push(format!("dd bs=64k if=/{name} of={to} 2> /dev/null"));
    }

    let mut machine = boot(&Opts {
        second: Some(built("shell.img")),
        files,
        qemu: secure(variables),
        card: None,
        ..Opts::with_arguments("inetboot.onfail=shell")
    });
    machine.expect("# ", 300);
    machine.run(&commands.join(" && "), 60);
}

/// Writes the certificate of the key that signed `efi_program` into the file `to`, as PEM.
pub fn signer(efi_program: &Path, to: &Path) {
    run(Path::new("/"), &program("signer"), &[&text(efi_program), &text(to)]);
}
