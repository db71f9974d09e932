//! The bytes of rtnetlink, `rtnetlink(7)`: requests built, answers taken apart. No system call is made here, and whatever
//! bytes come, the parser ends without a panic.

use nix::errno::Errno;
use nix::libc;
use std::fmt;

/// A message begins with length (u32), type (u16), flags (u16), sequence number (u32) and port (u32).
const HEADER: usize = 16;
/// `struct ifinfomsg`: family (u8), padding, device type (u16), index (i32), flags (u32), mask of the flags (u32).
const IFINFOMSG: usize = 16;
/// An attribute begins with length (u16) and type (u16).
const ATTRIBUTE: usize = 4;
/// The bits of an attribute's type that are no flags.
const TYPE_MASK: u16 = 0x3fff;

/// `VETH_INFO_PEER` of linux/veth.h, which libc lacks.
pub const VETH_INFO_PEER: u16 = 1;
/// `IFLA_VLAN_ID` of linux/if_link.h.
pub const IFLA_VLAN_ID: u16 = 1;
/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `NETNSA_NSID` and `NETNSA_FD` of linux/net_namespace.h.
pub const NETNSA_NSID: u16 = 1;
/// See [`NETNSA_NSID`].
pub const NETNSA_FD: u16 = 3;

/// A request, built from its header on.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request of type `kind` (`RTM_*`) with the flags `NLM_F_REQUEST` and `flags`.
    #[must_use]
    pub fn new(kind: u16, flags: i32) -> Self {
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        Request(bytes)
    }

    /// Appends an ifinfomsg: the link `index`, 0 if the kernel is to choose, and the `flags` (`IFF_*`) it is to have set.
    pub fn link(&mut self, index: i32, flags: i32) {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
    }

    /// Appends bytes as they are: a family's own header, filled up to four.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.0.extend(length(ATTRIBUTE + payload.len()));
        self.0.extend(kind.to_ne_bytes());
        self.raw(payload);
    }

    /// Appends an attribute that is a C string.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat());
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.attribute(kind, &[]);
        fill(self);
        let length = length(self.0.len() - start);
        self.0[start..start + 2].copy_from_slice(&length);
    }

    /// The finished message.
    #[must_use]
    pub fn seal(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// The length of an attribute. Ours hold names and numbers; one that were too long would be refused by the kernel.
fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes()
}

/// One message of those that a datagram holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_*` or `NLMSG_*`.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The number of the request that it answers; 0 if it answers none.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of a datagram in order; ends at the first that is cut or has an impossible length.
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

/// Type and payload of a row of attributes in order; ends at the first that is cut or has an impossible length.
pub fn attributes(mut row: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(row, 0)?);
        let payload = row.get(ATTRIBUTE..length)?;
        let kind = u16_at(row, 2)? & TYPE_MASK;
        row = after(row, length);
        Some((kind, payload))
    })
}

/// The payload of the attribute `kind` in a row of them.
#[must_use]
pub fn attribute(row: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(row)
        .find(|(found, _)| *found == kind)
        .map(|(_, payload)| payload)
}

impl Message<'_> {
    /// Whether the request was done or refused; none if this is no such message.
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

    /// The kernel's words in a refusal. They stand behind our request, which comes back whole or, if so flagged, as its header.
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

    /// The link that an `RTM_NEWLINK` or `RTM_DELLINK` tells of; none if it is cut.
    ///
    /// None also for a message of a protocol family's: a port that leaves its bridge is told as a deletion of that kind.
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

    /// The number that an `RTM_NEWNSID` gives for a namespace; none if that namespace has no number here.
    #[must_use]
    pub fn namespace_id(&self) -> Option<i32> {
        // After a struct rtgenmsg, one byte filled up to four.
        let row = self.body.get(4..)?;
        let id = i32_at(attribute(row, NETNSA_NSID)?, 0)?;
        (self.kind == libc::RTM_NEWNSID && id >= 0).then_some(id)
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: i32,
    /// `IFF_*`.
    pub flags: i32,
    /// Its name.
    pub name: String,
    /// What it is: `veth`, `bridge`, `vlan`…; empty for hardware.
    pub kind: String,
    /// The link that it rests on: the other end of a pair, what a VLAN is of.
    pub below: Option<i32>,
    /// The number of the namespace that `below` is in, if that is not its own.
    pub below_in: Option<i32>,
}

/// The kernel did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub errno: Errno,
    /// The same in the kernel's own words, where it has some.
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

/// What stands behind `length` bytes, the next multiple of four.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    let next = length.checked_next_multiple_of(4).unwrap_or(usize::MAX);
    bytes.get(next..).unwrap_or_default()
}

/// A C string, with or without its zero.
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

    /// `NLMSG_ERROR`, as wide as it stands in a message.
    const ERROR: u16 = 2;

    /// A message as the kernel sends it: `body` behind a header with these values.
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
    fn request_bytes_match_the_kernel_layout() {
        let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK);
        request.link(3, libc::IFF_UP);
        request.text(libc::IFLA_IFNAME, "mta0");
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
        });
        let expected: &[&[u8]] = &[
            &60u32.to_ne_bytes(),
            &16u16.to_ne_bytes(),
            &5u16.to_ne_bytes(),
            &9u32.to_ne_bytes(),
            &[0; 4],
            &[0; 4],
            &3u32.to_ne_bytes(),
            &1u32.to_ne_bytes(),
            &1u32.to_ne_bytes(),
            &9u16.to_ne_bytes(),
            &3u16.to_ne_bytes(),
            b"mta0\0\0\0\0",
            &16u16.to_ne_bytes(),
            &18u16.to_ne_bytes(),
            &9u16.to_ne_bytes(),
            &1u16.to_ne_bytes(),
            b"veth\0\0\0\0",
        ];
        assert_eq!(request.seal(9), expected.concat());
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

    /// Every byte of real messages set to every value, and each cut at every length: all of it must come to an end.
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
