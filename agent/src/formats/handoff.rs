//! What the first life tells the second: a small text file beside the overlay. It is about one boot,
//! and therefore not measured; what of it decides what is served is measured by itself. Pure, both
//! sides.
//!
//! One `key value` a line, after a line with the format's version. Keys that repeat keep their
//! order. Everything is written by us and read by the same binary, so an unknown key is an error.

use crate::base::step::Step;
use crate::config::{TpmPolicy, mac_text, parse_mac};
use crate::formats::disk_layout::Id;
use crate::formats::index::{Form, Place};
use crate::formats::lease::{Grant, Grant6, Lease, Lease6, Leases, Route};
use crate::formats::pieces::{hex, unhex};
use crate::formats::receipt::Cost;
use crate::formats::recipe::{Condemned, IndexFile, MirrorRecord, Recipe};
use crate::formats::trust::Trust;
use crate::formats::version::Version;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

const FIRST_LINE: &str = "inetboot handoff 1";

/// The directory of the overlay, in the target's initrd.
pub const DIR: &str = "/inetboot.d";

/// Where the handoff lies there.
pub const PATH: &str = "/inetboot.d/handoff";

/// Where the certificates to trust lie, if there are any of our own.
pub const CA_PATH: &str = "/inetboot.d/ca.pem";

/// Where the image's index lies, if there is one.
pub const INDEX_PATH: &str = "/inetboot.d/index";

/// Where its profile lies, if there is one.
pub const PROFILE_PATH: &str = "/inetboot.d/profile";

/// Where the event log lies, if anything was measured.
pub const EVENTLOG_PATH: &str = "/inetboot.d/eventlog";

/// In an overlay that was made on a desk, for a second life without a first: the arguments for us,
pub const ARGUMENTS_PATH: &str = "/inetboot.d/arguments";

/// the place where the target's init wants to find the CD, where it does,
pub const PREMOUNT_PATH: &str = "/inetboot.d/premount";

/// and the drivers for the target's kernel, in a directory called like its release.
pub const MODULES_PATH: &str = "/inetboot.d/lib/modules";

/// Everything the second life needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// The image's address, as the user gave it.
    pub url: String,
    /// `proxy=`.
    pub proxy: Option<String>,
    /// The disk that keeps pieces.
    pub disk: Option<Id>,
    /// `inetboot.localise=`
    pub localise: bool,
    /// `inetboot.tpm=`
    pub tpm: TpmPolicy,
    /// The image we booted from. Its index and its profile are files of their own.
    pub recipe: Recipe,
    /// The card that reached it.
    pub mac: [u8; 6],
    /// The VLAN on it.
    pub vlan: Option<u16>,
    /// What the network gave.
    pub leases: Leases,
    /// When this was written, since 1970: lets the second life know how long the lease is held,
    /// and gives it a clock where the machine's own forgets.
    pub written: Duration,
    /// How long the lease was held then.
    pub lease_age: Duration,
    /// Modules to load, in order: absolute paths in the target's initrd.
    pub modules: Vec<String>,
    /// Where the target's init wants to find the CD mounted.
    pub premount: Option<String>,
    /// What the first life cost.
    pub first: Cost,
}

/// Why a handoff cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoffError {
    /// The first line is not ours.
    #[error("it does not begin with \"{FIRST_LINE}\"")]
    Version,
    /// Something that must be there is not.
    #[error("it lacks {0}")]
    Lacks(&'static str),
    /// A line that makes no sense.
    #[error("line \"{0}\" is not understood")]
    Line(String),
}

