//! Measured boot, kept with the witness, a software TPM, and the tools that other projects check TPMs with:
//! tpm2-tools, IBM's TSS and IMA's.

use qemu_tests::images::{self, Extra, Flaw, Witness};
use qemu_tests::machine::Loader;
use qemu_tests::repository::{built, inetbootctl, program, text};
use qemu_tests::tpm::{self, Tpm, Trouble, Version};
use qemu_tests::web::{Content, Server};
use qemu_tests::{Machine, Opts, boot, boot_disk, firmware, initrd, promise, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Seconds until the witness is ready; UEFI and a TPM take longer under TCG.
const READY: u64 = 400;

/// Seconds for the tools of a guest, which use its TPM.
const TOOLS: u64 = 300;

/// Modaliases of the machines' card, for which the witness' initrd has no driver: of its bus and of itself.
const CARD: [&str; 2] =
    ["pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "virtio:d00000001v00001AF4"];

/// The last line of a log that is complete.
const LEDGER: &str = "ledger: accounts for PCR 8 and 9";

/// Values of PCRs in hexadecimal, by bank and number.
type Pcrs = BTreeMap<(String, u32), String>;

/// A web server whose witness can be exchanged, and a directory to work in.
struct Site {
    dir: tempfile::TempDir,
    server: Server,
}

impl Site {
    fn new(witness: &Witness) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let index = Content::File(dir.path().join("w.iso.idx"));
        let server = Server::builder().image(dir.path().join("w.iso")).file("/w.iso.idx", index);
        let site = Self { server: server.start().unwrap(), dir };
        site.publish(witness);
        site
    }

    /// Puts this witness at the same address.
    fn publish(&self, witness: &Witness) {
        let link = self.path("w.iso");
        let _ = fs::remove_file(&link);
        symlink(images::witness(witness), link).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn netdir(&self) -> String {
        self.server.netdir()
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        inetbootctl(self.dir.path(), arguments)
    }

    /// The PCRs that a boot with `arguments` is predicted to leave; the log goes into the file `expected`.
    fn predict(&self, initramfs: &Path, arguments: &str, more: &[&str]) -> Pcrs {
        let arguments = format!("console=ttyS0 {arguments}");
        let initramfs = text(initramfs);
        let boot = ["predict", "--initramfs", &initramfs, "--arguments", &arguments, "--out", "expected"];
        let devices = CARD.map(|alias| ["--device", alias]).concat();
        pcrs(&self.ctl(&[boot.as_slice(), &devices, more].concat()))
    }

    /// Boots to the end of the witness' report, and waits for the receipt.
    fn boot(&self, opts: &Opts, tpm: &Tpm, device: &str) -> Machine {
        let qemu = [opts.qemu.clone(), tpm.qemu(device)].concat();
        let mut machine = boot(&Opts { qemu, ..opts.clone() });
        machine.expect("witness: ready", READY);
        machine.run("until [ -s /run/inetboot/receipt.json ]; do sleep 1; done", 60);
        machine
    }

    /// Copies a file of the guest into the directory, under this name.
    fn fetch(&self, machine: &mut Machine, path: &str, name: &str) {
        let encoded = machine.run(&format!("base64 {path}"), 120);
        fs::write(self.path("base64"), encoded).unwrap();
        let decoded =
            Command::new("base64").args(["-d", "base64"]).current_dir(self.dir.path()).output().unwrap();
        assert!(decoded.status.success(), "{decoded:?}");
        fs::write(self.path(name), decoded.stdout).unwrap();
    }

    /// Copies the guest's event log into the directory, as `log`.
    fn fetch_log(&self, machine: &mut Machine) -> PathBuf {
        self.fetch(machine, "/run/inetboot/eventlog", "log");
        // For fixtures: agent/tests/fixtures/tpm/make.
        if let Ok(keep) = std::env::var("KEEP_LOGS") {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            fs::copy(self.path("log"), Path::new(&keep).join(format!("{test}.eventlog"))).unwrap();
        }
        self.path("log")
    }
}

/// Parses the PCRs that `tpm2_pcrread`, `tpm2_eventlog` and `inetbootctl` print.
fn pcrs(text: &str) -> Pcrs {
    let mut pcrs = Pcrs::new();
    let mut bank = String::new();
    for line in text.lines() {
        let Some((left, right)) = line.trim().split_once(':') else { continue };
        match (left.trim().parse::<u32>(), right.trim().strip_prefix("0x")) {
            (Ok(pcr), Some(value)) => {
                pcrs.insert((bank.clone(), pcr), value.to_lowercase());
            }
            _ => bank = left.trim().to_owned(),
        }
    }
    assert!(!pcrs.is_empty(), "no PCRs in:\n{text}");
    pcrs
}

/// Those of `all` that are ours (PCR 8 and 9), of the banks that `like` has, too.
fn ours(all: &Pcrs, like: &Pcrs) -> Pcrs {
    let is_ours = |(key, _): &(&(String, u32), &String)| (key.1 == 8 || key.1 == 9) && like.contains_key(key);
    let ours: Pcrs = all.iter().filter(is_ours).map(|(key, value)| (key.clone(), value.clone())).collect();
    assert!(ours.len() >= 2, "nothing of PCR 8 and 9 in {all:?}");
    ours
}

/// PCR 8 and 9 are the same in all banks that both have.
fn check_same(left: &Pcrs, right: &Pcrs) {
    assert_eq!(ours(left, right), ours(right, left));
}

/// Runs commands of tpm2-tools in the guest, which has them on its CD.
fn tools(machine: &mut Machine, commands: &str) -> String {
    machine.run(&format!("sh /cd/tools/run-tools '{commands}'"), TOOLS)
}

/// The PCRs of one bank as the guest's kernel shows them: there are no tools for a TPM 1.2.
fn sysfs_pcrs(machine: &mut Machine) -> Pcrs {
    let files = "/sys/class/tpm/tpm0/pcrs /sys/class/tpm/tpm0/device/pcrs";
    let text = machine.run(&format!("cat {files} 2> /dev/null | sort -u"), 60);
    let value = |line: &str| {
        let (pcr, value) = line.strip_prefix("PCR-")?.split_once(':')?;
        Some((("sha1".to_owned(), pcr.parse().ok()?), value.replace(' ', "").to_lowercase()))
    };
    text.lines().filter_map(|line| value(line.trim())).collect()
}

/// The PCRs that tpm2-tools compute from a log, without a complaint.
fn tpm2_replay(log: &Path) -> Pcrs {
    let output = Command::new("tpm2_eventlog").arg(log).output().expect("tpm2_eventlog (scripts/setup)");
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complaints.is_empty(), "tpm2_eventlog complains:\n{complaints}");
    pcrs(said.split_once("\npcrs:").expect("it prints the PCRs").1)
}

/// tpm2-tools and IBM's TSS read the log, and compute the PCRs that the TPM holds.
fn check_others_agree(site: &Site, log: &Path, holds: &Pcrs) {
    let replayed = tpm2_replay(log);
    check_same(&replayed, holds);

    // IBM's tool extends every event into a TPM of its own, which is then asked.
    let second = tpm::Bare::new();
    second.run(site.dir.path(), "tsseventextend", &["-if", &text(log)]);
    for ((bank, pcr), value) in ours(holds, &replayed) {
        let algorithm = if bank == "sha1" { "sha1" } else { "sha256" };
        let read = ["-ha", &pcr.to_string(), "-halg", algorithm, "-ns"];
        let said = second.run(site.dir.path(), "tsspcrread", &read);
        assert_eq!(said.trim(), value, "IBM's replay of PCR {pcr}, {bank}");
    }
}

/// The PCRs of a TPM 2.0 are predicted, the log explains them to every tool, and quotes are checked.
#[test]
fn tpm_2_predicted_and_tools_agree() {
    let site = Site::new(&Witness::with_extra(Extra::TpmTools));
    let arguments = format!("{} first=1", site.netdir());
    let expected = site.predict(&built("initramfs.img"), &arguments, &[]);
    let tpm = Tpm::new(Version::V20);
    let mut machine = site.boot(&Opts { append: arguments, ..Opts::stock() }, &tpm, "tpm-tis");

    promise("the screen and the receipt name the TPM and its banks", || {
        let said = machine.said();
        assert!(said.contains("measuring into the TPM 2.0 (sha1, sha256)"), "the screen does not");
        assert!(
            said.contains("unverified, measured into the TPM 2.0 (sha1, sha256)"),
            "the receipt does not"
        );
    });
    promise("a driver for the TPM is not looked for: the target's kernel has it built in", || {
        assert!(!machine.said().contains("driver for the TPM"));
    });
    let holds = pcrs(&tools(&mut machine, "tpm2 pcrread"));
    promise("PCR 8 and 9 are as predicted", || check_same(&holds, &expected));
    let log = site.fetch_log(&mut machine);
    promise("tpm2-tools and IBM's TSS compute the same PCRs from the log", || {
        check_others_agree(&site, &log, &holds);
    });
    promise("so does inetbootctl", || {
        let replayed = pcrs(&site.ctl(&["log", "replay", "log"]));
        assert_eq!(ours(&replayed, &holds), ours(&holds, &expected));
    });
    promise("the log is there as text, to its last line", || {
        let text = machine.run("cat /run/inetboot/eventlog.txt", 60);
        assert!(text.contains("PCR 9 EV_IPL inetboot kernel: live/vmlinuz, "), "{text}");
        assert!(text.ends_with(&format!("PCR 8 EV_IPL inetboot {LEDGER}")), "{text}");
    });
    check_quotes(&site, &mut machine);
}

/// The nonce of the quote, and the event at which the log is tampered with.
const NONCE: &str = "c0ffee0123456789";
const KERNEL: &str = "inetboot kernel: live/vmlinuz";

/// The exit status of `inetbootctl` when evidence is refused.
const REFUSED: i32 = 3;

/// A quote by the guest's TPM: it is accepted, and with anything about it wrong it is refused.
fn check_quotes(site: &Site, machine: &mut Machine) {
    make_quote(site, machine);

    promise("tpm2_checkquote accepts the quote, and so does inetbootctl", || {
        assert!(theirs(site, "log", NONCE, "ak.pub"));
        let (code, said) =
            verify(site, "log", NONCE, "ak.pub", &["--expect", "expected", "--pcrs", "values"]);
        assert_eq!(code, 0, "{said}");
        fs::write(site.path("policy"), site.ctl(&["log", "show", "--ours", "expected"])).unwrap();
        assert_eq!(verify(site, "log", NONCE, "ak.pub", &["--policy", "policy"]).0, 0);
    });
    promise("a quote for another nonce is refused", || {
        assert!(!theirs(site, "log", "00", "ak.pub"));
        check_refused(verify(site, "log", "00", "ak.pub", &[]), "answers the nonce c0ffee0123456789");
    });
    promise("a quote by another key is refused", || {
        assert!(!theirs(site, "log", NONCE, "other.pub"));
        check_refused(verify(site, "log", NONCE, "other.pub", &[]), "not this key's signature");
    });

    for (how, why) in [
        ("removed", "an event was edited or is missing"),
        ("added", "was added"),
        ("swapped", "changed places"),
        ("digest", "an event was edited or is missing"),
        ("text", "its digest is of something else"),
    ] {
        promise(&format!("a log with an event tampered with ({how}) is refused"), || {
            run(site.dir.path(), "/usr/bin/python3", &[&program("tamper.py"), how, KERNEL]);
            check_refused(verify(site, "tampered", NONCE, "ak.pub", &["--pcrs", "values"]), why);
            let (code, said) = verify(site, "tampered", NONCE, "ak.pub", &[]);
            assert_eq!(code, REFUSED, "{said}");
            // tpm2-tools do not compare the text of an event of PCR 9 with its digest.
            assert_eq!(theirs(site, "tampered", NONCE, "ak.pub"), how == "text");
        });
    }

    promise("a boot of another kernel than the policy's is refused, and the kernel is named", || {
        let policy = fs::read_to_string(site.path("policy")).unwrap();
        let other = policy.replace(KERNEL, "inetboot kernel: live/other");
        fs::write(site.path("policy"), other).unwrap();
        check_refused(verify(site, "log", NONCE, "ak.pub", &["--policy", "policy"]), KERNEL);
    });
}

/// Lets the guest's TPM quote its PCRs, and fetches the quote; and makes a key of another TPM.
fn make_quote(site: &Site, machine: &mut Machine) {
    let make_key = |name: &str| {
        let attestation = format!("-c {name}.ctx -G ecc -g sha256 -s ecdsa -u {name}.pub");
        format!("tpm2 createek -Q -c {name}.ek -G rsa && tpm2 createak -Q -C {name}.ek {attestation}")
    };
    let quoted = "sha1:8,9+sha256:0,1,2,3,4,5,6,7,8,9";
    let files = "-m message -s signature -o pcrs";
    let quote = format!("tpm2 quote -Q -c ak.ctx -l {quoted} -g sha256 -q {NONCE} {files}");
    tools(machine, &format!("{} && {quote} && tpm2 pcrread > values", make_key("ak")));
    for name in ["ak.pub", "message", "signature", "pcrs", "values"] {
        site.fetch(machine, &format!("/cd/tools/tmp/{name}"), name);
    }

    // On this machine each of the tools is a program of its own.
    let make = make_key("other").replace("tpm2 ", "tpm2_");
    tpm::Bare::new().run(site.dir.path(), "sh", &["-c", &make]);
}

/// True if tpm2-tools accept the quote.
fn theirs(site: &Site, log: &str, nonce: &str, key: &str) -> bool {
    let quote = ["-m", "message", "-s", "signature", "-f", "pcrs", "-g", "sha256"];
    let mut check = Command::new("tpm2_checkquote");
    check.args(quote).args(["-u", key, "-q", nonce, "-e", log]).current_dir(site.dir.path());
    check.output().unwrap().status.success()
}

/// The exit status and the output of `inetbootctl log verify`.
fn verify(site: &Site, log: &str, nonce: &str, key: &str, more: &[&str]) -> (i32, String) {
    let quote = ["--quote", "message", "--signature", "signature", "--key", key, "--nonce", nonce];
    let mut command = Command::new(built("inetbootctl"));
    command.args(["log", "verify", log]).args(quote).args(more).current_dir(site.dir.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), said.into_owned())
}

