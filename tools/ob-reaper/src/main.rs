//! `ob-reaper`: pid 1 of a subhost after its services have started, and an init for a command.
//!
//! The manual page is ob-reaper(1). The program has no standard library and allocates no memory
//! while it runs. It blocks all signals and waits for them, without a handler, so that a single
//! thread does one thing after another.

#![cfg_attr(not(test), no_std, no_main)]
#![cfg_attr(test, allow(dead_code))] // the tests in tests/ run the program itself

mod command;
mod exit_status;
mod message;
mod number;
mod options;
mod pid1;
mod placeholder;
mod reap;
mod signal;
mod sys;

use exit_status::{FAILED, MISUSED};
use message::Failure;
use options::Task;
use sys::Args;

fn run(mut args: Args) -> u8 {
    match options::parse(&args) {
        Ok(Task::Pid1(options)) => pid1::run(&mut args, options),
        Ok(Task::Command(command)) => report_failure(command.run()),
        Ok(Task::Placeholder) => placeholder::run(&mut args, 2),
        Ok(Task::Print(text)) => report_failure(print(text)),
        Err(misuse) => {
            misuse.report();
            MISUSED
        }
    }
}

fn report_failure(result: Result<u8, Failure>) -> u8 {
    result.unwrap_or_else(|failure| {
        failure.report();
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
    //! The entry point and the panic handler, which the standard library has in other programs.

    use crate::{message::report, run, sys};
    use core::ffi::{c_char, c_int};

    /// Runs the program. The C library calls this function.
    #[unsafe(no_mangle)]
    extern "C" fn main(_argc: c_int, argv: *mut *mut c_char) -> c_int {
        // SAFETY: argv is the vector that the kernel made, and no other code uses it.
        let args = unsafe { sys::Args::new(argv) };
        c_int::from(run(args))
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        report(&[b"internal error: panic"]);
        sys::abort()
    }

    /// The unwind tables of the core library refer to this symbol. A panic aborts, so it is unused.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}
}
