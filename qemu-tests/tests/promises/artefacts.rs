//! The files that `scripts/build` and `scripts/media` make are of the right kind and size.

use qemu_tests::repository::{built, repository, script, text};
use qemu_tests::run;
use std::fs;
use std::path::{Path, PathBuf};

/// Limits of the agent: stripped, and packed by `zstd -19`.
const AGENT_BYTES: u64 = 2_850_000;
const AGENT_PACKED_BYTES: u64 = 1_305_000;

/// Limits of our own kernel, of the initramfs that belongs to it, and of the CD with both.
const KERNEL_BYTES: u64 = 3_400_000;
const INITRAMFS_BYTES: u64 = 1_200_000;
const CD_BYTES: u64 = 5_500_000;

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len()
}

/// The agent and the tool run on any Linux: they are static and need no interpreter.
#[test]
fn programs_are_static() {
    for program in ["inetboot", "inetbootctl"] {
        let kind = run(Path::new("/"), "file", &[&text(&built(program))]);
        assert!(kind.contains("static-pie linked") && !kind.contains("interpreter"), "{kind}");
    }
}

/// The agent stays within its limits, as it is and packed.
#[test]
fn agent_is_small() {
    let dir = tempfile::tempdir().expect("a directory");
    let (agent, packed) = (built("inetboot"), dir.path().join("packed"));
    run(dir.path(), "zstd", &["-19", "-q", "-o", &text(&packed), &text(&agent)]);

    let (bytes, packed) = (size(&agent), size(&packed));
    println!("agent: {bytes} bytes, {packed} packed");
    assert!(bytes <= AGENT_BYTES, "{bytes} bytes");
    assert!(packed <= AGENT_PACKED_BYTES, "{packed} bytes packed");
}

/// The agent has no code of `inetbootctl`: none of that program's sentences is in it.
#[test]
fn agent_has_no_desk_code() {
    let has = |program: &str, words: &str| {
        let bytes = fs::read(built(program)).expect("reading a program");
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    };
    for words in ["Ctrl-C unmounts it", "inetbootctl mount"] {
        assert!(!has("inetboot", words), "the agent says \"{words}\"");
    }
    assert!(
        has("inetbootctl", "Ctrl-C unmounts it"),
        "inetbootctl says something else now: correct this test"
    );
}

/// Kernel, initramfs and CD stay within their limits, and the CD's menu offers at least ten entries.
#[test]
fn cd_is_small() {
    let [kernel, initramfs, cd] =
        ["own/vmlinuz", "own/initramfs.img", "inetboot.iso"].map(|name| size(&built(name)));
    println!("kernel {kernel}, initramfs {initramfs}, CD {cd} bytes");
    assert!(kernel <= KERNEL_BYTES && initramfs <= INITRAMFS_BYTES && cd <= CD_BYTES);

    let from = ["-report_about", "SORRY", "-osirrox", "on", "-indev", &text(&built("inetboot.iso"))];
    let print = ["-concat", "append", "-", "/boot/grub/grub.cfg", "--"];
    let menu = run(Path::new("/"), "xorriso", &[from.as_slice(), &print].concat());
    assert!(menu.matches("menuentry ").count() >= 10, "{menu}");
}

/// Debian's kernel and our own have every option that the first life needs.
#[test]
fn both_kernels_have_needed_options() {
    for script_name in ["kernel", "kernel-own"] {
        has_needed_options(script_name);
    }
}

fn has_needed_options(script_name: &str) {
    let kernel = PathBuf::from(script(script_name));
    let config = fs::read_to_string(kernel.join("config")).expect("reading the kernel's configuration");
    let needed = fs::read_to_string(repository().join("kernel-config/needed.config")).expect("reading it");
    let options: Vec<&str> =
        needed.lines().filter_map(|line| line.split_once('=')).map(|(option, _)| option).collect();
    assert!(options.len() > 20, "the fragment was not understood");

    for option in options {
        let has = |value| config.lines().any(|line| line == format!("{option}={value}"));
        // A kernel with everything built in has no modules.
        let is_monolithic = option == "CONFIG_MODULES" && script_name == "kernel-own";
        assert!(has("y") || has("m") || is_monolithic, "scripts/{script_name} lacks {option}");
    }
}