fn check_refused((code, said): (i32, String), why: &str) {
    assert!(code == REFUSED && said.contains(why), "\"{why}\" was to be refused: {code}, {said}");
}

/// The PCRs of a TPM 1.2 are predicted, and the log explains them to other tools.
#[test]
fn tpm_1_2_predicted() {
    let site = Site::new(&Witness::default());
    let expected = site.predict(&built("initramfs.img"), &site.netdir(), &[]);
    let tpm = Tpm::new(Version::V12);
    let mut machine = site.boot(&Opts { append: site.netdir(), ..Opts::stock() }, &tpm, "tpm-tis");

    promise("the screen names the TPM and its bank", || {
        assert!(machine.said().contains("measuring into the TPM 1.2 (sha1)"));
    });
    let holds = sysfs_pcrs(&mut machine);
    promise("PCR 8 and 9 are as predicted", || check_same(&holds, &expected));
    let log = site.fetch_log(&mut machine);
    promise("tpm2-tools compute the same PCRs from the log", || check_same(&tpm2_replay(&log), &holds));
    promise("so does IMA's tool", || {
        let mut evmctl = Command::new("evmctl");
        let output =
            evmctl.args(["ima_boot_aggregate", "-v"]).arg(&log).output().expect("evmctl (scripts/setup)");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        for ((_, pcr), value) in ours(&holds, &holds) {
            let line = format!("PCR-{pcr:02x} {value}");
            assert!(said.contains(&line), "\"{line}\" is not in\n{said}");
        }
    });
}

