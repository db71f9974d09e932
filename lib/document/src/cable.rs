//! The words of CABLES, subhost.conf(5).

use crate::Document;
use anyhow::{Context, Result, bail, ensure};

/// A word of CABLES: `[bridge]=[MAC or .VLAN]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cable {
    /// A pair of virtual Ethernet links, veth(4): one on the host, one inside.
    Pair {
        /// The bridge of the link on the host. Without a bridge, ifup(8) configures the link.
        bridge: Option<String>,
        /// The hardware address of the link inside.
        mac: Option<[u8; 6]>,
    },
    /// A VLAN on the host link of the last pair before it.
    Vlan {
        /// The bridge of the VLAN link.
        bridge: Option<String>,
        /// The tag, 1 to 4094.
        tag: u16,
    },
}

/// A word of CABLES with the names of its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCable {
    /// The word.
    pub cable: Cable,
    /// The link on the host: NAME0, NAME1… for a pair, NAMEn.TAG for a VLAN on pair n.
    pub outside: String,
    /// The link inside: eth0, eth1…; `None` for a VLAN, which has no link inside.
    pub inside: Option<String>,
}

/// The maximum length of a link name: `IFNAMSIZ` without the terminating NUL.
const LONGEST_NAME: usize = 15;

impl Cable {
    /// Parses CABLES of a document, and names the links of each word.
    ///
    /// Fails at the first word or name that is invalid, see [`Cable::parse`] and [`Cable::named`].
    pub fn of(document: &Document) -> Result<Vec<NamedCable>> {
        let words = document.list("CABLES")?;
        let cables: Result<Vec<Cable>> = words.into_iter().map(Cable::parse).collect();
        Cable::named(document.name(), cables?)
    }

    /// Parses one word.
    ///
    /// Fails with the reason if the word has no `=`, an invalid MAC address, a tag out of range, or
    /// a bridge name that is too long or has a `/`.
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
            mac => Some(parse_mac(mac).with_context(|| {
                format!(
                    "'{word}': '{mac}' is not a MAC address of one station, such as \
                     02:00:5e:10:00:01"
                )
            })?),
        };
        Ok(Cable::Pair { bridge, mac })
    }

    /// Returns the bridge of the host link.
    #[must_use]
    pub fn bridge(&self) -> Option<&str> {
        let (Cable::Pair { bridge, .. } | Cable::Vlan { bridge, .. }) = self;
        bridge.as_deref()
    }

    /// Names the links of the cables of the subhost `name`.
    ///
    /// Fails if a VLAN has no pair before it, or if the name of a host link is too long for the
    /// kernel (a truncated name could be that of another link) or has a special character.
    pub fn named(name: &str, cables: Vec<Cable>) -> Result<Vec<NamedCable>> {
        let mut pairs: usize = 0;
        let name_links = |cable: Cable| {
            let mut inside = None;
            let outside = match &cable {
                Cable::Pair { .. } => {
                    inside = Some(format!("eth{pairs}"));
                    pairs += 1;
                    format!("{name}{}", pairs - 1)
                }
                Cable::Vlan { tag, .. } => {
                    let pair = pairs.checked_sub(1).with_context(|| {
                        format!("the VLAN .{tag} has no cable before it to be a VLAN of")
                    })?;
                    format!("{name}{pair}.{tag}")
                }
            };
            check_link_name(&outside)?;
            Ok(NamedCable {
                cable,
                outside,
                inside,
            })
        };
        cables.into_iter().map(name_links).collect()
    }
}

/// Fails if the name of a host link is too long or has a special character.
fn check_link_name(link: &str) -> Result<()> {
    ensure!(
        link.len() <= LONGEST_NAME,
        "the name of its link '{link}' would be longer than {LONGEST_NAME} characters; set a \
         shorter NAME"
    );
    if let Some(c) = link.chars().find(|c| !is_plain(*c)) {
        bail!(
            "the kernel, ifup or a shell reads the '{c}' in the name of its link '{link}' as more \
             than a letter; set another NAME"
        );
    }
    Ok(())
}

/// Returns whether `c` has no special meaning in a link name.
///
/// The kernel replaces `%d` by a number and refuses `:`, see `dev_valid_name` and
/// `__dev_alloc_name`. ifup(8) reads `LINK=STANZA` and patterns, and runs shell scripts.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "._-+@,".contains(c)
}

/// Parses six groups of two hexadecimal digits; `None` for all zeros and for a group address, which
/// the kernel refuses for a link (`is_valid_ether_addr`).
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
        let links = |name: &str, words: &[&str]| -> Result<Vec<String>> {
            let mut document = Document::new(name)?;
            document.set("CABLES", words);
            let cables = Cable::of(&document)?;
            Ok(cables.into_iter().map(|cable| cable.outside).collect())
        };
        assert_eq!(
            links("web", &["=", "=.7", "b=", "b=.8"]).unwrap(),
            ["web0", "web0.7", "web1", "web1.8"]
        );
        assert!(links("fourteen-chars", &["="]).is_ok());
        assert!(links("fifteen-charact", &["="]).is_err());
        assert!(links("web", &["=.7"]).is_err());
        for name in ["a=b", "a%d", "a*", "a:b", "a$b"] {
            assert!(links(name, &["="]).is_err(), "{name}");
            assert!(links(name, &[]).is_ok(), "{name}");
        }
    }

    #[test]
    fn only_a_pair_has_a_link_inside() {
        let mut document = Document::new("web").unwrap();
        assert_eq!(Cable::of(&document).unwrap(), []);
        document.set("CABLES", vec!["=", "br0=.7", "b="]);
        let cables = Cable::of(&document).unwrap();
        let inside: Vec<_> = cables.iter().map(|cable| cable.inside.as_deref()).collect();
        assert_eq!(inside, [Some("eth0"), None, Some("eth1")]);
        let outside: Vec<_> = cables.iter().map(|cable| &cable.outside).collect();
        assert_eq!(outside, ["web0", "web0.7", "web1"]);
        assert_eq!(cables[1].cable.bridge(), Some("br0"));
        document.set("CABLES", vec!["=.7"]);
        assert!(Cable::of(&document).is_err());
    }
}
