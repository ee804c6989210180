//! The same inputs give the same initramfs, wherever and whenever it is packed; and what is asked
//! for in vain is said.
#![allow(clippy::expect_used)] // helpers of tests stop the test

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// A tiny module tree and an agent below `root`, the files made in the order of `names`.
fn inputs(root: &Path, names: &[&str], age: Duration) {
    let modules = root.join("lib/modules/6.1.0-test/kernel/fs");
    for name in names {
        let path = modules.join(format!("{name}/{name}.ko"));
        fs::create_dir_all(path.parent().expect("it has a directory")).expect("making a directory");
        fs::write(&path, name.repeat(1000)).expect("writing a module");
        let file = fs::File::options().write(true).open(&path).expect("opening the module");
        file.set_modified(SystemTime::now() - age).expect("setting its time");
    }
    let dep = "kernel/fs/fuse/fuse.ko:\nkernel/fs/isofs/isofs.ko: kernel/fs/squashfs/squashfs.ko\nkernel/fs/squashfs/squashfs.ko:\n";
    fs::write(root.join("lib/modules/6.1.0-test/modules.dep"), dep).expect("writing modules.dep");
    fs::write(root.join("agent"), "the agent").expect("writing the agent");
}

fn pack(root: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mkinitramfs"))
        .arg("--agent")
        .arg(root.join("agent"))
        .arg("--modules")
        .arg(root.join("lib/modules/6.1.0-test"))
        .arg("--out")
        .arg(root.join("initramfs.img"))
        .args(more)
        .output()
        .expect("starting mkinitramfs")
}

#[test]
fn two_builds_have_one_digest() {
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    inputs(one.path(), &["fuse", "isofs", "squashfs"], Duration::ZERO);
    inputs(two.path(), &["squashfs", "fuse", "isofs"], Duration::from_secs(86_400));
    let said: Vec<Output> = [&one, &two].iter().map(|root| pack(root.path(), &[])).collect();
    assert!(said.iter().all(|output| output.status.success()), "{said:?}");
    assert_eq!(said[0].stdout, said[1].stdout, "the tables, with the digests, are the same");
    let bytes = |root: &Path| fs::read(root.join("initramfs.img")).expect("reading the initramfs");
    assert_eq!(bytes(one.path()), bytes(two.path()));

    let table = String::from_utf8_lossy(&said[0].stdout);
    for part in ["/init", "modules: fs/fuse", "modules: fs/squashfs", "module index", "initramfs", "sha256 "]
    {
        assert!(table.contains(part), "{part} is not in the table:\n{table}");
    }

    fs::write(two.path().join("agent"), "another agent").expect("writing the agent");
    assert!(pack(two.path(), &[]).status.success());
    assert_ne!(bytes(one.path()), bytes(two.path()), "another agent, another digest");
}

#[test]
fn a_file_that_is_not_there_is_named_and_nothing_is_written() {
    let root = tempfile::tempdir().expect("a directory");
    inputs(root.path(), &["fuse", "isofs", "squashfs"], Duration::ZERO);
    let output = pack(root.path(), &["--add", "/nowhere/ca.pem=/ca.pem"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/ca.pem"), "{said}");
    assert!(!root.path().join("initramfs.img").exists());
}
