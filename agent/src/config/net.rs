//! The network's kernel arguments, `ip=`, `vlan=`, `nameserver=` and `BOOTIF=`: as in the kernel's
//! `Documentation/admin-guide/nfs/nfsroot.rst`, and in dracut.cmdline(7) for those that the kernel lacks.

use crate::formats::mac::Mac;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The configuration of the network that the kernel arguments ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetConfig {
    /// The source of the address, by `ip=`.
    pub method: Method,
    /// The name servers of `nameserver=` and `ip=`. They come before those of the lease.
    pub nameservers: Vec<IpAddr>,
    /// The only card to use, if one is named: by `ip=…:DEVICE:…`, by `vlan=…:DEVICE` or by `BOOTIF=`.
    pub only: Option<LinkName>,
    /// The number of the VLAN on the card, by `vlan=`.
    pub vlan: Option<u16>,
}

/// The names in `vlan=`: that of the VLAN, and that of the card below it. `ip=` may use either.
#[derive(Debug)]
pub(in crate::config) struct VlanNames {
    name: String,
    device: Option<LinkName>,
}

/// The source of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// DHCP and IPv6, both at once.
    #[default]
    Any,
    /// DHCP of IPv4 alone.
    V4,
    /// Router advertisements and DHCPv6 alone.
    V6,
    /// The kernel arguments themselves.
    Fixed(Fixed),
}

/// A link as the user or the boot loader names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkName {
    /// `eth0`
    Device(String),
    /// `52:54:00:12:34:56`
    Mac(Mac),
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => f.write_str(name),
            Self::Mac(mac) => write!(f, "{mac}"),
        }
    }
}

/// An address given by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub address: IpAddr,
    /// The length of the network's prefix, in bits.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<IpAddr>,
}

impl NetConfig {
    /// Modules that it needs besides the driver of a card.
    pub fn modules(&self) -> &'static [&'static str] {
        if self.vlan.is_some() { &["8021q"] } else { &[] }
    }

    /// Takes `ip=METHOD`, `ip=DEVICE:METHOD`, or
    /// `ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:METHOD:DNS0:DNS1`, with IPv6 addresses in brackets.
    pub(in crate::config) fn ip(&mut self, value: &str) -> Result<(), &'static str> {
        const WANTED: &str = "ip=dhcp, ip=dhcp6 or ip=ADDRESS::GATEWAY:NETMASK::DEVICE:none is wanted";
        let fields = fields(value);
        if let [word] = fields[..] {
            self.method = method(word).ok_or(WANTED)?;
            return Ok(());
        }
        if let [device, word] = fields[..]
            && let Some(method) = method(word)
        {
            self.method = method;
            self.only = Some(device_named(device));
            return Ok(());
        }

        let field = |n: usize| fields.get(n).copied().filter(|text| !text.is_empty());
        if let Some(device) = field(5) {
            self.only = Some(device_named(device));
        }
        for server in [field(7), field(8)].into_iter().flatten() {
            self.nameservers.push(address(server).ok_or("its name server is not an address")?);
        }
        self.method = match field(0) {
            Some(client) => Method::Fixed(fixed(client, field(2), field(3))?),
            // Only a device and its method.
            None => field(6).map_or(Some(Method::Any), method).ok_or(WANTED)?,
        };
        Ok(())
    }

    /// Takes `vlan=5`, `vlan=eth0.5`, `vlan=vlan0005:eth0` or `vlan=eth0.5:eth0`.
    pub(in crate::config) fn vlan(&mut self, value: &str) -> Result<VlanNames, &'static str> {
        let (name, device) = match value.split_once(':') {
            Some((name, device)) => (name, Some(device)),
            None => (value, name_before_dot(value)),
        };

        let digits = name.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        match digits.parse() {
            // 0 and 4095 are reserved (IEEE 802.1Q, 9.6).
            Ok(id @ 1..=4094) => self.vlan = Some(id),
            _ => return Err("a number from 1 to 4094 is wanted: vlan=5, or vlan=eth0.5:eth0"),
        }

        let device = device.filter(|device| !device.is_empty()).map(device_named);
        Ok(VlanNames { name: name.to_owned(), device })
    }

    /// Call this once all arguments were taken. If `ip=` names the VLAN, the card is the one below it.
    pub(in crate::config) fn resolve_vlan_name(&mut self, vlan: Option<VlanNames>) {
        if let Some(VlanNames { name, device }) = vlan
            && self.only.as_ref().is_none_or(|only| *only == LinkName::Device(name))
        {
            self.only = device;
        }
    }

    /// Takes `nameserver=9.9.9.9` or `nameserver=[2620:fe::fe]`.
    pub(in crate::config) fn nameserver(&mut self, value: &str) -> Result<(), &'static str> {
        self.nameservers.push(address(value).ok_or("an address is wanted")?);
        Ok(())
    }
}

