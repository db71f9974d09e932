//! The links of one network namespace, through a netlink socket: the socket stays in the namespace
//! in which it was opened when its process moves to another.

use crate::mac::Mac;
use crate::netlink::{
    IFLA_VLAN_ID, Link, Message, NETNSA_FD, Refusal, Request, VETH_INFO_PEER, messages,
};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The size of the buffer for a datagram. The message of one link has about two kilobytes.
const DATAGRAM: usize = 16 * 1024;
/// The longest name of a link: `IFNAMSIZ` without the final zero.
const LONGEST_NAME: usize = 15;
/// The index of `lo`, the first link of every network namespace.
const LOOPBACK: i32 = 1;
/// Omits the IPv6 statistics of a link, which the kernel adds up over all processors.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// The links of the network namespace in which the process opened this.
pub struct Links {
    socket: OwnedFd,
    sequence: u32,
}

/// A pair of virtual Ethernet links to create.
pub struct Pair<'a> {
    /// The name of the end here.
    pub outside: &'a str,
    /// The name of the other end.
    pub inside: &'a str,
    /// The hardware address of the end here.
    pub outside_mac: Mac,
    /// The hardware address of the other end; by default the kernel chooses one.
    pub inside_mac: Option<Mac>,
    /// The index of the bridge of the end here.
    pub bridge: Option<i32>,
    /// Whether to set the end here up.
    pub up: bool,
}

impl Links {
    /// Opens a socket in the namespace of this process.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn here() -> Result<Self, Refusal> {
        let socket = route_socket()?;
        // The texts only improve messages; an older kernel returns the errno alone.
        let _ = ob_sys::netlink::enable_error_texts(&socket);
        Ok(Links {
            socket,
            sequence: 0,
        })
    }

    /// Finds a link by name.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Refusal> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Ok(None);
        }
        self.query(0, Some(name))
    }

    /// Finds a link by index.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub fn look_at(&mut self, index: i32) -> Result<Option<Link>, Refusal> {
        self.query(index, None)
    }

    fn query(&mut self, index: i32, name: Option<&str>) -> Result<Option<Link>, Refusal> {
        let mut request = Request::new(libc::RTM_GETLINK, 0);
        request.link(index, 0);
        if let Some(name) = name {
            request.text(libc::IFLA_IFNAME, name);
        }
        request.attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        match self.ask(request, |message| message.link()) {
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
            answer => answer,
        }
    }

    /// Returns the number (nsid) of the namespace of `descriptor` in this namespace. The kernel
    /// assigns it when it first describes a link here whose other end is there; before that there
    /// is none.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub fn namespace_id(&mut self, descriptor: BorrowedFd) -> Result<Option<i32>, Refusal> {
        let mut request = Request::new(libc::RTM_GETNSID, 0);
        request.raw(&[0]);
        request.attribute(NETNSA_FD, &descriptor.as_raw_fd().to_ne_bytes());
        let id = self.ask(request, |message| Some(message.namespace_id()))?;
        Ok(id.flatten())
    }

    /// Creates a pair with its other end, which stays down, in the namespace of the descriptor
    /// `namespace`. The kernel creates both ends or none.
    ///
    /// # Errors
    /// `EEXIST`: a link of one of the names exists.
    pub fn make_pair(&mut self, pair: &Pair, namespace: BorrowedFd) -> Result<(), Refusal> {
        let mut request = new_link(pair.outside, if pair.up { libc::IFF_UP } else { 0 });
        request.attribute(libc::IFLA_ADDRESS, &pair.outside_mac);
        if let Some(bridge) = pair.bridge {
            request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        }
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.link(0, 0);
                    peer.text(libc::IFLA_IFNAME, pair.inside);
                    if let Some(mac) = pair.inside_mac {
                        peer.attribute(libc::IFLA_ADDRESS, &mac);
                    }
                    peer.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.order(request)
    }

    /// Creates the VLAN `name` with this `tag` on the link `parent`, sets it up, and puts it into
    /// the bridge, with this hardware address, if one is given.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel does not support VLANs.
    pub fn make_vlan(
        &mut self,
        name: &str,
        parent: i32,
        tag: u16,
        bridge: Option<(i32, Mac)>,
    ) -> Result<(), Refusal> {
        let mut request = new_link(name, libc::IFF_UP);
        request.attribute(libc::IFLA_LINK, &parent.to_ne_bytes());
        if let Some((bridge, mac)) = bridge {
            request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
            request.attribute(libc::IFLA_ADDRESS, &mac);
        }
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "vlan");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.attribute(IFLA_VLAN_ID, &tag.to_ne_bytes());
            });
        });
        self.order(request)
    }

    /// Sets a link up, and puts it into the bridge if one is given.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub fn set_up(&mut self, index: i32, bridge: Option<i32>) -> Result<(), Refusal> {
        let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK);
        request.link(index, libc::IFF_UP);
        if let Some(bridge) = bridge {
            request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        }
        self.order(request)
    }

    /// Sets the loopback link up.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub fn set_loopback_up(&mut self) -> Result<(), Refusal> {
        self.set_up(LOOPBACK, None)
    }

    /// Deletes a link with the links that depend on it: the other end of a pair, VLANs. A link that
    /// does not exist is no error.
    ///
    /// # Errors
    /// The kernel refuses the request.
    pub fn delete(&mut self, index: i32) -> Result<(), Refusal> {
        let mut request = Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK);
        request.link(index, 0);
        match self.order(request) {
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(()),
            done => done,
        }
    }

    /// Sends a request that changes something, and waits for the acknowledgement.
    fn order(&mut self, request: Request) -> Result<(), Refusal> {
        self.ask(request, |_| None::<()>).map(drop)
    }

    /// Sends a request. Returns the first value that `read` finds in an answer, or none after an
    /// acknowledgement without such an answer.
    fn ask<T>(
        &mut self,
        request: Request,
        read: impl Fn(&Message) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        self.sequence += 1;
        let request = request.seal(self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut buffer = [0; DATAGRAM];
        loop {
            let datagram = receive(&self.socket, &mut buffer, MsgFlags::empty())?;
            for message in messages(datagram).filter(|found| found.sequence == self.sequence) {
                if let Some(verdict) = message.verdict() {
                    return verdict.map(|()| None);
                }
                if let Some(found) = read(&message) {
                    return Ok(Some(found));
                }
            }
        }
    }
}