/// Under UEFI our events follow the firmware's in its own log, and a boot is predicted from an earlier log
/// of the machine.
#[test]
fn uefi_log_is_continued() {
    let site = Site::new(&Witness::with_extra(Extra::TpmTools));
    let variables = tempfile::tempdir().unwrap();
    let opts = Opts { append: site.netdir(), qemu: firmware::uefi(variables.path()), ..Opts::stock() };
    let tpm = Tpm::new(Version::V20);
    let mut machine = site.boot(&opts, &tpm, "tpm-crb");
    site.fetch(&mut machine, "/run/inetboot/eventlog", "first");
    drop(machine);

    // The events of firmware and loader are those of the first boot; all others are computed.
    let expected = site.predict(&built("initramfs.img"), &site.netdir(), &["--after", "first"]);
    let tpm = Tpm::new(Version::V20);
    let mut machine = site.boot(&opts, &tpm, "tpm-crb");
    let values = tools(&mut machine, "tpm2 pcrread");
    let holds = pcrs(&values);
    promise("PCR 8 and 9 are as predicted", || check_same(&holds, &expected));
    let log = site.fetch_log(&mut machine);
    promise("tpm2-tools and IBM's TSS compute the same PCRs from the log", || {
        check_others_agree(&site, &log, &holds);
    });
    promise("one log has the firmware's events and ours", || {
        let shown = site.ctl(&["log", "show", "log"]);
        assert!(shown.contains("PCR 7 EV_EFI_VARIABLE_DRIVER_CONFIG"), "{shown}");
        assert!(shown.trim_end().ends_with(LEDGER), "{shown}");
    });
    promise("two boots leave the same PCRs, 0 to 9", || {
        assert_eq!(site.ctl(&["log", "replay", "first"]), site.ctl(&["log", "replay", "log"]));
    });
    promise("inetbootctl accepts the values of the TPM", || {
        fs::write(site.path("values"), values).unwrap();
        site.ctl(&["log", "verify", "log", "--pcrs", "values", "--expect", "expected"]);
    });
}

