//! A switch with a tagged port (IEEE 802.1Q) between a machine and a wire: the kernel of the test machine
//! may have no VLANs. It drops frames that the machine sends without the tag.
#![allow(unsafe_code)] // One ioctl.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// The tag's offset in a frame: after both addresses.
const TAG_AT: usize = 12;
const TAG: [u8; 2] = [0x81, 0x00];

/// `struct ifreq` as far as `TUNSETIFF` reads it.
#[repr(C)]
pub struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

mod ioctl {
    use super::Request;

    nix::ioctl_write_ptr_bad!(
        /// `TUNSETIFF` of linux/if_tun.h.
        tun_set_iff,
        0x4004_54ca,
        Request
    );
}

/// The switch. Its threads end with the test process.
pub struct Switch {
    dir: PathBuf,
}

impl Switch {
    /// A switch between the tap device `tap` and a machine that sees it as VLAN `id`; its sockets are in
    /// `dir`.
    pub fn new(tap: &str, id: u16, dir: &Path) -> Self {
        let mut wire = attach(tap);
        let port = UnixDatagram::bind(dir.join("switch")).expect("a socket");
        let (mut to_wire, to_machine) =
            (wire.try_clone().expect("a wire"), port.try_clone().expect("a port"));
        let machine = dir.join("machine");

        std::thread::spawn(move || {
            let mut frame = [0; 65536];
            while let Ok(length) = port.recv(&mut frame) {
                if let Some(bare) = untag(&frame[..length], id) {
                    let _ = to_wire.write_all(&bare);
                }
            }
        });

        std::thread::spawn(move || {
            let mut frame = [0; 65536];
            while let Ok(length) = wire.read(&mut frame) {
                // The machine may not be there yet.
                let _ = to_machine.send_to(&tag(&frame[..length], id), &machine);
            }
        });

        Self { dir: dir.to_owned() }
    }

    /// The port, for QEMU's `-netdev`.
    pub fn wire(&self) -> String {
        let dir = self.dir.display();
        format!("dgram,local.type=unix,local.path={dir}/machine,remote.type=unix,remote.path={dir}/switch")
    }
}

fn attach(tap: &str) -> File {
    const IFF_TAP: u16 = 2;
    const IFF_NO_PI: u16 = 0x1000;
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let mut request = Request { name: [0; 16], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    request.name[..tap.len()].copy_from_slice(tap.as_bytes());
    // SAFETY: the request is a whole `struct ifreq` that lives through the call.
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), &raw const request) }.expect("attaching to the tap device");
    file
}

fn tag(frame: &[u8], id: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(TAG_AT.min(frame.len()));
    [addresses, &TAG, &id.to_be_bytes(), rest].concat()
}

fn untag(frame: &[u8], id: u16) -> Option<Vec<u8>> {
    let (addresses, tagged) = frame.split_at_checked(TAG_AT)?;
    let rest = tagged.strip_prefix(&TAG)?;
    let (control, rest) = rest.split_at_checked(2)?;
    // The upper four bits are the priority.
    (u16::from_be_bytes([control[0], control[1]]) & 0x0fff == id).then(|| [addresses, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of another VLAN and untagged frames are dropped.
    #[test]
    fn only_its_vlan_passes() {
        let frame = [[7; 12].as_slice(), &[8, 0, 1, 2, 3]].concat();
        assert_eq!(untag(&tag(&frame, 7), 7), Some(frame.clone()));
        assert_eq!(untag(&tag(&frame, 8), 7), None);
        assert_eq!(untag(&frame, 7), None);
    }
}
