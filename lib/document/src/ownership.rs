//! Files that another user can change and that decide which programs root runs.
//!
//! These are a configuration, its BASE, its hooks, and each directory and symbolic link on the path
//! of one of them.

use nix::unistd::geteuid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

const STICKY: u32 = 0o1000;

/// The number of symbolic links that the kernel follows in a path, path_resolution(7).
const LINKS: usize = 40;

/// The id of a user that is not mapped into the user namespace, user_namespaces(7).
const OVERFLOW: u32 = 65534;

/// Finds files that a user other than root and the caller can change.
#[derive(Default)]
pub struct Ownership {
    /// The files that were checked already; for a directory, also whether it is sticky.
    checked: Vec<(OsString, Option<bool>)>,
}

impl Ownership {
    /// Returns the reason and the remedy for each file that another user can change: `path`, the
    /// directories above it, and the symbolic links of the path.
    ///
    /// Skips files that were checked before or do not exist.
    pub fn reasons(&mut self, path: &Path) -> Vec<String> {
        self.follow(path, true)
    }

    /// Like [`Ownership::reasons`], but any user may own the file at `path`; no other user must be
    /// able to replace it.
    pub fn reasons_of_place(&mut self, path: &Path) -> Vec<String> {
        self.follow(path, false)
    }

    /// Checks the files of a path in the order in which the kernel resolves them.
    fn follow(&mut self, path: &Path, with_end: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut resolution = Resolution::of(path);
        // In a sticky directory another user can create files, but not replace files of root.
        let mut is_sticky = false;
        while resolution.next() {
            let here = resolution.here.as_os_str();
            let known = self.checked.iter().find(|(checked, _)| checked == here);
            if let Some((_, Some(sticky))) = known {
                is_sticky = *sticky;
                continue;
            }
            let Ok(status) = resolution.here.symlink_metadata() else {
                break;
            };
            let sticky = status.is_dir().then(|| is_sticky_directory(&status));
            let is_end = resolution.left.is_empty() && !status.is_symlink();
            if known.is_none() && (with_end || !is_end || is_sticky) {
                reasons.extend(reason(&resolution.here, &status, is_sticky));
                self.checked.push((here.to_owned(), sticky));
            }
            if !status.is_symlink() {
                is_sticky = sticky.unwrap_or(false);
            } else if !resolution.follow_link() {
                break;
            }
        }
        reasons
    }
}

/// The resolution of a path, one name at a time, path_resolution(7).
struct Resolution {
    /// The names left to resolve.
    left: VecDeque<OsString>,
    /// The path without symbolic links of the names resolved so far.
    here: PathBuf,
    /// The number of symbolic links followed.
    links: usize,
}

impl Resolution {
    /// Begins the resolution of an absolute path. The first file is the root directory.
    fn of(path: &Path) -> Self {
        let mut left = names(path);
        left.push_front(OsString::new());
        Resolution {
            left,
            here: PathBuf::from("/"),
            links: 0,
        }
    }

    /// Resolves the next name. Returns false if there is none.
    fn next(&mut self) -> bool {
        let Some(name) = self.left.pop_front() else {
            return false;
        };
        match name.as_encoded_bytes() {
            b"" => {}
            b".." => drop(self.here.pop()),
            _ => self.here.push(&name),
        }
        true
    }

    /// Replaces the symbolic link `here` by its target. Returns false if that is not possible.
    fn follow_link(&mut self) -> bool {
        self.links += 1;
        if self.links > LINKS {
            return false;
        }
        let Ok(target) = self.here.read_link() else {
            return false;
        };
        self.here.pop();
        for name in names(&target).into_iter().rev() {
            self.left.push_front(name);
        }
        if target.is_absolute() {
            self.left.push_front(OsString::new());
            self.here = PathBuf::from("/");
        }
        true
    }
}

/// Returns the names of a path, `..` included.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

fn is_sticky_directory(status: &Metadata) -> bool {
    status.is_dir() && status.mode() & STICKY != 0
}

/// Returns why another user can change or replace a file, and the remedy. `is_sticky` is whether
/// its directory is sticky.
fn reason(path: &Path, status: &Metadata, is_sticky: bool) -> Option<String> {
    let path = path.display();
    let uid = status.uid();
    // The target of a symbolic link cannot be changed. In a sticky directory the owner of the link
    // can replace it.
    let is_link = status.is_symlink();
    if !is_ours(uid) && (!is_link || is_sticky) {
        return Some(format!(
            "{path} belongs to uid {uid}, which so decides what root runs; chown root {path}"
        ));
    }
    let is_open = status.mode() & 0o022 != 0 && !is_link && !is_sticky_directory(status);
    is_open
        .then(|| format!("{path} can be written by users other than its owner; chmod go-w {path}"))
}

/// Returns whether `uid` is root or the caller.
fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw() || uid == OVERFLOW && is_in_user_namespace()
}

/// Returns whether root of the host may have the overflow id here.
fn is_in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Returns the reason if users inside cannot search a root directory with the mode of `path`.
///
/// The root directory of an overlay has the mode of UPPER.
#[must_use]
pub fn closed(path: &Path) -> Option<String> {
    let mode = path.metadata().ok()?.mode() & 0o7777;
    (mode & 0o001 == 0).then(|| {
        format!(
            "{path} has mode {mode:04o}, and so has the root directory inside, where users other \
             than root get \"Permission denied\"; chmod 755 {path}",
            path = path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir_all, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn reasons(path: &Path) -> Vec<String> {
        Ownership::default().reasons(path)
    }

    fn set(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_file_of_a_path_is_checked_once() {
        let top = std::env::temp_dir().join(format!("ob-ownership-{}", std::process::id()));
        let base = top.join("a/base");
        create_dir_all(&base).unwrap();
        let conf = base.join("web.conf");
        std::fs::write(&conf, "").unwrap();
        symlink("a/../a/base", top.join("link")).unwrap();
        let by_link = top.join("link/web.conf");
        let usual = reasons(&conf);
        assert_eq!(reasons(&by_link), usual);
        symlink(&base, top.join("absolute")).unwrap();
        assert_eq!(reasons(&top.join("absolute/web.conf")), usual);
        assert!(!usual.iter().any(|reason| reason.contains("ob-ownership")));

        for (path, open, closed) in [(&conf, 0o664, 0o644), (&top.join("a"), 0o777, 0o755)] {
            set(path, open);
            let expected = format!(
                "{0} can be written by users other than its owner; chmod go-w {0}",
                path.display()
            );
            assert!(reasons(&by_link).contains(&expected), "{expected}");
            let mut ownership = Ownership::default();
            assert!(ownership.reasons(&conf).contains(&expected));
            assert!(!ownership.reasons(&by_link).contains(&expected));
            set(path, closed);
        }
        let mut ownership = Ownership::default();
        set(&conf, 0o666);
        assert_eq!(ownership.reasons_of_place(&conf), usual);
        set(&conf, 0o644);

        if geteuid().is_root() {
            chown(&base, Some(1000), None).unwrap();
            assert!(
                reasons(&conf)
                    .iter()
                    .any(|reason| reason.contains("uid 1000"))
            );
            chown(&base, Some(0), None).unwrap();
            // In a sticky directory the owner of a file can replace it, a symbolic link too.
            set(&top, 0o1777);
            assert_eq!(reasons(&by_link), usual);
            std::os::unix::fs::lchown(top.join("link"), Some(1000), None).unwrap();
            assert_eq!(reasons(&by_link).len(), usual.len() + 1);
        }
        std::fs::remove_dir_all(&top).unwrap();
    }
}
