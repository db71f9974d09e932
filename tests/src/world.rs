//! The world: namespaces that a process keeps open, a directory, and files in it.

use crate::host::{make_directory, make_group, remove_directory, remove_group, user_namespace};
use crate::line::{Done, Line};
use crate::snapshot::nodes;
use crate::{NO_LOOP, NOT_INSTALLED, NOT_ROOT, bin, is_root, not_done, scripts, until};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

/// The part of PATH after the tools and scripts.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The script of the first process. `$1` is "overlay" if the directory `$2` is on an overlay, which
/// cannot be an upper layer. The other arguments are directories that must stay visible, even below
/// the /tmp that is covered.
///
/// The shell stays as pid 1: it reaps orphans, and exits at the end of its input.
const SET_UP: &str = r#"
read -r pid rest </proc/self/stat
set -eu
mount --make-r"${OB_PROPAGATION:-shared}" /
mount -t proc proc /proc
mount -t sysfs sysfs /sys 2>/dev/null || [ "$(id -u)" != 0 ] || :
if [ "$GROUP" ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir /sys/fs/cgroup/the-host
    echo 0 >/sys/fs/cgroup/the-host/cgroup.procs
fi
[ "$1" != overlay ] || mount -t tmpfs tmpfs "$2"
shift
mount -t tmpfs -o mode=755 tmpfs /run
[ "$(id -u)" != 0 ] || mount -t tmpfs -o mode=755 tmpfs /var/lib
for directory; do
    case $directory in /tmp/*) mkdir -p "/run/carried$directory"; mount --bind "$directory" "/run/carried$directory" ;; esac
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
for directory; do
    # Below a shared mount, no mount can be moved.
    case $directory in /tmp/*) mkdir -p "$directory"; mount --bind "/run/carried$directory" "$directory"; umount "/run/carried$directory" ;; esac
done
rm -rf /run/carried
ip link set lo up
echo "$pid"
cat
:
"#;

/// Private namespaces and a private directory. Dropping the world kills all processes in it and
/// removes its directory and its control group.
pub struct World {
    holder: Child,
    input: Option<ChildStdin>,
    /// The pid of the first process in the namespaces, in the pid namespace of the machine.
    pid: u32,
    directory: PathBuf,
    /// Locked, so that other test programs do not remove the directory.
    _held: Flock<File>,
    group: Option<PathBuf>,
    /// The nodes of /dev of the machine, which no test may change.
    nodes: Vec<String>,
}

impl World {
    /// Makes a world with a busybox root in the directory `busybox`.
    #[must_use]
    pub fn new() -> Self {
        let directory = make_directory();
        let held = File::open(&directory).expect("open the directory of the world");
        let held =
            Flock::lock(held, FlockArg::LockExclusive).expect("lock the directory of the world");
        let group = make_group();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"[ ! "$GROUP" ] || echo 0 >"$GROUP/cgroup.procs"; exec unshare "$@""#,
            "sh",
        ]);
        command.args(user_namespace());
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork"]);
        if group.is_some() {
            command.arg("--cgroup");
        }
        let on_overlay =
            statfs(&directory).is_ok_and(|fs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
        let kind = if on_overlay { "overlay" } else { "real" };
        command.args(["sh", "-c", SET_UP, "world", kind]);
        command.args([directory.as_path(), bin(), scripts()]);
        // The directories beside the scripts, in the source tree or in a copy.
        let beside = ["../etc", "../docs"].map(|name| scripts().join(name));
        command.args(beside.iter().filter_map(|path| path.canonicalize().ok()));
        let mut holder = command
            .env("GROUP", group.clone().unwrap_or_default())
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run sh; the tests need sh and unshare(1)");
        let mut pid = String::new();
        let output = holder.stdout.take().expect("a pipe");
        BufReader::new(output)
            .read_line(&mut pid)
            .expect("read the pid of the first process");
        let world = World {
            input: holder.stdin.take(),
            pid: pid.trim().parse().unwrap_or_default(),
            holder,
            directory,
            _held: held,
            group,
            nodes: nodes(),
        };
        assert!(
            world.pid != 0,
            "make a world: run the tests as root, or enable user namespaces"
        );
        if let Some(group) = &world.group {
            // unshare(1) stays outside of the world but in its group. A cgroup2 root has no
            // processes: a group with processes cannot enable controllers for its children (EBUSY).
            fs::write(
                group.join("the-host/cgroup.procs"),
                world.holder.id().to_string(),
            )
            .expect("move a process");
        }
        world.make_busybox("busybox");
        // Between fork and exec of cat(1), a snapshot would show the shell twice.
        until("the first process to wait for its input", || {
            let processes = world.processes();
            processes.iter().any(|process| process.starts_with("cat: "))
        });
        world
    }

    /// Returns the directory of the world, `$W` in its lines.
    #[must_use]
    pub fn directory(&self) -> &str {
        self.directory.to_str().expect("a path in ASCII")
    }

    /// Returns the path outside of the world for `path`, which is relative to `$W`.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let inside = self.directory.join(path);
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        root.join(inside.strip_prefix("/").expect("an absolute path"))
    }

    /// Returns whether the world has a control group.
    #[must_use]
    pub fn has_cgroup(&self) -> bool {
        self.group.is_some()
    }

    /// Whether images can be created and mounted. If not, reports that the calling test skips
    /// `what`.
    pub fn mounts_images(&self, what: &str) -> bool {
        let reason = if !is_root() {
            NOT_ROOT
        } else if self.run("losetup -f").status != 0 {
            NO_LOOP
        } else if self.run("command -v mksquashfs").status != 0 {
            NOT_INSTALLED
        } else {
            return true;
        };
        not_done(what, reason);
        false
    }

    /// Reads a file of the world.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        let path = path.as_ref();
        fs::read_to_string(self.at(path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Returns whether `path` exists, even as a dangling link.
    #[must_use]
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Writes a file and makes the directories above it.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a path with a directory"))
            .expect("make directories");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Writes an executable shell script.
    pub fn script(&self, path: impl AsRef<Path>, text: &str) {
        let path = path.as_ref();
        self.write(path, &format!("#!/bin/sh\n{text}\n"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.at(path), mode).expect("chmod");
    }

    /// Makes a root with a static busybox and all its applets in the directory `name`.
    pub fn make_busybox(&self, name: &str) {
        let root = self.at(name);
        for directory in [
            "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var",
        ] {
            fs::create_dir_all(root.join(directory)).expect("make directories");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|path| Path::new(path).exists());
        let busybox = busybox.expect("find busybox; apt-get install busybox-static");
        fs::copy(busybox, root.join("bin/busybox")).expect("copy busybox");
        let applets = Command::new(busybox)
            .arg("--list")
            .output()
            .expect("run busybox")
            .stdout;
        for applet in String::from_utf8_lossy(&applets)
            .lines()
            .filter(|applet| *applet != "busybox")
        {
            symlink("busybox", root.join("bin").join(applet)).expect("link an applet");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("write");
        fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\n").expect("write");
    }

    /// Prepares a line of sh to run in the world; see [`Line`].
    #[must_use]
    pub fn line(&self, line: &str) -> Line {
        let mut command = Command::new("sh");
        command.env_clear();
        let path = format!("{}:{}:{PATH}", bin().display(), scripts().display());
        command
            .env("PATH", path)
            .env("W", &self.directory)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        command.args(["-c", r#"[ ! "$0" ] || echo 0 >"$0"; exec nsenter "$@""#]);
        command.arg(
            self.group
                .as_ref()
                .map(|group| group.join("the-host/cgroup.procs"))
                .unwrap_or_default(),
        );
        command.args([
            "--target",
            &self.pid.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        ]);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        if self.group.is_some() {
            command.arg("--cgroup");
        }
        command.args(["--", "/bin/sh", "-c", &format!("cd \"$W\"\n{line}")]);
        Line::new(command, line)
    }

    /// Runs a line of sh until it exits.
    #[track_caller]
    pub fn run(&self, line: &str) -> Done {
        self.line(line).run()
    }

    /// Runs a line of sh, which must exit with 0; returns its output without the last newline.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // At EOF the first process exits. It is pid 1 of the namespace, so the kernel kills all
        // other processes in it. unshare(1) returns after the last one.
        drop(self.input.take());
        let _ = self.holder.wait();
        if let Some(group) = &self.group {
            remove_group(group);
        }
        let removed = remove_directory(&self.directory);
        if !thread::panicking() {
            assert!(removed, "{} cannot be removed", self.directory.display());
            assert_eq!(nodes(), self.nodes, "the machine's /dev has changed");
        }
    }
}
