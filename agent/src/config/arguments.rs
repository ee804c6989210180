//! The kernel arguments.

use crate::base::failure::Explain;
use crate::config::net::{self, LinkName, NetConfig};
use crate::config::{Access, Boot, Config, OnFailure, Target, Wanted, WantedProfile};
use crate::formats::cmdline::{self, Word};
use crate::formats::tpm_policy::TpmPolicy;
use crate::formats::trust::Demand;
use crate::formats::url::Url;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Why the arguments are not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is nothing to boot.
    #[error("there is no netdir= among the kernel arguments")]
    NoNetdir,
    /// A kernel without an initrd, or the other way round.
    #[error("of kernel=URL and initrd=URL there is only one among the kernel arguments")]
    Half,
    /// Two things to boot.
    #[error("there are {one} and {other} among the kernel arguments, and only one can be booted")]
    Both {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A URL that cannot be used.
    #[error("{argument}={value} is no usable address: {why}")]
    BadUrl {
        /// The argument's name.
        argument: String,
        /// What was written.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Any other value that cannot be used.
    #[error("{argument}={value} is not understood: {why}")]
    BadValue {
        /// The argument's name.
        argument: String,
        /// What was written.
        value: String,
        /// What would be.
        why: &'static str,
    },
    /// An `inetboot.` argument that does not exist.
    #[error("there is no argument {given}=")]
    Unknown {
        /// What was written.
        given: String,
        /// The nearest one that exists.
        nearest: &'static str,
    },
    /// An argument that the design knows and this release does not honour yet.
    #[error("{argument} cannot be honoured by this release")]
    NotYet {
        /// The word as it was written.
        argument: String,
        /// What can be done instead.
        instead: &'static str,
    },
}

impl Explain for ConfigError {
    fn hint(&self) -> String {
        match self {
            Self::NoNetdir => {
                "Add netdir=URL of a live ISO, e.g. netdir=http://192.0.2.1/debian-live.iso".into()
            }
            Self::Half => "Write kernel=URL initrd=URL".into(),
            Self::Both { .. } => "Take one of them away".into(),
            Self::BadUrl { argument, .. } => {
                format!("Write {argument}=http://HOST/PATH or {argument}=https://HOST/PATH")
            }
            Self::BadValue { argument, .. } => format!("Correct {argument}= in the boot menu"),
            Self::Unknown { nearest, .. } => format!("Did you mean {nearest}=?"),
            Self::NotYet { instead, .. } => (*instead).into(),
        }
    }

    fn may_heal(&self) -> bool {
        false
    }
}

/// Our own arguments: all begin with `inetboot.`, so that a misspelt one can be told from a word
/// for the target.
const OURS: [&str; 11] = [
    "inetboot.ca",
    "inetboot.cache",
    "inetboot.index",
    "inetboot.key",
    "inetboot.localise",
    "inetboot.menu",
    "inetboot.onfail",
    "inetboot.pin",
    "inetboot.profile",
    "inetboot.tpm",
    "inetboot.xen",
];

/// Where what there is to boot is said.
const MENU: &str = "inetboot.menu";

/// Words that a boot loader adds for the kernel it starts, of no use to the next one.
const LOADER_WORDS: [&str; 2] = ["BOOT_IMAGE", "initrd"];

/// How long `inetboot.onfail=reboot` leaves its last words on the screen, unless `panic=` says.
const REBOOT_AFTER: Duration = Duration::from_secs(10);

/// What the arguments ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This.
    Boot(Box<Config>),
    /// What somebody will choose.
    Menu(Box<Question>),
}

/// What is known before somebody has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `inetboot.menu=`: the catalogue to choose from; `None`: the one that we brought.
    pub menu: Option<Url>,
    /// How to get there.
    pub net: NetConfig,
    /// Likewise.
    pub access: Access,
    /// All the arguments but that one, as they were written: what is chosen joins them.
    pub others: String,
    /// `inetboot.onfail=`: whoever wants a shell or a restart, and names no catalogue, is not asked.
    pub on_failure: OnFailure,
}

impl Asked {
    /// What `line` means.
    pub fn parse(line: &str) -> Result<Self, ConfigError> {
        let mut draft = Draft::default();
        let words = cmdline::words(line);
        for word in &words {
            draft.take(word)?;
        }
        draft.finish(&words)
    }
}

