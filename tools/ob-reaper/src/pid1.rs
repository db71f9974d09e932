//! Pid 1 of a subhost: reaps until it is alone, or until it is told to end the subhost.

use crate::FAILED;
use crate::line::{Decimal, say};
use crate::reap::{Left, reap};
use crate::sys::{self, EVERYBODY, SignalSet};

/// Reaps until no child is left, then returns 0, which ends the subhost.
///
/// TERM, INT and PWR, from inside or outside, end it: everybody gets TERM, and whoever is still there after `patience` seconds
/// KILL. Every other signal is ignored.
pub fn reap_until_alone(name: &[u8], patience: u32) -> u8 {
    if sys::pid() != 1 {
        // TERM to everybody would be TERM to the whole machine.
        say(&[
            name,
            b": this is not pid 1; to run a command, say: ob-reaper -- CMD",
        ]);
        return FAILED;
    }
    // First of all: the kernel drops every signal to pid 1 that is neither blocked nor handled.
    let signals = SignalSet::all_but_faults();
    signals.block();
    sys::hear_of_children();
    sys::close_from(3);
    // Started by way of a descriptor, it would be called by the number of that.
    sys::name_process(c"ob-reaper");

    let mut ending = false;
    loop {
        let signal = match reap(|_, _| ()) {
            Left::Nobody => return 0,
            Left::Living => signals.wait(),
            Left::Dead => signals.poll(),
        };
        match signal {
            Some(libc::SIGTERM | libc::SIGINT | libc::SIGPWR) if !ending => {
                ending = true;
                ask_to_end();
                if patience == 0 {
                    return end_now(name, patience);
                }
                // The end of our patience is one more signal to wait for. An ALRM from somebody else only hastens it.
                sys::alarm(patience);
            }
            Some(libc::SIGALRM) if ending => return end_now(name, patience),
            _ => {}
        }
    }
}

fn ask_to_end() {
    let _ = sys::kill(EVERYBODY, libc::SIGTERM);
    // A stopped process gets its TERM when it goes on.
    let _ = sys::kill(EVERYBODY, libc::SIGCONT);
}

/// The kernel would do this anyway when pid 1 ends; the log shall say that it was needed.
fn end_now(name: &[u8], patience: u32) -> u8 {
    let seconds = Decimal::new(patience.cast_signed());
    say(&[
        name,
        b": not all ended within ",
        seconds.text(),
        b" s of TERM: sending KILL",
    ]);
    let _ = sys::kill(EVERYBODY, libc::SIGKILL);
    0
}
