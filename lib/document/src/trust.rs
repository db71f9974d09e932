//! Whose word a boot takes: who can write to a configuration, or to its BASE, decides what root runs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

const STICKY: u32 = 0o1000;

/// Why the file or directory `path` should not be trusted, in a sentence that begins with it; none if root alone can change it.
#[must_use]
pub fn doubt(path: &Path) -> Option<String> {
    let status = path.metadata().ok()?;
    // In such a directory others can make files, but not put them in the place of root's.
    let shared = status.is_dir() && status.mode() & STICKY != 0;
    if status.mode() & 0o022 != 0 && !shared {
        return Some(format!(
            "{} can be written by others than its owner; chmod go-w it",
            path.display()
        ));
    }
    (status.uid() != 0).then(|| {
        format!(
            "{} belongs to uid {}, who so decides what root runs",
            path.display(),
            status.uid()
        )
    })
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
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_can_write_is_doubted() {
        let path = std::env::temp_dir().join(format!("ob-trust-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        for (mode, doubted) in [(0o664, true), (0o646, true)] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let doubt = doubt(&path).is_some_and(|text| text.contains("chmod go-w"));
            assert_eq!(doubt, doubted, "{mode:o}");
        }
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let ours = path.metadata().unwrap().uid() == 0;
        assert_eq!(doubt(&path).is_none(), ours);
        std::fs::remove_file(&path).unwrap();
    }
}
