//! Executes this program from a sealed memfd.
//!
//! So a process that the subhost can see has no file of the host open or mapped.

use crate::limits::CallerLimits;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl::set_name;
use nix::unistd::fexecve;
use ob_sys::memfd::{is_sealed, seal_file};
use ob_sys::process::set_cloexec_from;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;

/// Returns whether the environment of the command has this variable of the caller.
///
/// [`crate::command`] adds further variables.
pub fn is_kept(variable: &str) -> bool {
    matches!(variable, "TERM" | "LANG") || variable.starts_with("LC_")
}

/// Executes a sealed copy of this program in a memfd, unless this process already runs one.
///
/// Otherwise a program inside that is a script for `/proc/self/exe` could open the file of this
/// program on the host for writing (CVE-2019-5736). The environment of the caller is dropped, too,
/// since the child is visible inside before it executes the command.
pub fn become_sealed(limits: &CallerLimits) -> Result<()> {
    let mut program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    if is_sealed(&program) {
        // After fexecve(3), ps(1) would show the number of the descriptor.
        return Ok(set_name(c"ob-enter")?);
    }
    let copy = match seal_file(c"ob-enter", &mut program) {
        Err(Errno::EACCES) => Err(Errno::EACCES)
            .context("execute a copy in memory: set the sysctl vm.memfd_noexec to 0 or 1"),
        // Only with CAP_SYS_RESOURCE, the limit was raised above the size of the program.
        Err(Errno::EFBIG) => Err(Errno::EFBIG)
            .context("copy this program into memory: raise the hard limit of ulimit -f"),
        copy => copy.context("copy this program into memory"),
    }?;
    let arguments = std::env::args_os().map(OsString::into_vec);
    let environment = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(is_kept))
        .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let arguments: Vec<CString> = arguments.map(CString::new).collect::<Result<_, _>>()?;
    let environment: Vec<CString> = environment.map(CString::new).collect::<Result<_, _>>()?;
    // Closes the other descriptors of the caller.
    set_cloexec_from(3)?;
    // The copy must find them, to pass them to the command.
    limits.restore().context("restore the resource limits")?;
    let never: Infallible =
        fexecve(&copy, &arguments, &environment).context("execute a copy in memory")?;
    match never {}
}
