//! Sealed programs in memory, which no process can change: `memfd_create(2)`.

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// The seals that prevent any change of the content and of the seals.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Creates a sealed memfd with the content `program`.
///
/// Only `/proc` shows `name`.
///
/// # Errors
/// The errors of `memfd_create(2)` and `write(2)`. `EACCES`: the sysctl `vm.memfd_noexec` is 2.
pub fn seal(name: &CStr, program: &[u8]) -> Result<OwnedFd> {
    let mut memory = memory(name)?;
    memory.write_all(program).map_err(errno)?;
    finish(memory)
}

/// Creates a sealed memfd with the content of the file `program`.
///
/// # Errors
/// The errors of [`seal`], and of reading the file.
pub fn seal_file(name: &CStr, program: &mut File) -> Result<OwnedFd> {
    let mut memory = memory(name)?;
    std::io::copy(program, &mut memory).map_err(errno)?;
    finish(memory)
}

fn memory(name: &CStr) -> Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Since Linux 6.3, a memfd may be unexecutable by default. Older kernels reject MFD_EXEC.
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    match memfd_create(name, flags | executable) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        memory => memory,
    }
    .map(File::from)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn finish(memory: File) -> Result<OwnedFd> {
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(memory.into())
}

/// Returns whether `file` has all seals of [`seal`].
pub fn is_sealed(file: impl AsFd) -> bool {
    let seals = fcntl(file, FcntlArg::F_GET_SEALS);
    seals.is_ok_and(|seals| seals & SEALS.bits() == SEALS.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_copy_cannot_be_changed() {
        let mut file = File::from(seal(c"test", b"content").unwrap());
        assert!(is_sealed(&file));
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(0).is_err());
        assert!(!is_sealed(File::open("/proc/self/exe").unwrap()));
    }
}
