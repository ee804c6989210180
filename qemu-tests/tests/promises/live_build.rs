//! A Debian live ISO as people have it: made by Debian's live-build, with its own menus, units and drivers.
//! Most other tests boot idle ones, which are quicker under emulation.

use crate::{LONG, check_budget};
use qemu_tests::repository::{run, text};
use qemu_tests::web::Server;
use qemu_tests::{Opts, boot, images, promise};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// The part of the image that a boot may fetch, kernel and initrd included.
const BUDGET_PERCENT: u64 = 60;

/// The kernel's path and its arguments in the first entry of GRUB's menu on `iso`, which is the default.
fn default_entry(iso: &Path) -> (String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = ["-osirrox", "on", "-indev", &text(iso), "-extract", "/boot/grub/grub.cfg", "grub.cfg"];
    run(dir.path(), "xorriso", &arguments);

    let menu = fs::read_to_string(dir.path().join("grub.cfg")).expect("the ISO has a menu");
    let line = menu.lines().find_map(|line| line.trim().strip_prefix("linux")).expect("an entry");
    let (kernel, arguments) = line.trim().split_once(' ').expect("a kernel and arguments");
    // findiso= is for GRUB on a disk that holds the ISO as a file.
    (kernel.trim_start_matches('/').into(), arguments.replace(" findiso=${iso_path}", ""))
}

/// A Debian live ISO exactly as live-build makes it boots over HTTP in 512 MiB to its login prompt.
#[test]
fn live_build_iso_boots() {
    let iso = images::live_build();
    let digest = || Sha256::digest(fs::read(&iso).expect("reading the ISO"));
    let before = digest();
    let (kernel, arguments) = default_entry(&iso);
    let server = Server::of_image(&iso);
    let mut machine = boot(&Opts { append: server.netdir(), memory: 512, ..Opts::stock() });

    promise("the default entry of the ISO's own menu is chosen", || {
        machine.expect(&format!("debian \"Live system (amd64)\": {kernel}"), LONG);
    });

    promise("the login prompt is reached", || {
        machine.expect("handing over to the target's own /init", LONG);
        machine.expect("login: ", LONG);
    });

    promise("only a part of the image is fetched", || check_budget(&machine, &server, BUDGET_PERCENT));

    promise("live-config's user logs in with the documented password", || {
        machine.type_line("user");
        machine.expect("Password: ", LONG);
        machine.type_line("live");
        machine.expect("$ ", LONG);
    });

    promise("the kernel has the entry's arguments, and no unit failed", || {
        let cmdline = machine.run("cat /proc/cmdline", LONG);
        assert!(cmdline.contains(&arguments), "`{arguments}` is not in `{cmdline}`");
        assert!(machine.run("findmnt -n /run/live/medium", LONG).contains("/dev/loop0"));
        assert_eq!(machine.run("systemctl --failed --no-legend --no-pager", LONG), "");
    });

    promise("the ISO was not changed", || assert_eq!(digest(), before));
}
