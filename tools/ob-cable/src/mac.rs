//! The hardware addresses of the cables of a host.

use std::fs;

/// A hardware address.
pub type Mac = [u8; 6];

/// The machine-id of the host, machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

/// Derives the addresses of cables from names, so that each boot gives a cable the same addresses.
pub(crate) struct Macs {
    /// `None` if the host has no machine-id, or not yet.
    machine_id: Option<String>,
}

impl Macs {
    /// Reads the machine-id of the host.
    pub(crate) fn of_host() -> Self {
        let text = fs::read_to_string(MACHINE_ID).unwrap_or_default();
        let id = text.trim();
        // Until the first boot, the file can be empty or have the word "uninitialized".
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Macs {
            machine_id: is_id.then(|| id.to_owned()),
        }
    }

    /// Returns the address of the link `inside` of the subhost `name`; `None` without a machine-id:
    /// the same names on another host would give the same address.
    pub(crate) fn inside(&self, name: &str, inside: &str) -> Option<Mac> {
        let mut mac = derive(&[self.machine_id.as_deref()?, name, inside]);
        mac[0] = mac[0] & 0xfc | 2; // locally administered, and not a group
        Some(mac)
    }

    /// Returns the address of the host link of a cable.
    ///
    /// A bridge takes the lowest address of its links, `br_stp_recalculate_bridge_id`, and
    /// changes its address when the link of that address is deleted. An address that begins with
    /// fe is higher than any address of hardware. All cables in one bridge have the same address,
    /// so a bridge with no other link keeps its address too. The kernel allows that,
    /// `fdb_add_local`.
    pub(crate) fn outside(&self, link: &str, bridge: Option<&str>) -> Mac {
        let id = self.machine_id.as_deref().unwrap_or_default();
        let names = bridge.map_or([id, "link", link], |bridge| [id, "bridge", bridge]);
        let mut mac = derive(&names);
        mac[0] = 0xfe;
        mac
    }
}

/// Returns the last six bytes of the FNV-1a hash of the words.
///
/// The hash of std, `DefaultHasher`, may change with each version of Rust. FNV has a specification,
/// and words that differ in the last byte alone always have different addresses: its prime is odd.
fn derive(words: &[&str]) -> Mac {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // No name has a slash.
    for byte in words.join("/").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let [_, _, mac @ ..] = hash.to_be_bytes();
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: &str) -> Macs {
        let machine_id = Some(id.to_owned());
        Macs { machine_id }
    }

    #[test]
    fn e11_inside_address_depends_on_host_name_and_number() {
        let one = host("0123456789abcdef0123456789abcdef");
        let two = host("0123456789abcdef0123456789abcdee");
        // A change of these bytes would change the addresses of all subhosts.
        let mac = [0x4e, 0x45, 0xcc, 0xb7, 0x61, 0xc4];
        assert_eq!(one.inside("web", "eth0"), Some(mac));
        let mut all = Vec::new();
        for host in [&one, &two] {
            for (name, link) in [("web", "eth0"), ("web", "eth1"), ("web1", "eth0")] {
                all.extend(host.inside(name, link));
            }
        }
        assert!(all.iter().all(|mac| mac[0] & 3 == 2), "{all:x?}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        assert_eq!(Macs { machine_id: None }.inside("web", "eth0"), None);
    }

    #[test]
    fn e01_host_address_is_high_and_shared_in_a_bridge() {
        for macs in [host("a"), Macs { machine_id: None }] {
            let bridged = macs.outside("web0", Some("br0"));
            assert_eq!(bridged, macs.outside("mta0", Some("br0")));
            assert_ne!(bridged, macs.outside("web0", Some("br1")));
            assert_ne!(macs.outside("web0", None), macs.outside("web1", None));
            assert_eq!(bridged[0], 0xfe);
        }
    }
}
