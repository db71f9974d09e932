//! UPPER/etc/network/interfaces, which is written before the mount unless there is a PREMOUNT.

use crate::root::Root;
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use std::io::Write;
use std::path::Path;

const INTERFACES: &str = "etc/network/interfaces";

/// Writes etc/network/interfaces in `upper`, unless there is one that can be opened. It has `lo`,
/// and a stanza for each of the `pairs` of links eth0, eth1 and so on.
///
/// With LOWER=/ the subhost would otherwise read the file of the host, and configure its links.
pub fn prepare(upper: &Path, pairs: usize) -> Result<()> {
    let root = Root::open(upper)?;
    if has_interfaces(&root) {
        return Ok(());
    }
    let mut text = String::from(
        "# The links of this subhost, see interfaces(5). Made because there was no such file.\n\
         auto lo\niface lo inet loopback\n",
    );
    for pair in 0..pairs {
        text += &format!("\nauto eth{pair}\niface eth{pair} inet manual\n");
    }
    root.create(Path::new(INTERFACES), 0o644)
        .map_err(anyhow::Error::from)
        .and_then(|mut file| Ok(file.write_all(text.as_bytes())?))
        .context("make etc/network/interfaces")
}

/// Whether [`prepare`] would find nothing to do.
pub fn is_prepared(upper: &Path) -> bool {
    Root::open(upper).is_ok_and(|root| has_interfaces(&root))
}

fn has_interfaces(root: &Root) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    root.find(Path::new(INTERFACES), flags).is_ok()
}

/// Counts the words of CABLES that become a pair of links; a VLAN, `=.TAG`, lies on a pair.
pub fn count_pairs<'a>(cables: impl IntoIterator<Item = &'a str>) -> usize {
    let words = cables.into_iter();
    words.filter(|word| !word.contains("=.")).count()
}