impl Handoff {
    /// The file's text.
    pub fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            // A newline inside a value would be a line of its own; nothing we carry needs one.
            let value = value.to_string().replace(['\n', '\r'], " ");
            let _ = writeln!(text, "{key} {value}");
        };
        line("url", &self.url);
        if let Some(proxy) = &self.proxy {
            line("proxy", proxy);
        }
        if let Some(disk) = &self.disk {
            line("disk", disk);
        }
        line("localise", &self.localise);
        line("tpm", &self.tpm);
        let recipe = &self.recipe;
        line("length", &recipe.length);
        for record in &recipe.mirrors {
            match &record.place {
                Place::File(url) => line("mirror", &format_args!("{FILE} {url}")),
                Place::Store { url, form } => line("mirror", &format_args!("{} {url}", form.name())),
            }
        }
        for (number, record) in recipe.mirrors.iter().enumerate() {
            let Some(version) = &record.version else { continue };
            line("version", &number);
            version.etag.iter().for_each(|etag| line("etag", &format_args!("{number} {etag}")));
            version.modified.iter().for_each(|date| line("modified", &format_args!("{number} {date}")));
        }
        for Condemned { url, why } in &recipe.wrong {
            line("wrong", &format_args!("{url} {why}"));
        }
        if let Some(index) = &recipe.index {
            line("index", &index.url);
        }
        line("trust", &recipe.trust);
        line("mac", &mac_text(self.mac));
        if let Some(vlan) = self.vlan {
            line("vlan", &vlan);
        }
        for server in &self.leases.nameservers {
            line("asked-first", server);
        }
        if let Some(lease) = &self.leases.v4 {
            line("address", &format_args!("{}/{}", lease.address, lease.prefix));
            for route in &lease.routes {
                line("route", &format_args!("{}/{} {}", route.destination, route.prefix, route.gateway));
            }
            lease.nameservers.iter().for_each(|server| line("nameserver", server));
            lease.search.iter().for_each(|domain| line("search", domain));
            if let Some(mtu) = lease.mtu {
                line("mtu", &mtu);
            }
            if let Some(grant) = lease.grant {
                line("server", &grant.server);
                if let Some(duration) = grant.duration {
                    line("lease-seconds", &duration.as_secs());
                }
                if let Some(renew_after) = grant.renew_after {
                    line("renew-seconds", &renew_after.as_secs());
                }
            }
        }
        if let Some(lease) = &self.leases.v6 {
            line("ipv6", &true);
            if let Some((address, prefix)) = lease.address {
                line("address6", &format_args!("{address}/{prefix}"));
            }
            if let Some(gateway) = lease.gateway {
                line("gateway6", &gateway);
            }
            lease.nameservers.iter().for_each(|server| line("nameserver6", server));
            lease.search.iter().for_each(|domain| line("search6", domain));
            if let Some(Grant6 { server, valid, renew_after }) = &lease.grant {
                line("server6", &hex(server));
                line("lease6-seconds", &valid.as_secs());
                line("renew6-seconds", &renew_after.as_secs());
            }
        }
        line("written-milliseconds", &self.written.as_millis());
        line("lease-age-seconds", &self.lease_age.as_secs());
        for module in &self.modules {
            line("module", module);
        }
        if let Some(dir) = &self.premount {
            line("premount", dir);
        }
        for (step, time) in &self.first.timings {
            line("took", &format_args!("{} {}", step.name(), time.as_millis()));
        }
        line("bytes", &self.first.bytes);
        line("requests", &self.first.requests);
        line("spared", &self.first.spared);
        text
    }

    /// Read what [`Self::encode`] wrote; with the index and the profile, which are files beside it.
    pub fn decode(text: &str, index: Option<Vec<u8>>, profile: Option<String>) -> Result<Self, HandoffError> {
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(HandoffError::Version);
        }
        let mut fields = Fields::default();
        for line in lines {
            let (key, value) = line.split_once(' ').ok_or_else(|| HandoffError::Line(line.into()))?;
            if !KEYS.contains(&key) || value.contains(char::is_control) {
                return Err(HandoffError::Line(line.into()));
            }
            fields.0.entry(key).or_default().push(value);
        }
        Ok(Self {
            url: fields.one("url", parsed)?.ok_or(HandoffError::Lacks("url"))?,
            proxy: fields.one("proxy", parsed)?,
            disk: fields.one("disk", Id::parse)?,
            localise: fields.one("localise", parsed)?.unwrap_or(false),
            tpm: fields.one("tpm", parsed)?.unwrap_or_default(),
            recipe: recipe(&fields, index, profile)?,
            mac: fields.one("mac", |text| parse_mac(text, ':'))?.ok_or(HandoffError::Lacks("mac"))?,
            vlan: fields.one("vlan", parsed)?,
            leases: leases(&fields)?,
            written: Duration::from_millis(fields.one("written-milliseconds", parsed)?.unwrap_or(0)),
            lease_age: Duration::from_secs(fields.one("lease-age-seconds", parsed)?.unwrap_or(0)),
            modules: fields.all("module", parsed)?,
            premount: fields.one("premount", parsed)?,
            first: Cost {
                timings: fields.all("took", took)?,
                bytes: fields.one("bytes", parsed)?.unwrap_or(0),
                requests: fields.one("requests", parsed)?.unwrap_or(0),
                spared: fields.one("spared", parsed)?.unwrap_or(0),
            },
        })
    }
}

