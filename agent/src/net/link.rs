//! One link: its state and its switch in sysfs (`Documentation/ABI/testing/sysfs-class-net`), its addresses
//! and routes by `netlink`.

use crate::base::console;
use crate::config::LinkName;
use crate::formats::lease::{Leases, Route};
use crate::formats::mac::Mac;
use crate::machine::drivers;
use crate::net::netlink::request;
use crate::net::rtnetlink::Request;
use crate::net::tables;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// The kernel's folder with one folder for each link.
const SYS_CLASS_NET: &str = "/sys/class/net";

/// `ARPHRD_ETHER` of `if_arp.h`.
const ETHERNET: &str = "1";

/// Of `if.h`: the link is switched on.
const IFF_UP: u32 = 1;

/// A wired card, or a VLAN on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The name when it was found. The target may rename it.
    pub name: String,
    /// The interface index. It stays until the card is unplugged.
    pub index: u32,
    /// The hardware address, by which both lives know it.
    pub mac: Mac,
    /// `None` for the card itself.
    pub vlan: Option<Vlan>,
}

/// A link that carries the frames of one VLAN (IEEE 802.1Q).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The name of the card below it.
    pub parent: String,
    /// 1 to 4094.
    pub id: u16,
}

/// `eth0 (52:54:00:12:34:56)`
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
        let mut links: Vec<Self> =
            entries.flatten().filter_map(|entry| Self::from_sysfs(&entry.path())).collect();
        links.sort_by_key(|link| link.index);
        links
    }

    /// The card in the folder `dir` of sysfs; `None` for links of other kinds.
    fn from_sysfs(dir: &Path) -> Option<Self> {
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

    /// The VLAN `id` on this card. It is made unless it is there already.
    pub(super) fn with_vlan(&self, id: u16) -> io::Result<Self> {
        drivers::load_module("8021q");
        let name = format!("{}.{id}", self.name);
        let dir = Path::new(SYS_CLASS_NET).join(&name);
        if !dir.exists() {
            request(Request::vlan(self.index, &name, id))?;
        }
        let index = fs::read_to_string(dir.join("ifindex"))?;
        let index = index.trim().parse().map_err(io::Error::other)?;
        Ok(Self { name, index, mac: self.mac, vlan: Some(Vlan { parent: self.name.clone(), id }) })
    }

    /// Its present name. udev renames links, since Linux 6.2 even while they are up.
    pub(super) fn current_name(&self) -> String {
        let index = self.index.to_string();
        let is_this =
            |dir: &Path| fs::read_to_string(dir.join("ifindex")).is_ok_and(|text| text.trim() == index);
        let links = fs::read_dir(SYS_CLASS_NET).into_iter().flatten().flatten();
        let now = links.map(|entry| entry.path()).find(|dir| is_this(dir));
        let name = now.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.name.clone())
    }

    /// The name of the card: its own, or that of the card below the VLAN.
    fn card_name(&self) -> &str {
        self.vlan.as_ref().map_or(&self.name, |vlan| &vlan.parent)
    }

    /// True if `wanted` names this link.
    pub(super) fn matches(&self, wanted: &LinkName) -> bool {
        match wanted {
            LinkName::Device(name) => *name == self.name,
            LinkName::Mac(mac) => *mac == self.mac,
        }
    }

    /// True if a cable is plugged in and its other end is alive. It is known of links that are up alone.
    pub(super) fn has_carrier(&self) -> bool {
        fs::read_to_string(self.sysfs().join("carrier")).is_ok_and(|text| text.trim() == "1")
    }

    fn sysfs(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(&self.name)
    }

    /// The card's folder in sysfs.
    pub fn card_sysfs(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(self.card_name())
    }

    /// True if it has a usable IPv6 address that is valid beyond the link.
    pub(super) fn has_ipv6_address(&self) -> bool {
        tables::has_global_ipv6_address(&self.current_name())
    }

    /// True if a default route for IPv6 leads through it.
    pub(super) fn has_ipv6_default_route(&self) -> bool {
        tables::has_ipv6_default_route(&self.current_name())
    }

    /// Finds the same link, and switches it on: its card may have been unplugged and have come back, or its
    /// VLAN may have been deleted.
    pub(super) fn find_again(&self) -> io::Result<Self> {
        let same = |card: &Self| card.mac == self.mac;
        let card = Self::all().into_iter().find(same);
        let card = card.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its card is unplugged"))?;
        card.up()?;

        match &self.vlan {
            None => Ok(card),
            Some(vlan) => {
                let link = card.with_vlan(vlan.id)?;
                link.up()?;
                Ok(link)
            }
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.flags().is_ok_and(|flags| flags & IFF_UP != 0)
    }

    /// Switches it on.
    pub(super) fn up(&self) -> io::Result<()> {
        self.change_flags(|flags| flags | IFF_UP)
    }

    /// Switches it off. A card that is up at a kexec may write into the memory of the next kernel.
    pub fn down(&self) -> io::Result<()> {
        self.change_flags(|flags| flags & !IFF_UP)
    }

    /// By sysfs, which has the same effect as RTM_SETLINK.
    fn change_flags(&self, change: impl FnOnce(u32) -> u32) -> io::Result<()> {
        let flags = change(self.flags()?);
        fs::write(self.flags_file(), format!("{flags:#x}"))
    }

    fn flags(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.flags_file())?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).map_err(io::Error::other)
    }

    fn flags_file(&self) -> PathBuf {
        Path::new(SYS_CLASS_NET).join(self.current_name()).join("flags")
    }

    /// Gives it the addresses, routes and MTU of `leases`. Those that it has already stay.
    pub(super) fn configure(&self, leases: &Leases) -> io::Result<()> {
        if leases.v6.is_some() {
            // Accept advertisements even when the machine forwards packets later, for containers.
            let name = self.current_name();
            let _ = fs::write(Path::new("/proc/sys/net/ipv6/conf").join(name).join("accept_ra"), "2");
        }

        if let Some(lease) = &leases.v4 {
            if let Some(mtu) = lease.mtu {
                // A card that does not support it keeps its own.
                let path = Path::new(SYS_CLASS_NET).join(self.current_name()).join("mtu");
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

    /// DHCP servers send routes that the kernel refuses. Such a route costs a line on the screen, no more.
    fn add_route(&self, route: &Route) {
        if let Err(error) = request(Request::route(self.index, route)) {
            let Route { destination, prefix, gateway } = route;
            console::say(&format!("  cannot add the route to {destination}/{prefix} by {gateway}: {error}"));
        }
    }
}
