//! Step 8: load the next kernel, or the hypervisor that starts it, then leave.

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

/// Why the kernel did not take the next one.
#[derive(Debug, thiserror::Error)]
pub enum KexecError {
    /// Lockdown, which turns every doubt about a signature into this.
    #[error("this kernel is locked down, and does not trust the signature of the target's kernel")]
    Locked(#[source] io::Error),
    /// A signature that was refused.
    #[error("this kernel refuses the signature of the target's kernel")]
    Signature(#[source] io::Error),
    /// Not a kernel.
    #[error("this kernel does not recognise the target's kernel as one")]
    NotKernel(#[source] io::Error),
    /// No room.
    #[error("there is not enough memory to place the target's kernel and initrd")]
    Memory(#[source] io::Error),
    /// The hypervisor cannot be started.
    #[error("cannot start the hypervisor {path}")]
    Multiboot {
        /// The hypervisor.
        path: String,
        /// Why not.
        #[source]
        error: MultibootError,
    },
    /// The hypervisor would find nothing that the firmware wrote.
    #[error("a hypervisor that is started by kexec does not find ACPI on a machine with UEFI")]
    Uefi,
    /// The machine's memory is not known.
    #[error("this kernel does not tell where the machine's memory is")]
    Map(#[source] io::Error),
    /// No such call.
    #[error("this kernel was built without the call that loads another")]
    Missing(#[source] io::Error),
    /// Anything else.
    #[error("the kernel refused the target's kernel")]
    Other(#[source] io::Error),
    /// The jump itself failed.
    #[error("the jump into the target's kernel failed")]
    Jump(#[source] io::Error),
}

impl From<io::Error> for KexecError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
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
                "Enrol the certificate of who signed it in the firmware, boot this image without kexec \
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
            Self::Map(_) => "Use a kernel with CONFIG_FIRMWARE_MEMMAP, or boot without bootxen=1".into(),
            Self::Missing(_) => {
                "Use InetBoot's own kernel, or one with CONFIG_KEXEC_FILE and, for Xen, CONFIG_KEXEC".into()
            }
            Self::Jump(_) => "Reboot, and try inetboot.onfail=shell to look around".into(),
        }
    }
}

/// Place the measured payload in memory. Undone by nothing but a reboot or another load. `notes` is
/// a last segment of the initrd, for the second life's eyes: about this boot, and not measured.
pub fn load(payload: Measured<Payload>, notes: &[u8]) -> Result<(), KexecError> {
    let Payload { hypervisor, kernel, initrd, cmdline, .. } = payload.into_inner();
    let initrd = initrd.seal(notes).map_err(KexecError::Memory)?;

    match hypervisor {
        None => Ok(file_load(kernel.file().as_fd(), initrd.file().as_fd(), &cmdline)?),
        Some(hypervisor) => load_under(&hypervisor, &kernel, &initrd, &cmdline),
    }
}

/// Xen's entry for loaders other than UEFI's looks for ACPI where a BIOS leaves it, and nowhere else.
fn load_under(
    hypervisor: &Hypervisor,
    kernel: &Sealed,
    initrd: &Sealed,
    cmdline: &CStr,
) -> Result<(), KexecError> {
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
    let memory = memmap::regions().map_err(KexecError::Map)?;
    let (segments, start) = multiboot::lay_out(&hypervisor.program, &hypervisor.words, &modules, &memory)
        .map_err(|error| KexecError::Multiboot { path: hypervisor.path.clone(), error })?;
    let segments: Vec<_> =
        segments.iter().map(|segment| (&*segment.bytes, segment.at, segment.length)).collect();
    Ok(load_segments(start, &segments)?)
}

/// Leave for what [`load`] placed. From here on nothing of this life runs: all devices must be
/// quiet and all file systems unmounted.
pub fn leave() -> Result<Infallible, KexecError> {
    match reboot(RebootCommand::Kexec) {
        Ok(()) => Err(KexecError::Jump(io::Error::other("the call returned"))),
        Err(error) => Err(KexecError::Jump(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_has_its_own_sentence() {
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
