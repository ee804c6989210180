//! The handoff: a small text file by which the first life tells the second what it needs to know.
//!
//! It is about one boot and therefore not measured; the part of it that decides what is served is
//! measured by itself. After a line with the format's version there is one `key value` a line, and keys
//! that repeat keep their order. The same program writes it and reads it, so an unknown key is an error.

use crate::base::step::Step;
use crate::formats::disk_layout::Id;
use crate::formats::index::{Form, Place};
use crate::formats::lease::{Grant, Grant6, Lease, Lease6, Leases, Route};
use crate::formats::mac::Mac;
use crate::formats::pieces::{hex, unhex};
use crate::formats::receipt::Cost;
use crate::formats::recipe::{Condemned, IndexFile, MirrorRecord, Recipe};
use crate::formats::tpm_policy::TpmPolicy;
use crate::formats::trust::Trust;
use crate::formats::url::Url;
use crate::formats::version::Version;
use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::str::FromStr;
use std::time::Duration;

const FIRST_LINE: &str = "inetboot handoff 1";

/// The directory of the overlay, in the target's initrd.
pub const DIR: &str = "/inetboot.d";

pub const PATH: &str = "/inetboot.d/handoff";

/// The certificates to trust, if they are not Mozilla's.
pub const CA_PATH: &str = "/inetboot.d/ca.pem";

pub const INDEX_PATH: &str = "/inetboot.d/index";

pub const PROFILE_PATH: &str = "/inetboot.d/profile";

/// The event log, if anything was measured.
pub const EVENTLOG_PATH: &str = "/inetboot.d/eventlog";

/// Our arguments, in an overlay of `inetbootctl overlay`: there is no first life to read them.
pub const ARGUMENTS_PATH: &str = "/inetboot.d/arguments";

/// The directory where the target's init wants to find the CD, in such an overlay.
pub const PREMOUNT_PATH: &str = "/inetboot.d/premount";

/// Drivers for the target's kernel in such an overlay, in a directory named like the kernel's release.
pub const MODULES_PATH: &str = "/inetboot.d/lib/modules";

/// All that the second life needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// The image's address as the user wrote it, for the receipt.
    pub image: String,
    /// `proxy=`
    pub proxy: Option<Url>,
    /// The disk that keeps pieces.
    pub disk: Option<Id>,
    /// `inetboot.localise=`
    pub localise: bool,
    /// `inetboot.tpm=`
    pub tpm: TpmPolicy,
    /// The image that was booted. Its index and its profile are files of their own.
    pub recipe: Recipe,
    /// The card that reached it.
    pub mac: Mac,
    /// The VLAN on that card.
    pub vlan: Option<u16>,
    pub leases: Leases,
    /// The time of writing, since 1970. It tells how long the lease is held, and gives a clock to a machine
    /// that has none.
    pub written: Duration,
    /// The age of the lease at that time.
    pub lease_age: Duration,
    /// Modules to load, in order: absolute paths in the target's initrd.
    pub modules: Vec<String>,
    /// The directory where the target's init wants to find the CD mounted.
    pub premount: Option<String>,
    /// The cost of the first life.
    pub first: Cost,
}

/// The reason why a handoff cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoffError {
    #[error("it does not begin with \"{FIRST_LINE}\"")]
    Version,
    #[error("it lacks {0}")]
    Lacks(&'static str),
    #[error("line \"{0}\" is not understood")]
    Line(String),
}

impl Handoff {
    /// Writes the file's text. Each section below has its reader beside its writer.
    pub fn encode(&self) -> String {
        let mut lines = Lines::new();
        lines.add("url", &self.image);
        lines.add_all("proxy", &self.proxy);
        lines.add_all("disk", &self.disk);
        lines.add("localise", self.localise);
        lines.add("tpm", self.tpm);
        lines.add("mac", self.mac);
        lines.add_all("vlan", &self.vlan);
        lines.add("written-milliseconds", self.written.as_millis());
        lines.add("lease-age-seconds", self.lease_age.as_secs());
        lines.add_all("module", &self.modules);
        lines.add_all("premount", &self.premount);
        write_recipe(&mut lines, &self.recipe);
        write_leases(&mut lines, &self.leases);
        write_cost(&mut lines, &self.first);
        lines.0
    }