/// With GRUB, its events come before ours in one log, and a boot is predicted from an earlier log.
#[test]
fn grub_events_come_first() {
    let site = Site::new(&Witness::with_extra(Extra::TpmTools));
    let arguments = format!("{} first=1", site.netdir());
    let disk = boot_disk::with_grub(site.dir.path(), &arguments);
    let tpm = Tpm::new(Version::V20);
    let opts = Opts { loader: Loader::Disk(disk), qemu: firmware::uefi(site.dir.path()), ..Opts::default() };
    let mut machine = site.boot(&opts, &tpm, "tpm-tis");
    let holds = pcrs(&tools(&mut machine, "tpm2 pcrread"));
    let log = site.fetch_log(&mut machine);

    promise("tpm2-tools and IBM's TSS compute the same PCRs from the log", || {
        check_others_agree(&site, &log, &holds);
    });
    promise("the log has GRUB's command, the initramfs and then our events, to the last", || {
        let shown = site.ctl(&["log", "show", "log"]);
        let place = |text: &str| shown.find(text).unwrap_or_else(|| panic!("the log lacks {text}:\n{shown}"));
        let command = place("PCR 8 EV_IPL grub_cmd: linuxefi /vmlinuz console=ttyS0 netdir=");
        let initramfs = place("PCR 9 EV_IPL /initramfs.img");
        assert!(command < initramfs && initramfs < place("PCR 9 EV_IPL inetboot agent: "), "{shown}");
        assert!(shown.trim_end().ends_with(LEDGER), "{shown}");
    });
    promise("PCR 8 and 9 are predicted from one log of the machine", || {
        let expected = site.predict(&built("initramfs.img"), &arguments, &["--after", "log"]);
        check_same(&expected, &holds);
    });
}

