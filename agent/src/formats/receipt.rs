//! What the boot cost: bytes, requests, seconds by step. Printed at the hand-over and kept as
//! `/run/inetboot/receipt.json` in the target. Pure.

use crate::base::console::size;
use crate::base::step::Timings;
use std::fmt::Write as _;

/// The cost of one life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Seconds by step, in the order they were taken.
    pub timings: Timings,
    /// Bytes of bodies that crossed the network.
    pub bytes: u64,
    /// Requests sent.
    pub requests: u64,
    /// Bytes of the image that were at hand, on a disk or in memory.
    pub spared: u64,
}

/// What one place that has the image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its address.
    pub url: String,
    /// Bytes of the image that came from it.
    pub bytes: u64,
    /// What is wrong with it.
    pub wrong: Option<String>,
}

/// The cost of the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where the image came from.
    pub image: String,
    /// How long it is.
    pub image_bytes: u64,
    /// What can be said about its being genuine.
    pub trust: String,
    /// What can be said about its having been measured.
    pub measured: String,
    /// What each place that has the image did in this life.
    pub mirrors: Vec<Report>,
    /// The first life.
    pub first: Cost,
    /// The second life, so far.
    pub second: Cost,
}

impl Receipt {
    fn bytes(&self) -> u64 {
        self.first.bytes + self.second.bytes
    }

    fn share(&self) -> f64 {
        if self.image_bytes == 0 { 0.0 } else { self.bytes() as f64 * 100.0 / self.image_bytes as f64 }
    }

    /// A few lines for the console.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "receipt: {} in {} requests, {:.1} % of {}; {}, {}",
            size(self.bytes()),
            self.first.requests + self.second.requests,
            self.share(),
            size(self.image_bytes),
            self.trust,
            self.measured,
        )];
        let spared = self.first.spared + self.second.spared;
        if spared > 0 {
            lines.push(format!("receipt: {} did not cross the network: they were at hand", size(spared)));
        }
        if self.mirrors.len() > 1 {
            for Report { url, bytes, wrong } in &self.mirrors {
                let wrong = wrong.as_ref().map(|why| format!(", and is asked last: {why}"));
                let wrong = wrong.unwrap_or_default();
                lines.push(format!("receipt: {} from {url}{wrong}", size(*bytes)));
            }
        }
        for (life, cost) in [("first life", &self.first), ("second life", &self.second)] {
            if !cost.timings.is_empty() {
                let steps: Vec<String> = cost
                    .timings
                    .iter()
                    .map(|(step, time)| format!("{} {:.1} s", step.name(), time.as_secs_f64()))
                    .collect();
                lines.push(format!("receipt: {life}: {}", steps.join(", ")));
            }
        }
        lines
    }

    /// The same, and all of it, for programs.
    pub fn json(&self) -> String {
        let mut text = String::new();
        let _ = write!(
            text,
            "{{\n  \"version\": 1,\n  \"image\": {},\n  \"image_bytes\": {},\n  \"trust\": {},\n  \"measured\": {},\n  \
             \"bytes\": {},\n  \"requests\": {},\n  \"share_percent\": {:.1},\n  \"mirrors\": [{}],\n  \"first_life\": {},\n  \"second_life\": {}\n}}\n",
            quote(&self.image),
            self.image_bytes,
            quote(&self.trust),
            quote(&self.measured),
            self.bytes(),
            self.first.requests + self.second.requests,
            self.share(),
            self.mirrors.iter().map(Report::json).collect::<Vec<_>>().join(", "),
            self.first.json(),
            self.second.json(),
        );
        text
    }
}

impl Report {
    fn json(&self) -> String {
        let wrong = self.wrong.as_ref().map(|why| format!(", \"wrong\": {}", quote(why)));
        format!("{{ \"url\": {}, \"bytes\": {}{} }}", quote(&self.url), self.bytes, wrong.unwrap_or_default())
    }
}

impl Cost {
    fn json(&self) -> String {
        let steps: Vec<String> = self
            .timings
            .iter()
            .map(|(step, time)| format!("{}: {:.3}", quote(step.name()), time.as_secs_f64()))
            .collect();
        format!(
            "{{ \"bytes\": {}, \"requests\": {}, \"spared\": {}, \"seconds\": {{ {} }} }}",
            self.bytes,
            self.requests,
            self.spared,
            steps.join(", ")
        )
    }
}

/// A JSON string (RFC 8259, section 7).
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::step::Step;
    use std::time::Duration;

    fn receipt() -> Receipt {
        let timings = vec![(Step::Network, Duration::from_millis(1500))];
        let first = Cost { timings, bytes: 44_000_000, requests: 180, spared: 0 };
        Receipt {
            image: "http://h/\"x\".iso".into(),
            image_bytes: 176_000_000,
            trust: "unverified".into(),
            mirrors: Vec::new(),
            measured: "not measured".into(),
            first,
            second: Cost::default(),
        }
    }

    #[test]
    fn it_says_the_share_of_the_image() {
        let lines = receipt().lines();
        assert_eq!(
            lines[0],
            "receipt: 44.0 MB in 180 requests, 25.0 % of 176.0 MB; unverified, not measured"
        );
        assert_eq!(lines[1], "receipt: first life: network 1.5 s");
    }

    #[test]
    fn places_are_named_where_there_are_several() {
        let report = |url: &str, wrong: Option<&str>| Report {
            url: url.into(),
            bytes: 2_000_000,
            wrong: wrong.map(str::to_owned),
        };
        let mirrors = vec![report("http://a/", None), report("http://b/", Some("it lies"))];
        let receipt = Receipt { mirrors, ..receipt() };
        assert_eq!(receipt.lines()[1], "receipt: 2.0 MB from http://a/");
        assert_eq!(receipt.lines()[2], "receipt: 2.0 MB from http://b/, and is asked last: it lies");
        assert!(receipt.json().contains(r#"{ "url": "http://b/", "bytes": 2000000, "wrong": "it lies" }"#));
    }

    #[test]
    fn what_was_at_hand_is_said() {
        let second = Cost { spared: 61_000_000, ..Cost::default() };
        let receipt = Receipt { second, ..receipt() };
        assert!(receipt.lines()[1].contains("61.0 MB did not cross the network"));
    }

    #[test]
    fn its_json_is_escaped() {
        let json = receipt().json();
        assert!(json.contains(r#""image": "http://h/\"x\".iso""#));
        assert!(json.contains(
            r#""first_life": { "bytes": 44000000, "requests": 180, "spared": 0, "seconds": { "network": 1.500 } }"#
        ));
        assert_eq!(quote("a\nb"), "\"a\\u000ab\"");
    }
}
