//! Links: sysfs (`Documentation/ABI/testing/sysfs-class-net`). Their addresses and routes:
//! rtnetlink(7).

use crate::base::console;
use crate::config::LinkName;
use crate::formats::lease::{Leases, Route};
use crate::formats::mac::Mac;
use crate::machine::drivers;
use crate::net::netlink::request;
use crate::net::rtnetlink::Request;
use crate::net::tables::{has_global_address, has_way_out};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// Where the kernel shows its links.
const SYS_CLASS_NET: &str = "/sys/class/net";

/// `ARPHRD_ETHER` of `if_arp.h`.
const ETHERNET: &str = "1";

/// Of `if.h`: switched on.
const IFF_UP: u32 = 1;

/// A wired card, or a VLAN on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name today; the target may rename it.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its hardware address: what identifies it in both lives.
    pub mac: Mac,
    /// The card that a VLAN is on, by name, and the VLAN's number.
    pub vlan: Option<(String, u16)>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.mac)
    }
}

impl Link {
    /// The wired cards of this machine, by interface index.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(SYS_CLASS_NET) else {
            return Vec::new();
        };
        let mut links: Vec<Self> = entries.flatten().filter_map(|entry| Self::read(&entry.path())).collect();
        links.sort_by_key(|link| link.index);
        links
    }

    fn read(dir: &Path) -> Option<Self> {
        let attribute =
            |name: &str| fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
        // Bridges, tunnels and the loopback have no device behind them.
        if attribute("type")? != ETHERNET || !dir.join("device").exists() || dir.join("wireless").exists() {
            return None;
        }
        Some(Self {
            name: dir.file_name()?.to_str()?.to_owned(),
            index: attribute("ifindex")?.parse().ok()?,
            mac: Mac::parse(&attribute("address")?, ':')?,
            vlan: None,
        })
    }

    /// The VLAN `id` on this card, made if it is not there yet.
    pub fn with_vlan(&self, id: u16) -> io::Result<Self> {
        drivers::load_module("8021q");
        let name = format!("{}.{id}", self.name);
        let dir = Path::new(SYS_CLASS_NET).join(&name);
        if !dir.exists() {
            request(Request::vlan(self.index, &name, id))?;
        }
        let index = fs::read_to_string(dir.join("ifindex"))?;
        let index = index.trim().parse().map_err(io::Error::other)?;
        Ok(Self { name, index, mac: self.mac, vlan: Some((self.name.clone(), id)) })
    }

    /// What it is called now: udev renames links, since Linux 6.2 even while they are up.
    pub fn name_now(&self) -> String {
        let index = self.index.to_string();
        let is_it =
            |dir: &Path| fs::read_to_string(dir.join("ifindex")).is_ok_and(|text| text.trim() == index);
        let links = fs::read_dir(SYS_CLASS_NET).into_iter().flatten().flatten();
        let now = links.map(|entry| entry.path()).find(|dir| is_it(dir));
        let name = now.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.name.clone())
    }

    /// The name of the card.
    pub fn card(&self) -> &str {
        self.vlan.as_ref().map_or(&self.name, |(card, _)| card)
    }

    /// Whether the user meant this link.
    pub fn is(&self, wanted: &LinkName) -> bool {
        match wanted {
            LinkName::Device(name) => *name == self.name,
            LinkName::Mac(mac) => *mac == self.mac,
        }
    }

    /// Whether a cable with somebody at the other end is plugged in. Only known once it is up.
    pub fn has_carrier(&self) -> bool {
        fs::read_to_string(self.sysfs().join("carrier")).is_ok_and(|text| text.trim() == "1")
    }

    /// Its directory in sysfs.
    fn sysfs(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(&self.name)
    }

    /// The card's directory there.
    pub fn card_sysfs(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(self.card())
    }

    /// Whether it has an address of IPv6 that is valid beyond the link and that nobody else has.
    pub fn has_ipv6_address(&self) -> bool {
        let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        has_global_address(&table, &self.name_now())
    }

    /// Whether there is a way out of the link by IPv6.
    pub fn has_ipv6_way_out(&self) -> bool {
        let table = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
        has_way_out(&table, &self.name_now())
    }

    /// The same link again, switched on: its card may have been unplugged and come back, its VLAN
    /// deleted.
    pub fn again(&self) -> io::Result<Self> {
        let same = |card: &Self| card.mac == self.mac;
        let card = Self::all().into_iter().find(same).ok_or(io::ErrorKind::NotFound)?;
        card.up()?;
        match &self.vlan {
            None => Ok(card),
            Some((_, id)) => {
                let link = card.with_vlan(*id)?;
                link.up()?;
                Ok(link)
            }
        }
    }

    /// Whether it is switched on.
    pub fn is_up(&self) -> bool {
        self.flags().is_ok_and(|flags| flags & IFF_UP != 0)
    }

    /// Switch it on.
    pub fn up(&self) -> io::Result<()> {
        self.change_flags(|flags| flags | IFF_UP)
    }

    /// Switch it off, as kexec wants it: a card that still writes to memory is a danger to the
    /// next kernel.
    pub fn down(&self) -> io::Result<()> {
        self.change_flags(|flags| flags & !IFF_UP)
    }

    /// By sysfs, which does what RTM_SETLINK does.
    fn change_flags(&self, change: impl FnOnce(u32) -> u32) -> io::Result<()> {
        let flags = change(self.flags()?);
        fs::write(self.flags_file(), format!("{flags:#x}"))
    }

    fn flags(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.flags_file())?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).map_err(io::Error::other)
    }

    fn flags_file(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(self.name_now()).join("flags")
    }

    /// Give it the leases' addresses, routes and MTU. Safe to repeat.
    pub fn configure(&self, leases: &Leases) -> io::Result<()> {
        if leases.v6.is_some() {
            // Also where somebody makes a router of the machine later: containers do.
            let name = self.name_now();
            let _ = fs::write(Path::new("/proc/sys/net/ipv6/conf").join(name).join("accept_ra"), "2");
        }
        if let Some(lease) = &leases.v4 {
            if let Some(mtu) = lease.mtu {
                // A card that cannot do it keeps its own.
                let path = Path::new(SYS_CLASS_NET).join(self.name_now()).join("mtu");
                let _ = fs::write(path, mtu.to_string());
            }
            request(Request::address(self.index, lease.address.into(), lease.prefix))?;
            lease.routes.iter().for_each(|route| self.add_route(route));
        }
        if let Some(lease) = &leases.v6 {
            if let Some((address, prefix)) = lease.address {
                request(Request::address(self.index, address.into(), prefix))?;
            }
            if let Some(gateway) = lease.gateway {
                self.add_route(&Route::default(gateway.into()));
            }
        }
        Ok(())
    }

    /// One that makes no sense must not take the others along; what is missing shows.
    fn add_route(&self, route: &Route) {
        if let Err(error) = request(Request::route(self.index, route)) {
            let Route { destination, prefix, gateway } = route;
            console::say(&format!("  no route to {destination}/{prefix} by {gateway}: {error}"));
        }
    }
}