fn leases(fields: &Fields<'_>) -> Result<Leases, HandoffError> {
    let v4 = match fields.one("address", slashed)? {
        None => None,
        Some((address, prefix)) => {
            let terms = |server| -> Result<Grant, HandoffError> {
                let duration = fields.one("lease-seconds", parsed)?.map(Duration::from_secs);
                let renew_after = fields.one("renew-seconds", parsed)?.map(Duration::from_secs);
                Ok(Grant { server, duration, renew_after })
            };
            Some(Lease {
                address,
                prefix,
                routes: fields.all("route", route)?,
                nameservers: fields.all("nameserver", parsed)?,
                search: fields.all("search", parsed)?,
                mtu: fields.one("mtu", parsed)?,
                grant: fields.one("server", parsed)?.map(terms).transpose()?,
            })
        }
    };
    let v6 = match fields.one("ipv6", parsed::<bool>)? {
        None => None,
        Some(_) => {
            let terms = |server| -> Result<Grant6, HandoffError> {
                let time =
                    |key| Ok(Duration::from_secs(fields.one(key, parsed)?.ok_or(HandoffError::Lacks(key))?));
                Ok(Grant6 { server, valid: time("lease6-seconds")?, renew_after: time("renew6-seconds")? })
            };
            Some(Lease6 {
                address: fields.one("address6", slashed)?,
                gateway: fields.one("gateway6", parsed)?,
                nameservers: fields.all("nameserver6", parsed)?,
                search: fields.all("search6", parsed)?,
                grant: fields.one("server6", unhex)?.map(terms).transpose()?,
            })
        }
    };
    if v4.is_none() && v6.is_none() {
        return Err(HandoffError::Lacks("address"));
    }
    Ok(Leases { v4, v6, nameservers: fields.all("asked-first", parsed)? })
}

fn recipe(
    fields: &Fields<'_>,
    index: Option<Vec<u8>>,
    profile: Option<String>,
) -> Result<Recipe, HandoffError> {
    let length = fields.one("length", parsed)?.ok_or(HandoffError::Lacks("length"))?;
    let index = match fields.one("index", parsed)? {
        None => None,
        Some(url) => {
            let bytes = index.ok_or(HandoffError::Lacks("the index itself"))?.into();
            Some(IndexFile { url, bytes })
        }
    };
    let versions: Vec<usize> = fields.all("version", parsed)?;
    let (etags, dates) = (fields.all("etag", numbered)?, fields.all("modified", numbered)?);
    let of = |all: &[(usize, String)], number| {
        all.iter().find(|(of, _)| *of == number).map(|(_, text)| text.clone())
    };
    let version = |number| {
        versions.contains(&number).then(|| Version {
            length,
            etag: of(&etags, number),
            modified: of(&dates, number),
        })
    };
    let places = fields.all("mirror", place)?.into_iter().enumerate();
    Ok(Recipe {
        length,
        mirrors: places.map(|(number, place)| MirrorRecord { place, version: version(number) }).collect(),
        wrong: fields.all("wrong", |text| {
            let (url, why) = text.split_once(' ')?;
            Some(Condemned { url: url.parse().ok()?, why: why.to_owned() })
        })?,
        index,
        trust: fields.one("trust", Trust::from_text)?.ok_or(HandoffError::Lacks("trust"))?,
        profile,
    })
}

