//! The files that decide which programs root runs: a configuration, its BASE, its hooks, and each
//! directory and link on the way to them. A user who can change one of them decides it too.

use nix::unistd::geteuid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

const STICKY: u32 = 0o1000;

/// As many links on one way as the kernel follows, `path_resolution(7)`.
const LINKS: usize = 40;

/// The id that stands for any user outside of a user namespace, `user_namespaces(7)`.
const OVERFLOW: u32 = 65534;

/// Looks whether another user than root, or than the caller, could change files.
#[derive(Default)]
pub struct Trust {
    /// The files that were judged already; of a directory, also whether it is shared.
    judged: Vec<(OsString, Option<bool>)>,
}

impl Trust {
    /// Returns a sentence for each file that another user can change: `path`, the directories above
    /// it, and the links on the way. A file that was judged before, or is not there, has none.
    pub fn doubts(&mut self, path: &Path) -> Vec<String> {
        self.judge(path, true)
    }

    /// Like [`Trust::doubts`], but the file at `path` may belong to any user: only the place is
    /// judged, in which another user must not be able to put another file.
    pub fn doubts_of_place(&mut self, path: &Path) -> Vec<String> {
        self.judge(path, false)
    }

    fn judge(&mut self, path: &Path, with_end: bool) -> Vec<String> {
        let mut doubts = Vec::new();
        let mut left = names(path);
        left.push_front(OsString::new()); // the root
        let mut here = PathBuf::from("/");
        let mut links = 0;
        // In a shared directory others can make files, but not put them in the place of root's.
        let mut is_shared = false;
        while let Some(name) = left.pop_front() {
            match name.as_encoded_bytes() {
                b"" => {}
                b".." => drop(here.pop()),
                _ => here.push(&name),
            }
            let judged = self
                .judged
                .iter()
                .find(|(judged, _)| judged == here.as_os_str());
            if let Some((_, Some(shared))) = judged {
                is_shared = *shared;
                continue;
            }
            let was_judged = judged.is_some();
            let Ok(status) = here.symlink_metadata() else {
                break;
            };
            let shared = status.is_dir().then(|| is_shared_directory(&status));
            let is_end = left.is_empty() && !status.is_symlink();
            if !was_judged && (with_end || !is_end || is_shared) {
                doubts.extend(doubt(&here, &status, is_shared));
                self.judged.push((here.as_os_str().to_owned(), shared));
            }
            if status.is_symlink() {
                links += 1;
                let Some(target) = here.read_link().ok().filter(|_| links <= LINKS) else {
                    break;
                };
                here.pop();
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
                if target.is_absolute() {
                    left.push_front(OsString::new());
                    here = PathBuf::from("/");
                }
            } else {
                is_shared = shared.unwrap_or(false);
            }
        }
        doubts
    }
}

/// The parts of a path, `..` among them.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

fn is_shared_directory(status: &Metadata) -> bool {
    status.is_dir() && status.mode() & STICKY != 0
}

/// Why another user can change the file itself; `is_shared` if it lies in a sticky directory.
fn doubt(path: &Path, status: &Metadata, is_shared: bool) -> Option<String> {
    let path = path.display();
    let uid = status.uid();
    // The owner of a link can replace it where the directory is shared; no user can change it.
    let is_link = status.is_symlink();
    if !is_ours(uid) && (!is_link || is_shared) {
        return Some(format!(
            "{path} belongs to uid {uid}, which so decides what root runs; chown root {path}"
        ));
    }
    let is_open = status.mode() & 0o022 != 0 && !is_link && !is_shared_directory(status);
    is_open.then(|| format!("{path} can be written by others than its owner; chmod go-w {path}"))
}

fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw() || uid == OVERFLOW && is_in_user_namespace()
}

/// Whether root of the host may be the overflow user here.
fn is_in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Why users inside cannot use a root directory that is `path`, or whose UPPER that is; none if
/// they can.
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

    fn doubts(path: &Path) -> Vec<String> {
        Trust::default().doubts(path)
    }

    fn set(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_file_on_the_way_is_judged_once() {
        let top = std::env::temp_dir().join(format!("ob-trust-{}", std::process::id()));
        let base = top.join("a/base");
        create_dir_all(&base).unwrap();
        let conf = base.join("web.conf");
        std::fs::write(&conf, "").unwrap();
        symlink("a/../a/base", top.join("link")).unwrap();
        let by_link = top.join("link/web.conf");
        let usual = doubts(&conf);
        assert_eq!(doubts(&by_link), usual);
        symlink(&base, top.join("absolute")).unwrap();
        assert_eq!(doubts(&top.join("absolute/web.conf")), usual);
        assert!(!usual.iter().any(|doubt| doubt.contains("ob-trust")));

        for (path, open, closed) in [(&conf, 0o664, 0o644), (&top.join("a"), 0o777, 0o755)] {
            set(path, open);
            let expected = format!(
                "{0} can be written by others than its owner; chmod go-w {0}",
                path.display()
            );
            assert!(doubts(&by_link).contains(&expected), "{expected}");
            let mut trust = Trust::default();
            assert!(trust.doubts(&conf).contains(&expected));
            assert!(!trust.doubts(&by_link).contains(&expected));
            set(path, closed);
        }
        let mut trust = Trust::default();
        set(&conf, 0o666);
        assert_eq!(trust.doubts_of_place(&conf), usual);
        set(&conf, 0o644);

        if geteuid().is_root() {
            chown(&base, Some(1000), None).unwrap();
            assert!(doubts(&conf).iter().any(|doubt| doubt.contains("uid 1000")));
            chown(&base, Some(0), None).unwrap();
            // In a sticky directory a file of another user's is that user's to replace, a link too.
            set(&top, 0o1777);
            assert_eq!(doubts(&by_link), usual);
            std::os::unix::fs::lchown(top.join("link"), Some(1000), None).unwrap();
            assert_eq!(doubts(&by_link).len(), usual.len() + 1);
        }
        std::fs::remove_dir_all(&top).unwrap();
    }
}
