//! The stand-in: a process that keeps a subhost alive which has no service.

use crate::Failure;
use crate::sys::{self, Args, Fifo, SignalSet};
use core::ffi::CStr;

/// The name that scripts look for.
const NAME: &CStr = c"dummy_service";
/// Where scripts write to end it.
const FIFO: &CStr = c"/run/dummy_service";

/// Idles until something is written to the fifo, that which the word number `fifo` of the command line names or else the default
/// one, or until TERM, INT, HUP or QUIT.
///
/// Makes the fifo where there is none, and then removes it at the end. Where that is not possible it says so and waits for a
/// signal: the subhost shall live all the same.
pub fn idle(args: &mut Args, fifo: usize) -> u8 {
    let signals = SignalSet::all_but_faults();
    signals.block();
    sys::close_from(3);
    sys::name_process(NAME);
    args.rename(NAME.to_bytes(), fifo);

    let path = args.get_c(fifo).unwrap_or(FIFO);
    let fifo = match Fifo::at(path) {
        Ok(fifo) => Some(fifo),
        Err(why) => {
            let what = "wait for a signal only, without the fifo";
            Failure {
                what,
                object: path.to_bytes(),
                why,
            }
            .tell();
            None
        }
    };
    // A write is told by a signal (IO), so that there is one place to wait at.
    while !fifo.as_ref().is_some_and(Fifo::is_written) {
        let signal = signals.wait();
        if let Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) = signal {
            break;
        }
    }
    if let Some(fifo) = fifo {
        fifo.remove_if_made();
    }
    0
}
