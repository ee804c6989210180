//! The kernel arguments, as one table: their names, what they take, a line of help, and the code that
//! reads each. The parser, "did you mean" and `docs/arguments.md` all come from it; a test holds the page
//! to the table.
//!
//! The words are split as the kernel splits them (`lib/cmdline.c`). Words that are not in the table are
//! the target's and reach it unchanged and in order. A new argument is one row here and one field of
//! [`Config`].

use crate::base::failure::Explain;
use crate::config::net::{self, VlanNames};
use crate::config::{
    Access, Asked, Boot, Config, LinkName, NetConfig, OnFailure, Question, Target, Wanted, WantedProfile,
};
use crate::formats::cmdline::Word;
use crate::formats::family::FamilyName;
use crate::formats::mac::Mac;
use crate::formats::tpm_policy::TpmPolicy;
use crate::formats::trust::{Demand, Key, Pin};
use crate::formats::url::Url;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One kernel argument of ours.
pub struct Argument {
    /// The part before the `=`.
    pub name: &'static str,
    /// The form of its value, for people.
    pub value: &'static str,
    /// One line of help: a sentence or two, in Markdown.
    pub help: &'static str,
    /// True where the target gets the word as well.
    is_passed_on: bool,
    /// Puts the value into the draft.
    set: fn(&mut Draft, &str) -> Result<(), Wrong>,
}

