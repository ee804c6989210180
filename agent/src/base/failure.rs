//! The failure of a boot: one sentence that names the thing that failed and the way out.
//!
//! Every module has its own error type. At the edge of a step it becomes a [`Failure`], which adds the
//! step. [`Failure::sentence`] walks the chain of causes and ends with the hint.

use crate::base::step::Step;
use std::error::Error;
use std::fmt;

/// An error that a person in front of the screen can act on.
pub trait Explain: Error + Send + Sync + 'static {
    /// The way out, as an imperative sentence.
    fn hint(&self) -> String;

    /// False if a retry cannot help until the kernel arguments change.
    fn may_heal(&self) -> bool {
        true
    }
}

/// The failure of one step.
#[derive(Debug)]
pub struct Failure {
    step: Step,
    hint: String,
    may_heal: bool,
    cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub fn at<E: Explain>(step: Step, error: E) -> Self {
        Self { step, hint: error.hint(), may_heal: error.may_heal(), cause: Box::new(error) }
    }

    /// True if a retry may help.
    pub fn may_heal(&self) -> bool {
        self.may_heal
    }

    /// The step, the chain of causes and the hint in one line.
    pub fn sentence(&self) -> String {
        format!("{} failed: {}. {}", self.step, chain(&*self.cause), self.hint)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

/// `error` and its causes, outermost first, separated by colons. An error's own text never repeats its
/// source, so each part appears once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open /dev/fuse")]
    struct NoFuse(#[source] std::io::Error);

    impl Explain for NoFuse {
        fn hint(&self) -> String {
            "Load the fuse module".into()
        }
    }

    /// A failure reads as one sentence: the step, the causes, the hint.
    #[test]
    fn failures_are_one_sentence() {
        let failure = Failure::at(Step::Medium, NoFuse(std::io::Error::other("no such device")));
        assert_eq!(
            failure.sentence(),
            "[4/8] medium failed: cannot open /dev/fuse: no such device. Load the fuse module"
        );
        assert!(failure.may_heal());
    }
}
