//! The file systems that every program expects: `/proc`, `/sys`, `/dev`.

use crate::base::console;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::Path;
use std::{fs, io};

/// A file system of the kernel, and its users among us.
struct Mount {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    /// The things that are missing without it, for the screen.
    gives: &'static str,
}

/// No programs, no devices, no set-uid bits.
const DATA_ONLY: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In the order of mounting.
const MOUNTS: [Mount; 3] = [
    Mount { target: "proc", kind: "proc", flags: DATA_ONLY, gives: "the kernel's arguments and memory" },
    Mount { target: "sys", kind: "sysfs", flags: DATA_ONLY, gives: "devices and links" },
    Mount {
        target: "dev",
        kind: "devtmpfs",
        flags: MountFlags::NOSUID,
        gives: "consoles, /dev/fuse, loop devices",
    },
];

/// Mounts all of them below `root`, unless they are there already. A failure goes to the screen alone: the
/// step that needs the missing file system fails with a better sentence.
pub fn mount_all(root: &Path) {
    for Mount { target, kind, flags, gives } in &MOUNTS {
        let target = root.join(target);
        if let Err(error) = mount_at(&target, kind, *flags) {
            console::say(&format!("cannot mount {kind} on {} ({gives}): {error}", target.display()));
        }
    }
}

fn mount_at(target: &Path, kind: &str, flags: MountFlags) -> io::Result<()> {
    fs::create_dir_all(target)?;
    match mount(kind, target, kind, flags, None) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Undoes [`mount_all`] below `/`: an init expects to mount them itself.
pub fn unmount_all() {
    for Mount { target, .. } in MOUNTS.iter().rev() {
        let _ = unmount(Path::new("/").join(target), UnmountFlags::DETACH);
    }
}
