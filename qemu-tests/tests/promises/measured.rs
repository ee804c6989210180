//! Promises about what is measured, kept with a witness, a software TPM, and the tools that everybody
//! else checks TPMs with.

use qemu_tests::images::{self, Witness};
use qemu_tests::machine::{Loader, built};
use qemu_tests::tpm::{self, Tpm, Trouble, Version};
use qemu_tests::web::{Content, Server};
use qemu_tests::{Machine, Opts, boot, firmware, run};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Seconds until the witness is ready; UEFI and a TPM take their time under TCG.
const SOON: u64 = 400;

/// The card of the machines, for which the witness' initrd has no driver: its bus and itself.
const CARD: [&str; 2] =
    ["pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "virtio:d00000001v00001AF4"];

/// A bank and a PCR, and what that holds, in hexadecimal.
type Pcrs = BTreeMap<(String, u32), String>;

/// A web server with a witness that can be exchanged, and a directory to work in.
struct Site {
    dir: tempfile::TempDir,
    server: Server,
}

impl Site {
    fn new(witness: &Witness) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| Content::File(dir.path().join(name));
        let server = Server::builder().file("/w.iso", file("w.iso")).file("/w.iso.idx", file("w.iso.idx"));
        let site = Self { server: server.start().unwrap(), dir };
        site.publish(witness);
        site
    }

    /// From now on this witness is at the same address.
    fn publish(&self, witness: &Witness) {
        let link = self.path("w.iso");
        let _ = fs::remove_file(&link);
        symlink(images::witness(witness), link).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn netdir(&self) -> String {
        format!("netdir={}", self.server.guest_url("/w.iso"))
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        run(self.dir.path(), &built("inetbootctl").to_string_lossy(), arguments)
    }

    /// The PCRs that a boot with `arguments` will leave, and the log in the file `expected`.
    fn predict(&self, initramfs: &Path, arguments: &str, more: &[&str]) -> Pcrs {
        let arguments = format!("console=ttyS0 {arguments}");
        let initramfs = initramfs.to_string_lossy();
        let fixed = ["predict", "--initramfs", &initramfs, "--arguments", &arguments, "--out", "expected"];
        let fixed = [&fixed[..], &CARD.map(|alias| ["--device", alias]).concat()].concat();
        pcrs(&self.ctl(&[&fixed[..], more].concat()))
    }

    /// A boot to the end of the witness' report.
    fn boot(&self, opts: &Opts, tpm: &Tpm, device: &str) -> Machine {
        let qemu = [opts.qemu.clone(), tpm.qemu(device)].concat();
        let mut machine = boot(&Opts { qemu, ..opts.clone() });
        machine.expect("witness: ready", SOON, Some(&self.server));
        machine.run("until [ -s /run/inetboot/receipt.json ]; do sleep 1; done", 60, Some(&self.server));
        machine
    }

    /// A file of the guest.
    fn take(&self, machine: &mut Machine, path: &str, name: &str) -> PathBuf {
        let text = machine.run(&format!("base64 {path}"), 120, Some(&self.server));
        let to = self.path(name);
        fs::write(self.path("base64"), text).unwrap();
        run(self.dir.path(), "sh", &["-c", &format!("base64 -d base64 > {name}")]);
        // For fixtures: agent/tests/fixtures/tpm/make.
        if let (Ok(keep), "log") = (std::env::var("KEEP_LOGS"), name) {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            fs::copy(&to, Path::new(&keep).join(format!("{test}.eventlog"))).unwrap();
        }
        to
    }
}

/// What `tpm2_pcrread`, `tpm2_eventlog` and `inetbootctl` print.
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

/// Those that are ours, of the banks that both have.
fn ours(all: &Pcrs, like: &Pcrs) -> Pcrs {
    let is_ours = |(key, _): &(&(String, u32), &String)| (key.1 == 8 || key.1 == 9) && like.contains_key(key);
    let ours: Pcrs = all.iter().filter(is_ours).map(|(key, value)| (key.clone(), value.clone())).collect();
    assert!(ours.len() >= 2, "nothing of PCR 8 and 9 in {all:?}");
    ours
}

/// tpm2-tools in the guest, on the CD in a root of their own.
fn tools(machine: &mut Machine, site: &Site, commands: &str) -> String {
    let mounted = "grep -q /cd/tools/dev /proc/mounts || { mount --bind /dev /cd/tools/dev && mount -t tmpfs t /cd/tools/tmp; }";
    let command = format!(
        "chroot /cd/tools /bin/sh -c 'export TPM2TOOLS_TCTI=device:/dev/tpmrm0; cd /tmp; {commands}'"
    );
    machine.run(&format!("{mounted}; {command}"), 300, Some(&site.server))
}

/// What the guest's kernel says the PCRs of one bank hold: for a TPM 1.2 there are no tools.
fn sysfs_pcrs(machine: &mut Machine, site: &Site) -> Pcrs {
    let text = machine.run(
        "cat /sys/class/tpm/tpm0/pcrs /sys/class/tpm/tpm0/device/pcrs 2> /dev/null | sort -u",
        60,
        Some(&site.server),
    );
    let value = |line: &str| {
        let (pcr, value) = line.strip_prefix("PCR-")?.split_once(':')?;
        Some((("sha1".to_owned(), pcr.parse().ok()?), value.replace(' ', "").to_lowercase()))
    };
    text.lines().filter_map(|line| value(line.trim())).collect()
}

/// Two other programs read the log, and come to the same PCRs without a complaint.
fn others_agree(site: &Site, log: &Path, holds: &Pcrs) {
    let output = Command::new("tpm2_eventlog").arg(log).output().expect("tpm2_eventlog (scripts/setup)");
    let (text, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complaints.is_empty(), "tpm2_eventlog complains:\n{complaints}");
    let replayed = pcrs(text.split_once("\npcrs:").expect("it prints the PCRs").1);
    assert_eq!(ours(&replayed, holds), ours(holds, &replayed));

    // IBM's extends every event into a TPM of its own, which is asked then.
    let second = tpm::Bare::new();
    second.run(site.dir.path(), "tsseventextend", &["-if", &log.to_string_lossy()]);
    for ((bank, pcr), value) in ours(holds, &replayed) {
        let algorithm = if bank == "sha1" { "sha1" } else { "sha256" };
        let said =
            second.run(site.dir.path(), "tsspcrread", &["-ha", &pcr.to_string(), "-halg", algorithm, "-ns"]);
        assert_eq!(said.trim(), value, "IBM's replay of PCR {pcr}, {bank}");
    }
}

fn with_tools() -> Witness {
    Witness { tpm_tools: true, ..Witness::default() }
}

#[test]
fn pcrs_of_a_tpm_2_are_predicted_and_every_tool_agrees() {
    let site = Site::new(&with_tools());
    let arguments = format!("{} first=1", site.netdir());
    let expected = site.predict(&built("initramfs.img"), &arguments, &[]);
    let tpm = Tpm::new(Version::V20);
    let opts = Opts { append: arguments, ..Opts::stock() };
    let mut machine = site.boot(&opts, &tpm, "tpm-tis");
    let said = machine.said();
    assert!(said.contains("measuring into the TPM 2.0 (sha1, sha256)"), "the screen says so");
    assert!(said.contains("unverified, measured into the TPM 2.0 (sha1, sha256)"), "the receipt too");
    assert!(!said.contains("driver for the TPM"), "the target's kernel has it built in");

    let holds = pcrs(&tools(&mut machine, &site, "tpm2 pcrread"));
    assert_eq!(ours(&holds, &expected), ours(&expected, &holds));
    let log = site.take(&mut machine, "/run/inetboot/eventlog", "log");
    others_agree(&site, &log, &holds);
    assert_eq!(ours(&pcrs(&site.ctl(&["log", "replay", "log"])), &holds), ours(&holds, &expected));
    let text = machine.run("cat /run/inetboot/eventlog.txt", 60, Some(&site.server));
    assert!(text.contains("PCR 9 EV_IPL inetboot kernel: live/vmlinuz, "), "{text}");
    assert!(text.ends_with("PCR 8 EV_IPL inetboot ledger: accounts for PCR 8 and 9"), "{text}");
    quotes_are_checked(&site, &mut machine);
}

/// A quote by the guest's TPM, and all that can be wrong with it.
fn quotes_are_checked(site: &Site, machine: &mut Machine) {
    const NONCE: &str = "c0ffee0123456789";
    let key = |name: &str| {
        format!(
            "tpm2 createek -Q -c {name}.ek -G rsa && tpm2 createak -Q -C {name}.ek -c {name}.ctx -G ecc -g sha256 -s ecdsa -u {name}.pub"
        )
    };
    let quote = format!(
        "tpm2 quote -Q -c ak.ctx -l sha1:8,9+sha256:0,1,2,3,4,5,6,7,8,9 -g sha256 -q {NONCE} -m message -s signature -o pcrs"
    );
    tools(machine, site, &format!("{} && {quote} && tpm2 pcrread > values", key("ak")));
    for name in ["ak.pub", "message", "signature", "pcrs", "values"] {
        site.take(machine, &format!("/cd/tools/tmp/{name}"), name);
    }
    // Another machine's key.
    let other = tpm::Bare::new();
    let make = key("other").replace("tpm2 ", "tpm2_");
    other.run(site.dir.path(), "sh", &["-c", &make]);

    let theirs = |log: &str, nonce: &str, key: &str| {
        let quote = ["-m", "message", "-s", "signature", "-f", "pcrs", "-g", "sha256"];
        let mut check = Command::new("tpm2_checkquote");
        check.args(quote).args(["-u", key, "-q", nonce, "-e", log]).current_dir(site.dir.path());
        check.output().unwrap().status.success()
    };
    let mine = |log: &str, nonce: &str, key: &str, more: &[&str]| {
        let fixed = [
            "log",
            "verify",
            log,
            "--quote",
            "message",
            "--signature",
            "signature",
            "--key",
            key,
            "--nonce",
            nonce,
        ];
        let output =
            Command::new(built("inetbootctl")).args(fixed).args(more).current_dir(site.dir.path()).output();
        let output = output.unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    };
    let refused = |outcome: (i32, String), why: &str| {
        assert!(outcome.0 == 3 && outcome.1.contains(why), "\"{why}\" was to be refused: {outcome:?}");
    };

    assert!(theirs("log", NONCE, "ak.pub"), "tpm2_checkquote takes the good quote");
    let good = mine("log", NONCE, "ak.pub", &["--expect", "expected", "--pcrs", "values"]);
    assert_eq!(good.0, 0, "{}", good.1);
    fs::write(site.path("policy"), site.ctl(&["log", "show", "--ours", "expected"])).unwrap();
    assert_eq!(mine("log", NONCE, "ak.pub", &["--policy", "policy"]).0, 0);

    assert!(!theirs("log", "00", "ak.pub"));
    refused(mine("log", "00", "ak.pub", &[]), "answers the nonce c0ffee0123456789");
    assert!(!theirs("log", NONCE, "other.pub"));
    refused(mine("log", NONCE, "other.pub", &[]), "not this key's signature");

    let kernel = "inetboot kernel: live/vmlinuz";
    for (what, why) in [
        ("removed", "an event was edited or is missing"),
        ("added", "was added"),
        ("swapped", "changed places"),
        ("digest", "an event was edited or is missing"),
        ("text", "its digest is of something else"),
    ] {
        run(site.dir.path(), "/usr/bin/python3", &["-c", TAMPER, what, kernel]);
        refused(mine("tampered", NONCE, "ak.pub", &["--pcrs", "values"]), why);
        let (code, said) = mine("tampered", NONCE, "ak.pub", &[]);
        assert_eq!(code, 3, "{what}: {said}");
        // What a line of PCR 9 says is of no interest to them.
        assert_eq!(theirs("tampered", NONCE, "ak.pub"), what == "text", "{what}");
    }
    let policy =
        fs::read_to_string(site.path("policy")).unwrap().replace(kernel, "inetboot kernel: live/other");
    fs::write(site.path("policy"), policy).unwrap();
    refused(mine("log", NONCE, "ak.pub", &["--policy", "policy"]), kernel);
}

/// Spoils the log: argv is how, and the text of the event to begin with.
const TAMPER: &str = r#"
import struct, sys
how, text = sys.argv[1], sys.argv[2].encode()
log = open("log", "rb").read()
sizes = {4: 20, 11: 32}
def end_of(at, first):
    at += 8
    if first:
        at += 20
    else:
        count, = struct.unpack_from("<I", log, at)
        at += 4
        for _ in range(count):
            algorithm, = struct.unpack_from("<H", log, at)
            at += 2 + sizes[algorithm]
    length, = struct.unpack_from("<I", log, at)
    return at + 4 + length
events, at = [], 0
while at < len(log):
    end = end_of(at, at == 0)
    events.append(log[at:end])
    at = end
this = next(n for n, event in enumerate(events) if text in event)
if how == "removed":
    del events[this]
elif how == "added":
    events.insert(this, events[this])
elif how == "swapped":
    events[this], events[this + 1] = events[this + 1], events[this]
elif how == "digest":
    event = bytearray(events[this])
    event[20] ^= 1
    events[this] = bytes(event)
elif how == "text":
    events[this] = events[this].replace(text, text[:-1] + b"y")
open("tampered", "wb").write(b"".join(events))
"#;

#[test]
fn pcrs_of_a_tpm_1_2_are_predicted() {
    let site = Site::new(&Witness::default());
    let expected = site.predict(&built("initramfs.img"), &site.netdir(), &[]);
    let tpm = Tpm::new(Version::V12);
    let mut machine = site.boot(&Opts { append: site.netdir(), ..Opts::stock() }, &tpm, "tpm-tis");
    assert!(machine.said().contains("measuring into the TPM 1.2 (sha1)"));
    let holds = sysfs_pcrs(&mut machine, &site);
    assert_eq!(ours(&holds, &expected), ours(&expected, &holds));
    let log = site.take(&mut machine, "/run/inetboot/eventlog", "log");
    let output = Command::new("tpm2_eventlog").arg(&log).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "tpm2_eventlog complains: {output:?}");
    let replayed = pcrs(String::from_utf8_lossy(&output.stdout).split_once("\npcrs:").unwrap().1);
    assert_eq!(ours(&replayed, &holds), ours(&holds, &replayed));
    // IMA's tool replays logs of a TPM 1.2 as well.
    let theirs = run(site.dir.path(), "sh", &["-c", "evmctl ima_boot_aggregate -v log 2>&1"]);
    for ((_, pcr), value) in ours(&holds, &holds) {
        assert!(
            theirs.contains(&format!("PCR-{pcr:02x} {value}")),
            "PCR {pcr} is {value}, and not as in\n{theirs}"
        );
    }
}

