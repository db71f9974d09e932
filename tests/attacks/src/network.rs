//! The network: links and sockets of the host that a subhost could reach.

use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Failed, Refused, Try, refused};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nameindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, UnixAddr, connect,
    recv, sendto, socket,
};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// Entries about the network.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(0, "list-host-links", "list links of the host through the namespace id of the peer of a cable", FROM_YES, list_links),
    Entry::inside(0, "delete-host-link", "delete a link of the host through that namespace id", FROM_YES, delete_link),
    Entry::both(0, "abstract-socket", "connect to an abstract socket of the host", ALWAYS, connect_abstract),
];

/// Offsets in netlink messages.
mod at {
    pub const TYPE: usize = 4;
    pub const PAYLOAD: usize = 16;
    pub const INDEX: usize = PAYLOAD + 4;
    pub const ATTRIBUTES: usize = PAYLOAD + 16;
}

const NAME: u16 = 3;
const TARGET: u16 = 46;
const NUMBERS: std::ops::Range<i32> = 0..8;

/// Returns a namespace id and the links there, from the first namespace with foreign links.
fn foreign_links() -> Try<(i32, BTreeMap<String, u32>)> {
    let own = if_nameindex().refused("list its own links")?;
    let own: Vec<String> = own
        .iter()
        .map(|link| link.name().to_string_lossy().into_owned())
        .collect();
    // The reply contains the namespace ids of the peers; the kernel allocates missing ids.
    list(None).refused("list its own links")?;
    let mut last = Failed::Refused("no namespace has such an id".to_owned());
    for number in NUMBERS {
        match list(Some(number)) {
            Ok(links) if links.keys().any(|name| !own.contains(name)) => {
                return Ok((number, links));
            }
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(error) => last = Failed::Refused(format!("list links: {}", error.desc())),
        }
    }
    Err(last)
}

fn list_links() -> Try {
    foreign_links().map(drop)
}

/// The test makes the link `canary` before.
fn delete_link() -> Try {
    let (number, links) = foreign_links()?;
    let Some(canary) = links.get("canary") else {
        return refused("the namespace has no link canary");
    };
    let request = request(libc::RTM_DELLINK, libc::NLM_F_ACK, Some(number), *canary);
    let socket = ask(&request).refused("send")?;
    answer(&socket, |_, _| ()).refused("delete a link")
}

fn list(number: Option<i32>) -> nix::Result<BTreeMap<String, u32>> {
    let socket = ask(&request(libc::RTM_GETLINK, libc::NLM_F_DUMP, number, 0))?;
    let mut links = BTreeMap::new();
    answer(&socket, |index, name| {
        links.insert(name, index);
    })?;
    Ok(links)
}

/// Builds a request about the link `index` (0 for all), here or in the namespace with the id
/// `number`.
fn request(kind: u16, flags: i32, number: Option<i32>, index: u32) -> Vec<u8> {
    let target = number.map(|number| {
        let head = [8, TARGET].map(u16::to_ne_bytes).concat();
        [head, number.to_ne_bytes().to_vec()].concat()
    });
    let target = target.unwrap_or_default();
    let length = u32::try_from(at::ATTRIBUTES + target.len()).unwrap_or_default();
    let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or_default();
    let parts: [&[u8]; 8] = [
        &length.to_ne_bytes(),
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &[0; 8],
        &[0; 4],
        &index.to_ne_bytes(),
        &[0; 8],
        &target,
    ];
    parts.concat()
}

fn ask(request: &[u8]) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?;
    sendto(
        socket.as_raw_fd(),
        request,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    Ok(socket)
}

/// Reads messages until the end of the list or an error.
fn answer(socket: &OwnedFd, mut link: impl FnMut(u32, String)) -> nix::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= at::PAYLOAD {
            let length = number(rest, 0) as usize;
            let (message, next) =
                rest.split_at(length.next_multiple_of(4).clamp(at::PAYLOAD, rest.len()));
            rest = next;
            match i32::from(short(message, at::TYPE)) {
                // NLMSG_DONE carries an error too.
                libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                    let error = number(message, at::PAYLOAD) as i32;
                    return if error == 0 {
                        Ok(())
                    } else {
                        Err(Errno::from_raw(-error))
                    };
                }
                _ => link(number(message, at::INDEX), name(message)),
            }
        }
    }
}

fn name(message: &[u8]) -> String {
    let mut rest = message.get(at::ATTRIBUTES..).unwrap_or_default();
    while rest.len() >= 4 {
        let length = usize::from(short(rest, 0)).clamp(4, rest.len());
        if short(rest, 2) == NAME {
            return String::from_utf8_lossy(&rest[4..length])
                .trim_end_matches('\0')
                .to_owned();
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    String::new()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_ne_bytes)
}

/// The test listens on the host.
fn connect_abstract() -> Try {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .refused("socket")?;
    let address = UnixAddr::new_abstract(b"canary-of-the-host").refused("make the address")?;
    connect(socket.as_raw_fd(), &address).refused("connect")
}
