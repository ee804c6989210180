//! The eight steps of the boot, as one enum, and the journal that walks through them.
//!
//! The enum names the console prefix, the place of an error, the timing row of the receipt and the
//! marker that boot tests wait for, so that none of them can drift from the others.

use crate::base::console;
use crate::base::failure::{Explain, Failure};
use std::fmt;
use std::time::{Duration, Instant};

/// One step of the first life, in boot order. The second life uses the same names for what it
/// does again (network, source, medium).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Kernel arguments become one valid value.
    Config,
    /// Links, lease, resolver, clock.
    Network,
    /// Where the image's bytes come from.
    Source,
    /// The image as a block device, mounted read-only.
    Medium,
    /// Recognise the family, make the plan.
    Distro,
    /// Append the overlay to the target's own initrd.
    Miniroot,
    /// Digest, extend, record.
    Measure,
    /// Load and leave.
    Kexec,
}

impl Step {
    /// All steps, in order.
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

    /// The word used on screen, in the receipt and in the tests.
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

    /// The step that `name` names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}/{}] {}", *self as usize + 1, Self::ALL.len(), self.name())
    }
}

/// How long each finished step took, in boot order.
pub type Timings = Vec<(Step, Duration)>;

/// Announces each step, times it, and says where a failure happened.
#[derive(Debug, Default)]
pub struct Journal {
    timings: Timings,
}

impl Journal {
    /// Do `work` as `step`.
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

    /// How long each step took so far.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_prints_its_place_in_the_boot() {
        assert_eq!(Step::Source.to_string(), "[3/8] source");
        assert_eq!(Step::Kexec.to_string(), "[8/8] kexec");
    }

    #[test]
    fn every_step_is_found_by_its_name() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.name()), Some(step));
        }
        assert_eq!(Step::from_name("lunch"), None);
    }
}