    /// Reads what [`Self::encode`] wrote, with the index and the profile from the files beside it.
    pub fn decode(text: &str, index: Option<Vec<u8>>, profile: Option<String>) -> Result<Self, HandoffError> {
        let mut fields = Fields::read(text)?;
        let handoff = Self {
            image: fields.one("url", parsed)?.ok_or(HandoffError::Lacks("url"))?,
            proxy: fields.one("proxy", parsed)?,
            disk: fields.one("disk", Id::parse)?,
            localise: fields.one("localise", parsed)?.unwrap_or(false),
            tpm: fields.one("tpm", parsed)?.unwrap_or_default(),
            mac: fields.one("mac", |text| Mac::parse(text, ':'))?.ok_or(HandoffError::Lacks("mac"))?,
            vlan: fields.one("vlan", parsed)?,
            written: Duration::from_millis(fields.one("written-milliseconds", parsed)?.unwrap_or(0)),
            lease_age: Duration::from_secs(fields.one("lease-age-seconds", parsed)?.unwrap_or(0)),
            modules: fields.all("module", parsed)?,
            premount: fields.one("premount", parsed)?,
            recipe: read_recipe(&mut fields, index, profile)?,
            leases: read_leases(&mut fields)?,
            first: read_cost(&mut fields)?,
        };
        fields.finish()?;
        Ok(handoff)
    }
}

fn write_recipe(lines: &mut Lines, recipe: &Recipe) {
    lines.add("length", recipe.length);
    for record in &recipe.mirrors {
        match &record.place {
            Place::File(url) => lines.add("mirror", format_args!("{FILE} {url}")),
            Place::Store { url, form } => lines.add("mirror", format_args!("{} {url}", form.name())),
        }
    }
    for (number, record) in recipe.mirrors.iter().enumerate() {
        let Some(version) = &record.version else { continue };
        lines.add("version", number);
        version.etag.iter().for_each(|etag| lines.add("etag", format_args!("{number} {etag}")));
        version.modified.iter().for_each(|date| lines.add("modified", format_args!("{number} {date}")));
    }
    for Condemned { url, why } in &recipe.wrong {
        lines.add("wrong", format_args!("{url} {why}"));
    }
    lines.add_all("index", recipe.index.as_ref().map(|index| &index.url));
    lines.add("trust", &recipe.trust);
}

fn read_recipe(
    fields: &mut Fields<'_>,
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

fn write_leases(lines: &mut Lines, leases: &Leases) {
    lines.add_all("asked-first", &leases.nameservers);
    if let Some(lease) = &leases.v4 {
        write_lease(lines, lease);
    }
    if let Some(lease) = &leases.v6 {
        write_lease6(lines, lease);
    }
}

fn read_leases(fields: &mut Fields<'_>) -> Result<Leases, HandoffError> {
    let (v4, v6) = (read_lease(fields)?, read_lease6(fields)?);
    if v4.is_none() && v6.is_none() {
        return Err(HandoffError::Lacks("address"));
    }
    Ok(Leases { v4, v6, nameservers: fields.all("asked-first", parsed)? })
}

fn write_lease(lines: &mut Lines, lease: &Lease) {
    lines.add("address", format_args!("{}/{}", lease.address, lease.prefix));
    for route in &lease.routes {
        lines.add("route", format_args!("{}/{} {}", route.destination, route.prefix, route.gateway));
    }
    lines.add_all("nameserver", &lease.nameservers);
    lines.add_all("search", &lease.search);
    lines.add_all("mtu", &lease.mtu);
    if let Some(grant) = lease.grant {
        lines.add("server", grant.server);
        lines.add_all("lease-seconds", &grant.duration.map(|time| time.as_secs()));
        lines.add_all("renew-seconds", &grant.renew_after.map(|time| time.as_secs()));
    }
}

fn read_lease(fields: &mut Fields<'_>) -> Result<Option<Lease>, HandoffError> {
    let Some((address, prefix)) = fields.one("address", slashed)? else { return Ok(None) };
    let duration = fields.one("lease-seconds", parsed)?.map(Duration::from_secs);
    let renew_after = fields.one("renew-seconds", parsed)?.map(Duration::from_secs);
    let server = fields.one("server", parsed)?;
    Ok(Some(Lease {
        address,
        prefix,
        routes: fields.all("route", route)?,
        nameservers: fields.all("nameserver", parsed)?,
        search: fields.all("search", parsed)?,
        mtu: fields.one("mtu", parsed)?,
        grant: server.map(|server| Grant { server, duration, renew_after }),
    }))
}

fn write_lease6(lines: &mut Lines, lease: &Lease6) {
    lines.add("ipv6", true);
    if let Some((address, prefix)) = lease.address {
        lines.add("address6", format_args!("{address}/{prefix}"));
    }
    lines.add_all("gateway6", &lease.gateway);
    lines.add_all("nameserver6", &lease.nameservers);
    lines.add_all("search6", &lease.search);
    if let Some(Grant6 { server, valid, renew_after }) = &lease.grant {
        lines.add("server6", hex(server));
        lines.add("lease6-seconds", valid.as_secs());
        lines.add("renew6-seconds", renew_after.as_secs());
    }
}

fn read_lease6(fields: &mut Fields<'_>) -> Result<Option<Lease6>, HandoffError> {
    if fields.one("ipv6", parsed::<bool>)?.is_none() {
        return Ok(None);
    }
    let valid = fields.one("lease6-seconds", parsed)?.map(Duration::from_secs);
    let renew_after = fields.one("renew6-seconds", parsed)?.map(Duration::from_secs);
    let grant = match fields.one("server6", unhex)? {
        None => None,
        Some(server) => Some(Grant6 {
            server,
            valid: valid.ok_or(HandoffError::Lacks("lease6-seconds"))?,
            renew_after: renew_after.ok_or(HandoffError::Lacks("renew6-seconds"))?,
        }),
    };
    Ok(Some(Lease6 {
        address: fields.one("address6", slashed)?,
        gateway: fields.one("gateway6", parsed)?,
        nameservers: fields.all("nameserver6", parsed)?,
        search: fields.all("search6", parsed)?,
        grant,
    }))
}

fn write_cost(lines: &mut Lines, cost: &Cost) {
    for (step, time) in &cost.timings {
        lines.add("took", format_args!("{} {}", step.name(), time.as_millis()));
    }
    lines.add("bytes", cost.bytes);
    lines.add("requests", cost.requests);
    lines.add("spared", cost.spared);
}

fn read_cost(fields: &mut Fields<'_>) -> Result<Cost, HandoffError> {
    Ok(Cost {
        timings: fields.all("took", took)?,
        bytes: fields.one("bytes", parsed)?.unwrap_or(0),
        requests: fields.one("requests", parsed)?.unwrap_or(0),
        spared: fields.one("spared", parsed)?.unwrap_or(0),
    })
}

/// `0 "etag"`: the number of a mirror, and a value of its.
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

/// The word for a place that is not a store.
const FILE: &str = "file";

/// The text under construction.
struct Lines(String);

impl Lines {
    fn new() -> Self {
        Self(format!("{FIRST_LINE}\n"))
    }

    fn add(&mut self, key: &str, value: impl Display) {
        self.write(key, &value);
    }

    /// A newline inside a value would be a line of its own; nothing that we carry needs one.
    fn write(&mut self, key: &str, value: &dyn Display) {
        let value = value.to_string().replace(['\n', '\r'], " ");
        let _ = writeln!(self.0, "{key} {value}");
    }

    fn add_all<'a, T: Display + 'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a T>) {
        values.into_iter().for_each(|value| self.add(key, value));
    }
}

