//! UEFI firmware for machines: OVMF, with its variables in a file of the machine's own; and with Secure
//! Boot, where the variables have certificates.

use crate::machine::built;
use crate::{Opts, boot, run};
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian has OVMF.
const OVMF: &str = "/usr/share/OVMF";

/// The variables that Secure Boot stands on: what is enrolled under which name, in this order (with a
/// platform key the firmware begins to ask who may change the others).
const VARIABLES: [(&str, &str); 3] = [
    ("db", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"),
    ("KEK", "8be4df61-93ca-11d2-aa0d-00e098032b8c"),
    ("PK", "8be4df61-93ca-11d2-aa0d-00e098032b8c"),
];

/// QEMU's arguments for a machine with UEFI firmware, whose variables are in a copy in `dir`.
pub fn uefi(dir: &Path) -> Vec<String> {
    flash("OVMF_CODE_4M.fd", &copy(Path::new(OVMF).join("OVMF_VARS_4M.fd"), dir))
}

/// QEMU's arguments for a machine whose firmware enforces signatures: those of Microsoft and those that
/// its shim vouches for, as on a machine from the shop.
pub fn as_sold(dir: &Path) -> Vec<String> {
    secure(&copy(Path::new(OVMF).join("OVMF_VARS_4M.ms.fd"), dir))
}

/// The same, where the firmware trusts `keys` alone.
pub fn owned(dir: &Path, keys: &Keys) -> Vec<String> {
    secure(&copy(keys.variables.clone(), dir))
}

fn copy(variables: PathBuf, dir: &Path) -> PathBuf {
    let copy = dir.join("uefi-variables.fd");
    fs::copy(variables, &copy).expect("copying OVMF's variables (scripts/setup)");
    copy
}

fn flash(code: &str, variables: &Path) -> Vec<String> {
    let drive =
        |file: String, more: &str| ["-drive".into(), format!("if=pflash,format=raw,file={file}{more}")];
    let [a, b] = drive(format!("{OVMF}/{code}"), ",readonly=on");
    let [c, d] = drive(variables.display().to_string(), "");
    vec![a, b, c, d]
}

/// Only the firmware itself, in a mode of its own, may write to the flash.
fn secure(variables: &Path) -> Vec<String> {
    let guard = "driver=cfi.pflash01,property=secure,value=on";
    let mut arguments = ["-machine", "q35,smm=on", "-global", guard, "-global", "ICH9-LPC.disable_s3=1"]
        .map(String::from)
        .to_vec();
    arguments.extend(flash("OVMF_CODE_4M.secboot.fd", variables));
    arguments
}

/// Keys of an owner of machines, enrolled.
pub struct Keys {
    dir: tempfile::TempDir,
    variables: PathBuf,
}

impl Keys {
    /// A new key; the firmware trusts it, and the `others` (certificates, PEM).
    pub fn enrolled(others: &[PathBuf]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for keys");
        let sh = |script: &str| run(dir.path(), "sh", &["-ec", script]);
        sh(
            "openssl req -quiet -new -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=owner/ -keyout key -out crt 2> err || \
            openssl req -new -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=owner/ -keyout key -out crt 2> err",
        );
        sh("cert-to-efi-sig-list -g 11111111-2222-3333-4444-123456789abc crt owner.esl");
        fs::copy(dir.path().join("owner.esl"), dir.path().join("db.esl")).expect("copying a list");
        for other in others {
            sh(&format!("cert-to-efi-sig-list {} other.esl && cat other.esl >> db.esl", other.display()));
        }
        let mut files = Vec::new();
        let mut commands = vec!["mount -t efivarfs efivarfs /sys/firmware/efi/efivars".to_owned()];
        for (name, guid) in VARIABLES {
            let list = if name == "db" { "db.esl" } else { "owner.esl" };
            sh(&format!("sign-efi-sig-list -t 2026-01-01 -k key -c crt {name} {list} {name}.auth"));
            // Attributes, then the value, in one write.
            let mut value = 0x27_u32.to_le_bytes().to_vec();
            value.extend(fs::read(dir.path().join(format!("{name}.auth"))).expect("reading what was signed"));
            files.push((format!("/{name}"), value));
            commands.push(format!(
                "dd bs=64k if=/{name} of=/sys/firmware/efi/efivars/{name}-{guid} 2> /dev/null"
            ));
        }
        let secure_dir = dir.path().join("machine");
        fs::create_dir(&secure_dir).expect("a directory");
        let variables = copy(Path::new(OVMF).join("OVMF_VARS_4M.fd"), &secure_dir);
        // Whoever has no platform key yet lets anybody enrol one: a boot into our own shell does.
        let opts = Opts {
            append: "inetboot.onfail=shell".into(),
            second: Some(built("shell.img")),
            files,
            qemu: secure(&variables),
            card: None,
            ..Opts::default()
        };
        let mut machine = boot(&opts);
        machine.expect("# ", 300, None);
        machine.run(&commands.join(" && "), 60, None);
        drop(machine);
        Self { dir, variables }
    }

    /// `program` (an EFI program, as kernels are), signed, in the file `to`.
    pub fn sign(&self, program: &Path, to: &Path) {
        let (program, to) = (program.to_string_lossy(), to.to_string_lossy());
        run(self.dir.path(), "sbsign", &["--key", "key", "--cert", "crt", "--output", &to, &program]);
    }
}

/// The certificate of whoever signed `program`, as PEM in the file `to`.
pub fn signer(program: &Path, to: &Path) {
    let script = format!(
        "sbattach --detach {to}.p7 {} && openssl pkcs7 -inform DER -in {to}.p7 -print_certs | \
         sed -n '/BEGIN/,/END/p; /END/q' > {to}",
        program.display(),
        to = to.display(),
    );
    run(Path::new("/"), "sh", &["-ec", &script]);
}
