//! The placeholder: a process that keeps a subhost without services running.

use crate::message::Failure;
use crate::sys::{self, Args, Fifo, SignalSet};
use core::ffi::CStr;

/// The process name that scripts look for.
const NAME: &CStr = c"dummy_service";
/// The FIFO that scripts write to, to end the placeholder.
const FIFO: &CStr = c"/run/dummy_service";

/// Waits until data is written to the FIFO, or until SIGTERM, SIGINT, SIGHUP or SIGQUIT.
///
/// `fifo` is the index of the argument with the path of the FIFO; [`FIFO`] is the default. Creates
/// the FIFO if the path does not exist, and removes it at the end. If it cannot be opened, reports
/// that and waits for a signal only: the subhost must keep running. Always returns 0.
pub fn run(args: &mut Args, fifo: usize) -> u8 {
    let signals = SignalSet::all_but_faults();
    signals.block();
    sys::close_from(3);
    sys::set_process_name(NAME);
    args.set_title(NAME.to_bytes(), fifo);

    let path = args.get_c(fifo).unwrap_or(FIFO);
    let fifo = Fifo::open(path)
        .map_err(|why| {
            let what = "wait for a signal only, without the fifo";
            let object = path.to_bytes();
            Failure { what, object, why }.report();
        })
        .ok();
    // SIGIO reports a write, so that a single call waits for signals and data.
    while !fifo.as_ref().is_some_and(Fifo::has_data) {
        let signal = signals.wait();
        if let Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) = signal {
            break;
        }
    }
    if let Some(fifo) = fifo {
        fifo.remove_if_created();
    }
    0
}