/// Parses `BOOTIF=`. PXELINUX writes the hardware type before the address: `01-52-54-00-12-34-56`. Users of
/// iPXE write colons, and no type.
pub(in crate::config) fn bootif(value: &str) -> Result<Mac, &'static str> {
    let dashed = value.to_ascii_lowercase().replace(':', "-");
    let bare = match dashed.len() {
        20 => dashed.get(3..).unwrap_or_default(),
        _ => &dashed,
    };
    Mac::parse(bare, '-').ok_or("01-52-54-00-12-34-56 or 52:54:00:12:34:56 is wanted")
}

fn method(word: &str) -> Option<Method> {
    match word {
        "on" | "any" => Some(Method::Any),
        "dhcp" => Some(Method::V4),
        "dhcp6" | "auto6" | "either6" => Some(Method::V6),
        _ => None,
    }
}

fn device_named(name: &str) -> LinkName {
    Mac::parse(name, '-').map_or_else(|| LinkName::Device(name.to_owned()), LinkName::Mac)
}

/// The address of `ip=`, with its gateway and netmask if they are given.
fn fixed(client: &str, gateway: Option<&str>, netmask: Option<&str>) -> Result<Fixed, &'static str> {
    // Both [fd00::2]/64 and [fd00::2/64] are in use.
    let bare = client.replace(['[', ']'], "");
    let (client, slash) = match bare.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (bare.as_str(), None),
    };
    let client = address(client).ok_or("its first field is not an address")?;

    let prefix = match slash.or(netmask) {
        None => usual_prefix(client),
        Some(mask) => prefix(mask, client).ok_or("its netmask is not of the form 255.255.255.0 or 24")?,
    };
    let gateway = gateway.map(|text| address(text).ok_or("its gateway is not an address")).transpose()?;
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != client.is_ipv4()) {
        return Err("its address and its gateway are not both IPv4 or both IPv6");
    }
    Ok(Fixed { address: client, prefix, gateway })
}

/// `eth0` of `eth0.5`
fn name_before_dot(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(device, _)| device)
}

/// The fields between the colons that are not in brackets.
fn fields(value: &str) -> Vec<&str> {
    let mut inside = false;
    value
        .split(|c: char| {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                _ => {}
            }
            c == ':' && !inside
        })
        .collect()
}

/// An address. Brackets around one of IPv6 are optional.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

/// The length of the prefix that `255.255.255.0` or `24` means. IPv6 has the second form alone.
fn prefix(mask: &str, of: IpAddr) -> Option<u8> {
    let longest = if of.is_ipv4() { 32 } else { 128 };
    if let Ok(bits) = mask.parse::<u8>() {
        return (bits <= longest).then_some(bits);
    }

    let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    (of.is_ipv4() && (mask.leading_ones() + mask.trailing_zeros() == 32 || mask == 0))
        .then_some(mask.leading_ones() as u8)
}

