//! What a network told us, or the user: a value that both lives share.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// An address on a network, and what goes with it.
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

/// A way out of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Addr,
    /// Bits of the destination's prefix; 0 for everywhere.
    pub prefix: u8,
    /// Through whom; `0.0.0.0` for a destination on the link.
    pub gateway: Ipv4Addr,
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

impl Lease {
    /// The contents of `/etc/resolv.conf`. The C library reads three servers at most; all are
    /// written, so that whoever reads more finds more.
    pub fn resolv_conf(&self) -> String {
        let mut text = String::new();
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        text.push_str("options timeout:2 attempts:3\n");
        text
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        for route in self.routes.iter().filter(|route| route.prefix == 0) {
            write!(f, " by {}", route.gateway)?;
        }
        match self.nameservers.as_slice() {
            [] => write!(f, ", no name server")?,
            servers => write!(
                f,
                ", names from {}",
                servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            )?,
        }
        match self.grant {
            None => write!(f, ", given by hand"),
            Some(Grant { duration: Some(duration), .. }) => write!(f, ", for {} s", duration.as_secs()),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_server_is_kept() {
        let lease = Lease {
            address: [10, 0, 0, 2].into(),
            prefix: 8,
            routes: Vec::new(),
            nameservers: (1..6).map(|n| Ipv4Addr::new(9, 9, 9, n)).collect(),
            search: vec!["example.org".into()],
            mtu: None,
            grant: None,
        };
        let text = lease.resolv_conf();
        assert_eq!(text.matches("nameserver 9.9.9.").count(), 5);
        assert!(text.starts_with("search example.org\n"));
    }
}
