//! The file systems that every program expects.

use crate::base::console;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::path::Path;

/// One thing that must be mounted.
struct Need {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    why: &'static str,
}

const NOTHING_RUNS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const NEEDS: [Need; 3] = [
    Need { target: "proc", kind: "proc", flags: NOTHING_RUNS, why: "the kernel's arguments and memory" },
    Need { target: "sys", kind: "sysfs", flags: NOTHING_RUNS, why: "devices and links" },
    Need {
        target: "dev",
        kind: "devtmpfs",
        flags: MountFlags::NOSUID,
        why: "consoles, /dev/fuse, loop devices",
    },
];

/// Mount what is not mounted yet below `root` (`/`, or a root of one's own). Never fails: what is
/// missing is said, and whoever needs it fails with a better sentence.
pub fn mount_all(root: &Path) {
    for need in &NEEDS {
        let target = root.join(need.target);
        let mounted =
            fs::create_dir_all(&target).map_err(|error| error.to_string()).and_then(|()| {
                match mount(need.kind, &target, need.kind, need.flags, None) {
                    Ok(()) | Err(Errno::BUSY) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            });
        if let Err(error) = mounted {
            console::say(&format!(
                "cannot mount {} on {} ({}): {error}",
                need.kind,
                target.display(),
                need.why
            ));
        }
    }
}

/// Undo [`mount_all`] below `/`, for an init that wants to find nothing mounted.
pub fn unmount_all() {
    for need in NEEDS.iter().rev() {
        let _ = unmount(Path::new("/").join(need.target), UnmountFlags::DETACH);
    }
}
