//! The event log of the firmware and the boot loader, where the kernel shows it
//! (`Documentation/security/tpm/tpm_event_log.rst`).

use crate::base::console;
use crate::formats::eventlog::EventLog;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::path::Path;

/// The place of securityfs while the log is read.
const DIR: &str = "/inetboot.d/security";

const LOG: &str = "tpm0/binary_bios_measurements";

/// The log so far; `None` if the kernel shows none, or one that cannot be continued.
pub fn log() -> Option<EventLog> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    fs::create_dir_all(DIR).ok()?;
    mount("securityfs", DIR, "securityfs", flags, None).ok()?;
    let bytes = fs::read(Path::new(DIR).join(LOG));
    let _ = unmount(DIR, UnmountFlags::DETACH);

    let log = EventLog::decode(&bytes.ok()?);
    log.inspect_err(|error| console::say(&format!("  the firmware's event log cannot be continued: {error}")))
        .ok()
}