/// `0 "etag"`: of which mirror, and what.
fn numbered(text: &str) -> Option<(usize, String)> {
    let (number, text) = text.split_once(' ')?;
    Some((number.parse().ok()?, text.to_owned()))
}

/// `file http://h/x.iso`, `zstd http://h/store/`
fn place(text: &str) -> Option<Place> {
    let (kind, url) = text.split_once(' ')?;
    let url = url.parse().ok()?;
    match kind {
        FILE => Some(Place::File(url)),
        form => Some(Place::Store { url, form: Form::from_name(form)? }),
    }
}

/// The word for a place that is no store.
const FILE: &str = "file";

/// Every key there is.
const KEYS: [&str; 40] = [
    "url",
    "proxy",
    "disk",
    "localise",
    "tpm",
    "length",
    "mirror",
    "version",
    "etag",
    "modified",
    "wrong",
    "index",
    "trust",
    "mac",
    "vlan",
    "asked-first",
    "ipv6",
    "address6",
    "gateway6",
    "nameserver6",
    "search6",
    "server6",
    "lease6-seconds",
    "renew6-seconds",
    "address",
    "route",
    "nameserver",
    "search",
    "mtu",
    "server",
    "lease-seconds",
    "renew-seconds",
    "written-milliseconds",
    "lease-age-seconds",
    "module",
    "premount",
    "took",
    "bytes",
    "requests",
    "spared",
];

#[derive(Default)]
struct Fields<'a>(HashMap<&'a str, Vec<&'a str>>);

