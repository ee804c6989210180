//! Threads that run by themselves.

use std::io;
use std::thread::Builder;

/// Starts a thread that is called `name` and does `work`. No one waits for its end.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    start_boxed(name, Box::new(work))
}

/// Compiled once: each closure that is given to the standard library's `spawn` costs kilobytes.
fn start_boxed(name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    Builder::new().name(name.into()).spawn(work).map(drop)
}
