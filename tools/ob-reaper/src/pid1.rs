//! Pid 1 of a subhost: reaps until it is alone, or until it is told to end the subhost.

use crate::line::{Decimal, say};
use crate::options::Reap;
use crate::reap::{Left, reap};
use crate::sys::{self, Args, EVERYBODY, SignalSet};
use crate::{FAILED, Failure, stand_in};

/// What `ps` shows before the name of the subhost.
const TITLE: &[u8] = b"ob-reaper ";
/// All of the command line.
const EVERY_WORD: usize = usize::MAX;
/// Longer names are cut there.
const LONGEST: usize = 128;

/// Reaps until no child is left, then returns 0, which ends the subhost.
///
/// TERM, INT and PWR, from inside or outside, end it: everybody gets TERM, and whoever is still there after our patience
/// KILL. Every other signal is ignored.
pub fn reap_until_alone(args: &mut Args, duties: Reap) -> u8 {
    let mut title = [0; TITLE.len() + LONGEST];
    let title = entitle(&mut title, args.get(duties.name).unwrap_or_default());
    let (name, patience) = (&title[TITLE.len()..], duties.patience);
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
    if duties.stand_in
        && let Err(why) = sys::fork(|| stand_in::idle(args, EVERY_WORD))
    {
        let (what, object) = ("start", b"the stand-in".as_slice());
        Failure { what, object, why }.tell();
    }
    // Started by way of a descriptor, we would be called by the number of that.
    sys::name_process(c"ob-reaper");
    if args.get(0).is_some_and(|own| own.starts_with(b"/proc/")) {
        args.rename(title, EVERY_WORD);
    }

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

/// Writes the title of the pid 1 of `name` there, and returns as much as it takes.
fn entitle<'a>(title: &'a mut [u8], name: &[u8]) -> &'a [u8] {
    let length = title.len().min(TITLE.len() + name.len());
    let letters = TITLE.iter().chain(name);
    title
        .iter_mut()
        .zip(letters)
        .for_each(|(byte, letter)| *byte = *letter);
    &title[..length]
}

fn ask_to_end() {
    let _ = sys::kill(EVERYBODY, libc::SIGTERM);
    // A stopped process gets its TERM when it goes on.
    let _ = sys::kill(EVERYBODY, libc::SIGCONT);
}

/// The kernel would do this anyway when pid 1 ends; the log shall say that it was needed.
fn end_now(name: &[u8], patience: u32) -> u8 {
    let seconds = Decimal::new(patience);
    say(&[
        name,
        b": not all ended within ",
        seconds.text(),
        b" s of TERM: sending KILL",
    ]);
    let _ = sys::kill(EVERYBODY, libc::SIGKILL);
    0
}