impl Fields<'_> {
    fn all<T>(&self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, HandoffError> {
        let values = self.0.get(key).map(Vec::as_slice).unwrap_or_default();
        values
            .iter()
            .map(|value| parse(value).ok_or_else(|| HandoffError::Line(format!("{key} {value}"))))
            .collect()
    }

    fn one<T>(&self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, HandoffError> {
        Ok(self.all(key, parse)?.into_iter().next())
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn slashed<A: FromStr, B: FromStr>(text: &str) -> Option<(A, B)> {
    let (left, right) = text.split_once('/')?;
    Some((left.parse().ok()?, right.parse().ok()?))
}

fn route(text: &str) -> Option<Route> {
    let (net, gateway) = text.split_once(' ')?;
    let (destination, prefix) = slashed(net)?;
    Some(Route { destination, prefix, gateway: gateway.parse().ok()? })
}

fn took(text: &str) -> Option<(Step, Duration)> {
    let (step, milliseconds) = text.split_once(' ')?;
    Some((Step::from_name(step)?, Duration::from_millis(milliseconds.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::url::Url;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn unverified() -> Recipe {
        let version = Version {
            length: 176_000_000,
            etag: Some("\"5f-ab\"".into()),
            modified: Some("Sat, 21 Nov 2026 05:04:00 GMT".into()),
        };
        Recipe {
            length: 176_000_000,
            mirrors: vec![
                MirrorRecord { place: Place::File(url("http://h/x.iso")), version: Some(version) },
                MirrorRecord { place: Place::File(url("http://i/x.iso")), version: None },
            ],
            wrong: vec![Condemned { url: url("http://j/x.iso"), why: "it has other bytes".into() }],
            index: None,
            trust: Trust::Unverified,
            profile: None,
        }
    }

    fn verified() -> Recipe {
        let record = |place| MirrorRecord { place, version: None };
        let store = |form| record(Place::Store { url: url("http://h/store/"), form });
        Recipe {
            mirrors: vec![store(Form::Zstd), store(Form::Casync), record(Place::File(url("http://h/x")))],
            index: Some(IndexFile { url: url("http://h/x.idx"), bytes: b"index".as_slice().into() }),
            trust: Trust::Pinned,
            profile: Some("profile".into()),
            ..unverified()
        }
    }

    fn decoded(handoff: &Handoff) -> Result<Handoff, HandoffError> {
        let index = handoff.recipe.index.as_ref().map(|index| index.bytes.to_vec());
        Handoff::decode(&handoff.encode(), index, handoff.recipe.profile.clone())
    }

    fn v4() -> Lease {
        Lease {
            address: [10, 0, 2, 15].into(),
            prefix: 24,
            routes: vec![Route::default([10, 0, 2, 2].into())],
            nameservers: vec![[10, 0, 2, 3].into(), [10, 0, 2, 4].into()],
            search: vec!["example.org".into()],
            mtu: Some(1400),
            grant: Some(Grant {
                server: [10, 0, 2, 2].into(),
                duration: Some(Duration::from_secs(60)),
                renew_after: Some(Duration::from_secs(30)),
            }),
        }
    }

    fn v6() -> Lease6 {
        Lease6 {
            address: Some(("fd00::15".parse().unwrap(), 128)),
            gateway: Some("fe80::2".parse().unwrap()),
            nameservers: vec!["fd00::3".parse().unwrap()],
            search: vec!["example.net".into()],
            grant: Some(Grant6 {
                server: vec![0, 1, 0xff],
                valid: Duration::from_secs(90),
                renew_after: Duration::from_secs(30),
            }),
        }
    }

    fn handoff() -> Handoff {
        Handoff {
            url: "http://h/x.iso?a=b c".into(),
            proxy: Some("http://proxy:3128".into()),
            disk: Some(Id([3; 16])),
            localise: true,
            tpm: TpmPolicy::Require,
            recipe: unverified(),
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            vlan: Some(7),
            leases: Leases { v4: Some(v4()), v6: Some(v6()), nameservers: vec![[1, 1, 1, 1].into()] },
            written: Duration::from_millis(1_795_219_200_123),
            lease_age: Duration::from_secs(7),
            modules: vec![
                "/usr/lib/modules/6.1/kernel/fs/fuse/fuse.ko".into(),
                "/inetboot.d/modules/e1000.ko".into(),
            ],
            premount: Some("/mnt-system".into()),
            first: Cost {
                timings: vec![(Step::Network, Duration::from_millis(1500))],
                bytes: 44_000_000,
                requests: 180,
                spared: 7_000_000,
            },
        }
    }

    #[test]
    fn what_is_told_is_understood() {
        assert_eq!(decoded(&handoff()), Ok(handoff()));
        let verified = Handoff { recipe: verified(), ..handoff() };
        assert_eq!(decoded(&verified), Ok(verified.clone()));
        assert!(Handoff::decode(&verified.encode(), None, None).is_err());
        let bare = Handoff {
            proxy: None,
            disk: None,
            premount: None,
            vlan: None,
            leases: Leases {
                v4: Some(Lease { grant: None, mtu: None, routes: vec![], ..v4() }),
                ..Leases::default()
            },
            ..handoff()
        };
        assert_eq!(decoded(&bare), Ok(bare.clone()));
        let only_v6 = Leases { v6: Some(Lease6::default()), ..Leases::default() };
        let only_v6 = Handoff { leases: only_v6, ..bare.clone() };
        assert_eq!(decoded(&only_v6), Ok(only_v6));
        let nothing = Handoff { leases: Leases::default(), ..bare };
        assert_eq!(decoded(&nothing), Err(HandoffError::Lacks("address")));
    }

    #[test]
    fn a_foreign_or_damaged_file_is_refused() {
        assert_eq!(Handoff::decode("inetboot handoff 2\n", None, None), Err(HandoffError::Version));
        let damaged = handoff().encode().replace("mac 52", "mac zz");
        assert!(
            matches!(Handoff::decode(&damaged, None, None), Err(HandoffError::Line(line)) if line.starts_with("mac zz"))
        );
        let extended = handoff().encode() + "surprise 1\n";
        assert!(Handoff::decode(&extended, None, None).is_err());
    }

    #[test]
    fn a_value_cannot_smuggle_a_line() {
        let evil = Handoff { proxy: Some("http://x/\nurl http://evil/".into()), ..handoff() };
        assert_eq!(decoded(&evil).unwrap().url, handoff().url);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Handoff::decode(&format!("{FIRST_LINE}\n{text}"), None, None);
        }
    }
}