/// The reason why a value cannot be used: the end of a sentence that begins with the argument.
enum Wrong {
    Address(&'static str),
    Value(&'static str),
}

impl From<&'static str> for Wrong {
    fn from(why: &'static str) -> Self {
        Self::Value(why)
    }
}

/// Our own arguments begin with this, so that a misspelt one can be told from a word for the target.
const PREFIX: &str = "inetboot.";

const MENU: &str = "inetboot.menu";

/// Every argument, in the order of the reference page.
pub const ARGUMENTS: [Argument; 22] = [
    Argument {
        name: "netdir",
        value: "URL[,URL…]",
        help: "The image: a live ISO or its index, by `http://` or `https://`. Several addresses are \
               mirrors. A directory (its address ends in `/`) holds a plain kernel and initrd. Without \
               `netdir=` and `kernel=` there is a menu.",
        is_passed_on: false,
        set: |draft, value| {
            draft.urls = urls(value)?;
            Ok(())
        },
    },
    Argument {
        name: "type",
        value: "auto|debian|fedora|casper|knoppix",
        help: "The family of the image. `auto`, the default, recognises it.",
        is_passed_on: false,
        set: |draft, value| {
            let family = if value == "auto" { None } else { Some(word::<FamilyName>(value, FAMILIES)?) };
            draft.target.family = family;
            Ok(())
        },
    },
    Argument {
        name: "bootxen",
        value: "0|1",
        help: "`1` starts the image under the Xen hypervisor that is on it.",
        is_passed_on: false,
        set: |draft, value| {
            draft.xen = match value {
                "0" => false,
                "1" => true,
                _ => return Err("0 or 1 is wanted".into()),
            };
            Ok(())
        },
    },
    Argument {
        name: "kernel",
        value: "URL",
        help: "With `initrd=URL` and in place of `netdir=`: a plain kernel to start, and nothing else.",
        is_passed_on: false,
        set: |draft, value| {
            draft.kernel = Some(url(value)?);
            Ok(())
        },
    },
    Argument {
        name: "initrd",
        value: "URL",
        help: "The initrd for `kernel=`.",
        is_passed_on: false,
        set: |draft, value| {
            draft.initrd = Some(url(value)?);
            Ok(())
        },
    },
    Argument {
        name: "ip",
        value: "METHOD or ADDRESS::GATEWAY:NETMASK::DEVICE:none",
        help: "The address, as for the kernel's nfsroot; IPv6 in brackets. `dhcp` asks for IPv4 alone, \
               `dhcp6` for IPv6 alone, `eth0:dhcp` on one card. By default both are asked for on all cards.",
        is_passed_on: false,
        set: |draft, value| Ok(draft.net.ip(value)?),
    },
    Argument {
        name: "vlan",
        value: "NUMBER or NAME:DEVICE",
        help: "The VLAN: `vlan=7`, or `vlan=eth0.7:eth0` on that card alone.",
        is_passed_on: false,
        set: |draft, value| {
            draft.vlan = Some(draft.net.vlan(value)?);
            Ok(())
        },
    },
    Argument {
        name: "nameserver",
        value: "ADDRESS",
        help: "A name server to ask before those of the lease. May be repeated.",
        is_passed_on: false,
        set: |draft, value| Ok(draft.net.nameserver(value)?),
    },
    Argument {
        name: "BOOTIF",
        value: "MAC",
        help: "Use this network card alone. PXE loaders write it: `01-52-54-00-12-34-56`.",
        is_passed_on: false,
        set: |draft, value| {
            draft.bootif = Some(net::bootif(value)?);
            Ok(())
        },
    },
    Argument {
        name: "proxy",
        value: "URL",
        help: "An HTTP proxy. It has to allow CONNECT to the server's port.",
        is_passed_on: false,
        set: |draft, value| {
            draft.access.proxy = Some(url(value)?);
            Ok(())
        },
    },
    Argument {
        name: "panic",
        value: "SECONDS",
        help: "The pause before `inetboot.onfail=reboot` restarts the machine, 10 by default. As for the \
               kernel, `0` means never and a negative number at once. The target gets it too.",
        is_passed_on: true,
        set: |draft, value| {
            // The kernel's own argument: a value that the kernel ignores is none of our business.
            draft.panic = value.parse().ok();
            Ok(())
        },
    },
    Argument {
        name: MENU,
        value: "URL",
        help: "The catalogue to choose from, in place of an image and of the built-in catalogue.",
        is_passed_on: false,
        set: |draft, value| {
            draft.menu = Some(url(value)?);
            Ok(())
        },
    },
    Argument {
        name: "inetboot.index",
        value: "URL",
        help: "The index of the image at `netdir=`.",
        is_passed_on: false,
        set: |draft, value| {
            draft.index = Some(url(value)?);
            Ok(())
        },
    },
    Argument {
        name: "inetboot.pin",
        value: "sha256:HEX",
        help: "The digest of the index. The boot stops if the index is missing or differs.",
        is_passed_on: false,
        set: |draft, value| {
            draft.demand.pin = Some(word(value, Pin::WANTED)?);
            Ok(())
        },
    },
    Argument {
        name: "inetboot.key",
        value: "RW…",
        help: "The minisign public key that signed the index. The boot stops without its signature.",
        is_passed_on: false,
        set: |draft, value| {
            draft.demand.key = Some(word(value, Key::WANTED)?);
            Ok(())
        },
    },
    Argument {
        name: "inetboot.profile",
        value: "URL|none",
        help: "The order in which to fetch the image ahead of need. `none` ignores the index's profile as \
               well.",
        is_passed_on: false,
        set: |draft, value| {
            let at = |value| url(value).map(WantedProfile::At);
            draft.profile = Some(if value == "none" { WantedProfile::Never } else { at(value)? });
            Ok(())
        },
    },
    Argument {
        name: "inetboot.cache",
        value: "LABEL=NAME or /dev/…",
        help: "The disk that keeps what was fetched (`inetbootctl cache format`). The boot goes on without \
               it.",
        is_passed_on: false,
        set: |draft, value| {
            draft.access.disk = Some(word(value, "a device, /dev/..., or LABEL=... is wanted")?);
            Ok(())
        },
    },
    Argument {
        name: "inetboot.localise",
        value: "yes|no",
        help: "`yes` fetches all of the image in the background, to the cache or else to memory.",
        is_passed_on: false,
        set: |draft, value| {
            draft.access.localise = match value {
                "yes" => true,
                "no" => false,
                _ => return Err("yes or no is wanted".into()),
            };
            Ok(())
        },
    },
    Argument {
        name: "inetboot.ca",
        value: "/FILE",
        help: "Trust the certificates in this PEM file of the initramfs, and no others \
               (`scripts/build --add my-ca.pem=/ca.pem` puts it there).",
        is_passed_on: false,
        set: |draft, value| {
            draft.access.ca = Some(PathBuf::from(value));
            Ok(())
        },
    },
    Argument {
        name: "inetboot.tpm",
        value: "try|require|off",
        help: "`try`, the default, measures into the TPM if there is one. `require` stops without one, \
               `off` leaves it alone.",
        is_passed_on: false,
        set: |draft, value| {
            draft.tpm = word(value, "require, try or off is wanted")?;
            Ok(())
        },
    },
    Argument {
        name: "inetboot.xen",
        value: "\"WORDS\"",
        help: "Arguments for the hypervisor, after those of the menu: `inetboot.xen=\"dom0_mem=2G\"`. Needs \
               `bootxen=1`.",
        is_passed_on: false,
        set: |draft, value| {
            draft.xen_words = Some(value.split_whitespace().map(str::to_owned).collect());
            Ok(())
        },
    },
    Argument {
        name: "inetboot.onfail",
        value: "wait|shell|reboot",
        help: "After a failure `wait`, the default, retries, and a key press gives a menu. `shell` opens a \
               shell, `reboot` restarts the machine.",
        // The second life reads it from the target's command line.
        is_passed_on: true,
        set: |draft, value| {
            draft.on_failure = Some(match value {
                "wait" => OnFailure::Wait,
                "shell" => OnFailure::Shell,
                "reboot" => OnFailure::Reboot(REBOOT_AFTER),
                _ => return Err("wait, shell or reboot is wanted".into()),
            });
            Ok(())
        },
    },
];

/// The part of a row that the parser needs. The help is for the reference page, and not in the agent.
#[derive(Clone, Copy)]
struct Setter {
    name: &'static str,
    is_passed_on: bool,
    set: fn(&mut Draft, &str) -> Result<(), Wrong>,
}

/// [`ARGUMENTS`] without the help.
static SETTERS: [Setter; ARGUMENTS.len()] = {
    let mut setters = [ARGUMENTS[0].setter(); ARGUMENTS.len()];
    let mut row = 1;
    while row < setters.len() {
        setters[row] = ARGUMENTS[row].setter();
        row += 1;
    }
    setters
};

impl Argument {
    const fn setter(&self) -> Setter {
        Setter { name: self.name, is_passed_on: self.is_passed_on, set: self.set }
    }
}

const FAMILIES: &str = "auto, debian, fedora, casper or knoppix is wanted";

/// The pause of `inetboot.onfail=reboot`, unless `panic=` gives another: long enough to read the message.
const REBOOT_AFTER: Duration = Duration::from_secs(10);

/// Words that boot loaders add for the kernel that they start.
fn is_loaders(word: &Word) -> bool {
    match word.key.as_str() {
        "BOOT_IMAGE" => true,
        // Loaders name the initrd that they loaded by a path, never by an address.
        "initrd" => !word.value.as_deref().unwrap_or_default().contains("://"),
        _ => false,
    }
}

/// The reason why the arguments are not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no netdir= among the kernel arguments")]
    NoNetdir,
    #[error("kernel=URL and initrd=URL belong together, and the kernel arguments have only one of them")]
    Half,
    #[error("there are {one} and {other} among the kernel arguments, and only one can be booted")]
    Both { one: &'static str, other: &'static str },
    #[error("{argument} needs {needs}")]
    Lacks { argument: &'static str, needs: &'static str },
    #[error("{argument}={value} is not a usable address: {why}")]
    BadUrl { argument: &'static str, value: String, why: &'static str },
    #[error("{argument}={value} is not understood: {why}")]
    BadValue { argument: &'static str, value: String, why: &'static str },
    #[error("the argument {word} opens a quote and does not close it")]
    OpenQuote { word: String },
    #[error("there is no argument {given}=")]
    Unknown { given: String, nearest: &'static str },
    /// Arguments that are valid alone, but not together with what is booted.
    #[error("{argument} cannot be used {with}")]
    Excluded { argument: String, with: &'static str, instead: &'static str },
}

impl Explain for ConfigError {
    fn hint(&self) -> String {
        match self {
            Self::NoNetdir => {
                "Add netdir=URL of a live ISO, e.g. netdir=http://192.0.2.1/debian-live.iso".into()
            }
            Self::Half => "Write kernel=URL initrd=URL".into(),
            Self::Both { .. } => "Remove one of them".into(),
            Self::Lacks { argument, needs } => format!("Add {needs}, or remove {argument}"),
            Self::BadUrl { argument, .. } => {
                format!("Write {argument}=http://HOST/PATH or {argument}=https://HOST/PATH")
            }
            Self::BadValue { argument, .. } => format!("Correct {argument}= in the boot menu"),
            Self::OpenQuote { .. } => "Close the quote, or remove it".into(),
            Self::Unknown { nearest, .. } => format!("Did you mean {nearest}=?"),
            Self::Excluded { instead, .. } => (*instead).into(),
        }
    }

