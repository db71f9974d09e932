//! Sets of signals: blocked, and received with `sigwaitinfo(2)`.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;

/// A set of signals.
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Returns the set of all signals except the signals that a fault of this program raises.
    ///
    /// What happens if a fault raises a blocked signal is undefined, `sigprocmask(2)`.
    pub fn all_but_faults() -> SignalSet {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset initializes the set, and sigdelset changes an initialized set.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            for fault in [
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGABRT,
                libc::SIGTRAP,
                libc::SIGSYS,
            ] {
                libc::sigdelset(set.as_mut_ptr(), fault);
            }
            SignalSet(set.assume_init())
        }
    }

    /// Sets the signal mask to this set. Returns the previous mask.
    pub fn block(&self) -> SignalSet {
        let mut previous = MaybeUninit::uninit();
        // SAFETY: the first pointer is a valid set, and the C library fills the second. The call
        // fails only for an unknown first argument.
        unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, previous.as_mut_ptr());
            SignalSet(previous.assume_init())
        }
    }

    /// Waits for a signal of the set and returns it.
    ///
    /// Returns None if the wait was interrupted: SIGSTOP and SIGCONT do that, `signal(7)`.
    pub fn wait(&self) -> Option<c_int> {
        // SAFETY: reads a valid set. The null pointer means that no siginfo is requested.
        let signal = unsafe { libc::sigwaitinfo(&raw const self.0, ptr::null_mut()) };
        (signal > 0).then_some(signal)
    }

    /// Returns a pending signal of the set, if there is any. Does not wait.
    pub fn poll(&self) -> Option<c_int> {
        // SAFETY: timespec is a plain structure of numbers, for which zero bytes are valid.
        let no_wait: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: reads a valid set and time. The null pointer means that no siginfo is requested.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const no_wait) };
        (signal > 0).then_some(signal)
    }
}
