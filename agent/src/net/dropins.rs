//! Drop-ins for the target's network managers: leave our link as it is, and use its name servers. They lie in
//! documented folders below `/run`, in which no distro has files of its own. No I/O.
//!
//! | manager | drop-in | contents |
//! |---|---|---|
//! | NetworkManager | `NetworkManager/conf.d` (NetworkManager.conf(5)) | the link is unmanaged; our name servers are global |
//! | systemd-networkd, and netplan with it | `systemd/network` (systemd.network(5)) | keep its configuration |
//! | systemd-udevd | `systemd/network` (systemd.link(5)) | keep its name |
//! | systemd-resolved | `systemd/resolved.conf.d` (resolved.conf(5)) | our name servers |
//!
//! ifupdown learns it from live-boot (`nodhcp`), cloud-init from a kernel argument (`distro::casper`).
//! connman reads no such file; its changes to the link are undone ([`guard`](crate::net::guard)).

use crate::formats::lease::Leases;
use crate::formats::mac::Mac;
use std::fmt::Write as _;

const COMMENT: &str = "# Written by InetBoot: the root file system comes by this network card.\n";

/// A small file below `/run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// Relative to `/run`.
    pub path: &'static str,
    pub text: String,
}

/// The drop-ins for the card `mac` and the VLANs on it. `index` is the interface index of our link, and
/// `leases` have its name servers.
pub fn for_link(mac: Mac, index: u32, leases: &Leases) -> Vec<DropIn> {
    let servers = leases.nameservers(index);
    let search = leases.search();

    let mut manager = format!("{COMMENT}[device-inetboot]\nmatch-device=mac:{mac}\nmanaged=0\n");
    // Networkd uses the first file that matches a link and no other, so this one has the first name.
    let mut networkd = format!(
        "{COMMENT}[Match]\nMACAddress={mac}\nType=ether vlan\n\n[Network]\nDHCP=no\nKeepConfiguration=yes\n"
    );
    // Before Linux 6.2 a link that is up cannot be renamed. After a failed attempt udev never reports the
    // link as configured, so udev must not try.
    let udev = format!("{COMMENT}[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\n");
    let mut resolved = format!("{COMMENT}[Resolve]\n");

    if !servers.is_empty() {
        // Without a connection of its own, NetworkManager would write a resolv.conf without a server.
        let _ = write!(
            manager,
            "\n[global-dns]\nsearches={}\n\n[global-dns-domain-*]\nservers={}\n",
            search.join(","),
            servers.join(",")
        );
        let _ = writeln!(networkd, "DNS={}", servers.join(" "));
        let _ = writeln!(resolved, "DNS={}", servers.join(" "));
    }
    if !search.is_empty() {
        let _ = writeln!(networkd, "Domains={}", search.join(" "));
        let _ = writeln!(resolved, "Domains={}", search.join(" "));
    }

    vec![
        DropIn { path: "NetworkManager/conf.d/90-inetboot.conf", text: manager },
        DropIn { path: "systemd/network/00-inetboot.network", text: networkd },
        DropIn { path: "systemd/network/00-inetboot.link", text: udev },
        DropIn { path: "systemd/resolved.conf.d/90-inetboot.conf", text: resolved },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::lease::Lease6;

    /// Each manager is told the link and its name servers, if it has any.
    #[test]
    fn managers_are_told() {
        let v6 = Lease6 {
            nameservers: vec!["fd00::53".parse().unwrap()],
            search: vec!["example.org".into()],
            ..Lease6::default()
        };
        let leases = Leases { v4: None, v6: Some(v6), nameservers: vec![[9, 9, 9, 9].into()] };

        let dropins = for_link(Mac([0x52, 0x54, 0, 0, 0, 1]), 2, &leases);
        let text = |start: &str| &dropins.iter().find(|dropin| dropin.path.starts_with(start)).unwrap().text;

        assert!(text("NetworkManager").contains("match-device=mac:52:54:00:00:00:01\nmanaged=0"));
        assert!(text("NetworkManager").contains("servers=9.9.9.9,fd00::53"));
        assert!(text("systemd/network").contains("MACAddress=52:54:00:00:00:01"));
        assert!(text("systemd/network").contains("KeepConfiguration=yes"));
        assert!(text("systemd/resolved").contains("DNS=9.9.9.9 fd00::53\nDomains=example.org"));

        let bare = for_link(Mac([0; 6]), 2, &Leases::default());
        assert!(bare.iter().all(|dropin| !dropin.text.contains("DNS=") && !dropin.text.contains("servers=")));
    }
}