    fn may_heal(&self) -> bool {
        false
    }
}

impl Asked {
    /// The meaning of `words`.
    pub fn parse(words: &[Word]) -> Result<Self, ConfigError> {
        let mut draft = Draft::default();
        for word in words {
            draft.take(word)?;
        }
        draft.finish(words)
    }
}

impl Config {
    /// The meaning of `words`, where they say what to boot.
    pub fn parse(words: &[Word]) -> Result<Self, ConfigError> {
        match Asked::parse(words)? {
            Asked::Boot(config) => Ok(*config),
            Asked::Menu(_) => Err(ConfigError::NoNetdir),
        }
    }
}

impl OnFailure {
    /// The answer to a failure that `words` ask for, even where the rest of them is not valid.
    pub fn of(words: &[Word]) -> Self {
        let mut draft = Draft::default();
        for word in words.iter().filter(|word| matches!(word.key.as_str(), "inetboot.onfail" | "panic")) {
            // An invalid value is told in step 1; until then the default holds.
            let _ = draft.take(word);
        }
        draft.on_failure()
    }
}

/// The arguments that were read so far. The last of several words with one name wins.
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
    xen: bool,
    xen_words: Option<Vec<String>>,
    net: NetConfig,
    vlan: Option<VlanNames>,
    bootif: Option<Mac>,
    access: Access,
    tpm: TpmPolicy,
    on_failure: Option<OnFailure>,
    panic: Option<i32>,
    understood: Vec<Word>,
}

