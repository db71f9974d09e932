//! Programs that lie in memory alone, where nobody can change them: `memfd_create(2)`.

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// All that keeps the content as it is, and the seals themselves.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Puts `program` into memory under `name` (which only `/proc` shows), and seals it. `EACCES`: the host allows no such programs
/// (`vm.memfd_noexec`).
pub fn seal(name: &CStr, program: &[u8]) -> Result<OwnedFd> {
    let mut memory = memory(name)?;
    memory.write_all(program).map_err(|_| Errno::ENOSPC)?;
    finish(memory)
}

/// The same for the content of `program`, which the kernel copies without our seeing it.
pub fn seal_file(name: &CStr, program: &mut File) -> Result<OwnedFd> {
    let mut memory = memory(name)?;
    std::io::copy(program, &mut memory)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    finish(memory)
}

fn memory(name: &CStr) -> Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Linux 6.3 wants to be told that it is to be run; earlier kernels do not know the word.
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    match memfd_create(name, flags | executable) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        memory => memory,
    }
    .map(File::from)
}

fn finish(memory: File) -> Result<OwnedFd> {
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(memory.into())
}

/// Whether `file` has been sealed as by [`seal`].
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
