//! What a network told us, or the user: values that both lives share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What a link has of both kinds of networks; at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// Of IPv4.
    pub v4: Option<Lease>,
    /// Of IPv6.
    pub v6: Option<Lease6>,
    /// Name servers that the user gave; asked before the others.
    pub nameservers: Vec<IpAddr>,
}

/// An IPv4 address on a network, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix.
    pub prefix: u8,
    /// Routes beyond the link, in the order they were given.
    pub routes: Vec<Route>,
    /// Name servers, most wanted first; all of them are kept.
    pub nameservers: Vec<Ipv4Addr>,
    /// Domains to complete short names with.
    pub search: Vec<String>,
    /// The link's MTU, where the network says so.
    pub mtu: Option<u16>,
    /// Who granted it and for how long; `None` for an address given by hand.
    pub grant: Option<Grant>,
}

/// What of IPv6 the kernel does not do by itself: it makes addresses of the prefixes that routers
/// advertise, and routes by those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease6 {
    /// An address of DHCPv6 or by hand, and bits of its prefix.
    pub address: Option<(Ipv6Addr, u8)>,
    /// The way out of the network, where it was given by hand.
    pub gateway: Option<Ipv6Addr>,
    /// Name servers, most wanted first.
    pub nameservers: Vec<Ipv6Addr>,
    /// Domains to complete short names with.
    pub search: Vec<String>,
    /// Who granted the address and for how long.
    pub grant: Option<Grant6>,
}

/// A way out of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpAddr,
    /// Bits of the destination's prefix; 0 for everywhere.
    pub prefix: u8,
    /// Through whom; `0.0.0.0` or `::` for a destination on the link.
    pub gateway: IpAddr,
}

impl Route {
    /// The way to everywhere, by `gateway`.
    pub fn default(gateway: IpAddr) -> Self {
        let destination = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { destination, prefix: 0, gateway }
    }
}

/// The terms of a DHCP lease (RFC 2131).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The server that keeps it.
    pub server: Ipv4Addr,
    /// For how long; `None` is for ever.
    pub duration: Option<Duration>,
    /// When to ask the server for more (T1).
    pub renew_after: Option<Duration>,
}

/// The terms of a DHCPv6 lease (RFC 8415).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant6 {
    /// The server that keeps it, by its DUID.
    pub server: Vec<u8>,
    /// For how long.
    pub valid: Duration,
    /// When to ask the server for more (T1).
    pub renew_after: Duration,
}

impl Leases {
    /// All name servers, most wanted first, as `resolv.conf` wants them. One that is known on the
    /// link only (RFC 8106, 5.1) needs to be told on which: `link` is its index, as names change.
    pub fn nameservers(&self, link: u32) -> Vec<String> {
        let v4 = self.v4.iter().flat_map(|lease| lease.nameservers.iter().copied().map(IpAddr::V4));
        let v6 = self.v6.iter().flat_map(|lease| lease.nameservers.iter().copied().map(IpAddr::V6));
        let text = |server: IpAddr| match server {
            IpAddr::V6(address) if address.is_unicast_link_local() => format!("{address}%{link}"),
            server => server.to_string(),
        };
        self.nameservers.iter().copied().chain(v4).chain(v6).map(text).collect()
    }

    /// Domains to complete short names with.
    pub fn search(&self) -> Vec<&str> {
        let v4 = self.v4.iter().flat_map(|lease| &lease.search);
        let v6 = self.v6.iter().flat_map(|lease| &lease.search);
        let mut all: Vec<&str> = Vec::new();
        for domain in v4.chain(v6) {
            if !all.contains(&domain.as_str()) {
                all.push(domain);
            }
        }
        all
    }

    /// The contents of `/etc/resolv.conf` on the link of that index. The C library reads three servers at most; all are
    /// written, so that whoever reads more finds more.
    pub fn resolv_conf(&self, link: u32) -> String {
        let mut text = String::new();
        let search = self.search();
        if !search.is_empty() {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        for server in self.nameservers(link) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        text.push_str("options timeout:2 attempts:3\n");
        text
    }
}

impl fmt::Display for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(Lease { address, prefix, routes, .. }) = &self.v4 {
            write!(f, "{address}/{prefix}")?;
            for route in routes.iter().filter(|route| route.prefix == 0) {
                write!(f, " by {}", route.gateway)?;
            }
            separator = " and ";
        }
        if let Some(lease) = &self.v6 {
            match lease.address {
                Some((address, _)) => write!(f, "{separator}{address}")?,
                None => write!(f, "{separator}an IPv6 address as routers say")?,
            }
        }
        // On which link is said already.
        let servers = self.nameservers(0).join(" ").replace("%0", "");
        match servers.as_str() {
            "" => write!(f, ", no name server")?,
            servers => write!(f, ", names from {servers}")?,
        }
        match &self.v4 {
            Some(Lease { grant: None, .. }) => write!(f, ", given by hand"),
            Some(Lease { grant: Some(Grant { duration: Some(duration), .. }), .. }) => {
                write!(f, ", for {} s", duration.as_secs())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_server_is_kept_the_users_first() {
        let lease = Lease {
            address: [10, 0, 0, 2].into(),
            prefix: 8,
            routes: Vec::new(),
            nameservers: (1..6).map(|n| Ipv4Addr::new(9, 9, 9, n)).collect(),
            search: vec!["example.org".into()],
            mtu: None,
            grant: None,
        };
        let v6 = Lease6 {
            nameservers: vec!["fd00::53".parse().unwrap(), "fe80::53".parse().unwrap()],
            search: vec!["example.org".into(), "example.net".into()],
            ..Lease6::default()
        };
        let leases = Leases { v4: Some(lease), v6: Some(v6), nameservers: vec![[1, 1, 1, 1].into()] };
        let text = leases.resolv_conf(3);
        assert_eq!(text.matches("nameserver 9.9.9.").count(), 5);
        assert!(text.starts_with("search example.org example.net\nnameserver 1.1.1.1\n"), "{text}");
        assert!(text.contains("nameserver fd00::53\nnameserver fe80::53%3\n"), "{text}");
    }
}
