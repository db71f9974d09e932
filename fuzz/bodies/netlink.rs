//! Properties that hold for any bytes as a datagram from the kernel.

use ob_cable::netlink::{attribute, attributes, messages};

/// The lengths of the shortest message and the shortest attribute.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// Splits the bytes into messages, and into attributes.
pub fn holds(bytes: &[u8]) {
    let mut end = 0;
    for message in messages(bytes) {
        let start = offset(bytes, message.body);
        assert!(start >= end + HEADER, "after the previous part");
        end = start + message.body.len();
        assert!(end <= bytes.len());
        if let Some(Err(refusal)) = message.verdict() {
            assert!(!refusal.to_string().is_empty());
        }
        if let Some(link) = message.link() {
            assert!(link.name.len() <= 3 * message.body.len());
        }
        if let Some(id) = message.namespace_id() {
            assert!(id >= 0);
        }
        row(message.body);
    }
    row(bytes);
}

fn row(bytes: &[u8]) {
    let mut end = 0;
    for (kind, payload) in attributes(bytes) {
        let start = offset(bytes, payload);
        assert!(start >= end + ATTRIBUTE, "after the previous part");
        end = start + payload.len();
        assert!(end <= bytes.len());
        assert!(attribute(bytes, kind).is_some());
    }
}

/// Returns the offset of `part` in `whole`.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}
