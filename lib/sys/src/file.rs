//! What files carry beside their content.

use nix::errno::Errno;
use nix::libc;
use nix::{NixPath, Result};
use std::ffi::CStr;

/// The extended attribute `name` of the file `path`, up to 4096 bytes of it. `ENODATA`: it has none. Like `getxattr(2)`.
pub fn attribute<P: ?Sized + NixPath>(path: &P, name: &CStr) -> Result<Vec<u8>> {
    let mut value = vec![0; 4096];
    // SAFETY: the kernel reads two C strings and writes no more than the length that it is told of a buffer that we own.
    let length = path.with_nix_path(|path| unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    })?;
    let length = Errno::result(length)?;
    value.truncate(length.unsigned_abs());
    Ok(value)
}

/// Sets the extended attribute `name` of the file `path`. `EOPNOTSUPP`: its filesystem keeps none. Like `setxattr(2)`.
pub fn set_attribute<P: ?Sized + NixPath>(path: &P, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads two C strings, and of `value` no more than the length that it is told.
    let result = path.with_nix_path(|path| unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })?;
    Errno::result(result).map(drop)
}
