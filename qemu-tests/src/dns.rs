//! A name server for the guests (RFC 1035): every name below `inetboot.test` is this machine, and every
//! other name gets NXDOMAIN. It listens on 127.0.0.1:53, which the guest sees as 10.0.2.2:
//! `scripts/test` runs the machines in a network namespace of their own, where that port is free.

use std::io;
use std::net::UdpSocket;
use std::sync::Once;

/// This machine, as a guest on QEMU's user network sees it.
const HOST: [u8; 4] = [10, 0, 2, 2];

/// The domain whose names all exist, as labels.
const DOMAIN: &[u8] = b"\x08inetboot\x04test\0";

/// Serves names until the test process ends.
pub fn serve() {
    static SERVING: Once = Once::new();
    SERVING.call_once(|| {
        serve_at("127.0.0.1:53")
            .unwrap_or_else(|error| panic!("127.0.0.1:53: {error}; run the tests by scripts/test"));
        // Also at the guests' address for this machine, if scripts/test has added it here.
        let _ = serve_at("10.0.2.2:53");
    });
}

fn serve_at(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(reply) = answer(&buffer[..length]) {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    Ok(())
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const A: [u8; 2] = [0, 1];
    let name_end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(12..name_end + 4)?;
    let known = query[12..name_end].to_ascii_lowercase().ends_with(DOMAIN);
    let wants_address = query[name_end..name_end + 2] == A;

    let answers = u8::from(known && wants_address);
    let code = if known { 0x80 } else { 0x83 }; // Recursion available; NXDOMAIN is 3.

    let mut reply = query.get(..2)?.to_vec();
    reply.extend_from_slice(&[0x81, code, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if answers == 1 {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend_from_slice(&HOST);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03iso\x08inetboot\x04test\0\0\x01\0\x01";

    /// Names of our domain are this machine; other names do not exist, and noise gets no answer.
    #[test]
    fn only_our_domain_exists() {
        let reply = answer(QUERY).unwrap();
        assert!(reply.ends_with(&HOST));
        let other: Vec<u8> = QUERY.iter().map(|byte| if *byte == b'b' { b'x' } else { *byte }).collect();
        assert_eq!(answer(&other).unwrap()[3] & 0x0f, 3);
        assert_eq!(answer(b"short"), None);
    }
}
