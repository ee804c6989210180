//! kexec: `kexec_file_load(2)`, by which the kernel reads, checks and places the next kernel by itself, and
//! `kexec_load(2)`, by which the caller places it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Loads `kernel` and `initrd`, to be started by `reboot(LINUX_REBOOT_CMD_KEXEC)`.
///
/// # Errors
/// The kernel's own: `EPERM` under lockdown, `EKEYREJECTED` and its like for a refused signature,
/// `ENOEXEC` for a file that is not a kernel, `ENOMEM`, `EINVAL`.
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

/// `struct kexec_segment` of `linux/kexec.h`.
#[repr(C)]
struct Segment {
    bytes: *const u8,
    length: usize,
    at: usize,
    space: usize,
}

/// `KEXEC_ARCH_X86_64`, `EM_X86_64` in the upper half.
const X86_64: usize = 62 << 16;

/// Loads each of `segments` (its bytes, and the physical address and length of their place, in whole
/// pages), to be started at `entry` by `reboot(LINUX_REBOOT_CMD_KEXEC)`.
///
/// # Errors
/// The kernel's own: `EPERM` under lockdown, `EADDRNOTAVAIL` and `EINVAL` for bad places, `ENOMEM`.
pub fn load_segments(entry: u64, segments: &[(&[u8], u64, u64)]) -> io::Result<()> {
    let segments: Vec<Segment> = segments
        .iter()
        .map(|(bytes, at, space)| Segment {
            bytes: bytes.as_ptr(),
            length: bytes.len(),
            at: *at as usize,
            space: *space as usize,
        })
        .collect();
    // SAFETY: `segments` is an array of the length given, each of its pointers leads to `length`
    // readable bytes, and all of them live through the call. The kernel copies them before it returns;
    // what lies at the places is overwritten only when this kernel has ended.
    let code = unsafe {
        libc::syscall(libc::SYS_kexec_load, entry as usize, segments.len(), segments.as_ptr(), X86_64)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