fn new_link(name: &str, flags: i32) -> Request {
    let ask = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Request::new(libc::RTM_NEWLINK, ask);
    request.link(0, flags);
    request.text(libc::IFLA_IFNAME, name);
    request
}

/// A subscription to the link notifications of the network namespace in which the process began it.
/// It reports the removal of every link that was found after that.
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Subscribes.
    ///
    /// # Errors
    /// The errno of socket(2) or bind(2).
    pub fn begin() -> Result<Self, Refusal> {
        let socket = route_socket()?;
        // The notifications of a thousand subhosts that end at once do not fit into the default
        // buffer. If the process may not enlarge it, recvmsg(2) reports a loss with `ENOBUFS`, and
        // `wait` looks the links up.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20));
        let group = libc::RTMGRP_LINK as u32;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, group))?;
        Ok(Watch { socket })
    }

    /// Waits until the kernel has removed all links `awaited` (indexes), for `at_most`. After that
    /// `awaited` has the links that still exist.
    ///
    /// # Errors
    /// The errno of recvmsg(2) or poll(2).
    pub fn wait(
        &self,
        links: &mut Links,
        awaited: &mut Vec<i32>,
        at_most: Duration,
    ) -> Result<(), Refusal> {
        let end = Instant::now() + at_most;
        let mut buffer = [0; DATAGRAM];
        while !awaited.is_empty() {
            match receive(&self.socket, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(datagram) => {
                    for message in messages(datagram).filter(|m| m.kind == libc::RTM_DELLINK) {
                        if let Some(gone) = message.link() {
                            awaited.retain(|index| *index != gone.index);
                        }
                    }
                }
                Err(Errno::EAGAIN) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(());
                    }
                    let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    // Rounded up: poll(2) with 0 would not sleep for the last fraction of a
                    // millisecond.
                    let left = PollTimeout::try_from(left + Duration::from_millis(1));
                    match poll(&mut socket, left.unwrap_or(PollTimeout::MAX)) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(Errno::ENOBUFS | Errno::EMSGSIZE) => retain_existing(links, awaited)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Removes the links from `awaited` that do not exist.
fn retain_existing(links: &mut Links, awaited: &mut Vec<i32>) -> Result<(), Refusal> {
    for index in std::mem::take(awaited) {
        if links.look_at(index)?.is_some() {
            awaited.push(index);
        }
    }
    Ok(())
}

fn route_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
}

/// Receives the next datagram from the kernel, and discards datagrams of other processes.
///
/// # Errors
/// The errno of recvmsg(2); `EMSGSIZE`: the datagram is longer than `buffer`.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8], flags: MsgFlags) -> nix::Result<&'a [u8]> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut parts, None, flags);
        let (length, flags, sender) = match received {
            Ok(received) => (received.bytes, received.flags, received.address),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error),
        };
        if sender.is_none_or(|sender| sender.pid() != 0) {
            continue;
        }
        if flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(Errno::EMSGSIZE);
        }
        return Ok(&buffer[..length]);
    }
}
