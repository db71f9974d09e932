//! What is done with UPPER before it is mounted, where no PREMOUNT does something else.

use crate::root::Root;
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use std::io::Write;
use std::path::Path;

/// Makes UPPER/etc/network/interfaces, if there is none that can be read: with the host's own, the subhost would configure the
/// host's links. It has `lo` and a stanza for each of the `pairs` of links eth0, eth1….
pub fn prepare(upper: &Path, pairs: usize) -> Result<()> {
    let root = Root::open(upper)?;
    let path = Path::new("etc/network/interfaces");
    if root.find(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).is_ok() {
        return Ok(());
    }
    let mut text = String::from(
        "# The links of this subhost, see interfaces(5). Made because there was no such file.\n\
         auto lo\niface lo inet loopback\n",
    );
    for pair in 0..pairs {
        text += &format!("\nauto eth{pair}\niface eth{pair} inet manual\n");
    }
    root.create(path, 0o644)
        .map_err(anyhow::Error::from)
        .and_then(|mut file| Ok(file.write_all(text.as_bytes())?))
        .context("make etc/network/interfaces")
}
