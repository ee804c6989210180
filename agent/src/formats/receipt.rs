//! The receipt: the cost of the boot in bytes, requests and seconds by step. It is printed at the handover,
//! and is `/run/inetboot/receipt.json` in the target.

use crate::base::console::size;
use crate::base::step::Timings;
use std::fmt::Write as _;

/// The cost of one life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The time of each step, in the order of the steps.
    pub timings: Timings,
    /// Bytes of HTTP bodies that crossed the network.
    pub bytes: u64,
    /// Requests sent.
    pub requests: u64,
    /// Bytes of the image that came from a cache on disk or in memory.
    pub spared: u64,
}

/// The contribution of one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub url: String,
    /// Bytes of the image that came from it.
    pub bytes: u64,
    /// The reason why it is asked last, if it is.
    pub wrong: Option<String>,
}

/// The cost of the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The address of the image.
    pub image: String,
    /// Its length.
    pub image_bytes: u64,
    /// The words for its proof: "unverified", "verified by …".
    pub trust: String,
    /// The words for its measurement: "not measured", "measured into …".
    pub measured: String,
    /// All mirrors, with their share of this life.
    pub mirrors: Vec<Report>,
    pub first: Cost,
    /// The second life, so far.
    pub second: Cost,
}

impl Receipt {
    fn bytes(&self) -> u64 {
        self.first.bytes.saturating_add(self.second.bytes)
    }

    fn requests(&self) -> u64 {
        self.first.requests.saturating_add(self.second.requests)
    }

    /// The share of the image that crossed the network, in percent.
    fn share(&self) -> f64 {
        if self.image_bytes == 0 { 0.0 } else { self.bytes() as f64 * 100.0 / self.image_bytes as f64 }
    }

    /// A few lines for the console.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "receipt: {} in {} requests, {:.1} % of {}; {}, {}",
            size(self.bytes()),
            self.requests(),
            self.share(),
            size(self.image_bytes),
            self.trust,
            self.measured,
        )];

        let spared = self.first.spared.saturating_add(self.second.spared);
        if spared > 0 {
            lines.push(format!("receipt: {} came from a cache and did not cross the network", size(spared)));
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

    /// All of it as JSON, for programs.
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
            self.requests(),
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

    /// The first line has the share of the image that crossed the network.
    #[test]
    fn the_share_is_told() {
        let lines = receipt().lines();
        assert_eq!(
            lines[0],
            "receipt: 44.0 MB in 180 requests, 25.0 % of 176.0 MB; unverified, not measured"
        );
        assert_eq!(lines[1], "receipt: first life: network 1.5 s");
    }

    /// Mirrors are listed if there are several, a faulty one with its fault.
    #[test]
    fn mirrors_are_listed() {
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

    /// Bytes from a cache have a line of their own.
    #[test]
    fn spared_bytes_are_told() {
        let second = Cost { spared: 61_000_000, ..Cost::default() };
        let receipt = Receipt { second, ..receipt() };
        assert!(receipt.lines()[1].contains("61.0 MB came from a cache"));
    }

    /// The JSON stays valid whatever an address contains.
    #[test]
    fn json_is_escaped() {
        let json = receipt().json();
        assert!(json.contains(r#""image": "http://h/\"x\".iso""#));
        assert!(json.contains(
            r#""first_life": { "bytes": 44000000, "requests": 180, "spared": 0, "seconds": { "network": 1.500 } }"#
        ));
        assert_eq!(quote("a\nb"), "\"a\\u000ab\"");
    }
}
