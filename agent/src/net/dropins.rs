//! What tells the target's network managers to leave our link as it is, and which name servers it
//! has: documented drop-ins below `/run`, which no distro has files in. Pure.
//!
//! | manager | drop-in | what it says |
//! |---|---|---|
//! | NetworkManager | `NetworkManager/conf.d` (NetworkManager.conf(5)) | the link is unmanaged; our name servers are everybody's |
//! | systemd-networkd, and netplan with it | `systemd/network` (systemd.network(5)) | keep its configuration |
//! | systemd-udevd | `systemd/network` (systemd.link(5)) | keep its name |
//! | systemd-resolved | `systemd/resolved.conf.d` (resolved.conf(5)) | our name servers |
//!
//! ifupdown is told by live-boot (`nodhcp`), cloud-init by a kernel argument (`distro::casper`).
//! connman has no such place; what it does to the link is undone (`guard.rs`).

use crate::formats::lease::Leases;
use crate::formats::mac::Mac;
use std::fmt::Write as _;

const COMMENT: &str = "# Written by InetBoot: the root file system comes by this network card.\n";

/// A small file below `/run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// Its path there.
    pub path: &'static str,
    /// Its contents.
    pub text: String,
}

/// The drop-ins for the link `index` with the card `mac`, and VLANs on that, with `leases`.
pub fn for_link(mac: Mac, index: u32, leases: &Leases) -> Vec<DropIn> {
    let servers = leases.nameservers(index);
    let search = leases.search();

    let mut manager = format!("{COMMENT}[device-inetboot]\nmatch-device=mac:{mac}\nmanaged=0\n");
    // First by name, for the first file that matches a link is its only one.
    let mut networkd = format!(
        "{COMMENT}[Match]\nMACAddress={mac}\nType=ether vlan\n\n[Network]\nDHCP=no\nKeepConfiguration=yes\n"
    );
    // Before Linux 6.2 a link that is up cannot be renamed, and what failed to be is never "configured".
    let udev = format!("{COMMENT}[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\n");
    let mut resolved = format!("{COMMENT}[Resolve]\n");
    if !servers.is_empty() {
        // Without a connection of its own it would write a resolv.conf without a server.
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

    #[test]
    fn each_manager_is_told_which_link_and_which_servers() {
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
