//! `kexec_file_load(2)`: the kernel reads, checks and places the next kernel itself.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Load `kernel` and `initrd`, to be started by `reboot(LINUX_REBOOT_CMD_KEXEC)`.
///
/// # Errors
/// The kernel's own: `EPERM` under lockdown, `EKEYREJECTED` and its kin for a refused signature,
/// `ENOEXEC` for what is no kernel, `ENOMEM`, `EINVAL`.
pub fn file_load(kernel: BorrowedFd<'_>, initrd: BorrowedFd<'_>, cmdline: &CStr) -> io::Result<()> {
    // The length counts the terminating NUL.
    let length = cmdline.count_bytes() + 1;
    // SAFETY: both descriptors are borrowed for the whole call, and `cmdline` points to `length`
    // readable bytes that end with NUL. The kernel copies what it needs before it returns.
    let code = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            length,
            cmdline.as_ptr(),
            0_usize,
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
