//! The bytes of a request.

use super::ATTRIBUTE;
use nix::libc;

/// A request under construction: the header and what follows.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// Begins a request of type `kind` (`RTM_*`) with the flags `NLM_F_REQUEST` and `flags`.
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

    /// Appends an ifinfomsg: the `index` of the link, 0 for one that the kernel chooses, and the
    /// `flags` (`IFF_*`) to set.
    pub fn link(&mut self, index: i32, flags: i32) {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
    }

    /// Appends `bytes`, padded to a multiple of four: the header of a message family.
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

    /// Appends an attribute with a C string.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), b"\0"].concat());
    }

    /// Appends an attribute with the attributes that `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.attribute(kind, &[]);
        fill(self);
        let length = length(self.0.len() - start);
        self.0[start..start + 2].copy_from_slice(&length);
    }

    /// Finishes the message: sets its length and sequence number.
    #[must_use]
    pub fn seal(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// Encodes the length of an attribute. The attributes here hold names and numbers; the kernel
/// refuses one that is too long.
fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
