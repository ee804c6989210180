//! Talking to the kernel by rtnetlink(7): requests, and news of changes.

use crate::net::rtnetlink::{Request, verdict};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// One request, one answer: the kernel answers before the sending returns.
pub fn request(request: Request) -> io::Result<()> {
    let fd = netlink(0)?;
    sendto(fd.as_raw_fd(), &request.bytes(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    verdict(&answer[..length])
}

/// News from the kernel that a link, an address or a route has changed.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Listen from now on.
    pub fn listen() -> io::Result<Self> {
        // RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
        // of linux/rtnetlink.h.
        netlink(0x1 | 0x10 | 0x40 | 0x100 | 0x400).map(Self)
    }

    /// Wait for the next. What it is does not matter, nor that there was too much to say.
    pub fn wait(&self) {
        let _ = recv(self.0.as_raw_fd(), &mut [0; 4096], MsgFlags::empty());
    }
}
