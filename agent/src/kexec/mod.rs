//! Step 8: load the next kernel, or the hypervisor that starts it, and leave.
//!
//! A plain kernel is loaded by `kexec_file_load(2)`: this kernel reads it, checks its signature, and finds its
//! place. A hypervisor is not a Linux kernel, so [`multiboot`] finds the places of all parts, and they are
//! loaded by `kexec_load(2)`.

use crate::base::failure::Explain;
use crate::formats::multiboot::{self, Module, MultibootError};
use crate::machine::ledger::Measured;
use crate::machine::memfd::Sealed;
use crate::machine::memmap;
use crate::machine::pread::Pread;
use crate::miniroot::payload::{Hypervisor, Payload};
use crate::sys::kexec::{file_load, load_segments};
use rustix::system::{RebootCommand, reboot};
use std::convert::Infallible;
use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

/// The reason why the next kernel cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum KexecError {
    #[error("this kernel is locked down, and does not trust the signature of the target's kernel")]
    Locked(#[source] io::Error),
    #[error("this kernel refuses the signature of the target's kernel")]
    Signature(#[source] io::Error),
    #[error("this kernel does not recognise the target's kernel as a kernel")]
    NotKernel(#[source] io::Error),
    #[error("there is not enough memory to place the target's kernel and initrd")]
    Memory(#[source] io::Error),
    #[error("cannot start the hypervisor {path}")]
    Multiboot {
        path: String,
        #[source]
        error: MultibootError,
    },
    #[error("a hypervisor that is started by kexec does not find ACPI on a machine with UEFI")]
    Uefi,
    #[error("this kernel does not tell where the machine's memory is")]
    MemoryMap(#[source] io::Error),
    #[error("this kernel was built without the call that loads another")]
    Missing(#[source] io::Error),
    #[error("the kernel refused the target's kernel")]
    Other(#[source] io::Error),
    #[error("the jump into the target's kernel failed")]
    Jump(#[source] io::Error),
}

/// The error of `kexec_file_load(2)` or `kexec_load(2)`, some of which come from the kernel's check of
/// signatures.
impl From<io::Error> for KexecError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            // Under lockdown every doubt about a signature becomes this.
            Some(libc::EPERM | libc::EACCES) => Self::Locked(error),
            Some(
                libc::EKEYREJECTED
                | libc::ENOKEY
                | libc::EBADMSG
                | libc::ENODATA
                | libc::ELIBBAD
                | libc::ENOPKG,
            ) => Self::Signature(error),
            Some(libc::ENOEXEC) => Self::NotKernel(error),
            Some(libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EFBIG) => Self::Memory(error),
            Some(libc::ENOSYS) => Self::Missing(error),
            _ => Self::Other(error),
        }
    }
}

impl Explain for KexecError {
    fn hint(&self) -> String {
        match self {
            Self::Locked(_) | Self::Signature(_) => {
                "Enrol the certificate of the kernel's signer in the firmware, boot this image without kexec \
                 (inetbootctl overlay), or switch Secure Boot and lockdown= off"
                    .into()
            }
            Self::NotKernel(_) | Self::Other(_) => "Check the image; the kernel's log may say more".into(),
            Self::Memory(_) => "Add memory, or boot a smaller image".into(),
            Self::Multiboot {
                error: MultibootError::Taken { .. } | MultibootError::NoRoom { .. }, ..
            } => "Use a machine with more memory below 4 GiB, or boot without bootxen=1".into(),
            Self::Multiboot { .. } => {
                "Use an image with a Xen for Multiboot2, or boot without bootxen=1".into()
            }
            Self::Uefi => "Switch the firmware to BIOS (CSM), or boot without bootxen=1".into(),
            Self::MemoryMap(_) => {
                "Use a kernel with CONFIG_FIRMWARE_MEMMAP, or boot without bootxen=1".into()
            }
            Self::Missing(_) => {
                "Use InetBoot's own kernel, or one with CONFIG_KEXEC_FILE and, for Xen, CONFIG_KEXEC".into()
            }
            Self::Jump(_) => "Reboot, and try inetboot.onfail=shell to look around".into(),
        }
    }
}

/// Loads the measured payload, to be started by [`leave`]. `notes` is appended to the initrd: it tells the
/// second life about this one boot, and is not measured.
pub fn load(payload: Measured<Payload>, notes: &[u8]) -> Result<(), KexecError> {
    let Payload { hypervisor, kernel, initrd, cmdline, .. } = payload.into_inner();
    let initrd = initrd.seal(notes).map_err(KexecError::Memory)?;

    match hypervisor {
        None => Ok(file_load(kernel.file().as_fd(), initrd.file().as_fd(), &cmdline)?),
        Some(hypervisor) => load_under(&hypervisor, &kernel, &initrd, &cmdline),
    }
}

/// Loads `hypervisor`, and `kernel` and `initrd` as its modules.
fn load_under(
    hypervisor: &Hypervisor,
    kernel: &Sealed,
    initrd: &Sealed,
    cmdline: &CStr,
) -> Result<(), KexecError> {
    // Xen's Multiboot2 entry looks for ACPI where a BIOS leaves it, and nowhere else.
    if Path::new("/sys/firmware/efi").exists() {
        return Err(KexecError::Uefi);
    }

    let contents = |sealed: &Sealed| {
        let mut bytes = Vec::new();
        Pread::new(sealed.file()).read_to_end(&mut bytes).map(|_| bytes).map_err(KexecError::Memory)
    };
    let (kernel, initrd) = (contents(kernel)?, contents(initrd)?);
    let cmdline = cmdline.to_string_lossy();
    let modules = [
        Module { what: "kernel", bytes: &kernel, words: &cmdline },
        Module { what: "initrd", bytes: &initrd, words: "" },
    ];
    let memory = memmap::regions().map_err(KexecError::MemoryMap)?;
    let layout = multiboot::lay_out(&hypervisor.program, &hypervisor.words, &modules, &memory)
        .map_err(|error| KexecError::Multiboot { path: hypervisor.path.clone(), error })?;

    let segments = layout.segments.iter();
    let segments: Vec<_> =
        segments.map(|segment| (&*segment.bytes, segment.address, segment.length)).collect();
    Ok(load_segments(layout.start, &segments)?)
}

/// Jumps into the kernel that [`load`] loaded. Nothing of this life runs on: by now all file systems must be
/// unmounted, and no device may write into memory.
pub fn leave() -> Result<Infallible, KexecError> {
    match reboot(RebootCommand::Kexec) {
        Ok(()) => Err(KexecError::Jump(io::Error::other("the call returned"))),
        Err(error) => Err(KexecError::Jump(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each error of the kernel becomes the sentence that tells its reason.
    #[test]
    fn kernel_errors() {
        for (errno, sentence) in [
            (libc::EPERM, "locked down"),
            (libc::EKEYREJECTED, "refuses the signature"),
            (libc::ENOKEY, "refuses the signature"),
            (libc::ENOEXEC, "does not recognise"),
            (libc::ENOMEM, "not enough memory"),
            (libc::EADDRNOTAVAIL, "not enough memory"),
            (libc::ENOSYS, "without the call that loads another"),
            (libc::EINVAL, "the kernel refused"),
        ] {
            let error = KexecError::from(io::Error::from_raw_os_error(errno));
            assert!(error.to_string().contains(sentence), "{errno}: {error}");
        }
    }
}
