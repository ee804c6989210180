//! Lines for the person at the terminal, or for the program that reads them. None of them may make a verb
//! panic, as `println!` does where a pipe was closed.

use crate::base::lock::lock;
use std::io::{self, ErrorKind, Stdout, Write};
use std::sync::Mutex;

/// Standard output, or a writer in its place.
///
/// After the first line that cannot be written there are no more. A pipe that its reader closed is no error,
/// as in `inetbootctl log show | head`; the verb goes on quietly, for it may do more than print. Any other
/// failure (a full disk) is reported by [`Self::finish`].
#[derive(Debug)]
pub struct Output<W> {
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    writer: W,
    failure: Option<io::Error>,
}

impl Output<Stdout> {
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Output<W> {
    fn new(writer: W) -> Self {
        Self { state: Mutex::new(State { writer, failure: None }) }
    }

    /// Writes `line` and the end of the line.
    pub fn line(&self, line: &str) {
        self.text(&format!("{line}\n"));
    }

    /// Writes `text`, which has its own line ends.
    pub fn text(&self, text: &str) {
        let State { writer, failure } = &mut *lock(&self.state);
        if failure.is_none() {
            *failure = writer.write_all(text.as_bytes()).err();
        }
    }

    /// Ends the output.
    ///
    /// # Errors
    /// The first failure, unless it was a closed pipe.
    pub fn finish(&self) -> io::Result<()> {
        let State { writer, failure } = &mut *lock(&self.state);
        match failure.take().or_else(|| writer.flush().err()) {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// Writes a remark to standard error. A failure is ignored: there is no place left to report it.
pub fn remark(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes some bytes, and fails from then on.
    struct Failing(usize, ErrorKind);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(self.1)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that has seen enough ends the output quietly.
    #[test]
    fn a_closed_pipe_is_no_error() {
        let output = Output::new(Failing(4, ErrorKind::BrokenPipe));
        ["one", "two", "three"].iter().for_each(|line| output.line(line));
        output.finish().unwrap();
    }

    /// Output that is lost otherwise makes the verb fail.
    #[test]
    fn a_full_disk_is_an_error() {
        let output = Output::new(Failing(4, ErrorKind::StorageFull));
        ["one", "two"].iter().for_each(|line| output.line(line));
        assert_eq!(output.finish().unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
