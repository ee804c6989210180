//! Packet sockets (`packet(7)`): IP datagrams on one link before it has an address. nix can make such a socket,
//! and has no type for its address.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket that sends and receives whole IPv4 datagrams on one link; the kernel adds and takes
/// away the link's own header.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    index: i32,
}

impl PacketSocket {
    /// Opens a socket on the link with this interface index.
    pub fn open(index: i32) -> io::Result<Self> {
        let protocol = (libc::ETH_P_IP as u16).to_be();
        // SAFETY: socket(2) touches no memory of ours; a descriptor it returns is ours alone.
        let fd = unsafe {
            let fd = libc::socket(
                libc::AF_PACKET,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                protocol.into(),
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let socket = Self { fd, index };
        let address = socket.address();
        // SAFETY: `address` is a valid sockaddr_ll of the length given and lives through the call.
        let code = unsafe { libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), ADDRESS_LENGTH) };
        if code == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends an IPv4 datagram to all machines on the link.
    pub fn broadcast(&self, datagram: &[u8]) -> io::Result<()> {
        let address = self.address();
        // SAFETY: both pointers are valid for the lengths given and live through the call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                0,
                (&raw const address).cast(),
                ADDRESS_LENGTH,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives the next datagram and returns its length.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is writable for its whole length.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// The link's broadcast address, to which the socket is bound as well.
    fn address(&self) -> libc::sockaddr_ll {
        // SAFETY: sockaddr_ll is plain integers; all zeros is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
        address.sll_ifindex = self.index;
        address.sll_halen = 6;
        address.sll_addr[..6].fill(0xff);
        address
    }
}

const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

impl std::os::fd::AsFd for PacketSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
