//! Every `unsafe` block of the project, with one kernel interface in each file. The functions are thin and typed,
//! and leave policy to their callers. System calls that rustix or nix offer safely are not made from here.
#![allow(unsafe_code)]

pub mod kexec;
pub mod loopctl;
pub mod packet;
pub mod trampoline;