#[test]
fn under_uefi_the_firmwares_log_is_continued() {
    let site = Site::new(&with_tools());
    let variables = tempfile::tempdir().unwrap();
    let opts = Opts { append: site.netdir(), qemu: firmware::uefi(variables.path()), ..Opts::stock() };
    let tpm = Tpm::new(Version::V20);
    let mut machine = site.boot(&opts, &tpm, "tpm-crb");
    site.take(&mut machine, "/run/inetboot/eventlog", "first");
    drop(machine);

    // What firmware and loader do is known from the first boot, and all the rest beforehand.
    let expected = site.predict(&built("initramfs.img"), &site.netdir(), &["--after", "first"]);
    let tpm = Tpm::new(Version::V20);
    let mut machine = site.boot(&opts, &tpm, "tpm-crb");
    let holds = pcrs(&tools(&mut machine, &site, "tpm2 pcrread"));
    assert_eq!(ours(&holds, &expected), ours(&expected, &holds));
    let log = site.take(&mut machine, "/run/inetboot/eventlog", "log");
    others_agree(&site, &log, &holds);
    let shown = site.ctl(&["log", "show", "log"]);
    assert!(
        shown.contains("PCR 7 EV_EFI_VARIABLE_DRIVER_CONFIG"),
        "the firmware's events are there:\n{shown}"
    );
    assert!(shown.trim_end().ends_with("ledger: accounts for PCR 8 and 9"), "{shown}");
    // All of it, PCR 0 to 7 included.
    assert_eq!(site.ctl(&["log", "replay", "first"]), site.ctl(&["log", "replay", "log"]));
    fs::write(site.path("values"), tools(&mut machine, &site, "tpm2 pcrread")).unwrap();
    site.ctl(&["log", "verify", "log", "--pcrs", "values", "--expect", "expected"]);
}

