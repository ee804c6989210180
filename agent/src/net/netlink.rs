//! The kernel's socket for links, addresses and routes (rtnetlink(7)): requests, and news of changes. The
//! messages are in [`rtnetlink`](crate::net::rtnetlink).

use crate::net::rtnetlink::{Request, verdict};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket that receives the messages of the multicast `groups`.
fn open(groups: u32) -> io::Result<OwnedFd> {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// Sends `request`, and reads the kernel's answer. It is there before the sending returns, so nothing waits.
pub fn request(request: Request) -> io::Result<()> {
    let fd = open(0)?;
    sendto(fd.as_raw_fd(), &request.bytes(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    verdict(&answer[..length])
}

/// The kernel's news that a link, an address or a route has changed.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        // RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
        // of linux/rtnetlink.h.
        open(0x1 | 0x10 | 0x40 | 0x100 | 0x400).map(Self)
    }

    /// Waits for the next change, for as long as there is none. The caller looks at everything again, so the
    /// message itself does not matter; nor does an error that says that some were dropped.
    pub fn wait(&self) {
        let _ = recv(self.0.as_raw_fd(), &mut [0; 4096], MsgFlags::empty());
    }
}