/// Kernel arguments by which the kernel itself reports on the console: opened files, commands to the TPM
/// (their code and their first handle), connections, and kernels that are loaded for kexec.
const PROBES: &str = "tp_printk kprobe_event=p:open,do_sys_openat2,path=+u0($arg2):ustring;\
    p:tpm,tpm_common_write,code=+u6($arg2):x32,pcr=+u10($arg2):x32;p:connect,tcp_v4_connect;\
    p:load,__x64_sys_kexec_file_load";

/// The kernel's reports, in order: `open PATH`, `extend PCR`, `connect`, `load`.
fn reports(said: &str) -> Vec<String> {
    let event = |line: &str| {
        let (_, rest) = line.split_once(": (")?;
        let kind = line.split_once(": (")?.0.rsplit(' ').next()?;
        let field =
            |name: &str| rest.split_once(name).map(|(_, value)| value.split(' ').next().unwrap_or_default());
        match kind {
            "open" => Some(format!("open {}", field("path=")?.trim_matches('"'))),
            // TPM2_CC_PCR_Extend and the PCR are big-endian, and were read as little-endian numbers.
            "tpm" if field("code=")? == "0x82010000" => {
                let pcr = u32::from_str_radix(field("pcr=")?.trim().trim_start_matches("0x"), 16).ok()?;
                Some(format!("extend {}", pcr.swap_bytes()))
            }
            "connect" | "load" => Some(kind.to_owned()),
            _ => None,
        }
    };
    said.lines().filter_map(event).collect()
}

