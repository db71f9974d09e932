//! Terminals: the terminal of the administrator, and the console.

use crate::system::push_input;
use crate::table::{ALWAYS, FROM_YES};
use crate::{Entry, Refused, Try, not_here, refused};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::isatty;

/// Entries about terminals.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::both(4, "typed-for-administrator", "type a line into the shell of the administrator outside (`TIOCSTI`)", ALWAYS, type_line),
    Entry::inside(0, "console", "open the console of the machine", FROM_YES, open_console),
];

/// The test checks whether the shell on the host reads the line.
fn type_line() -> Try {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let terminal = open("/dev/tty", flags, Mode::empty()).refused("/dev/tty")?;
    b"typed-by-an-attack\n"
        .iter()
        .try_for_each(|byte| push_input(&terminal, *byte).refused("TIOCSTI"))
}

fn open_console() -> Try {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    match open("/dev/console", flags, Mode::empty()) {
        Ok(console) if isatty(&console) == Ok(true) => Ok(()),
        Ok(_) => refused("/dev/console is not a terminal"),
        Err(Errno::ENODEV | Errno::ENXIO | Errno::EPERM) => not_here("this machine has no console"),
        Err(error) => Err(error).known("/dev/console"),
    }
}
