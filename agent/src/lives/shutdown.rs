//! Shutdown of a target whose root file system we serve.
//!
//! systemd cannot unmount the root that it runs from; an initrd has to do that. Where
//! `/run/initramfs/shutdown` is executable, systemd-shutdown makes `/run/initramfs` its root, with the
//! old root at `/oldroot`, and becomes `/shutdown VERB` (systemd's "The initrd Interface"). So:
//!
//! * systemd holds a FIFO open for each kind of shutdown ([`UNITS`]) and closes it when that begins;
//! * the server, which reads the FIFOs, then puts this program into `/run/initramfs` ([`watch`]);
//! * this program, as process 1, unmounts the old root, ends the server and turns the machine off
//!   ([`finish`]).
//!
//! Nothing is mounted before a shutdown begins: dracut keeps mounts of its own in `/run/initramfs`.
//!
//! A shutdown may wait for the served disk, e.g. for the pages of systemd-shutdown itself. Where the web
//! server is gone that wait has no end, and the server turns the machine off by itself. Hence nothing here
//! reads the served disk, and every step that may block has a thread of its own or a limit.

use crate::base::console;
use crate::lives::{TARGET, start_thread};
use crate::machine::meminfo;
use crate::source::Source;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, AtFlags, access, accessat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::fchdir;
use rustix::system::{RebootCommand, reboot};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The argv\[0\] by which systemd-shutdown starts this program.
pub const PROGRAM: &str = "/shutdown";

/// Files below the target's `/run` for its systemd: path and contents.
///
/// The first three make it hold the FIFOs: one for each kind of shutdown, and one for all of them. Without
/// default dependencies, and outside the slice that a template gets by default, a socket stops as soon as its
/// target is to start. A single one may be stopped by hand or fail; both are gone in a shutdown alone.
///
/// The others are for the mount of the image, where live-boot, casper and KNOPPIX have it. systemd would
/// unmount it while the root still needs it, and report that this failed.
///
/// All lie in `system.attached`, because a directory `systemd/system` tells programs that systemd runs
/// (sd_booted(3)).
pub const UNITS: [(&str, &str); 6] = [
    (
        "systemd/system.attached/inetboot@.socket",
        "# Written by InetBoot, which serves the root file system.\n\
         [Unit]\nDescription=Tells InetBoot that %i.target starts\nDefaultDependencies=no\n\
         IgnoreOnIsolate=yes\nConflicts=%i.target\n\n\
         [Socket]\nListenFIFO=/run/inetboot/shutdown/%i\nSocketMode=0600\nRemoveOnStop=yes\n\
         Slice=system.slice\n",
    ),
    (
        "systemd/system.attached/inetboot@.service",
        "# Written by InetBoot: never started, but a socket unit needs a service.\n\
         [Unit]\nDescription=Nothing\nDefaultDependencies=no\n\n\
         [Service]\nType=oneshot\nExecStart=/bin/true\nSlice=system.slice\n",
    ),
    (
        "systemd/system.attached/sysinit.target.d/90-inetboot.conf",
        "# Written by InetBoot, which serves the root file system.\n\
         [Unit]\nWants=inetboot@shutdown.socket inetboot@poweroff.socket inetboot@reboot.socket \
         inetboot@halt.socket inetboot@kexec.socket\n",
    ),
    ("systemd/system.attached/run-live-medium.mount.d/90-inetboot.conf", LEAVE_MOUNTED),
    ("systemd/system.attached/cdrom.mount.d/90-inetboot.conf", LEAVE_MOUNTED),
    ("systemd/system.attached/mnt\\x2dsystem.mount.d/90-inetboot.conf", LEAVE_MOUNTED),
];

/// A mount that systemd does not stop at shutdown.
const LEAVE_MOUNTED: &str = "# Written by InetBoot: the root file system needs this mount to the end.\n\
                             [Unit]\nDefaultDependencies=no\n";

/// The directory of the FIFOs in the target.
const FIFOS: &str = "run/inetboot/shutdown";

/// The target that every kind of shutdown starts, and its FIFO.
const ANY: &str = "shutdown";

/// Kinds of shutdown: systemd's verb, which is also the name of its target and of our FIFO, and what is
/// asked of the kernel.
const VERBS: [(&str, RebootCommand); 4] = [
    ("poweroff", RebootCommand::PowerOff),
    ("reboot", RebootCommand::Restart),
    ("halt", RebootCommand::Halt),
    ("kexec", RebootCommand::Kexec),
];

/// systemd-shutdown looks for the program here.
const INITRD: &str = "/run/initramfs";
const SHUTDOWN: &str = "/run/initramfs/shutdown";

/// The image as a block device, and a file that it has for as long as it is attached.
const DEVICE: &str = "/sys/block/loop0";
const ATTACHED: &str = "loop/backing_file";

