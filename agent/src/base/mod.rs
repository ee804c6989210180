//! The ground floor: the steps' names, how a failure is told, the console. Everything may use it;
//! it uses nothing of ours.

pub mod console;
pub mod failure;
pub mod glob;
pub mod lock;
pub mod step;
pub mod thread;
