//! The parts of the machine that a world uses: a directory, a control group and a user namespace.

use crate::{is_root, until};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, statfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The prefix of the names of the control groups and directories of all worlds.
const OURS: &str = "overlay-boot-test";

/// Returns the options of unshare(1) for a user namespace, with subordinate ids if this user has
/// some; no options for root.
pub(crate) fn user_namespace() -> Vec<&'static str> {
    if is_root() {
        return Vec::new();
    }
    let mut options = vec!["--user", "--map-root-user"];
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten();
    let has_ids = |file: &str| {
        let (Some(user), Ok(ids)) = (&user, fs::read_to_string(file)) else {
            return false;
        };
        ids.lines()
            .any(|line| line.split(':').next() == Some(user.name.as_str()))
    };
    if Path::new("/usr/bin/newuidmap").exists() && has_ids("/etc/subuid") && has_ids("/etc/subgid")
    {
        options.push("--map-auto");
    }
    options
}

fn unique() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!(
        "{OURS}-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    )
}

/// Makes a directory on the first filesystem that can carry an overlay, or at least is writable.
pub(crate) fn make_directory() -> PathBuf {
    let target = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.ancestors().nth(3)?.join("tmp")));
    let target = target.filter(|path| {
        path.parent()
            .is_some_and(|target| target.join("CACHEDIR.TAG").exists())
    });
    let places = [
        std::env::var_os("OB_TMP").map(PathBuf::from),
        target,
        Some("/var/tmp".into()),
        Some(std::env::temp_dir()),
    ];
    let name = unique();
    let mut made: Vec<PathBuf> = Vec::new();
    for place in places.into_iter().flatten() {
        let directory = place.join(&name);
        if fs::create_dir_all(&directory).is_ok() {
            made.push(directory.canonicalize().expect("the path of the directory"));
        }
    }
    let is_good =
        |path: &PathBuf| statfs(path).is_ok_and(|fs| fs.filesystem_type() != OVERLAYFS_SUPER_MAGIC);
    let best = made.iter().position(is_good).unwrap_or(0);
    assert!(!made.is_empty(), "no directory is writable; set OB_TMP");
    let directory = made.remove(best);
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| sweep(directory.parent().expect("the parent directory")));
    for other in made.into_iter().filter(|other| *other != directory) {
        let _ = fs::remove_dir(other);
    }
    directory
}

/// Removes a directory. Files of other users in it are removable only from a user namespace that
/// maps the same ids as the world.
pub(crate) fn remove_directory(directory: &Path) -> bool {
    if is_root() {
        return fs::remove_dir_all(directory).is_ok();
    }
    Command::new("unshare")
        .args(user_namespace())
        .args(["sh", "-c", r#"chmod -R u+rwx "$0"; rm -rf "$0""#])
        .arg(directory)
        .status()
        .is_ok_and(|status| status.success())
}

/// Removes the directories of killed tests: old directories without a lock.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(OURS));
        let made = entry.metadata().and_then(|status| status.modified());
        let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() > 600));
        if is_ours && is_old && is_free(&entry.path()) {
            let _ = remove_directory(&entry.path());
        }
    }
}

/// Makes a control group if there is a writable cgroup2 tree; removes the groups of killed tests.
pub(crate) fn make_group() -> Option<PathBuf> {
    let tree = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(Path::new)
        .find(|path| statfs(*path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC))?;
    for entry in fs::read_dir(tree).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(OURS)?.split('-').nth(1));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = try_remove_group(&entry.path());
        }
    }
    let group = tree.join(unique());
    fs::create_dir(&group).ok().map(|()| group)
}

pub(crate) fn remove_group(group: &Path) {
    if thread::panicking() {
        let _ = try_remove_group(group);
        return;
    }
    // rmdir(2) returns EBUSY until the kernel has released the processes of the group.
    until("the removal of a control group", || try_remove_group(group));
}

fn try_remove_group(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            try_remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

/// Whether no other test program holds the directory.
fn is_free(directory: &Path) -> bool {
    let lock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock);
    File::open(directory).is_ok_and(|file| lock(file).is_ok())
}