/// Every input is measured before it is used, by the word of the kernel: the arguments before the network,
/// the image before a read, everything before kexec, and the server before the second life connects to it.
#[test]
fn measured_before_use() {
    let site = Site::new(&Witness::default());
    let tpm = Tpm::new(Version::V20);
    let opts = Opts { append: format!("{} {PROBES}", site.netdir()), ..Opts::stock() };
    let mut machine = site.boot(&opts, &tpm, "tpm-tis");
    machine.run("dmesg -n 1", 60);
    let said = machine.said();
    let (first, second) = said.split_once("InetBoot 0.1.0, second life").expect("two lives");
    let (first, second) = (reports(first), reports(second));

    // The statements of the log, by their first words; the first life makes those before `serving`.
    let log = site.fetch_log(&mut machine);
    let lines = site.ctl(&["log", "show", "--ours", &text(&log)]);
    let statements: Vec<&str> = lines.lines().filter_map(|line| line.split([' ', ':']).nth(1)).collect();
    let serving = statements.iter().position(|word| *word == "serving").unwrap();
    let up_to = |word: &str| statements.iter().rposition(|known| *known == word).unwrap() + 1;

    promise("the network is used after the arguments are measured", || {
        assert_eq!(extends_before(&first, "connect"), up_to("arguments"));
    });
    promise("the image is read after its version is measured", || {
        assert_eq!(extends_before(&first, "open /inetboot.d/image/image"), up_to("version"));
    });
    promise("one kernel is loaded, after everything is measured", || {
        assert_eq!(extends_before(&first, "load"), up_to("target"));
        assert_eq!(extends(&first), serving);
        assert_eq!(first.iter().filter(|event| *event == "load").count(), 1);
    });
    promise("the second life measures what it serves before it connects", || {
        assert_eq!(extends_before(&second, "connect"), 1);
        assert_eq!(extends(&second), statements.len() - serving);
    });
    promise("the line between machine and TPM saw the same extends", || {
        let ours = tpm.extends().iter().filter(|(_, pcr)| *pcr == 8 || *pcr == 9).count();
        assert_eq!(ours, statements.len());
    });
}

fn extends(reports: &[String]) -> usize {
    reports.iter().filter(|event| event.starts_with("extend ")).count()
}

/// The number of extends before an event happens for the first time.
fn extends_before(reports: &[String], event: &str) -> usize {
    let at = reports.iter().position(|report| report.contains(event));
    extends(&reports[..at.unwrap_or_else(|| panic!("no {event} in {reports:#?}"))])
}

/// The numbers of the PCRs that differ.
fn changed(before: &Pcrs, after: &Pcrs) -> BTreeSet<u32> {
    before.iter().filter(|(key, value)| after.get(key) != Some(value)).map(|(key, _)| key.1).collect()
}

/// One byte changes the PCR that the documentation names and no other, in the prediction and in a boot.
#[test]
fn one_byte_changes_one_pcr() {
    let site = Site::new(&Witness::default());
    let pinned = format!("{} inetboot.index={}", site.netdir(), site.server.guest_url("/w.iso.idx"));
    let index = || drop(site.ctl(&["image", "index", "w.iso"]));
    index();
    let initramfs = built("own/initramfs.img");
    let agent = [fs::read(built("inetboot")).unwrap(), vec![0]].concat();
    let other_agent = vec![("init".to_owned(), agent)];
    let initramfs_with_it = initrd::with_files(&[&initramfs], &other_agent);

    // The PCRs after a boot, which are as predicted.
    let leaves = |initramfs: &Path, files: &[(String, Vec<u8>)], arguments: &str| {
        let expected = site.predict(initramfs, arguments, &[]);
        let opts = Opts { append: arguments.to_owned(), files: files.to_vec(), ..Opts::default() };
        let tpm = Tpm::new(Version::V20);
        let mut machine = site.boot(&opts, &tpm, "tpm-tis");
        site.fetch_log(&mut machine);
        let holds = pcrs(&site.ctl(&["log", "replay", "log"]));
        let said = machine.run("tail -n 1 /run/inetboot/eventlog.txt", 60);
        assert!(said.ends_with(LEDGER), "{said}");
        check_same(&holds, &expected);
        ours(&holds, &holds)
    };

    let before = promise("a boot is as predicted", || leaves(&initramfs, &[], &pinned));
    let changes = |what: &str, expected: &[u32], after: &dyn Fn() -> Pcrs| {
        promise(&format!("{what} changes exactly PCR {expected:?}"), || {
            let changed: Vec<u32> = changed(&before, &after()).into_iter().collect();
            assert_eq!(changed, expected);
        });
    };
    changes("no byte", &[], &|| leaves(&initramfs, &[], &pinned));
    changes("an argument", &[8], &|| leaves(&initramfs, &[], &format!("{pinned} x")));
    changes("the agent", &[9], &|| leaves(initramfs_with_it.path(), &other_agent, &pinned));
    let with_comment = with_a_comment(&fs::read(site.path("w.iso.idx")).unwrap());
    fs::write(site.path("w.iso.idx"), with_comment).unwrap();
    changes("the index", &[9], &|| leaves(&initramfs, &[], &pinned));
    for file in ["live/vmlinuz", "live/initrd.img"] {
        site.publish(&Witness::with_flaw(Flaw::LongerFile(file)));
        index();
        changes(file, &[9], &|| leaves(&initramfs, &[], &pinned));
    }
}