impl Draft {
    fn take(&mut self, word: &Word) -> Result<(), ConfigError> {
        // Passed on, such a word would swallow those that we put behind it.
        if word.has_open_quote() {
            return Err(ConfigError::OpenQuote { word: word.raw.clone() });
        }
        if is_loaders(word) {
            return Ok(());
        }

        let Some(argument) = SETTERS.iter().find(|argument| argument.name == word.key) else {
            if word.key.starts_with(PREFIX) {
                return Err(unknown(&word.key));
            }
            self.target.pass_on.push(word.raw.clone());
            return Ok(());
        };

        let value = word.value.as_deref().unwrap_or_default();
        (argument.set)(self, value).map_err(|wrong| {
            let (argument, value) = (argument.name, value.to_owned());
            match wrong {
                Wrong::Address(why) => ConfigError::BadUrl { argument, value, why },
                Wrong::Value(why) => ConfigError::BadValue { argument, value, why },
            }
        })?;
        self.understood.push(word.clone());
        if argument.is_passed_on {
            self.target.pass_on.push(word.raw.clone());
        }
        Ok(())
    }

    /// Check the arguments against each other, once all of `words` were taken.
    fn finish(mut self, words: &[Word]) -> Result<Asked, ConfigError> {
        self.net.resolve_vlan_name(self.vlan.take());
        if self.net.only.is_none() {
            self.net.only = self.bootif.map(LinkName::Mac);
        }

        let on_failure = self.on_failure();
        let Some(boot) = self.boot()? else {
            let others = words.iter().filter(|word| word.key != MENU).cloned().collect();
            let Self { menu, net, access, .. } = self;
            return Ok(Asked::Menu(Box::new(Question { menu, net, access, others, on_failure })));
        };

        self.target.xen = match (self.xen, self.xen_words) {
            (true, words) => Some(words.unwrap_or_default()),
            (false, None) => None,
            (false, Some(_)) => {
                return Err(ConfigError::Lacks { argument: "inetboot.xen=", needs: "bootxen=1" });
            }
        };
        let Self { target, net, access, tpm, understood, .. } = self;
        Ok(Asked::Boot(Box::new(Config { boot, target, net, access, tpm, understood })))
    }

    /// The thing to boot, or `None` for a menu.
    fn boot(&mut self) -> Result<Option<Boot>, ConfigError> {
        let urls = std::mem::take(&mut self.urls);
        let (kernel, initrd) = (self.kernel.take(), self.initrd.take());
        if self.menu.is_some() && !(urls.is_empty() && kernel.is_none() && initrd.is_none()) {
            return Err(ConfigError::Both { one: "inetboot.menu=", other: "something to boot without it" });
        }

        let plain = match (urls.as_slice(), kernel, initrd) {
            ([], None, None) => return Ok(None),
            ([], Some(kernel), Some(initrd)) => Some(Boot::Files { kernel, initrd }),
            ([], ..) => return Err(ConfigError::Half),
            ([dir], None, None) if dir.as_str().ends_with('/') => Some(Boot::Directory(dir.clone())),
            (_, None, None) => None,
            _ => return Err(ConfigError::Both { one: "netdir=", other: "kernel= or initrd=" }),
        };
        if let Some(plain) = plain {
            self.check_plain()?;
            return Ok(Some(plain));
        }

        let profile = self.profile.take().unwrap_or(WantedProfile::Published);
        let (index, demand) = (self.index.take(), std::mem::take(&mut self.demand));
        Ok(Some(Boot::Medium(Wanted { urls, index, demand, profile })))
    }