#[test]
fn what_grub_measured_comes_first_in_one_log() {
    let site = Site::new(&with_tools());
    let disk = images::grub_disk(site.dir.path(), &format!("{} first=1", site.netdir())).unwrap();
    let tpm = Tpm::new(Version::V20);
    let opts = Opts { loader: Loader::Disk(disk), qemu: firmware::uefi(site.dir.path()), ..Opts::default() };
    let mut machine = site.boot(&opts, &tpm, "tpm-tis");
    let holds = pcrs(&tools(&mut machine, &site, "tpm2 pcrread"));
    let log = site.take(&mut machine, "/run/inetboot/eventlog", "log");
    others_agree(&site, &log, &holds);
    let shown = site.ctl(&["log", "show", "log"]);
    let place = |text: &str| shown.find(text).unwrap_or_else(|| panic!("the log lacks {text}:\n{shown}"));
    let command = place("PCR 8 EV_IPL grub_cmd: linuxefi /vmlinuz console=ttyS0 netdir=");
    let initramfs = place("PCR 9 EV_IPL /initramfs.img");
    assert!(command < initramfs && initramfs < place("PCR 9 EV_IPL inetboot agent: "), "{shown}");
    assert!(shown.trim_end().ends_with("ledger: accounts for PCR 8 and 9"), "{shown}");
    // Such a machine's boots are predicted from one log of it.
    let expected =
        site.predict(&built("initramfs.img"), &format!("{} first=1", site.netdir()), &["--after", "log"]);
    assert_eq!(ours(&expected, &holds), ours(&holds, &expected));
}

