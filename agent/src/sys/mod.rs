//! The fence: every `unsafe` block of the project, one kernel interface a file. Each function is
//! thin, typed, and leaves policy to its caller. What rustix or nix offer safely is called from
//! where it is needed, not from here.
#![allow(unsafe_code)]

pub mod kexec;
pub mod loopctl;
pub mod packet;
pub mod trampoline;
