//! Reports to a supervisor that the subhost is up: with a newline on a descriptor, like s6, and
//! with sd_notify(3).

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ob_sys::process::dup_inherited;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// How many milliseconds the supervisor may take to read from a full pipe or socket; a write would
/// block for ever.
const BOUND: u16 = 5000;

/// Writes a newline to `descriptor`, and sends READY=1 to the socket in the environment variable
/// `NOTIFY_SOCKET`.
pub fn ready(descriptor: Option<RawFd>) -> Result<()> {
    if let Some(number) = descriptor {
        write_newline(number).with_context(|| format!("notify descriptor {number}"))?;
    }
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let sent = address.map_err(anyhow::Error::from).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        wait_writable(&socket)?;
        Ok(socket.send(b"READY=1")?)
    });
    sent.with_context(|| format!("notify {}", Path::new(&path).display()))?;
    Ok(())
}

fn write_newline(number: RawFd) -> Result<()> {
    let fd = dup_inherited(number)?;
    wait_writable(&fd)?;
    Ok(File::from(fd).write_all(b"\n")?)
}

fn wait_writable(fd: impl AsFd) -> Result<()> {
    let mut event = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut event, PollTimeout::from(BOUND))? {
        0 => Err(Errno::ETIMEDOUT.into()),
        _ => Ok(()),
    }
}
