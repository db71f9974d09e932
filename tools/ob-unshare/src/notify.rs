//! Telling a supervisor that the subhost is up: s6's way, a newline on a descriptor, and systemd's, sd_notify(3).

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

/// How many milliseconds the supervisor may take to make room for the message. A full pipe or
/// socket would block for ever.
const BOUND: u16 = 5000;

/// Writes a newline to `descriptor`, which is then closed with this process, and sends READY=1 to
/// the socket that the environment names in `NOTIFY_SOCKET`.
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
        wait_for_room(&socket)?;
        Ok(socket.send(b"READY=1")?)
    });
    sent.with_context(|| format!("notify {}", Path::new(&path).display()))?;
    Ok(())
}

fn write_newline(number: RawFd) -> Result<()> {
    let fd = dup_inherited(number)?;
    wait_for_room(&fd)?;
    Ok(File::from(fd).write_all(b"\n")?)
}

fn wait_for_room(fd: impl AsFd) -> Result<()> {
    let mut room = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut room, PollTimeout::from(BOUND))? {
        0 => Err(Errno::ETIMEDOUT.into()),
        _ => Ok(()),
    }
}