/// The length of the prefix that the kernel assumes if `ip=` gives no mask.
fn usual_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V6(_) => 64,
        IpAddr::V4(address) => match address.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            _ => 24,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(value: &str) -> NetConfig {
        let mut net = NetConfig::default();
        net.ip(value).unwrap();
        net
    }

    fn fixed(value: &str) -> (String, u8, Option<IpAddr>) {
        let Method::Fixed(Fixed { address, prefix, gateway }) = ip(value).method else { panic!("{value}") };
        (address.to_string(), prefix, gateway)
    }

    /// A static address has the kernel's form, with the kernel's default for the netmask.
    #[test]
    fn static_addresses() {
        let whole = "10.0.0.9::10.0.0.1:255.255.255.0:box:eth1:none:9.9.9.9";
        assert_eq!(fixed(whole), ("10.0.0.9".into(), 24, Some([10, 0, 0, 1].into())));
        assert_eq!(ip(whole).only, Some(LinkName::Device("eth1".into())));
        assert_eq!(ip(whole).nameservers, [IpAddr::from([9, 9, 9, 9])]);
        assert_eq!(fixed("192.168.1.2::").1, 24);
        assert_eq!(ip(":::::eth0:dhcp").method, Method::V4);
        assert_eq!(ip("any"), NetConfig::default());
        for bad in ["fast", "10.0.0.300::", "10.0.0.1:::255.0.255.0", "10.0.0.1::[fd00::1]:24"] {
            assert!(NetConfig::default().ip(bad).is_err(), "{bad}");
        }
    }

    /// IPv6 addresses are in brackets, and have a prefix in one of three places.
    #[test]
    fn ipv6_addresses() {
        let whole = "[2001:db8::9]::[2001:db8::1]:64::eth0:none:[2620:fe::fe]";
        assert_eq!(fixed(whole), ("2001:db8::9".into(), 64, Some("2001:db8::1".parse().unwrap())));
        assert_eq!(ip(whole).nameservers, ["2620:fe::fe".parse::<IpAddr>().unwrap()]);
        assert_eq!(fixed("[fd00::2/48]:::::eth0:none").1, 48);
        assert_eq!(fixed("[fd00::2]/48:::::eth0:none").1, 48);
        for word in ["dhcp6", "auto6", "either6"] {
            assert_eq!(ip(word).method, Method::V6);
        }
        let on_a_card = ip("eth1:dhcp6");
        assert_eq!((on_a_card.method, on_a_card.only), (Method::V6, Some(LinkName::Device("eth1".into()))));
    }

    /// A VLAN is a number on one card or on any. `ip=` may name the VLAN, before or after `vlan=`.
    #[test]
    fn vlans() {
        let vlan = |value: &str| {
            let mut net = NetConfig::default();
            net.vlan(value).map(|names| {
                net.resolve_vlan_name(Some(names));
                (net.vlan, net.only.map(|only| only.to_string()))
            })
        };
        assert_eq!(vlan("7"), Ok((Some(7), None)));
        assert_eq!(vlan("eth0.7"), Ok((Some(7), Some("eth0".into()))));
        for name in ["vlan0007:eth1", "vlan7:eth1", "eth1.0007:eth1"] {
            assert_eq!(vlan(name), Ok((Some(7), Some("eth1".into()))), "{name}");
        }

        for first in [true, false] {
            let mut net = NetConfig::default();
            let before = first.then(|| net.vlan("vlan5:eth0").unwrap());
            net.ip("vlan5:dhcp").unwrap();
            let names = before.unwrap_or_else(|| net.vlan("vlan5:eth0").unwrap());
            net.resolve_vlan_name(Some(names));
            assert_eq!((net.vlan, net.only), (Some(5), Some(LinkName::Device("eth0".into()))));
        }

        for bad in ["", "eth0", "0", "4095", "x:eth0"] {
            assert!(vlan(bad).is_err(), "{bad}");
        }
    }
}
