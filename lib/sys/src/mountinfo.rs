//! The table of mounts in `/proc/PID/mountinfo`, `proc_pid_mountinfo(5)`.

use nix::libc::dev_t;
use nix::sys::stat::makedev;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The number of the mount, which `statx(2)` returns as `stx_mnt_id`.
    pub id: u64,
    /// The number of the mount that it is attached to.
    pub parent: u64,
    /// The device number of its filesystem, as `stat(2)` returns it.
    pub device: dev_t,
    /// The directory or file of the filesystem that is the root of the mount.
    pub root: PathBuf,
    /// The mount point, from the root directory of the process.
    pub point: PathBuf,
    /// The peer group of a shared mount, `mount_namespaces(7)`.
    pub peer_group: Option<u64>,
    /// The type of the filesystem.
    pub kind: String,
    /// The options of the filesystem, as the kernel writes them.
    options: Vec<u8>,
}

impl Mount {
    /// Reads a table. Omits lines that it does not understand.
    #[must_use]
    pub fn parse_table(table: &[u8]) -> Vec<Mount> {
        let lines = table.split(|byte| *byte == b'\n');
        lines.filter_map(Mount::parse).collect()
    }

    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let mut device = fields.next()?.split(|byte| *byte == b':');
        let device = makedev(number(device.next()?)?, number(device.next()?)?);
        let root = path(fields.next()?);
        let point = path(fields.next()?);
        // After the attributes of the mount come any number of optional fields, then a hyphen.
        let mut optional = fields.by_ref().skip(1).take_while(|field| *field != b"-");
        let peer_group = optional.find_map(|field| number(field.strip_prefix(b"shared:")?));
        optional.for_each(drop);
        let kind = String::from_utf8_lossy(fields.next()?).into_owned();
        let options = fields.nth(1)?.to_owned();
        Some(Mount {
            id,
            parent,
            device,
            root,
            point,
            peer_group,
            kind,
            options,
        })
    }

    /// Returns the value of the option `key` of the filesystem, such as `upperdir` of an overlay.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<OsString> {
        let mut options = self.options.split(|byte| *byte == b',');
        let value = options.find_map(|option| {
            let value = option.strip_prefix(key.as_bytes())?;
            value.strip_prefix(b"=")
        })?;
        Some(OsString::from_vec(unescape(value)))
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(field)).into()
}

/// Replaces each backslash with three octal digits by the byte that they stand for. The kernel
/// writes blanks, tabs, newlines and backslashes like this (`mangle_path` in fs/seq_file.c).
#[must_use]
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match octal(tail).filter(|_| *byte == b'\\') {
            Some(code) => {
                plain.push(code);
                rest = &tail[3..];
            }
            None => plain.push(*byte),
        }
    }
    plain
}

fn octal(text: &[u8]) -> Option<u8> {
    text.get(..3)?.iter().try_fold(0_u8, |code, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        code.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn all_fields_of_a_line_are_read() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            rubbish\n\
            36 1 0:40 /x\\134y /a\\040\xff rw,noatime master:2 shared:7 - overlay a rw,lowerdir=/,upperdir=/a\\040b/u\n";
        let mounts = Mount::parse_table(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            (mounts[0].peer_group, mounts[0].device),
            (None, makedev(8, 1))
        );
        let mount = &mounts[1];
        assert_eq!(
            (mount.id, mount.parent, mount.device),
            (36, 1, makedev(0, 40))
        );
        assert_eq!(mount.root, PathBuf::from("/x\\y"));
        assert_eq!(mount.point.as_os_str(), OsStr::from_bytes(b"/a \xff"));
        assert_eq!(
            (mount.peer_group, mount.kind.as_str()),
            (Some(7), "overlay")
        );
        assert_eq!(mount.option("upperdir"), Some("/a b/u".into()));
        assert_eq!((mount.option("upper"), mount.option("rw")), (None, None));
    }

    #[test]
    fn backslash_without_three_octal_digits_stays() {
        for (field, plain) in [
            ("\\012\\134\\040", "\n\\ "),
            ("a\\", "a\\"),
            ("\\01", "\\01"),
            ("\\08x\\400", "\\08x\\400"),
            ("\\\\134", "\\\\"),
        ] {
            assert_eq!(unescape(field.as_bytes()), plain.as_bytes());
        }
    }
}