/// The values of each key, until a reader takes them.
struct Fields<'a>(HashMap<&'a str, Vec<&'a str>>);

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, HandoffError> {
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(HandoffError::Version);
        }
        let mut fields: HashMap<_, Vec<_>> = HashMap::new();
        for line in lines {
            let (key, value) = line.split_once(' ').ok_or_else(|| HandoffError::Line(line.into()))?;
            if value.contains(char::is_control) {
                return Err(HandoffError::Line(line.into()));
            }
            fields.entry(key).or_default().push(value);
        }
        Ok(Self(fields))
    }

    fn all<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, HandoffError> {
        let values = self.0.remove(key).unwrap_or_default();
        values
            .iter()
            .map(|value| parse(value).ok_or_else(|| HandoffError::Line(format!("{key} {value}"))))
            .collect()
    }

    fn one<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, HandoffError> {
        Ok(self.all(key, parse)?.into_iter().next())
    }

    /// A line that no reader took is none of ours, or belongs to a section that is not there.
    fn finish(self) -> Result<(), HandoffError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((key, values)) => Err(HandoffError::Line(format!("{key} {}", values.join(" ")))),
        }
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
            image: "http://h/x.iso?a=b c".into(),
            proxy: Some("http://proxy:3128".parse().unwrap()),
            disk: Some(Id([3; 16])),
            localise: true,
            tpm: TpmPolicy::Require,
            recipe: unverified(),
            mac: Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
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

    /// Every value comes back as it was written, with all optional parts and with none.
    #[test]
    fn round_trip() {
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

    /// A file of another version, with a damaged value or with an unknown line, is refused.
    #[test]
    fn foreign_and_damaged_files() {
        assert_eq!(Handoff::decode("inetboot handoff 2\n", None, None), Err(HandoffError::Version));
        let damaged = handoff().encode().replace("mac 52", "mac zz");
        assert!(
            matches!(Handoff::decode(&damaged, None, None), Err(HandoffError::Line(line)) if line.starts_with("mac zz"))
        );
        let extended = handoff().encode() + "surprise 1\n";
        assert!(Handoff::decode(&extended, None, None).is_err());
    }

    /// A newline in a value does not begin another line.
    #[test]
    fn values_stay_in_their_line() {
        let evil = Handoff { premount: Some("/cd\nurl http://evil/".into()), ..handoff() };
        assert_eq!(decoded(&evil).unwrap().image, handoff().image);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Handoff::decode(&format!("{FIRST_LINE}\n{text}"), None, None);
        }
    }
}
