//! The words of CABLES.

use anyhow::{Result, bail, ensure};

/// One word of CABLES: `[bridge]=[MAC or .VLAN]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cable {
    /// A pair of virtual Ethernet links, one end on the host, one inside.
    Pair {
        /// The bridge that the host's end is put into; without one it is ifupdown's affair.
        bridge: Option<String>,
        /// The hardware address of the end inside.
        mac: Option<[u8; 6]>,
    },
    /// A VLAN on the host's end of the pair before it.
    Vlan {
        /// The bridge that the VLAN's link is put into.
        bridge: Option<String>,
        /// The tag, 1 to 4094.
        tag: u16,
    },
}

/// The longest name of an interface: `IFNAMSIZ` less the closing zero.
const LONGEST_NAME: usize = 15;

impl Cable {
    /// Reads one word. Fails with what is wrong with it: no `=`, a bad MAC, a tag out of range, a bridge's name too long.
    pub fn parse(word: &str) -> Result<Self> {
        let Some((bridge, rest)) = word.split_once('=') else {
            bail!("'{word}' is no cable: write [bridge]=[MAC or .VLAN]");
        };
        ensure!(
            bridge.len() <= LONGEST_NAME && !bridge.contains('/'),
            "'{bridge}' cannot be the name of a bridge"
        );
        let bridge = (!bridge.is_empty()).then(|| bridge.to_owned());
        if let Some(tag) = rest.strip_prefix('.') {
            match tag.parse() {
                Ok(tag @ 1..=4094) => return Ok(Cable::Vlan { bridge, tag }),
                _ => bail!("'{word}': the VLAN tag '{tag}' is not a number from 1 to 4094"),
            }
        }
        let mac = match rest {
            "" => None,
            mac => Some(parse_mac(mac).ok_or_else(|| {
                anyhow::anyhow!(
                    "'{word}': '{mac}' is not a MAC address of one station, such as 02:00:5e:10:00:01"
                )
            })?),
        };
        Ok(Cable::Pair { bridge, mac })
    }

    /// The host's link of every word, in order: NAME0, NAME1… for pairs; NAMEk.TAG for a VLAN on pair k.
    ///
    /// Fails if a name is longer than the kernel allows (it is never cut) or has a character that means
    /// something to a program which is given it, or if a VLAN comes before the first pair.
    pub fn links(name: &str, cables: &[Cable]) -> Result<Vec<String>> {
        let mut pairs = 0;
        let mut links = Vec::new();
        for cable in cables {
            let link = match cable {
                Cable::Pair { .. } => {
                    pairs += 1;
                    format!("{name}{}", pairs - 1)
                }
                Cable::Vlan { tag, .. } => {
                    ensure!(
                        pairs > 0,
                        "the VLAN .{tag} has no cable before it to be a VLAN of"
                    );
                    format!("{name}{}.{tag}", pairs - 1)
                }
            };
            ensure!(
                link.len() <= LONGEST_NAME,
                "the name of its link '{link}' would be longer than {LONGEST_NAME} characters; set a shorter NAME"
            );
            if let Some(c) = link.chars().find(|c| !is_plain(*c)) {
                bail!(
                    "the kernel, ifup or a shell reads the '{c}' in the name of its link '{link}' as more than a letter; set another NAME"
                );
            }
            links.push(link);
        }
        Ok(links)
    }
}

/// Whether a character of a link's name is nothing but that. The kernel replaces `%d` by a number and
/// refuses `:`, ifup(8) reads `LINK=STANZA` and patterns, and its scripts are those of a shell.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "._-+@,".contains(c)
}

/// Six groups of two hexadecimal digits, of one station: not all zero, and not a group address.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut groups = text.split([':', '-']);
    for byte in &mut mac {
        let group = groups
            .next()
            .filter(|group| (1..=2).contains(&group.len()))?;
        *byte = u8::from_str_radix(group, 16)
            .ok()
            .filter(|_| !group.starts_with('+'))?;
    }
    (groups.next().is_none() && mac != [0; 6] && mac[0] & 1 == 0).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(bridge: Option<&str>, mac: Option<[u8; 6]>) -> Cable {
        let bridge = bridge.map(str::to_owned);
        Cable::Pair { bridge, mac }
    }

    #[test]
    fn cable_of_every_form_is_parsed() {
        let mac = [2, 0, 0x5e, 0x10, 0, 1];
        for (word, cable) in [
            ("=", pair(None, None)),
            ("br0=", pair(Some("br0"), None)),
            ("=02:00:5E:10:00:01", pair(None, Some(mac))),
            ("br0=2:0:5e:10:0:1", pair(Some("br0"), Some(mac))),
        ] {
            assert_eq!(Cable::parse(word).unwrap(), cable, "{word}");
        }
        let vlan = Cable::parse("br0=.302").unwrap();
        let bridge = Some("br0".to_owned());
        assert_eq!(vlan, Cable::Vlan { bridge, tag: 302 });
    }

    #[test]
    fn invalid_cable_is_refused() {
        for word in [
            "br0",
            "=zz",
            "=02:00:5e:10:00",
            "=02:00:5e:10:00:01:02",
            "=01:00:5e:10:00:01",
            "=00:00:00:00:00:00",
            "=.0",
            "=.4095",
            "=.",
            "=.x",
            "abcdefghijklmnop=",
            "=+2:0:0:0:0:1",
        ] {
            assert!(Cable::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn links_are_numbered_by_pair_and_never_truncated() {
        let cables: Vec<_> = ["=", "=.7", "b=", "b=.8"]
            .map(|word| Cable::parse(word).unwrap())
            .into();
        assert_eq!(
            Cable::links("web", &cables).unwrap(),
            ["web0", "web0.7", "web1", "web1.8"]
        );
        assert!(Cable::links("fourteen-chars", &cables[..1]).is_ok());
        assert!(Cable::links("fifteen-charact", &cables[..1]).is_err());
        assert!(Cable::links("web", &cables[1..2]).is_err());
        for name in ["a=b", "a%d", "a*", "a:b", "a$b"] {
            assert!(Cable::links(name, &cables[..1]).is_err(), "{name}");
            assert!(Cable::links(name, &[]).is_ok(), "{name}");
        }
    }
}