impl Config {
    /// What `line` means, where it says what to boot.
    pub fn parse(line: &str) -> Result<Self, ConfigError> {
        match Asked::parse(line)? {
            Asked::Boot(config) => Ok(*config),
            Asked::Menu(_) => Err(ConfigError::NoNetdir),
        }
    }
}

#[derive(Default)]
struct Draft {
    urls: Vec<Url>,
    kernel: Option<Url>,
    initrd: Option<Url>,
    menu: Option<Url>,
    index: Option<Url>,
    demand: Demand,
    profile: Option<WantedProfile>,
    target: Target,
    xen_words: Vec<String>,
    net: NetConfig,
    vlan: Option<net::VlanNames>,
    bootif: Option<[u8; 6]>,
    access: Access,
    tpm: TpmPolicy,
    on_failure: Option<String>,
    panic: Option<u64>,
    understood: Vec<String>,
}

impl Draft {
    fn take(&mut self, word: &Word) -> Result<(), ConfigError> {
        let value = word.value.clone().unwrap_or_default();
        match word.key.as_str() {
            "netdir" => self.urls = urls(&value)?,
            "kernel" => self.kernel = Some(url("kernel", &value)?),
            // Boot loaders say by the same word what they have loaded, but never by an address.
            "initrd" if value.contains("://") => self.initrd = Some(url("initrd", &value)?),
            "type" if value == "auto" => self.target.family = None,
            "type" => self.target.family = Some(value),
            "bootxen" => {
                self.target.xen = match value.as_str() {
                    "0" => None,
                    "1" => Some(Vec::new()),
                    _ => return Err(bad("bootxen", &value, "0 or 1 is wanted")),
                }
            }
            "inetboot.xen" => self.xen_words = value.split_whitespace().map(str::to_owned).collect(),
            "ip" => self.net.ip(&value).map_err(|why| bad("ip", &value, why))?,
            "vlan" => {
                self.vlan = Some(self.net.vlan(&value).map_err(|why| bad("vlan", &value, why))?);
            }
            "nameserver" => self.net.nameserver(&value).map_err(|why| bad("nameserver", &value, why))?,
            "BOOTIF" => self.bootif = Some(net::bootif(&value).map_err(|why| bad("BOOTIF", &value, why))?),
            "proxy" => self.access.proxy = Some(url("proxy", &value)?),
            "panic" => {
                self.panic = value.parse().ok();
                self.target.pass_on.push(word.raw.clone());
            }
            "inetboot.index" => self.index = Some(url("inetboot.index", &value)?),
            "inetboot.pin" => {
                let why = "sha256: and 64 hexadecimal digits are wanted";
                self.demand.pin = Some(parse_value("inetboot.pin", &value, why)?);
            }
            "inetboot.key" => {
                let why = "the second line of a minisign public key is wanted, RW...";
                self.demand.key = Some(parse_value("inetboot.key", &value, why)?);
            }
            MENU => self.menu = Some(url(MENU, &value)?),
            "inetboot.profile" if value == "none" => self.profile = Some(WantedProfile::Never),
            "inetboot.profile" => {
                self.profile = Some(WantedProfile::At(url("inetboot.profile", &value)?));
            }
            "inetboot.ca" => self.access.ca = Some(PathBuf::from(value)),
            "inetboot.cache" => {
                let why = "a device, /dev/..., or LABEL=... is wanted";
                self.access.disk = Some(parse_value("inetboot.cache", &value, why)?);
            }
            "inetboot.localise" => {
                self.access.localise = match value.as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(bad("inetboot.localise", &value, "yes or no is wanted")),
                }
            }
            "inetboot.tpm" => {
                self.tpm = parse_value("inetboot.tpm", &value, "require, try or off is wanted")?;
            }
            // The second life looks for it too.
            "inetboot.onfail" => {
                self.on_failure = Some(value);
                self.target.pass_on.push(word.raw.clone());
            }
            key if key.starts_with("inetboot.") => return Err(unknown(key)),
            key if LOADER_WORDS.contains(&key) => return Ok(()),
            _ => {
                self.target.pass_on.push(word.raw.clone());
                return Ok(());
            }
        }
        self.understood.push(word.raw.clone());
        Ok(())
    }

    /// What all of `words` mean, once they were taken.
    fn finish(mut self, words: &[Word]) -> Result<Asked, ConfigError> {
        // It is asked for when something fails; that it makes no sense is said now.
        let on_failure = self.on_failure()?;
        let boot = self.boot()?;
        self.net.settle(self.vlan.take());
        if self.net.only.is_none() {
            self.net.only = self.bootif.map(LinkName::Mac);
        }
        let Some(boot) = boot else {
            let others = cmdline::line(words.iter().filter(|word| word.key != MENU));
            let Self { menu, net, access, .. } = self;
            return Ok(Asked::Menu(Box::new(Question { menu, net, access, others, on_failure })));
        };
        if let Some(words) = &mut self.target.xen {
            *words = self.xen_words;
        }
        Ok(Asked::Boot(Box::new(Config {
            boot,
            target: self.target,
            net: self.net,
            access: self.access,
            tpm: self.tpm,
            understood: self.understood,
        })))
    }

    fn boot(&mut self) -> Result<Option<Boot>, ConfigError> {
        let urls = std::mem::take(&mut self.urls);
        let (kernel, initrd) = (self.kernel.take(), self.initrd.take());
        if self.menu.is_some() && !(urls.is_empty() && kernel.is_none() && initrd.is_none()) {
            return Err(ConfigError::Both { one: "inetboot.menu=", other: "what to boot without it" });
        }
        let plain = match (urls.as_slice(), kernel, initrd) {
            ([], Some(kernel), Some(initrd)) => Some(Boot::Files { kernel, initrd }),
            ([dir], None, None) if dir.as_str().ends_with('/') => Some(Boot::Directory(dir.clone())),
            ([], None, None) => return Ok(None),
            (_, None, None) => None,
            ([], ..) => return Err(ConfigError::Half),
            _ => return Err(ConfigError::Both { one: "netdir=", other: "kernel= or initrd=" }),
        };
        let demand = std::mem::take(&mut self.demand);
        if let Some(plain) = plain {
            // What would be passed over is refused.
            let index = "Put both into an ISO with an index";
            let drop = "Leave it out: only a live ISO is served by us later";
            let given = |is: bool, argument| is.then_some(argument);
            let asks = [
                (demand.argument(), index),
                (given(self.index.is_some(), "inetboot.index="), index),
                (given(self.target.xen.is_some(), "bootxen=1"), "Boot a live ISO that has Xen on it"),
                (given(self.target.family.is_some(), "type="), "Leave it out: there is nothing to recognise"),
                (given(self.profile.is_some(), "inetboot.profile="), drop),
                (given(self.access.disk.is_some(), "inetboot.cache="), drop),
                (given(self.access.localise, "inetboot.localise=yes"), drop),
            ];
            if let Some((argument, instead)) = asks.into_iter().find_map(|(ask, way)| Some((ask?, way))) {
                let argument = format!("{argument} with a plain kernel and initrd");
                return Err(ConfigError::NotYet { argument, instead });
            }
            return Ok(Some(plain));
        }
        let profile = self.profile.take().unwrap_or(WantedProfile::Published);
        Ok(Some(Boot::Medium(Wanted { urls, index: self.index.take(), demand, profile })))
    }

    fn on_failure(&self) -> Result<OnFailure, ConfigError> {
        let wait = self.panic.map_or(REBOOT_AFTER, Duration::from_secs);
        match self.on_failure.as_deref() {
            None | Some("wait") => Ok(OnFailure::Wait),
            Some("shell") => Ok(OnFailure::Shell),
            Some("reboot") => Ok(OnFailure::Reboot(wait)),
            Some(other) => Err(bad("inetboot.onfail", other, "wait, shell or reboot is wanted")),
        }
    }
}