/// The pause between two attempts to open the FIFOs.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// systemd closes a FIFO before it removes it, and may have to read the image in between.
const REMOVAL: Duration = Duration::from_secs(30);

/// The pause between two looks for FIFOs that are about to be removed.
const REMOVAL_LOOK: Duration = Duration::from_millis(200);

/// The time for which a shutdown may wait for a web server that is gone, before it is cut short.
const PATIENCE: Duration = Duration::from_secs(15);

/// A shutdown that takes longer than this was called off.
const CALLED_OFF: Duration = Duration::from_secs(600);

/// The limit of the last unmounting and writing.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// The pause between two looks for processes that are still ending.
const SOON: Duration = Duration::from_millis(20);

/// Starts the thread that waits for a shutdown, prepares its end, and cuts it short where it is stuck.
pub fn watch(source: &Arc<dyn Source>) {
    let source = Arc::clone(source);
    start_thread("shutdown", move || {
        loop {
            let Some((verb, command)) = next_shutdown() else {
                std::thread::sleep(LOOK_EVERY);
                continue;
            };

            // The target's file systems are used there, and that may block.
            start_thread("exit initrd", || {
                if let Err(error) = prepare() {
                    console::say(&format!("  the shutdown cannot unmount the root: {error}"));
                }
            });

            if is_stuck(&*source) {
                console::say_loud(&format!("the web server is gone: {verb} no longer waits for it"));
                write_local_disks();
                leave(command);
                // There is no kernel to restart into.
                leave(RebootCommand::Restart);
            }
        }
    });
}

/// Waits until systemd closes the FIFOs of one kind of shutdown and removes them; `None` if they are not there,
/// or come back.
fn next_shutdown() -> Option<(&'static str, RebootCommand)> {
    let open =
        |name: &str| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(fifo(name)).ok();
    let _any = open(ANY)?;
    let fifos = VERBS.iter().map(|(verb, _)| open(verb)).collect::<Option<Vec<File>>>()?;
    let mut polled: Vec<PollFd<'_>> = fifos.iter().map(|fifo| PollFd::new(fifo, PollFlags::IN)).collect();

    // Nothing is ever written to them: a hang-up ends this.
    poll(&mut polled, None).ok()?;
    let hung_up = polled.iter().position(|fifo| fifo.revents().contains(PollFlags::HUP))?;
    let (verb, command) = VERBS[hung_up];

    let begun = Instant::now();
    while begun.elapsed() < REMOVAL {
        if is_removed(verb) && is_removed(ANY) {
            return Some((verb, command));
        }
        std::thread::sleep(REMOVAL_LOOK);
    }
    None
}

fn is_removed(name: &str) -> bool {
    !fifo(name).exists()
}

fn fifo(name: &str) -> PathBuf {
    Path::new(TARGET).join(FIFOS).join(name)
}

/// Writes what is still in memory for other disks, as far as that ends in time.
fn write_local_disks() {
    within(LAST_STEPS, || {
        // Remounts whatever is still writable (sysrq.rst). A file system that never answers must not keep
        // this from the others.
        start_thread("remount", || {
            let _ = fs::write("/proc/sysrq-trigger", "u");
        });
        rustix::fs::sync();
        std::thread::sleep(Duration::from_secs(1));
    });
}

/// Puts this program where systemd-shutdown looks for it, unless the target's own initrd left one.
fn prepare() -> io::Result<()> {
    let mut program = File::open("/proc/self/exe")?;
    // This thread alone moves to where the target's file systems are mounted.
    unshare(CloneFlags::CLONE_FS)?;
    setns(File::open("/proc/1/ns/mnt")?, CloneFlags::CLONE_NEWNS)?;
    if access(SHUTDOWN, Access::EXEC_OK).is_ok() {
        return Ok(());
    }

    // A mount of its own, because /run may be noexec and because pivot_root(2) asks for one.
    fs::create_dir_all(INITRD)?;
    mount("inetboot", INITRD, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=8m"))?;
    let new = format!("{SHUTDOWN}.new");
    let mut copy = File::create_new(&new)?;
    io::copy(&mut program, &mut copy)?;
    copy.set_permissions(fs::Permissions::from_mode(0o755))?;
    drop(copy);
    fs::rename(new, SHUTDOWN)
}

/// Waits until a shutdown is held up because the web server is gone; false if it was called off.
fn is_stuck(source: &dyn Source) -> bool {
    let begun = Instant::now();
    let (mut stuck_since, mut unwritten) = (None, meminfo::unwritten());
    while begun.elapsed() < CALLED_OFF && is_removed(ANY) {
        std::thread::sleep(Duration::from_secs(1));
        // A slow local disk that still takes data holds a shutdown up for a good reason.
        let before = std::mem::replace(&mut unwritten, meminfo::unwritten());
        if source.trouble().is_none() || !is_disk_awaited() || unwritten < before {
            stuck_since = None;
        } else if stuck_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            return true;
        }
    }
    false
}

