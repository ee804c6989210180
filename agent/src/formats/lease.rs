//! Leases: the configuration of a link, by DHCP, by router advertisements or by hand. The first life gets
//! them, and the second life uses and renews them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The configuration of one link. At least one kind of IP is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    pub v4: Option<Lease>,
    pub v6: Option<Lease6>,
    /// Name servers of the kernel arguments. They come before those of the leases.
    pub nameservers: Vec<IpAddr>,
}

/// An IPv4 address, and the options that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    /// The length of the network's prefix, in bits.
    pub prefix: u8,
    /// Routes beyond the link, in the order of the server.
    pub routes: Vec<Route>,
    /// All name servers, in the order of the server.
    pub nameservers: Vec<Ipv4Addr>,
    /// Domains to complete short names with.
    pub search: Vec<String>,
    /// The MTU of the link, if the server gives one.
    pub mtu: Option<u16>,
    /// The terms; `None` for an address that was given by hand.
    pub grant: Option<Grant>,
}

/// The part of an IPv6 configuration that the kernel does not do by itself. It makes addresses of the
/// prefixes that routers advertise, and routes through those routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease6 {
    /// An address by DHCPv6 or by hand, with the length of its prefix in bits.
    pub address: Option<(Ipv6Addr, u8)>,
    /// The default gateway, if it was given by hand.
    pub gateway: Option<Ipv6Addr>,
    /// Name servers, in the order of the routers and servers.
    pub nameservers: Vec<Ipv6Addr>,
    /// Domains to complete short names with.
    pub search: Vec<String>,
    /// The terms of an address by DHCPv6.
    pub grant: Option<Grant6>,
}

impl Lease6 {
    /// True for an address that was given by hand: no router and no server need to confirm it.
    pub fn is_by_hand(&self) -> bool {
        self.address.is_some() && self.grant.is_none()
    }
}

/// A route through a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpAddr,
    /// The length of the destination's prefix, in bits; 0 for a default route.
    pub prefix: u8,
    /// `0.0.0.0` or `::` for a destination on the link itself.
    pub gateway: IpAddr,
}

impl Route {
    /// The default route through `gateway`.
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
    /// The server that granted it.
    pub server: Ipv4Addr,
    /// `None` for a lease that never ends.
    pub duration: Option<Duration>,
    /// The time after which the server is asked for more (T1).
    pub renew_after: Option<Duration>,
}

/// The terms of a DHCPv6 lease (RFC 8415).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant6 {
    /// The DUID of the server that granted it.
    pub server: Vec<u8>,
    /// The valid lifetime of the address.
    pub valid: Duration,
    /// The time after which the server is asked for more (T1).
    pub renew_after: Duration,
}

impl Leases {
    /// All name servers in order, as `resolv.conf` writes them. A link-local one (RFC 8106, 5.1) needs its
    /// link: `link` is the interface index, since names change.
    pub fn nameservers(&self, link: u32) -> Vec<String> {
        let v4 = self.v4.iter().flat_map(|lease| lease.nameservers.iter().copied().map(IpAddr::V4));
        let v6 = self.v6.iter().flat_map(|lease| lease.nameservers.iter().copied().map(IpAddr::V6));
        let text = |server: IpAddr| match server {
            IpAddr::V6(address) if address.is_unicast_link_local() => format!("{address}%{link}"),
            server => server.to_string(),
        };
        self.nameservers.iter().copied().chain(v4).chain(v6).map(text).collect()
    }

    /// The search domains of both kinds, each once.
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

    /// The contents of `/etc/resolv.conf` for the link with the interface index `link`. The C library reads
    /// three servers at most (resolv.conf(5)). All are written, since other resolvers read more.
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

/// `10.0.2.15/24 by 10.0.2.2, names from 10.0.2.3, for 86400 s`
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
                None => write!(f, "{separator}an IPv6 address by router advertisement")?,
            }
        }

        // The line names the link already, so its index is left out.
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

    /// All name servers are written: first those of the kernel arguments, then those of IPv4 and of IPv6.
    #[test]
    fn name_servers_are_in_order() {
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

    /// The line on the screen names the source of the address: a prefix and gateway, or router
    /// advertisements.
    #[test]
    fn leases_are_described() {
        let leases = Leases { v6: Some(Lease6::default()), ..Leases::default() };
        assert_eq!(leases.to_string(), "an IPv6 address by router advertisement, no name server");
    }
}
