//! IPv4 and UDP headers around a DHCP message (RFC 791, RFC 768), for the time before the kernel has an
//! address to send from. No I/O.

use std::net::Ipv4Addr;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const UDP: u8 = 17;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Wraps `payload` in a datagram from 0.0.0.0:68 to 255.255.255.255:67.
pub fn wrap(payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP_HEADER + payload.len()) as u16;
    let mut datagram = Vec::with_capacity(IP_HEADER + usize::from(udp_length));
    datagram.extend_from_slice(&[0x45, 0]);
    datagram.extend_from_slice(&(IP_HEADER as u16 + udp_length).to_be_bytes());
    datagram.extend_from_slice(&[0, 0, 0, 0, 64, UDP, 0, 0]);
    datagram.extend_from_slice(&Ipv4Addr::UNSPECIFIED.octets());
    datagram.extend_from_slice(&Ipv4Addr::BROADCAST.octets());

    let checksum = checksum(&datagram);
    datagram[10..12].copy_from_slice(&checksum.to_be_bytes());

    datagram.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    datagram.extend_from_slice(&SERVER_PORT.to_be_bytes());
    datagram.extend_from_slice(&udp_length.to_be_bytes());
    // A UDP checksum of zero means that none was computed; DHCP servers accept it.
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

/// The payload of a datagram to UDP port 68; `None` for anything else. Bytes behind the datagram, by which a
/// link fills up short frames, are dropped.
pub fn unwrap(datagram: &[u8]) -> Option<&[u8]> {
    let header = usize::from(*datagram.first()? & 0x0f) * 4;
    let version = *datagram.first()? >> 4;
    if version != 4 || header < IP_HEADER || *datagram.get(9)? != UDP {
        return None;
    }

    let total = usize::from(u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?));
    let fragment = u16::from_be_bytes(datagram.get(6..8)?.try_into().ok()?) & 0x3fff;
    if fragment != 0 {
        return None; // More fragments follow, or this is not the first.
    }

    let udp = datagram.get(header..total)?;
    let port = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    let length = usize::from(u16::from_be_bytes(udp.get(4..6)?.try_into().ok()?));
    if port != CLIENT_PORT {
        return None;
    }
    udp.get(UDP_HEADER..length)
}

/// The Internet checksum (RFC 1071) of a header whose checksum field is zero.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to_client(payload: &[u8]) -> Vec<u8> {
        let mut datagram = wrap(payload);
        datagram[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        datagram
    }

    /// A correct header, with its checksum, sums to all ones (RFC 1071).
    #[test]
    fn headers_have_checksums() {
        assert_eq!(checksum(&wrap(b"x")[..IP_HEADER]), 0);
    }

    /// The padding of a short frame is not payload.
    #[test]
    fn padding_is_dropped() {
        let mut datagram = to_client(b"hello");
        datagram.extend_from_slice(&[0; 13]);
        assert_eq!(unwrap(&datagram), Some(&b"hello"[..]));
    }

    /// Datagrams to other ports and protocols are ignored.
    #[test]
    fn others_are_ignored() {
        assert_eq!(unwrap(&wrap(b"to a server")), None);
        let mut tcp = to_client(b"x");
        tcp[9] = 6;
        assert_eq!(unwrap(&tcp), None);
    }

    proptest! {
        /// Any payload can be unwrapped again.
        #[test]
        fn payloads_survive(payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let datagram = to_client(&payload);
            prop_assert_eq!(unwrap(&datagram), Some(&payload[..]));
        }

        /// No bytes make it panic.
        #[test]
        fn unwraps_anything(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            unwrap(&bytes);
        }
    }
}
