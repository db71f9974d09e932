//! This program, out of reach: nothing of the host is open or mapped in a process that the subhost can see.

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

/// The caller's variables that go along; see [`crate::command`] for what is added.
pub fn is_kept(variable: &str) -> bool {
    matches!(variable, "TERM" | "LANG") || variable.starts_with("LC_")
}

/// Goes on as a sealed copy of this program in memory, unless this is one.
///
/// A subhost whose shell is a script for `/proc/self/exe` would otherwise have us run, and open for writing, the host's file
/// (CVE-2019-5736). The caller's environment is left behind as well: for a moment our child is to be seen inside.
pub fn become_sealed() -> Result<()> {
    let mut program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    if is_sealed(&program) {
        // What `ps` shows would be the number of a descriptor.
        return Ok(set_name(c"ob-enter")?);
    }
    let copy = match seal_file(c"ob-enter", &mut program) {
        Err(Errno::EACCES) => Err(Errno::EACCES)
            .context("run a copy in memory: set the sysctl vm.memfd_noexec to 0 or 1"),
        copy => copy.context("copy this program into memory"),
    }?;
    let arguments = std::env::args_os().map(OsString::into_vec);
    let environment = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(is_kept))
        .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let arguments: Vec<CString> = arguments.map(CString::new).collect::<Result<_, _>>()?;
    let environment: Vec<CString> = environment.map(CString::new).collect::<Result<_, _>>()?;
    // Whatever else the caller has left open ends here.
    set_cloexec_from(3)?;
    let never: Infallible =
        fexecve(&copy, &arguments, &environment).context("run a copy in memory")?;
    match never {}
}
