//! Pid 1 of a subhost: reaps its children until none is left, or until a signal ends the subhost.

use crate::exit_status::FAILED;
use crate::message::{Failure, report};
use crate::number::Decimal;
use crate::placeholder;
use crate::reap::{Children, reap};
use crate::sys::{self, ALL_PROCESSES, Args, SignalSet};

/// What `ps(1)` shows before the name of the subhost.
const TITLE_PREFIX: &[u8] = b"ob-reaper ";
/// Maximum length of the name in messages and in the title.
const MAX_NAME: usize = 128;
/// The number of arguments to replace by a title: all of them.
const ALL_ARGUMENTS: usize = usize::MAX;

/// The options of pid 1.
#[derive(Clone, Copy)]
pub struct Options {
    /// Index of the argument that names the subhost.
    pub name: usize,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_timeout: u32,
    /// Whether to start a placeholder as a child.
    pub placeholder: bool,
}

/// Reaps children until none is left, and returns the exit status, which ends the subhost.
///
/// SIGTERM, SIGINT and SIGPWR, from inside or outside, end the subhost: all processes get SIGTERM,
/// and SIGKILL if they still run after `stop_timeout`. Every other signal is ignored.
pub fn run(args: &mut Args, options: Options) -> u8 {
    let mut title = [0; TITLE_PREFIX.len() + MAX_NAME];
    let title = format_title(&mut title, args.get(options.name).unwrap_or_default());
    let name = &title[TITLE_PREFIX.len()..];
    if sys::pid() != 1 {
        // In the pid namespace of the host, kill(-1) would reach every process of the machine.
        report(&[
            name,
            b": this is not pid 1; to run a command, say: ob-reaper -- CMD",
        ]);
        return FAILED;
    }
    let signals = set_up(args, options, title);
    reap_until_alone(&signals, name, options.stop_timeout)
}

/// Blocks the signals and returns them, closes inherited descriptors, starts the placeholder, and
/// sets the title.
fn set_up(args: &mut Args, options: Options, title: &[u8]) -> SignalSet {
    // Before anything else: the kernel discards a signal to pid 1 of a pid namespace that is
    // neither blocked nor handled, pid_namespaces(7).
    let signals = SignalSet::all_but_faults();
    signals.block();
    sys::reset_sigchld();
    sys::close_from(3);
    if options.placeholder {
        if let Err(why) = sys::fork(|| placeholder::run(args, ALL_ARGUMENTS)) {
            let (what, object) = ("start", b"the placeholder".as_slice());
            Failure { what, object, why }.report();
        }
    }
    // After an exec of /proc/self/fd/9, the kernel has named the process after the descriptor.
    sys::set_process_name(c"ob-reaper");
    if args.get(0).is_some_and(|own| own.starts_with(b"/proc/")) {
        args.set_title(title, ALL_ARGUMENTS);
    }
    signals
}

/// Reaps children until none is left, or until `stop_timeout` after a signal that ends the subhost.
/// Returns the exit status.
fn reap_until_alone(signals: &SignalSet, name: &[u8], stop_timeout: u32) -> u8 {
    let mut stopping = false;
    loop {
        let signal = match reap(|_, _| ()) {
            Children::None => return 0,
            Children::Running => signals.wait(),
            Children::Unknown => signals.poll(),
        };
        match signal {
            Some(libc::SIGTERM | libc::SIGINT | libc::SIGPWR) if !stopping => {
                stopping = true;
                terminate_all();
                if stop_timeout == 0 {
                    return kill_all(name, stop_timeout);
                }
                // SIGALRM reports the timeout, so that a single call waits for everything. Another
                // process that sends SIGALRM only shortens the wait.
                sys::alarm(stop_timeout);
            }
            Some(libc::SIGALRM) if stopping => return kill_all(name, stop_timeout),
            _ => {}
        }
    }
}

/// Writes the title for the subhost `name` to `title`. Returns it, truncated if necessary.
fn format_title<'a>(title: &'a mut [u8], name: &[u8]) -> &'a [u8] {
    let length = title.len().min(TITLE_PREFIX.len() + name.len());
    let bytes = TITLE_PREFIX.iter().chain(name);
    title
        .iter_mut()
        .zip(bytes)
        .for_each(|(target, byte)| *target = *byte);
    &title[..length]
}

fn terminate_all() {
    let _ = sys::kill(ALL_PROCESSES, libc::SIGTERM);
    // SIGTERM stays pending in a stopped process until SIGCONT, signal(7).
    let _ = sys::kill(ALL_PROCESSES, libc::SIGCONT);
}

/// Kills all processes and returns the exit status.
///
/// The kernel would kill them too when pid 1 exits, but without a message in the log.
fn kill_all(name: &[u8], stop_timeout: u32) -> u8 {
    report(&[
        name,
        b": not all ended within ",
        Decimal::new(stop_timeout).text(),
        b" s of TERM: sending KILL",
    ]);
    let _ = sys::kill(ALL_PROCESSES, libc::SIGKILL);
    0
}
