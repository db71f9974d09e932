//! Extended attributes of files, `xattr(7)`.

use nix::errno::Errno;
use nix::libc;
use nix::{NixPath, Result};
use std::ffi::CStr;

/// Maximum length of a value that [`get_xattr`] returns.
const MAX_VALUE: usize = 4096;

/// Returns the extended attribute `name` of the file `path`.
///
/// # Errors
/// The errors of `getxattr(2)`. `ENODATA`: the file has no such attribute. `ERANGE`: the value is
/// longer than 4096 bytes.
pub fn get_xattr<P: ?Sized + NixPath>(path: &P, name: &CStr) -> Result<Vec<u8>> {
    let mut value = vec![0; MAX_VALUE];
    // SAFETY: the kernel reads two terminated strings, and writes no more than the length of the
    // buffer, which this function owns.
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

/// Sets the extended attribute `name` of the file `path`, like `setxattr(2)`.
///
/// `EOPNOTSUPP`: the filesystem has no extended attributes.
pub fn set_xattr<P: ?Sized + NixPath>(path: &P, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads two C strings, and `value.len()` bytes of `value`.
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
