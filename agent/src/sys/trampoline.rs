//! The code that goes from the state in which kexec leaves a machine (64 bits, paging on, all memory mapped
//! to itself) to the one that Multiboot2 wants (32 bits, paging off, flat segments, a magic number
//! in EAX, the address of the information in EBX): `arch/x86/kernel/relocate_kernel_64.S` and the
//! Multiboot2 specification, 3.3.

use std::arch::global_asm;

// It is copied to the place where it runs, and finds its data relative to itself.
global_asm!(
    ".pushsection .rodata.inetboot_trampoline, \"a\"",
    ".balign 16",
    ".hidden inetboot_trampoline",
    ".hidden inetboot_trampoline_end",
    ".globl inetboot_trampoline",
    ".globl inetboot_trampoline_end",
    "inetboot_trampoline:",
    ".code64",
    "mov ebx, [rip + 90f]",
    "mov esi, [rip + 91f]",
    "lea rax, [rip + 80f]",
    "mov [rip + 81f + 2], rax",
    "lgdt [rip + 81f]",
    "lea rsp, [rip + 83f]",
    "lea rax, [rip + 70f]",
    "push 8",
    "push rax",
    "retfq",
    ".code32",
    "70:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov ss, eax",
    // Paging off, then long mode.
    "mov eax, cr0",
    "and eax, 0x7fffffff",
    "mov cr0, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "and eax, 0xfffffeff",
    "wrmsr",
    "xor eax, eax",
    "mov cr4, eax",
    "mov eax, 0x36d76289",
    "jmp esi",
    ".balign 8",
    // Null, code and data: all of the memory, 32 bits.
    "80: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff",
    "81: .word 23",
    ".quad 0",
    ".balign 8",
    ".quad 0, 0",
    "83:",
    // The two numbers that `code` fills in, last.
    "90: .long 0",
    "91: .long 0",
    "inetboot_trampoline_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static inetboot_trampoline: u8;
    static inetboot_trampoline_end: u8;
}

/// The code, to be started at its first byte, anywhere below 4 GiB. It jumps to `entry` with `info` in EBX.
pub fn code(entry: u32, info: u32) -> Vec<u8> {
    let (start, end) = (&raw const inetboot_trampoline, &raw const inetboot_trampoline_end);
    let length = end.addr() - start.addr();
    // SAFETY: both labels are in one section, the second behind the first, and what is between
    // them is there for the life of the program and never written.
    let mut code = unsafe { std::slice::from_raw_parts(start, length) }.to_vec();
    let numbers = code.len() - 8;
    code[numbers..numbers + 4].copy_from_slice(&info.to_le_bytes());
    code[numbers + 4..].copy_from_slice(&entry.to_le_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small_and_ends_with_where_to_go() {
        let code = code(0x20_0000, 0xa000);
        assert!(code.len() < 256, "{} bytes", code.len());
        assert_eq!(code[code.len() - 8..], [0, 0xa0, 0, 0, 0, 0, 0x20, 0]);
    }
}