    /// Refuses arguments that a plain kernel and initrd would silently ignore.
    fn check_plain(&self) -> Result<(), ConfigError> {
        let index = "Put both into an ISO with an index";
        let drop = "Remove it: it works with a live ISO only";
        let given = |is: bool, argument| is.then_some(argument);
        let table = [
            (self.demand.argument(), index),
            (given(self.index.is_some(), "inetboot.index="), index),
            (given(self.xen, "bootxen=1"), "Boot a live ISO that has Xen on it"),
            (given(self.target.family.is_some(), "type="), "Remove it: there is nothing to recognise"),
            (given(self.profile.is_some(), "inetboot.profile="), drop),
            (given(self.access.disk.is_some(), "inetboot.cache="), drop),
            (given(self.access.localise, "inetboot.localise=yes"), drop),
        ];
        match table.into_iter().find_map(|(argument, instead)| Some((argument?.to_owned(), instead))) {
            Some((argument, instead)) => {
                Err(ConfigError::Excluded { argument, with: "with a plain kernel and initrd", instead })
            }
            None => Ok(()),
        }
    }

    /// `inetboot.onfail=` with the pause of `panic=`. The numbers mean what they mean to the kernel
    /// (`Documentation/admin-guide/kernel-parameters.txt`).
    fn on_failure(&self) -> OnFailure {
        match (self.on_failure.unwrap_or_default(), self.panic) {
            (OnFailure::Reboot(_), Some(0)) => OnFailure::Wait,
            (OnFailure::Reboot(_), Some(seconds)) => {
                OnFailure::Reboot(Duration::from_secs(seconds.try_into().unwrap_or(0)))
            }
            (other, _) => other,
        }
    }
}

/// `URL[,URL...]`; a comma may also be part of an address.
fn urls(value: &str) -> Result<Vec<Url>, Wrong> {
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
    urls.iter().filter(|part| !part.is_empty()).map(|part| url(part)).collect()
}

fn url(value: &str) -> Result<Url, Wrong> {
    value.parse().map_err(Wrong::Address)
}

fn word<T: FromStr>(value: &str, why: &'static str) -> Result<T, Wrong> {
    value.parse().map_err(|_| Wrong::Value(why))
}

