//! Telling a supervisor that the subhost is up: s6's way, a newline on a descriptor, and systemd's, sd_notify(3).

use anyhow::{Context, Result};
use ob_sys::process::dup_inherited;
use std::fs::File;
use std::io::Write;
use std::os::fd::RawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells whoever waits: by a newline on `descriptor`, which is then closed with this process, and to the socket that the
/// environment names in `NOTIFY_SOCKET`.
pub fn ready(descriptor: Option<RawFd>) -> Result<()> {
    if let Some(number) = descriptor {
        dup_inherited(number)
            .map_err(anyhow::Error::from)
            .and_then(|fd| Ok(File::from(fd).write_all(b"\n")?))
            .with_context(|| format!("notify descriptor {number}"))?;
    }
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address))
        .with_context(|| format!("notify {path}"))?;
    Ok(())
}
