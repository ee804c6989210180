//! Step 8: load the next kernel, then leave.

use crate::failure::Explain;
use crate::measure::{Measured, Parts};
use crate::memory::{FromStart, Sealed};
use crate::sys::kexec::file_load;
use rustix::system::{RebootCommand, reboot};
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::AsFd;

/// `COMMAND_LINE_SIZE` of x86, its terminating NUL included.
pub const CMDLINE_MAX: usize = 2048;

/// A kernel and what it starts with.
#[derive(Debug)]
pub struct Payload {
    /// The target's kernel, as it was on the medium.
    pub kernel: Sealed,
    /// Its initrd with our overlay.
    pub initrd: Sealed,
    /// Its command line.
    pub cmdline: CString,
}

impl Parts for Payload {
    fn parts(&self, visit: &mut dyn FnMut(&'static str, &mut dyn Read) -> io::Result<()>) -> io::Result<()> {
        visit("kernel", &mut FromStart::new(self.kernel.file()))?;
        visit("initrd", &mut FromStart::new(self.initrd.file()))?;
        visit("command line", &mut self.cmdline.as_bytes())
    }
}

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
    /// No such call.
    #[error("this kernel was built without kexec_file_load")]
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
                "Switch Secure Boot and lockdown= off, or use a kernel that trusts the key of this image"
                    .into()
            }
            Self::NotKernel(_) | Self::Other(_) => "Check the image; the kernel's log may say more".into(),
            Self::Memory(_) => "Add memory, or boot a smaller image".into(),
            Self::Missing(_) => "Use InetBoot's own kernel, or one with CONFIG_KEXEC_FILE".into(),
            Self::Jump(_) => "Reboot, and try inetboot.onfail=shell to look around".into(),
        }
    }
}

/// Place the measured payload in memory. Undone by nothing but a reboot or another load.
pub fn load(payload: Measured<Payload>) -> Result<(), KexecError> {
    let payload = payload.into_inner();
    file_load(payload.kernel.file().as_fd(), payload.initrd.file().as_fd(), &payload.cmdline)?;
    Ok(())
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
            (libc::ENOSYS, "without kexec_file_load"),
            (libc::EINVAL, "the kernel refused"),
        ] {
            let error = KexecError::from(io::Error::from_raw_os_error(errno));
            assert!(error.to_string().contains(sentence), "{errno}: {error}");
        }
    }
}
