//! The eight steps of the boot as one enum, and the journal that times them.
//!
//! The enum names the prefix on the console, the place of an error, the row of the receipt and the marker
//! that boot tests wait for, so that none of them can differ from the others.

use crate::base::console;
use crate::base::failure::{Explain, Failure};
use std::fmt;
use std::time::{Duration, Instant};

/// One step of the first life, in boot order. The second life repeats some of them (network, source,
/// medium) under the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Parse the kernel arguments.
    Config,
    /// Get a lease, write the resolver's file, set the clock.
    Network,
    /// Find the image on its servers.
    Source,
    /// Mount the image read-only from a block device.
    Medium,
    /// Recognise the family and make the plan.
    Distro,
    /// Append the overlay to the target's own initrd.
    Miniroot,
    /// Digest kernel and initrd, and extend the TPM.
    Measure,
    /// Load the new kernel and start it.
    Kexec,
}

impl Step {
    /// In boot order.
    pub const ALL: [Self; 8] = [
        Self::Config,
        Self::Network,
        Self::Source,
        Self::Medium,
        Self::Distro,
        Self::Miniroot,
        Self::Measure,
        Self::Kexec,
    ];

    /// The word on the screen, in the receipt and in the tests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Network => "network",
            Self::Source => "source",
            Self::Medium => "medium",
            Self::Distro => "distro",
            Self::Miniroot => "miniroot",
            Self::Measure => "measure",
            Self::Kexec => "kexec",
        }
    }

    /// The inverse of [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

/// `[3/8] source`
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}/{}] {}", *self as usize + 1, Self::ALL.len(), self.name())
    }
}

/// The duration of each finished step, in boot order.
pub type Timings = Vec<(Step, Duration)>;

/// Announces each step, times it, and adds the step to a failure.
#[derive(Debug, Default)]
pub struct Journal {
    timings: Timings,
}

impl Journal {
    /// Does `work` as `step`.
    pub fn step<T, E: Explain>(
        &mut self,
        step: Step,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Failure> {
        console::say(&step.to_string());
        let start = Instant::now();
        let outcome = work().map_err(|error| Failure::at(step, error));
        self.timings.push((step, start.elapsed()));
        outcome
    }

    /// The durations so far.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step is printed with its place in the boot.
    #[test]
    fn steps_are_numbered() {
        assert_eq!(Step::Source.to_string(), "[3/8] source");
        assert_eq!(Step::Kexec.to_string(), "[8/8] kexec");
    }

    /// Each step's name leads back to it.
    #[test]
    fn names_are_unique() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.name()), Some(step));
        }
        assert_eq!(Step::from_name("lunch"), None);
    }
}