/// Lets the kernel itself tell, on the console, what it is asked for: opens of files, commands to
/// the TPM (their code and what is their first handle), connections, kernels to load.
const PROBES: &str = "tp_printk kprobe_event=p:open,do_sys_openat2,path=+u0($arg2):ustring;\
    p:tpm,tpm_common_write,code=+u6($arg2):x32,pcr=+u10($arg2):x32;p:connect,tcp_v4_connect;\
    p:load,__x64_sys_kexec_file_load";

/// What a kernel told, in order: `open PATH`, `extend PCR`, `connect`, `load`.
fn told(said: &str) -> Vec<String> {
    let event = |line: &str| {
        let (_, rest) = line.split_once(": (")?;
        let kind = line.split_once(": (")?.0.rsplit(' ').next()?;
        let field =
            |name: &str| rest.split_once(name).map(|(_, value)| value.split(' ').next().unwrap_or_default());
        match kind {
            "open" => Some(format!("open {}", field("path=")?.trim_matches('"'))),
            // TPM2_CC_PCR_Extend, and a PCR, as a little-endian machine reads them.
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

#[test]
fn nothing_is_opened_reached_or_loaded_before_it_is_measured() {
    let site = Site::new(&Witness::default());
    let tpm = Tpm::new(Version::V20);
    let opts = Opts { append: format!("{} {PROBES}", site.netdir()), ..Opts::stock() };
    let mut machine = site.boot(&opts, &tpm, "tpm-tis");
    machine.run("dmesg -n 1", 60, Some(&site.server));
    let said = machine.said();
    let (first, second) = said.split_once("InetBoot 0.1.0, second life").expect("two lives");
    let log = site.take(&mut machine, "/run/inetboot/eventlog", "log");
    let lines = site.ctl(&["log", "show", "--ours", &log.to_string_lossy()]);
    let words: Vec<&str> = lines.lines().filter_map(|line| line.split([' ', ':']).nth(1)).collect();
    let (serving, of_first) = (words.iter().position(|word| *word == "serving").unwrap(), told(first));

    let extends = |told: &[String]| told.iter().filter(|event| event.starts_with("extend ")).count();
    // How many statements of ours the TPM had when something happened for the first time.
    let had = |told: &[String], what: &str| {
        let at = told
            .iter()
            .position(|event| event.contains(what))
            .unwrap_or_else(|| panic!("no {what} in {told:#?}"));
        extends(&told[..at])
    };
    let until = |word: &str| words.iter().rposition(|known| *known == word).unwrap() + 1;
    assert_eq!(had(&of_first, "connect"), until("arguments"), "the network is used after the arguments");
    assert_eq!(
        had(&of_first, "open /inetboot.d/image/image"),
        until("version"),
        "the image is read after what it is"
    );
    assert_eq!(
        had(&of_first, "load"),
        until("target"),
        "and nothing is loaded before everything is measured"
    );
    assert_eq!(extends(&of_first), serving, "there is nothing to say after that");
    assert_eq!(of_first.iter().filter(|event| *event == "load").count(), 1);
    let of_second = told(second);
    assert_eq!(had(&of_second, "connect"), 1, "the second life says what it serves before it does");
    assert_eq!(extends(&of_second), words.len() - serving);
    // The line between machine and TPM saw the same.
    assert_eq!(tpm.extends().iter().filter(|(_, pcr)| *pcr == 8 || *pcr == 9).count(), words.len());
}

/// Which of PCR 8 and 9 differ.
fn changed(before: &Pcrs, after: &Pcrs) -> Vec<u32> {
    let mut changed: Vec<u32> =
        before.iter().filter(|(key, value)| after.get(key) != Some(value)).map(|(key, _)| key.1).collect();
    changed.dedup();
    changed.sort_unstable();
    changed.dedup();
    changed
}

#[test]
fn one_byte_changes_the_pcr_that_is_named_and_no_other() {
    let site = Site::new(&Witness::default());
    let plain = site.netdir();
    let pinned = format!("{plain} inetboot.index={}", site.server.guest_url("/w.iso.idx"));
    let index = || {
        site.ctl(&["image", "index", "w.iso"]);
    };
    index();
    let initramfs = built("own/initramfs.img");
    let agent = [fs::read(built("inetboot")).unwrap(), vec![0]].concat();
    let other_agent = images::with_files(&[&initramfs], &[("init".into(), agent.clone())]).unwrap();

    // In a prediction, and in a machine that is booted.
    let leaves = |what: &str, initramfs: &Path, files: &[(String, Vec<u8>)], arguments: &str| {
        let expected = site.predict(initramfs, arguments, &[]);
        let opts = Opts { append: arguments.to_owned(), files: files.to_vec(), ..Opts::default() };
        let tpm = Tpm::new(Version::V20);
        let mut machine = site.boot(&opts, &tpm, "tpm-tis");
        site.take(&mut machine, "/run/inetboot/eventlog", "log");
        let holds = pcrs(&site.ctl(&["log", "replay", "log"]));
        let said = machine.run("tail -n 1 /run/inetboot/eventlog.txt", 60, Some(&site.server));
        assert!(said.ends_with("ledger: accounts for PCR 8 and 9"), "{what}: {said}");
        assert_eq!(ours(&holds, &expected), ours(&expected, &holds), "{what}");
        ours(&holds, &holds)
    };
    let before = leaves("nothing", &initramfs, &[], &pinned);
    assert_eq!(changed(&before, &leaves("nothing again", &initramfs, &[], &pinned)), []);
    assert_eq!(changed(&before, &leaves("an argument", &initramfs, &[], &format!("{pinned} x"))), [8]);
    let files = [("init".to_owned(), agent)];
    assert_eq!(changed(&before, &leaves("the agent", other_agent.path(), &files, &pinned)), [9]);
    fs::write(site.path("w.iso.idx"), with_a_comment(&fs::read(site.path("w.iso.idx")).unwrap())).unwrap();
    assert_eq!(changed(&before, &leaves("the index", &initramfs, &[], &pinned)), [9]);
    for file in ["live/vmlinuz", "live/initrd.img"] {
        site.publish(&Witness { longer: Some(file), ..Witness::default() });
        index();
        assert_eq!(changed(&before, &leaves(file, &initramfs, &[], &pinned)), [9]);
    }
}

/// The same index with one more line that nobody has to understand.
fn with_a_comment(index: &[u8]) -> Vec<u8> {
    let end = index.windows(2).position(|bytes| bytes == b"\n\n").expect("an index has a head");
    [&index[..=end], b"x y\n", &index[end + 1..]].concat()
}

/// Boots with `trouble` and gives what was said until `until`.
fn troubled(trouble: Option<Trouble>, policy: &str, until: &str) -> (String, Duration) {
    let site = Site::new(&Witness::default());
    let tpm = trouble.map(|trouble| Tpm::with(Version::V20, Some(trouble)));
    let qemu = tpm.iter().flat_map(|tpm| tpm.qemu("tpm-tis")).collect();
    let append = format!("{} inetboot.tpm={policy}", site.netdir());
    let mut machine = boot(&Opts { append, qemu, ..Opts::default() });
    machine.expect("[1/8] config", SOON, Some(&site.server));
    let start = Instant::now();
    machine.expect(until, SOON, Some(&site.server));
    (machine.said(), start.elapsed())
}

#[test]
fn without_a_tpm_that_is_required_nothing_is_started() {
    for (trouble, why) in [
        (None, "inetboot.tpm=require, and this machine shows no TPM"),
        (Some(Trouble::Errors(0)), "inetboot.tpm=require, and cannot extend PCR 9"),
        (Some(Trouble::Errors(3)), "inetboot.tpm=require, and cannot extend PCR 9"),
        (Some(Trouble::Silence(1)), "inetboot.tpm=require, and cannot extend PCR 8"),
    ] {
        let (said, took) = troubled(trouble, "require", "trying again in");
        assert!(said.contains(&format!("[7/8] measure failed: {why}")), "{said}");
        assert!(!said.contains("[8/8] kexec"), "{said}");
        // The TPM's bound is ten seconds, and the network may have come first.
        assert!(took < Duration::from_secs(90), "{took:?}");
    }
}

#[test]
fn a_tpm_that_fails_stops_no_boot_that_only_tries() {
    for (trouble, policy, why) in [
        (Some(Trouble::Errors(2)), "try", "not measured: cannot extend PCR"),
        (Some(Trouble::Silence(2)), "try", "not measured: cannot extend PCR"),
        (None, "off", "not measured: inetboot.tpm=off"),
    ] {
        let (said, _) = troubled(trouble, policy, "witness: ready");
        assert!(said.contains(why), "{why} was not said:\n{said}");
        assert!(said.contains("unverified, not measured"), "the receipt says so too");
    }
}