/// The same index with one more line in its head, which readers may ignore.
fn with_a_comment(index: &[u8]) -> Vec<u8> {
    let end = index.windows(2).position(|bytes| bytes == b"\n\n").expect("an index has a head");
    [&index[..=end], b"x y\n", &index[end + 1..]].concat()
}

/// Boots with a TPM that fails as `trouble` says, or without one, until `until` is said. Gives everything
/// that was said, and the time from the first step on.
fn boot_with(trouble: Option<Trouble>, policy: &str, until: &str) -> (String, Duration) {
    let site = Site::new(&Witness::default());
    let tpm = trouble.map(|trouble| Tpm::with(Version::V20, Some(trouble)));
    let qemu = tpm.iter().flat_map(|tpm| tpm.qemu("tpm-tis")).collect();
    let append = format!("{} inetboot.tpm={policy}", site.netdir());
    let mut machine = boot(&Opts { append, qemu, ..Opts::default() });
    machine.expect("[1/8] config", READY);
    let start = Instant::now();
    machine.expect(until, READY);
    (machine.said(), start.elapsed())
}

/// With `inetboot.tpm=require` a machine without a TPM, or with one that fails, boots nothing.
#[test]
fn required_tpm_stops_the_boot() {
    for (trouble, why) in [
        (None, "inetboot.tpm=require, and this machine shows no TPM"),
        (Some(Trouble::Errors(0)), "inetboot.tpm=require, and cannot extend PCR 9"),
        (Some(Trouble::Errors(3)), "inetboot.tpm=require, and cannot extend PCR 9"),
        (Some(Trouble::Silence(1)), "inetboot.tpm=require, and cannot extend PCR 8"),
    ] {
        promise(&format!("nothing is started with {trouble:?} in place of a good TPM"), || {
            let (said, took) = boot_with(trouble, "require", "trying again in");
            assert!(said.contains(&format!("[7/8] measure failed: {why}")), "{said}");
            assert!(!said.contains("[8/8] kexec"), "{said}");
            // The bound of a TPM command is ten seconds; the network may have come first.
            assert!(took < Duration::from_secs(90), "{took:?}");
        });
    }
}

/// With `inetboot.tpm=try` a TPM that fails stops no boot, and with `off` none is used; screen and receipt say
/// that nothing was measured.
#[test]
fn failing_tpm_does_not_stop_try() {
    for (trouble, policy, why) in [
        (Some(Trouble::Errors(2)), "try", "not measured: cannot extend PCR"),
        (Some(Trouble::Silence(2)), "try", "not measured: cannot extend PCR"),
        (None, "off", "not measured: inetboot.tpm=off"),
    ] {
        promise(&format!("inetboot.tpm={policy} boots with {trouble:?} in place of a good TPM"), || {
            let (said, _) = boot_with(trouble, policy, "witness: ready");
            assert!(said.contains(why), "\"{why}\" was not said:\n{said}");
            assert!(said.contains("unverified, not measured"), "the receipt does not say so");
        });
    }
}
