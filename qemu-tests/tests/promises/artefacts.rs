//! What `scripts/build` leaves is of the right kind and size.

use qemu_tests::machine::{built, repository, script};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Of the agent, stripped, and packed by `zstd -19`.
const AGENT_BYTES: u64 = 2_820_000;
const AGENT_PACKED_BYTES: usize = 1_290_000;

/// Of our own kernel, of the initramfs that belongs to it, and of the CD with both.
const KERNEL_BYTES: u64 = 3_400_000;
const INITRAMFS_BYTES: u64 = 1_200_000;
const CD_BYTES: u64 = 5_500_000;

fn output(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} failed");
    output.stdout
}

#[test]
fn the_agent_is_static_and_needs_no_interpreter() {
    for program in ["inetboot", "inetbootctl"] {
        let path = built(program);
        let kind =
            String::from_utf8(output("file", &[path.to_str().expect("a path")])).expect("file prints text");
        assert!(kind.contains("static-pie linked") && !kind.contains("interpreter"), "{kind}");
    }
}

#[test]
fn the_agent_is_small() {
    let agent = built("inetboot");
    let bytes = fs::metadata(&agent).expect("the agent is there").len();
    let packed = output("zstd", &["-19", "-c", "-q", agent.to_str().expect("a path")]).len();
    println!("agent: {bytes} bytes, {packed} packed");
    assert!(bytes <= AGENT_BYTES, "{bytes} bytes");
    assert!(packed <= AGENT_PACKED_BYTES, "{packed} bytes packed");
}

#[test]
fn no_code_of_the_desk_is_in_the_agent() {
    let has = |name: &str, text: &str| {
        let bytes = fs::read(built(name)).expect("reading a program");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for words in ["Ctrl-C unmounts it", "inetbootctl mount"] {
        assert!(!has("inetboot", words), "the agent says \"{words}\"");
    }
    assert!(has("inetbootctl", "Ctrl-C unmounts it"), "the words to look for have changed");
}

#[test]
fn the_cd_is_smaller_than_the_originals() {
    let size = |name: &str| fs::metadata(built(name)).expect("it was built").len();
    let (kernel, initramfs, cd) = (size("own/vmlinuz"), size("own/initramfs.img"), size("inetboot.iso"));
    println!("kernel {kernel}, initramfs {initramfs}, CD {cd} bytes");
    assert!(kernel <= KERNEL_BYTES && initramfs <= INITRAMFS_BYTES && cd <= CD_BYTES);
    let menu = output(
        "xorriso",
        &[
            "-report_about",
            "SORRY",
            "-osirrox",
            "on",
            "-indev",
            built("inetboot.iso").to_str().expect("a path"),
            "-concat",
            "append",
            "-",
            "/boot/grub/grub.cfg",
            "--",
        ],
    );
    let menu = String::from_utf8(menu).expect("a menu is text");
    assert!(menu.matches("menuentry ").count() >= 10, "{menu}");
}

#[test]
fn both_kernels_have_what_the_first_life_needs() {
    for script_name in ["kernel", "kernel-own"] {
        has_what_is_needed(script_name);
    }
}

fn has_what_is_needed(script_name: &str) {
    let kernel = PathBuf::from(script(script_name));
    let config = fs::read_to_string(kernel.join("config")).expect("reading the kernel's configuration");
    let needed = fs::read_to_string(repository().join("kernel-config/needed.config")).expect("reading it");
    let options: Vec<&str> =
        needed.lines().filter_map(|line| line.split_once('=')).map(|(option, _)| option).collect();
    assert!(options.len() > 20, "the fragment was not understood");
    for option in options {
        let has = |value| config.lines().any(|line| line == format!("{option}={value}"));
        // One that has everything built in has no modules.
        let is_monolithic = option == "CONFIG_MODULES" && script_name == "kernel-own";
        assert!(has("y") || has("m") || is_monolithic, "scripts/{script_name} lacks {option}");
    }
}
