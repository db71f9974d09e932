//! The links of one network namespace, through a netlink socket that stays in it wherever its process goes.

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

/// Room for a datagram, each of which tells of one link, in two kilobytes as a rule.
const DATAGRAM: usize = 16 * 1024;
/// The longest name of an interface.
const LONGEST_NAME: usize = 15;
/// `lo` is the first link of every network namespace.
const LOOPBACK: i32 = 1;
/// Leaves the statistics of IPv6, which the kernel has to add up, out of what is told about a link.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// The links of the network namespace that the process was in when it opened them.
pub struct Links {
    socket: OwnedFd,
    sequence: u32,
}

/// A pair of virtual Ethernet links to be made.
pub struct Pair<'a> {
    /// The name of our end.
    pub outside: &'a str,
    /// The name of the other end.
    pub inside: &'a str,
    /// The hardware address of the other end; the kernel chooses one if none is given.
    pub mac: Option<[u8; 6]>,
    /// The index of the bridge that our end is put into.
    pub bridge: Option<i32>,
    /// Whether our end goes up at once.
    pub up: bool,
}

impl Links {
    /// Opens those of the namespace that this process is in.
    pub fn here() -> Result<Self, Refusal> {
        let socket = route_socket()?;
        // For the words alone: a kernel that cannot do it says no less than the number.
        let _ = ob_sys::netlink::enable_error_texts(&socket);
        Ok(Links {
            socket,
            sequence: 0,
        })
    }

    /// The link of this name; none if there is none.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Refusal> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Ok(None);
        }
        self.query(0, Some(name))
    }

    /// The link of this index; none if there is none.
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

    /// The number that the namespace behind `descriptor` has here. It gets one when a link here is told to have its other end
    /// there; none: no link has.
    pub fn namespace_id(&mut self, descriptor: BorrowedFd) -> Result<Option<i32>, Refusal> {
        let mut request = Request::new(libc::RTM_GETNSID, 0);
        request.raw(&[0]);
        request.attribute(NETNSA_FD, &descriptor.as_raw_fd().to_ne_bytes());
        let id = self.ask(request, |message| Some(message.namespace_id()))?;
        Ok(id.flatten())
    }

    /// Makes a pair, its other end, which stays down, in the namespace behind `namespace`: both ends or none, in one step.
    /// `EEXIST` if there is a link of one of the names.
    pub fn make_pair(&mut self, pair: &Pair, namespace: BorrowedFd) -> Result<(), Refusal> {
        let mut request = new_link(pair.outside, if pair.up { libc::IFF_UP } else { 0 });
        if let Some(bridge) = pair.bridge {
            request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        }
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.link(0, 0);
                    peer.text(libc::IFLA_IFNAME, pair.inside);
                    if let Some(mac) = pair.mac {
                        peer.attribute(libc::IFLA_ADDRESS, &mac);
                    }
                    peer.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.order(request)
    }

    /// Makes the VLAN `name` with this `tag` on the link `parent`, up, in the bridge if there is one. `EOPNOTSUPP`: the kernel
    /// has no VLANs.
    pub fn make_vlan(
        &mut self,
        name: &str,
        parent: i32,
        tag: u16,
        bridge: Option<i32>,
    ) -> Result<(), Refusal> {
        let mut request = new_link(name, libc::IFF_UP);
        request.attribute(libc::IFLA_LINK, &parent.to_ne_bytes());
        if let Some(bridge) = bridge {
            request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        }
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "vlan");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.attribute(IFLA_VLAN_ID, &tag.to_ne_bytes());
            });
        });
        self.order(request)
    }

    /// Brings a link up, and into a bridge if one is given.
    pub fn set_up(&mut self, index: i32, bridge: Option<i32>) -> Result<(), Refusal> {
        let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK);
        request.link(index, libc::IFF_UP);
        if let Some(bridge) = bridge {
            request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        }
        self.order(request)
    }

    /// Brings the loopback link up.
    pub fn set_loopback_up(&mut self) -> Result<(), Refusal> {
        self.set_up(LOOPBACK, None)
    }

    /// Deletes a link, and what rests on it: the other end of a pair, VLANs. One that is not there is no error.
    pub fn delete(&mut self, index: i32) -> Result<(), Refusal> {
        let mut request = Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK);
        request.link(index, 0);
        match self.order(request) {
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(()),
            done => done,
        }
    }

    fn order(&mut self, request: Request) -> Result<(), Refusal> {
        self.ask(request, |_| None::<()>).map(drop)
    }

    /// Sends a request and returns what `read` first finds in the messages that answer it; none if it was done without a word.
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

/// Listens to the links of the namespace that the process was in when it began to: a link that is found after that cannot
/// end unheard.
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Begins to listen.
    pub fn begin() -> Result<Self, Refusal> {
        let socket = route_socket()?;
        // A thousand subhosts that end at once say more than fits into the usual buffer. Where we may not have a larger one,
        // we are told that we have missed something, and look ourselves.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20));
        let group = libc::RTMGRP_LINK as u32;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, group))?;
        Ok(Watch { socket })
    }

    /// Waits until the kernel has told of the end of all links `awaited` (indices), or the time is over; what is left in
    /// `awaited` is still there.
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
                    // Rounded up, so that the last fraction of a millisecond is slept, too.
                    let left = PollTimeout::try_from(left + Duration::from_millis(1));
                    match poll(&mut socket, left.unwrap_or(PollTimeout::MAX)) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(Errno::ENOBUFS | Errno::EMSGSIZE) => keep_what_exists(links, awaited)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn keep_what_exists(links: &mut Links, awaited: &mut Vec<i32>) -> Result<(), Refusal> {
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

/// The next datagram of the kernel's; what another process has sent us is thrown away. `EMSGSIZE` if it is longer than `buffer`.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8], flags: MsgFlags) -> nix::Result<&'a [u8]> {
    loop {
        let mut room = [IoSliceMut::new(buffer)];
        let received = recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut room, None, flags);
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
