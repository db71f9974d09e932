//! `ob-reaper`: pid 1 of a subhost once its services have started.
//!
//! It has no standard library and allocates nothing: what it needs of memory it has when it starts. Signals are waited for,
//! never handled, so that everything below happens in one thread, one thing after the other.

#![cfg_attr(not(test), no_std, no_main)]
#![cfg_attr(test, allow(dead_code))] // the story below is told by tests/, which run the program

mod command;
mod line;
mod options;
mod pid1;
mod reap;
mod signal;
mod stand_in;
mod sys;

use line::say;
use options::Task;
use sys::{Args, Errno};

/// The status for "the tool itself failed", as env(1) has it.
const FAILED: u8 = 125;
/// The status for "called in a way that it does not understand".
const MISUSED: u8 = 2;

const VERSION: &[u8] = concat!("ob-reaper ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();

const HELP: &[u8] = b"\
Usage: ob-reaper [--with-stand-in] NAME [SECONDS]
                                              be pid 1 of the subhost NAME
       ob-reaper [OPTION...] -- CMD [ARG...]  run CMD, be its init
       ob-reaper --stand-in [FIFO]            idle until FIFO is written to

As pid 1 it reaps what its services leave, and ends when no child is left.
TERM, INT and PWR end the subhost: TERM to all, KILL after SECONDS (10).
With a stand-in as its child it stays where there is no service.

Options for CMD (those of tini):
  -s       be a subreaper: orphans come to it, even when it is not pid 1
  -g       pass signals on to the process group of CMD
  -w       tell of every zombie that is reaped
  -e CODE  end with 0 where CMD ends with CODE (may be repeated)
  -p SIG   be sent SIG when the parent ends
  -v       tell more; -vv tells most
  -h, --help      print this
  -V, --version   print the version

Examples:
  exec /.reaper mta                      the last line of an INIT script
  ob-reaper -s -g -- sh -c 'make check'  nothing is left unreaped
";

/// What went wrong: doing `what` to `object`, and why.
struct Failure<'a> {
    what: &'static str,
    object: &'a [u8],
    why: Errno,
}

impl Failure<'_> {
    fn tell(&self) {
        let why = self.why.text();
        say(&[self.what.as_bytes(), b" ", self.object, b": ", why]);
    }
}

fn run(mut args: Args) -> u8 {
    match options::parse(&args) {
        Ok(Task::Reap(duties)) => pid1::reap_until_alone(&mut args, duties),
        Ok(Task::Run(command)) => status(command.run()),
        Ok(Task::StandIn) => stand_in::idle(&mut args, 2),
        Ok(Task::Print(text)) => status(print(text)),
        Err(misuse) => {
            misuse.tell();
            MISUSED
        }
    }
}

fn status(end: Result<u8, Failure>) -> u8 {
    end.unwrap_or_else(|failure| {
        failure.tell();
        FAILED
    })
}

fn print(text: &[u8]) -> Result<u8, Failure<'static>> {
    sys::write_all(1, text).map_err(|why| Failure {
        what: "write to",
        object: b"standard output",
        why,
    })?;
    Ok(0)
}

#[cfg(not(test))]
mod entry {
    //! What the standard library has in other programs.

    use crate::{line::say, run, sys};
    use core::ffi::{c_char, c_int};

    /// The C library calls this one.
    #[unsafe(no_mangle)]
    extern "C" fn main(_argc: c_int, argv: *mut *mut c_char) -> c_int {
        // SAFETY: the C library hands us the vector that the kernel made, and nobody else looks at it.
        let args = unsafe { sys::Args::new(argv) };
        c_int::from(run(args))
    }

    #[panic_handler]
    fn give_up(_: &core::panic::PanicInfo) -> ! {
        say(&[b"a bug in ob-reaper itself"]);
        sys::abort()
    }

    /// Named by the unwind tables of the core library, which nobody reads: a panic aborts.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}
}