impl OnFailure {
    /// What `line` asks for, even where the rest of it is not valid.
    pub fn of(line: &str) -> Self {
        let mut draft = Draft::default();
        for word in cmdline::words(line) {
            if matches!(word.key.as_str(), "inetboot.onfail" | "panic") {
                let _ = draft.take(&word);
            }
        }
        draft.on_failure().unwrap_or_default()
    }
}

/// `URL[,URL...]`; a comma may also be part of an address.
fn urls(value: &str) -> Result<Vec<Url>, ConfigError> {
    let mut urls: Vec<String> = Vec::new();
    for part in value.split(',') {
        match urls.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => urls.push(part.to_owned()),
        }
    }
    urls.iter().filter(|part| !part.is_empty()).map(|part| url("netdir", part)).collect()
}

fn url(argument: &str, value: &str) -> Result<Url, ConfigError> {
    value.parse().map_err(|why| ConfigError::BadUrl {
        argument: argument.to_owned(),
        value: value.to_owned(),
        why,
    })
}

fn parse_value<T: FromStr>(argument: &str, value: &str, why: &'static str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| bad(argument, value, why))
}

fn bad(argument: &str, value: &str, why: &'static str) -> ConfigError {
    ConfigError::BadValue { argument: argument.to_owned(), value: value.to_owned(), why }
}

