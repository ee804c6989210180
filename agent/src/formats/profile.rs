//! The order in which a boot read the pieces of its image: recorded by every second life, published
//! beside the index, and fetched ahead of need by the next boot. Specified in `docs/formats.md`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::Range;

const FIRST_LINE: &str = "inetboot-profile 1";

/// The longest profile that is read.
pub const LARGEST: u64 = 1 << 20;

/// Runs of pieces, in the order they were first read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The number of pieces of the image: a profile is of one image.
    pub count: u64,
    /// `3..7`: pieces 3 to 6.
    pub runs: Vec<Range<u64>>,
}

/// The reason why a profile is passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It does not begin like one.
    #[error("it is no profile")]
    Unknown,
    /// It is of an image with another number of pieces.
    #[error("it is of an image of {0} pieces, and this one has {1}")]
    Other(u64, u64),
    /// A line that makes no sense.
    #[error("the line \"{0}\" is not understood")]
    Line(String),
}

impl Profile {
    /// The profile as a file.
    pub fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\npieces {}\n", self.count);
        for run in &self.runs {
            let _ = writeln!(text, "{} {}", run.start, run.end - run.start);
        }
        text
    }

    /// Read a profile of an image of `count` pieces.
    pub fn decode(text: &str, count: u64) -> Result<Self, ProfileError> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(ProfileError::Unknown);
        }

        let (mut theirs, mut runs, mut sum) = (None, Vec::new(), 0_u64);
        for line in lines {
            let wrong = || ProfileError::Line(line.escape_debug().to_string());
            let (left, right) = line.split_once(' ').ok_or_else(wrong)?;
            let right: u64 = right.parse().map_err(|_| wrong())?;
            if left == "pieces" {
                theirs = Some(right);
                continue;
            }
            let start: u64 = left.parse().map_err(|_| wrong())?;
            let end = start.checked_add(right).filter(|end| *end <= count && *end > start);
            // Nothing is read for the first time twice.
            sum = sum.saturating_add(right);
            runs.push(start..end.filter(|_| sum <= count).ok_or_else(wrong)?);
        }

        match theirs {
            Some(theirs) if theirs == count => Ok(Self { count, runs }),
            theirs => Err(ProfileError::Other(theirs.unwrap_or(0), count)),
        }
    }
}

/// Notes in which order pieces are first read.
#[derive(Debug, Default)]
pub struct Recorder {
    seen: HashSet<u64>,
    runs: Vec<Range<u64>>,
}

impl Recorder {
    /// Piece `number` is read. Returns whether that is the first time.
    pub fn note(&mut self, number: u64) -> bool {
        if !self.seen.insert(number) {
            return false;
        }
        match self.runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => self.runs.push(number..number + 1),
        }
        true
    }

    /// True where piece `number` was read.
    pub fn has(&self, number: u64) -> bool {
        self.seen.contains(&number)
    }

    /// The profile so far, of an image of `count` pieces.
    pub fn profile(&self, count: u64) -> Profile {
        Profile { count, runs: self.runs.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_reads_become_runs() {
        let mut recorder = Recorder::default();
        for number in [0, 1, 1, 2, 9, 0, 3, 4] {
            recorder.note(number);
        }
        let profile = recorder.profile(10);
        assert_eq!(profile.encode(), "inetboot-profile 1\npieces 10\n0 3\n9 1\n3 2\n");
        assert_eq!(Profile::decode(&profile.encode(), 10), Ok(profile));
    }

    #[test]
    fn a_profile_of_another_image_is_refused() {
        let text = "inetboot-profile 1\npieces 10\n0 3\n";
        assert_eq!(Profile::decode(text, 11), Err(ProfileError::Other(10, 11)));
        assert_eq!(Profile::decode("x", 11), Err(ProfileError::Unknown));
        assert!(Profile::decode("inetboot-profile 1\npieces 10\n9 2\n", 10).is_err());
        assert!(Profile::decode("inetboot-profile 1\npieces 10\n0 10\n0 10\n", 10).is_err());
        let long = "inetboot-profile 1\npieces 10\n0 1\n0 18446744073709551615\n";
        assert!(Profile::decode(long, 10).is_err());
        assert!(Profile::decode("inetboot-profile 1\npieces 10\n18446744073709551615 2\n", 10).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Profile::decode(&format!("{FIRST_LINE}\n{text}"), 5);
        }
    }
}
