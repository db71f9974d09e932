//! Signals that are waited for.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;

/// A set of signals.
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// All but those that report a fault of our own: blocked, a fault would come again and again.
    pub fn all_but_faults() -> SignalSet {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset makes a set of whatever is there, sigdelset then has one to change.
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

    /// Blocks these and no other, so that they wait until we ask for them. Returns those that were blocked before.
    pub fn block(&self) -> SignalSet {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both are sets, and the C library fills the second. It fails for an unknown first argument only.
        unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, before.as_mut_ptr());
            SignalSet(before.assume_init())
        }
    }

    /// Waits for one of these.
    ///
    /// None where the wait was interrupted (we were stopped and went on).
    pub fn wait(&self) -> Option<c_int> {
        // SAFETY: reads a set; a null pointer means that we do not want the details.
        let signal = unsafe { libc::sigwaitinfo(&raw const self.0, ptr::null_mut()) };
        (signal > 0).then_some(signal)
    }

    /// One of these that has come already.
    pub fn poll(&self) -> Option<c_int> {
        // SAFETY: a plain structure of numbers; zero is no time at all.
        let at_once: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: reads a set and a time; a null pointer means that we do not want the details.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const at_once) };
        (signal > 0).then_some(signal)
    }
}
