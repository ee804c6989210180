//! How a boot fails: one sentence with the object and the way out.
//!
//! Every module has its own error type. At the edge of a step it becomes a [`Failure`], which
//! adds where it happened; [`Failure::sentence`] walks the chain of causes and ends with the hint.

use crate::base::step::Step;
use std::error::Error;
use std::fmt;

/// What an error adds for the person in front of the screen.
pub trait Explain: Error + Send + Sync + 'static {
    /// The way out, as an imperative sentence.
    fn hint(&self) -> String;

    /// Whether trying again may help without anybody changing the kernel arguments.
    fn may_heal(&self) -> bool {
        true
    }
}

/// A step that did not succeed.
#[derive(Debug)]
pub struct Failure {
    step: Step,
    hint: String,
    may_heal: bool,
    cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// `error` happened in `step`.
    pub fn at<E: Explain>(step: Step, error: E) -> Self {
        Self { step, hint: error.hint(), may_heal: error.may_heal(), cause: Box::new(error) }
    }

    /// Whether a further attempt makes sense.
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

/// `error` and its causes, outermost first, separated by colons. An error's own text never
/// repeats its source, so nothing is said twice.
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

    #[test]
    fn a_failure_is_one_sentence_with_its_cause_and_the_way_out() {
        let failure = Failure::at(Step::Medium, NoFuse(std::io::Error::other("no such device")));
        assert_eq!(
            failure.sentence(),
            "[4/8] medium failed: cannot open /dev/fuse: no such device. Load the fuse module"
        );
        assert!(failure.may_heal());
    }
}
