//! Locks on files, flock(2). `std::fs::File` has the same functions, but only since Rust 1.89.
//!
//! A lock belongs to the open file description, so closing the last descriptor of that releases it.

use nix::errno::Errno;
use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks `file`, after all other locks on it have been released.
pub fn lock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_EX)?;
    Ok(())
}

/// Locks `file` and returns true; returns false if there is another lock on it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    flock(file, libc::LOCK_EX | libc::LOCK_NB)
}

/// Like [`try_lock`], for a lock that does not exclude other shared locks.
pub fn try_lock_shared(file: &File) -> io::Result<bool> {
    flock(file, libc::LOCK_SH | libc::LOCK_NB)
}

/// Releases the lock on `file`.
pub fn unlock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_UN)?;
    Ok(())
}

/// Whether there is no exclusive lock on `file`. Shares the lock until `file` is closed.
pub fn is_free(file: &File) -> bool {
    try_lock_shared(file).unwrap_or(false)
}

fn flock(file: &File, operation: libc::c_int) -> io::Result<bool> {
    // SAFETY: flock takes two numbers; it touches no memory of ours.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }) {
        Err(Errno::EWOULDBLOCK) => Ok(false),
        result => Ok(result.map(|_| true)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_exclude_each_other_unless_both_are_shared() {
        let path = std::env::temp_dir().join(format!("ob-lock-{}", std::process::id()));
        let open = || File::create(&path).unwrap();
        let (one, two, three) = (open(), open(), open());
        assert!(try_lock_shared(&one).unwrap());
        assert!(try_lock_shared(&two).unwrap());
        assert!(!try_lock(&three).unwrap());
        drop((one, two));
        lock(&three).unwrap();
        assert!(!is_free(&open()));
        unlock(&three).unwrap();
        assert!(is_free(&open()));
        std::fs::remove_file(&path).unwrap();
    }
}