/// `given` begins like one of our arguments and is none: names the nearest that exists.
fn unknown(given: &str) -> ConfigError {
    let ours = SETTERS.iter().map(|argument| argument.name).filter(|name| name.starts_with(PREFIX));
    let nearest = ours.min_by_key(|name| distance(name, given)).unwrap_or(MENU);
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
    use crate::formats::cmdline;
    use proptest::prelude::*;

    const ISO: &str = "netdir=http://192.0.2.1/debian.iso";

    fn parse(rest: &str) -> Result<Config, ConfigError> {
        Config::parse(&cmdline::words(&format!("{ISO} {rest}")))
    }

    fn config(rest: &str) -> Config {
        parse(rest).unwrap()
    }

    fn refusal(line: &str) -> String {
        let error = Config::parse(&cmdline::words(line)).unwrap_err();
        format!("{error}. {}", error.hint())
    }

    #[test]
    fn foreign_words_are_passed_on_unchanged_and_in_order() {
        let config =
            config("BOOT_IMAGE=/vmlinuz console=ttyS0 initrd=x.img foo=\"a b\" quiet panic=5 type=debian");
        assert_eq!(config.target.pass_on, ["console=ttyS0", "foo=\"a b\"", "quiet", "panic=5"]);
        assert_eq!(config.target.family, Some(FamilyName::Debian));
    }

    #[test]
    fn nothing_to_boot_says_what_to_write() {
        assert!(refusal("quiet").contains("Add netdir=URL"));
    }

    #[test]
    fn where_nothing_is_said_somebody_is_asked() {
        let asked = |line: &str| match Asked::parse(&cmdline::words(line)) {
            Ok(Asked::Menu(question)) => *question,
            other => panic!("{line}: {other:?}"),
        };
        let question = asked("quiet ip=dhcp inetboot.menu=http://h/menu.toml console=ttyS0");
        assert_eq!(question.menu.unwrap().as_str(), "http://h/menu.toml");
        assert_eq!(question.net.method, Method::V4);
        assert_eq!(cmdline::line(&question.others), "quiet ip=dhcp console=ttyS0");
        assert_eq!(asked("inetboot.onfail=shell").on_failure, OnFailure::Shell);
        assert!(refusal(&format!("{ISO} inetboot.menu=http://h/m")).contains("only one can be booted"));
        assert!(refusal("inetboot.menu=menu.toml").contains("is not a usable address"));
    }

    #[test]
    fn a_plain_kernel_needs_an_initrd_and_no_image() {
        let plain = "kernel=http://h/linux initrd=http://h/initrd.gz";
        let boot = |line: &str| Config::parse(&cmdline::words(line)).unwrap().boot;
        let url = |text: &str| text.parse::<Url>().unwrap();
        let files = Boot::Files { kernel: url("http://h/linux"), initrd: url("http://h/initrd.gz") };
        assert_eq!(boot(&format!("initrd=initramfs.img {plain}")), files);
        assert_eq!(boot("netdir=http://h/d-i/"), Boot::Directory(url("http://h/d-i/")));
        assert!(refusal("kernel=http://h/linux initrd=initrd.gz").contains("belong together"));
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

    /// B11: a misspelt family is refused before the network is asked for anything.
    #[test]
    fn unknown_families_are_refused() {
        let said = refusal(&format!("{ISO} type=beos"));
        assert!(said.contains("type=beos is not understood") && said.contains("knoppix is wanted"), "{said}");
        for family in FamilyName::ALL {
            assert!(FAMILIES.contains(family.word()), "{family}");
        }
    }

    /// B10: arguments for a hypervisor that is not started are refused.
    #[test]
    fn hypervisor_arguments_need_a_hypervisor() {
        assert!(refusal(&format!("{ISO} inetboot.xen=dom0_mem=2G")).contains("needs bootxen=1"));
        assert_eq!(config("inetboot.xen=\"a b\" bootxen=1").target.xen.unwrap(), ["a", "b"]);
    }

    /// B1: a word with an open quote would swallow the words behind it, in our hands or the target's.
    #[test]
    fn open_quotes_are_refused() {
        assert!(refusal(&format!("{ISO} x=\"")).contains("opens a quote"));
        let mut words = cmdline::words("netdir=http://h/x x=\"");
        words.extend(cmdline::words("inetboot.tpm=require"));
        assert!(matches!(Config::parse(&words), Err(ConfigError::OpenQuote { .. })));
    }

    /// `panic=` has the kernel's meaning: 0 never restarts, a negative number restarts at once.
    #[test]
    fn panic_means_what_it_means_to_the_kernel() {
        let on_failure = |line: &str| OnFailure::of(&cmdline::words(line));
        assert_eq!(on_failure("inetboot.onfail=reboot panic=0"), OnFailure::Wait);
        assert_eq!(on_failure("panic=-1 inetboot.onfail=reboot"), OnFailure::Reboot(Duration::ZERO));
        assert_eq!(on_failure("inetboot.onfail=reboot"), OnFailure::Reboot(REBOOT_AFTER));
        assert_eq!(on_failure("inetboot.onfail=shell panic=0"), OnFailure::Shell);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_rather_than_ignored() {
        for words in ["vlan=0", "bootxen=yes", "ip=dhcp7"] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn the_boot_loaders_card_is_used_alone() {
        let mac = LinkName::Mac(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(config("BOOTIF=01-52-54-00-12-34-56").net.only, Some(mac.clone()));
        assert_eq!(config("BOOTIF=52:54:00:12:34:56").net.only, Some(mac));
        assert!(parse("BOOTIF=eth0").is_err());
    }

    #[test]
    fn failing_follows_onfail_and_panic_even_when_the_rest_is_wrong() {
        let on_failure = |line: &str| OnFailure::of(&cmdline::words(line));
        assert_eq!(on_failure(""), OnFailure::Wait);
        let reboot = OnFailure::Reboot(Duration::from_secs(3));
        assert_eq!(on_failure("inetboot.onfail=reboot panic=3"), reboot);
        assert_eq!(on_failure("inetboot.onfail=reboot panic=3 inetboot.bogus=1"), reboot);
        assert!(parse("inetboot.onfail=explode").is_err());
    }

    #[test]
    fn several_addresses_are_mirrors_and_a_comma_may_be_part_of_one() {
        let config = Config::parse(&cmdline::words("netdir=http://a/x,1.iso,https://b/y.iso")).unwrap();
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

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,300}") {
            let _ = Config::parse(&cmdline::words(&line));
            let _ = OnFailure::of(&cmdline::words(&line));
        }
    }
}
