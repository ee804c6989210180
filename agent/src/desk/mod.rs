//! The verbs of `inetbootctl`, the host's tool. They use the boot's own steps, without being its process 1.
//! None of it is linked into the agent.

pub mod cache;
pub mod catalogue;
pub mod cli;
pub mod cloop;
pub mod drivers;
pub mod explain;
pub mod files;
pub mod image;
pub mod iso;
pub mod log;
pub mod manual;
pub mod mount;
pub mod overlay;
pub mod pcrs;
pub mod predict;
pub mod quote;
pub mod sort;
mod subject;
pub mod terminal;

/// Takes a line of a verb's output.
pub type Say<'a> = dyn Fn(&str) + Sync + 'a;