/// True while a process waits for a disk. Blocks that are fetched ahead do not count: no process waits for
/// them.
fn is_disk_awaited() -> bool {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    blocked(&stat) > 0
}

/// The processes that wait for I/O, of `/proc/stat` (proc(5)).
fn blocked(stat: &str) -> u32 {
    let count = stat.lines().find_map(|line| line.strip_prefix("procs_blocked "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Process 1 after systemd-shutdown: unmount the old root, end the server and everything else, and leave
/// by `verb`.
pub fn finish(verb: Option<&str>) -> ! {
    let command = VERBS.iter().find(|(name, _)| Some(*name) == verb);
    within(LAST_STEPS, || {
        let device = File::open(DEVICE);
        let unmounted = unmount_all();
        end_all_others();
        rustix::fs::sync();
        // cloop detaches its file only on a command, so it still shows as attached.
        let is_attached =
            device.is_ok_and(|device| accessat(&device, ATTACHED, Access::EXISTS, AtFlags::empty()).is_ok());
        let image = if is_attached { "" } else { ", and the image is detached" };
        match unmounted {
            Ok(()) => console::say(&format!("the root file system is unmounted{image}")),
            Err(error) => console::say(&format!("cannot unmount the root file system: {error}")),
        }
    });

    // systemd's "exit" is for containers.
    leave(command.map_or(RebootCommand::PowerOff, |(_, command)| *command));
    // There is no kernel to restart into.
    leave(RebootCommand::Restart);
    loop {
        std::thread::sleep(CALLED_OFF);
    }
}

/// Unmounts the old root and all that its initrd left mounted, in a thread of its own.
///
/// The unmounts are lazy: overlay, squashfs and image each use the next, and the kernel frees each after its
/// last user.
fn unmount_all() -> io::Result<()> {
    let namespace = File::open("/proc/self/ns/mnt")?;
    let proc = File::open("/proc")?;
    unshare(CloneFlags::CLONE_FS)?;

    // Our own root goes, too. It has the old root below it, and it covers the initramfs in which casper mounts
    // its squashfs files.
    unmount("/", UnmountFlags::DETACH)?;
    setns(namespace, CloneFlags::CLONE_NEWNS)?;
    fchdir(&proc)?;
    let mounts = fs::read_to_string("thread-self/mountinfo")?;
    for dir in mount_points(&mounts).iter().rev() {
        let _ = unmount(*dir, UnmountFlags::DETACH);
    }
    Ok(())
}

/// The mount points in `/proc/self/mountinfo` (proc(5)) except the root, the oldest first.
fn mount_points(mountinfo: &str) -> Vec<&str> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| *point != "/").collect()
}

/// Kills every other process. All are children of this one in the end, and are waited for, within a limit:
/// one that waits for a lost disk does not end.
fn end_all_others() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let begun = Instant::now();
    while begun.elapsed() < LAST_STEPS / 2 {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(SOON),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Does `work` in a thread, and waits for its end, but no longer than `limit`.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (sender, ended) = mpsc::channel();
    start_thread("last steps", move || {
        work();
        let _ = sender.send(());
    });
    let _ = ended.recv_timeout(limit);
}

/// Turns the machine off at once, after a bug of ours.
pub fn power_off() {
    leave(RebootCommand::PowerOff);
}

/// Asks the kernel to end. Returns only if it refuses.
fn leave(command: RebootCommand) {
    if let Err(error) = reboot(command) {
        console::say_loud(&format!("the kernel refused to power off or restart: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_on_the_root_are_found() {
        let mountinfo = "1 1 0:2 / / rw - rootfs none rw\n\
                         20 1 7:1 / /filesystem.squashfs ro,noatime - squashfs /dev/loop1 ro\n\
                         22 1 0:30 / /cow rw - tmpfs cow rw\n";
        assert_eq!(mount_points(mountinfo), ["/filesystem.squashfs", "/cow"]);
    }

    #[test]
    fn blocked_processes_are_counted() {
        assert_eq!(blocked("cpu  1 2 3\nprocs_running 4\nprocs_blocked 2\nsoftirq 5\n"), 2);
        assert_eq!(blocked("cpu  1 2 3\n"), 0);
        assert!(fs::read_to_string("/proc/stat").unwrap().contains("\nprocs_blocked "));
    }

    /// Each verb has a FIFO that systemd opens: without one of them no shutdown would be noticed.
    #[test]
    fn every_verb_is_wanted() {
        let (_, wants) = UNITS[2];
        for verb in VERBS.map(|(verb, _)| verb).into_iter().chain([ANY]) {
            assert!(wants.contains(&format!("inetboot@{verb}.socket")), "{verb}");
        }
        let (_, socket) = UNITS[0];
        assert!(socket.contains(&format!("ListenFIFO=/{FIFOS}/%i\n")), "{socket}");
    }
}