fn unknown(given: &str) -> ConfigError {
    let nearest = OURS.into_iter().min_by_key(|known| distance(known, given)).unwrap_or(OURS[0]);
    ConfigError::Unknown { given: given.to_owned(), nearest }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Method;
    use proptest::prelude::*;

    const ISO: &str = "netdir=http://192.0.2.1/debian.iso";

    fn parse(rest: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("{ISO} {rest}"))
    }

    fn config(rest: &str) -> Config {
        parse(rest).unwrap()
    }

    fn refusal(line: &str) -> String {
        let error = Config::parse(line).unwrap_err();
        format!("{error}. {}", error.hint())
    }

    #[test]
    fn foreign_words_are_passed_on_unchanged_and_in_order() {
        let config =
            config("BOOT_IMAGE=/vmlinuz console=ttyS0 initrd=x.img foo=\"a b\" quiet panic=5 type=debian");
        assert_eq!(config.target.pass_on, ["console=ttyS0", "foo=\"a b\"", "quiet", "panic=5"]);
        assert_eq!(config.target.family.as_deref(), Some("debian"));
    }

    #[test]
    fn nothing_to_boot_says_what_to_write() {
        assert!(refusal("quiet").contains("Add netdir=URL"));
    }

    #[test]
    fn where_nothing_is_said_somebody_is_asked() {
        let asked = |line: &str| match Asked::parse(line) {
            Ok(Asked::Menu(question)) => *question,
            other => panic!("{line}: {other:?}"),
        };
        let question = asked("quiet ip=dhcp inetboot.menu=http://h/menu.toml console=ttyS0");
        assert_eq!(question.menu.unwrap().as_str(), "http://h/menu.toml");
        assert_eq!(question.net.method, Method::V4);
        assert_eq!(question.others, "quiet ip=dhcp console=ttyS0");
        assert_eq!(asked("inetboot.onfail=shell").on_failure, OnFailure::Shell);
        assert!(refusal(&format!("{ISO} inetboot.menu=http://h/m")).contains("only one can be booted"));
        assert!(refusal("inetboot.menu=menu.toml").contains("no usable address"));
    }

    #[test]
    fn a_plain_kernel_needs_an_initrd_and_no_image() {
        let plain = "kernel=http://h/linux initrd=http://h/initrd.gz";
        let boot = |line: &str| Config::parse(line).unwrap().boot;
        let url = |text: &str| text.parse::<Url>().unwrap();
        let files = Boot::Files { kernel: url("http://h/linux"), initrd: url("http://h/initrd.gz") };
        assert_eq!(boot(&format!("initrd=initramfs.img {plain}")), files);
        assert_eq!(boot("netdir=http://h/d-i/"), Boot::Directory(url("http://h/d-i/")));
        assert!(refusal("kernel=http://h/linux initrd=initrd.gz").contains("there is only one"));
        assert!(refusal(&format!("{ISO} {plain}")).contains("only one can be booted"));
        for ask in ["bootxen=1", "type=debian", "inetboot.localise=yes", "inetboot.profile=none"] {
            let (argument, _) = ask.split_once('=').unwrap();
            let said = refusal(&format!("{plain} {ask}"));
            assert!(said.contains(argument) && said.contains("with a plain kernel"), "{said}");
        }
    }

    #[test]
    fn an_address_that_is_none_says_why() {
        assert!(refusal("netdir=192.0.2.1/x.iso").contains("it lacks http://"));
        assert!(refusal("netdir=ftp://h/x.iso").contains("only http:// and https://"));
        assert!(refusal("netdir=http:///x.iso").contains("netdir=http:///x.iso"));
        assert!(refusal("netdir=").contains("netdir="));
    }

    #[test]
    fn a_misspelt_argument_names_the_nearest_one() {
        assert!(refusal(&format!("{ISO} inetboot.onfial=shell")).contains("Did you mean inetboot.onfail=?"));
        assert!(refusal(&format!("{ISO} inetboot.cas=x")).contains("Did you mean inetboot.ca=?"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_rather_than_ignored() {
        for words in ["vlan=0", "bootxen=yes", "ip=dhcp7"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn the_boot_loaders_card_is_used_alone() {
        let mac = LinkName::Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(config("BOOTIF=01-52-54-00-12-34-56").net.only, Some(mac.clone()));
        assert_eq!(config("BOOTIF=52:54:00:12:34:56").net.only, Some(mac));
        assert!(parse("BOOTIF=eth0").is_err());
    }

    #[test]
    fn failing_follows_onfail_and_panic_even_when_the_rest_is_wrong() {
        assert_eq!(OnFailure::of(""), OnFailure::Wait);
        let reboot = OnFailure::Reboot(Duration::from_secs(3));
        assert_eq!(OnFailure::of("inetboot.onfail=reboot panic=3"), reboot);
        assert_eq!(OnFailure::of("inetboot.onfail=reboot panic=3 inetboot.bogus=1"), reboot);
        assert!(parse("inetboot.onfail=explode").is_err());
    }

    #[test]
    fn several_addresses_are_mirrors_and_a_comma_may_be_part_of_one() {
        let config = Config::parse("netdir=http://a/x,1.iso,https://b/y.iso").unwrap();
        let Boot::Medium(wanted) = config.boot else { panic!("{config:?}") };
        let urls: Vec<&str> = wanted.urls.iter().map(Url::as_str).collect();
        assert_eq!(urls, ["http://a/x,1.iso", "https://b/y.iso"]);
        assert!(refusal("netdir=http://a/x,ftp://b/y").contains("only http:// and https://"));
    }

    #[test]
    fn what_is_demanded_of_an_index_is_understood_or_refused() {
        let digest = "ab".repeat(32);
        let config = config(&format!("inetboot.pin=sha256:{digest} inetboot.profile=none"));
        let Boot::Medium(wanted) = config.boot else { panic!("{config:?}") };
        assert_eq!(wanted.demand.pin.unwrap().to_string(), format!("sha256:{digest}"));
        assert_eq!(wanted.profile, WantedProfile::Never);
        assert!(refusal(&format!("{ISO} inetboot.pin=sha256:12")).contains("64 hexadecimal digits"));
        assert!(refusal(&format!("{ISO} inetboot.key=nonsense")).contains("minisign public key"));
    }

    #[test]
    fn a_reference_is_meant_beside_its_index() {
        let base: Url = "https://h:8443/a/b.idx?x=/y".parse().unwrap();
        let join = |reference| base.join(reference).unwrap().to_string();
        assert_eq!(join("store/"), "https://h:8443/a/store/");
        assert_eq!(join("/c.iso"), "https://h:8443/c.iso");
        assert_eq!(join("http://i/c.iso"), "http://i/c.iso");
        let bare: Url = "http://h".parse().unwrap();
        assert_eq!(bare.join("x").unwrap().as_str(), "http://h/x");
        assert_eq!(bare.join("/x").unwrap().as_str(), "http://h/x");
        assert_eq!(base.join("ftp://h/x"), None);
    }

    #[test]
    fn an_image_has_a_name() {
        let name = |text: &str| text.parse::<Url>().unwrap().file_name().to_owned();
        assert_eq!(name("http://h/a/b.iso?x=/y"), "b.iso");
        assert_eq!(name("http://h"), "image");
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,300}") {
            let _ = Config::parse(&line);
            let _ = OnFailure::of(&line);
        }
    }
}
