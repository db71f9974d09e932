//! The messages of rtnetlink(7): requests and a parser of the answers. Makes no system calls. The
//! parser does not panic on any bytes.

mod request;

use nix::errno::Errno;
use nix::libc;
use std::fmt;

pub use request::Request;

/// The length of `struct nlmsghdr`: length (u32), type (u16), flags (u16), sequence number (u32),
/// port (u32).
const HEADER: usize = 16;
/// The length of `struct ifinfomsg`: family (u8), padding, device type (u16), index (i32), flags
/// (u32), mask of the flags (u32).
const IFINFOMSG: usize = 16;
/// The length of `struct nlattr`, with which an attribute begins: length (u16), type (u16).
const ATTRIBUTE: usize = 4;
/// `NLA_TYPE_MASK`: the bits of the type of an attribute that are not flags.
const TYPE_MASK: u16 = 0x3fff;

/// `VETH_INFO_PEER` of linux/veth.h. The crate libc has no definition.
pub const VETH_INFO_PEER: u16 = 1;
/// `IFLA_VLAN_ID` of linux/if_link.h.
pub const IFLA_VLAN_ID: u16 = 1;
/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `NETNSA_NSID` and `NETNSA_FD` of linux/net_namespace.h.
pub const NETNSA_NSID: u16 = 1;
/// See [`NETNSA_NSID`].
pub const NETNSA_FD: u16 = 3;

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_*` or `NLMSG_*`.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request; 0 in a notification.
    pub sequence: u32,
    /// The bytes after the header.
    pub body: &'a [u8],
}

/// Returns the messages of a datagram in order, up to the first with an invalid length.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let body = datagram.get(HEADER..length)?;
        let message = Message {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            sequence: u32_at(datagram, 8)?,
            body,
        };
        datagram = after(datagram, length);
        Some(message)
    })
}

/// Returns the type and the payload of each attribute in order, up to the first with an invalid
/// length.
pub fn attributes(mut row: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(row, 0)?);
        let payload = row.get(ATTRIBUTE..length)?;
        let kind = u16_at(row, 2)? & TYPE_MASK;
        row = after(row, length);
        Some((kind, payload))
    })
}

/// Returns the payload of the first attribute of type `kind`.
#[must_use]
pub fn attribute(row: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(row)
        .find(|(found, _)| *found == kind)
        .map(|(_, payload)| payload)
}

impl Message<'_> {
    /// Returns the outcome of the request; none if the message is not an acknowledgement or an
    /// error.
    #[must_use]
    pub fn verdict(&self) -> Option<Result<(), Refusal>> {
        match i32::from(self.kind) {
            libc::NLMSG_ERROR => {}
            libc::NLMSG_OVERRUN => return Some(Err(Refusal::from(Errno::ENOBUFS))),
            _ => return None,
        }
        match i32_at(self.body, 0) {
            Some(0) => Some(Ok(())),
            Some(error) => Some(Err(Refusal {
                errno: Errno::from_raw(error.saturating_neg()),
                message: self.explanation(),
            })),
            None => Some(Err(Refusal::from(Errno::EBADMSG))),
        }
    }

    /// Returns the text of an extended acknowledgement. It follows the request, which the kernel
    /// returns whole or, with `NLM_F_CAPPED`, as its header alone.
    fn explanation(&self) -> Option<String> {
        let flags = i32::from(self.flags);
        if flags & libc::NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let request = match flags & libc::NLM_F_CAPPED {
            0 => usize::try_from(u32_at(self.body, 4)?).ok()?,
            _ => HEADER,
        };
        let row = after(self.body.get(4..)?, request);
        let text = text(attribute(row, NLMSGERR_ATTR_MSG)?);
        (!text.is_empty()).then_some(text)
    }

    /// Returns the link of an `RTM_NEWLINK` or `RTM_DELLINK`; none if the message is truncated.
    ///
    /// Returns none for a message of a protocol family: for a port that leaves its bridge the
    /// kernel sends an `RTM_DELLINK` of `AF_BRIDGE`.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        let kind = self.kind;
        if ![libc::RTM_NEWLINK, libc::RTM_DELLINK].contains(&kind) || *self.body.first()? != 0 {
            return None;
        }
        let row = self.body.get(IFINFOMSG..)?;
        let info = attribute(row, libc::IFLA_LINKINFO).unwrap_or_default();
        Some(Link {
            index: i32_at(self.body, 4)?,
            flags: i32_at(self.body, 8)?,
            name: text(attribute(row, libc::IFLA_IFNAME).unwrap_or_default()),
            kind: text(attribute(info, libc::IFLA_INFO_KIND).unwrap_or_default()),
            below: attribute(row, libc::IFLA_LINK).and_then(|value| i32_at(value, 0)),
            below_in: attribute(row, libc::IFLA_LINK_NETNSID).and_then(|value| i32_at(value, 0)),
        })
    }

    /// Returns the number of a namespace from an `RTM_NEWNSID`; none if the namespace has no
    /// number.
    #[must_use]
    pub fn namespace_id(&self) -> Option<i32> {
        // The attributes follow a struct rtgenmsg: one byte, padded to four.
        let row = self.body.get(4..)?;
        let id = i32_at(attribute(row, NETNSA_NSID)?, 0)?;
        (self.kind == libc::RTM_NEWNSID && id >= 0).then_some(id)
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The index in its namespace.
    pub index: i32,
    /// `IFF_*`.
    pub flags: i32,
    /// The name.
    pub name: String,
    /// The kind: `veth`, `bridge`, `vlan`…; empty for hardware.
    pub kind: String,
    /// `IFLA_LINK`: the index of the other end of a pair, or of the parent of a VLAN.
    pub below: Option<i32>,
    /// `IFLA_LINK_NETNSID`: the number of the namespace that `below` is in, if it is another
    /// namespace.
    pub below_in: Option<i32>,
}

/// The error of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The text of the extended acknowledgement, if the kernel sent one.
    pub message: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        let message = None;
        Refusal { errno, message }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{} ({message})", self.errno.desc()),
            None => f.write_str(self.errno.desc()),
        }
    }
}

impl std::error::Error for Refusal {}

/// Returns the bytes after the first `length`, rounded up to a multiple of four.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    let next = length.checked_next_multiple_of(4).unwrap_or(usize::MAX);
    bytes.get(next..).unwrap_or_default()
}

/// Converts a C string, with or without the final zero.
fn text(payload: &[u8]) -> String {
    let text = payload.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NLMSG_ERROR` with the width of the field.
    const ERROR: u16 = 2;

    /// Returns a message as from the kernel: a header with these values, and `body`.
    fn message(kind: u16, flags: i32, sequence: u32, body: &[u8]) -> Vec<u8> {
        let flags = u16::try_from(flags).unwrap();
        let mut request = Request::new(kind, 0);
        request.raw(body);
        let mut bytes = request.seal(sequence);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    fn only(bytes: &[u8]) -> Message<'_> {
        let found: Vec<_> = messages(bytes).collect();
        assert_eq!(found.len(), 1);
        found[0]
    }

    fn a_link(kind: u16, family: u8) -> Vec<u8> {
        let mut request = Request::new(kind, 0);
        request.raw(&[family, 0, 1, 0]);
        request.raw(&7i32.to_ne_bytes());
        request.raw(&1u32.to_ne_bytes());
        request.raw(&0u32.to_ne_bytes());
        request.text(libc::IFLA_IFNAME, "mta0");
        request.attribute(libc::IFLA_LINK, &2i32.to_ne_bytes());
        request.attribute(libc::IFLA_LINK_NETNSID, &4i32.to_ne_bytes());
        // The kernel flags some nests; the type is the same.
        request.nest(libc::IFLA_LINKINFO | 0x8000, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
        });
        request.seal(0)
    }

    #[test]
    fn link_message_is_parsed() {
        let bytes = a_link(libc::RTM_NEWLINK, 0);
        let link = only(&bytes).link().unwrap();
        let expected = Link {
            index: 7,
            flags: libc::IFF_UP,
            name: "mta0".to_owned(),
            kind: "veth".to_owned(),
            below: Some(2),
            below_in: Some(4),
        };
        assert_eq!(link, expected);
    }

    #[test]
    fn bridge_port_removal_is_not_a_link_removal() {
        let family = u8::try_from(libc::AF_BRIDGE).unwrap();
        assert_eq!(only(&a_link(libc::RTM_DELLINK, family)).link(), None);
        assert!(only(&a_link(libc::RTM_DELLINK, 0)).link().is_some());
    }

    #[test]
    fn acknowledgement_and_error_are_distinguished() {
        let kind = ERROR;
        let ack = message(kind, 0, 5, &[&0i32.to_ne_bytes()[..], &[0; 16]].concat());
        assert_eq!(only(&ack).verdict(), Some(Ok(())));
        let refused = message(kind, 0, 5, &(-libc::EEXIST).to_ne_bytes());
        let refusal = only(&refused).verdict().unwrap().unwrap_err();
        assert_eq!(refusal, Errno::EEXIST.into());
        assert_eq!(refusal.to_string(), "File exists");
        let cut = message(kind, 0, 5, &[]);
        let refusal = only(&cut).verdict().unwrap().unwrap_err();
        assert_eq!(refusal.errno, Errno::EBADMSG);
        assert_eq!(only(&a_link(libc::RTM_NEWLINK, 0)).verdict(), None);
    }

    #[test]
    fn extended_error_is_found_after_the_request() {
        let mut words = Request::new(0, 0);
        words.attribute(2, &36u32.to_ne_bytes());
        words.text(NLMSGERR_ATTR_MSG, "Unknown device type");
        let words = words.seal(0).split_off(HEADER);
        let request = message(libc::RTM_NEWLINK, 0, 5, &[1, 2, 3, 4, 5, 6, 7, 8]);
        for (flags, request) in [
            (libc::NLM_F_ACK_TLVS, &request[..]),
            (
                libc::NLM_F_ACK_TLVS | libc::NLM_F_CAPPED,
                &request[..HEADER],
            ),
        ] {
            let body = [&(-libc::EOPNOTSUPP).to_ne_bytes(), request, &words].concat();
            let bytes = message(ERROR, flags, 5, &body);
            let refusal = only(&bytes).verdict().unwrap().unwrap_err();
            assert_eq!(refusal.message.as_deref(), Some("Unknown device type"));
        }
    }

    #[test]
    fn namespace_without_id_yields_none() {
        for (id, expected) in [(-1, None), (0, Some(0)), (12, Some(12))] {
            let mut request = Request::new(libc::RTM_NEWNSID, 0);
            request.raw(&[0]);
            request.attribute(NETNSA_NSID, &i32::to_ne_bytes(id));
            assert_eq!(only(&request.seal(0)).namespace_id(), expected);
        }
    }

    #[test]
    fn datagram_may_hold_several_messages_or_be_truncated() {
        let (first, second) = (a_link(libc::RTM_NEWLINK, 0), a_link(libc::RTM_DELLINK, 0));
        let both = [&first[..], &second].concat();
        assert_eq!(messages(&both).count(), 2);
        for end in 0..both.len() {
            let whole = usize::from(end >= first.len());
            assert_eq!(messages(&both[..end]).count(), whole, "{end} bytes");
        }
    }

    /// Sets every byte of real messages to every value, and truncates the messages at every length.
    #[test]
    fn arbitrary_bytes_never_panic_or_loop() {
        let refused = message(
            ERROR,
            libc::NLM_F_ACK_TLVS,
            5,
            &[&(-95i32).to_ne_bytes()[..], &a_link(16, 0), &[9, 0, 1, 0]].concat(),
        );
        let read = |bytes: &[u8]| {
            let found = messages(bytes).inspect(|message| {
                let _ = (message.verdict(), message.link(), message.namespace_id());
            });
            assert!(found.count() <= bytes.len() / HEADER);
        };
        for mut bytes in [a_link(16, 0), a_link(17, 0), refused] {
            for at in 0..bytes.len() {
                read(&bytes[..at]);
                let kept = bytes[at];
                for value in 0..=255 {
                    bytes[at] = value;
                    read(&bytes);
                }
                bytes[at] = kept;
            }
        }
        read(&i32::MIN.to_ne_bytes().repeat(64));
        read(&[0xff; 64]);
        read(&[0; 64]);
    }
}
