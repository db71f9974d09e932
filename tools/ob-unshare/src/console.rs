//! The console of a custom INIT: a pseudoterminal, whose output goes to the log.

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::libc::dev_t;
use nix::sys::stat::{Mode, fstat, stat};
use nix::unistd::fchown;
use ob_confine::userns::IdRange;
use ob_sys::device;
use ob_sys::terminal::open_peer;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A pseudoterminal of the subhost. An init such as systemd(1) prints to its console only if that
/// is a terminal, so a pipe would not do.
pub struct Console {
    master: File,
    /// The side of the subhost. It stays open here, because the master would report a hangup while
    /// no process inside has the console open.
    peer: OwnedFd,
}

impl Console {
    /// Creates a pseudoterminal in /dev/pts below `root`, which belongs to root inside.
    ///
    /// Returns `None` if there is no /dev/pts, or if it is that of the host: then the configuration
    /// has shared /dev, and with it the console of the host.
    pub fn create(root: &Path, ids: Option<IdRange>) -> Result<Option<Self>> {
        let Ok(master) = open_ptmx(root) else {
            return Ok(None);
        };
        let peer = open_peer(&master).context("create a terminal for /dev/console")?;
        let device = fstat(&peer)?.st_dev;
        if stat("/dev/pts").is_ok_and(|host| host.st_dev == device) {
            return Ok(None);
        }
        if let Some(ids) = ids {
            fchown(&peer, Some(ids.user(0)), None).context("chown the terminal of /dev/console")?;
        }
        let master = File::from(master);
        Ok(Some(Console { master, peer }))
    }

    /// Returns the device number that /dev/console gets inside.
    pub fn device(&self) -> nix::Result<dev_t> {
        Ok(fstat(&self.peer)?.st_rdev)
    }

    /// Reads output of the subhost. Returns 0 after a hangup: an init calls vhangup(2) before it
    /// starts a getty.
    ///
    /// Fails if the hangup cannot be ended.
    pub fn read(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        match self.master.read(buffer) {
            Ok(length) if length > 0 => Ok(length),
            _ => {
                self.peer = open_peer(&self.master)?;
                Ok(0)
            }
        }
    }
}

impl AsFd for Console {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

/// Opens a new master below `root`.
fn open_ptmx(root: &Path) -> nix::Result<OwnedFd> {
    let root = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    device::open_in(root, "dev/ptmx", device::PTMX)
}
