//! Promises: a boot that several of them share says which it kept and which one broke.

/// Runs `keep` and prints that the promise `sentence` was kept. If `keep` panics, the output of the
/// test names the promise, and the machines and web servers of the test print the ends of their logs
/// as they are dropped.
pub fn promise<T>(sentence: &str, keep: impl FnOnce() -> T) -> T {
    let _broken = Broken(sentence);
    let value = keep();
    println!("promise kept: {sentence}");
    value
}

/// Prints the sentence if it is dropped by a panic.
struct Broken<'a>(&'a str);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("promise BROKEN: {}", self.0);
        }
    }
}

/// Prints the end of a log under its heading, if a test is failing. For `Drop` of what has a log.
pub(crate) fn show_when_failing(heading: &str, log: impl FnOnce() -> String) {
    if std::thread::panicking() {
        println!("--- {heading}\n{}", log());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn a_kept_promise_gives_its_value() {
        assert_eq!(promise("two and two are four", || 2 + 2), 4);
    }

    #[test]
    fn a_broken_promise_still_fails_the_test() {
        let outcome = catch_unwind(|| promise("two and two are five", || assert_eq!(2 + 2, 5)));
        assert!(outcome.is_err());
    }
}
