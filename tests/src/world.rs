//! Namespaces that a process holds open, a directory, and lines of shell that are run in them.

use crate::host::{make_directory, make_group, remove_directory, remove_group, user_namespace};
use crate::line::{Done, Line};
use crate::{bin, is_root, scripts, until};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

/// Where lines find their programs, after the tools and scripts.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the first process of a world does: `$1` is "overlay" if the directory `$2` is on one, which cannot carry another; the
/// rest are directories that are wanted, also if they are below the /tmp that is hidden.
///
/// Its shell stays as pid 1, for it reaps all that is orphaned, and ends with our end of its input.
const SET_UP: &str = r#"
read -r pid rest </proc/self/stat
set -eu
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
for directory; do
    case $directory in /tmp/*) mkdir -p "/run/carried$directory"; mount --bind "$directory" "/run/carried$directory" ;; esac
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
for directory; do
    case $directory in /tmp/*) mkdir -p "$directory"; mount --move "/run/carried$directory" "$directory" ;; esac
done
rm -rf /run/carried
ip link set lo up
echo "$pid"
cat
:
"#;

/// Namespaces and a directory of a test's own. Dropping it ends all processes in it and removes all that is left.
pub struct World {
    holder: Child,
    input: Option<ChildStdin>,
    /// The first process in the namespaces, as the machine's /proc numbers it.
    pid: u32,
    directory: PathBuf,
    /// Locked, which tells other test programs that the directory is in use.
    _held: File,
    group: Option<PathBuf>,
}

impl World {
    /// Makes a world with a busybox root in the directory `busybox`.
    #[must_use]
    pub fn new() -> Self {
        let directory = make_directory();
        let held = File::open(&directory).expect("its directory");
        held.lock().expect("a lock on its directory");
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
        // What lies beside the scripts, in the source tree or where they were copied.
        let beside = ["../etc", "../docs"].map(|name| scripts().join(name));
        command.args(beside.iter().filter_map(|path| path.canonicalize().ok()));
        let mut holder = command
            .env("GROUP", group.clone().unwrap_or_default())
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh and unshare(1) are needed");
        let mut pid = String::new();
        let output = holder.stdout.take().expect("it is a pipe");
        BufReader::new(output)
            .read_line(&mut pid)
            .expect("the world's first word");
        let world = World {
            input: holder.stdin.take(),
            pid: pid.trim().parse().unwrap_or_default(),
            holder,
            directory,
            _held: held,
            group,
        };
        assert!(
            world.pid != 0,
            "a world cannot be made: user namespaces are needed, or root"
        );
        if let Some(group) = &world.group {
            // unshare(1) waits for the world outside of it, but in its group, which is to be empty as a root is.
            fs::write(
                group.join("the-host/cgroup.procs"),
                world.holder.id().to_string(),
            )
            .expect("move a process");
        }
        world.make_busybox("busybox");
        // So that a snapshot does not show its shell twice, just before it becomes cat(1).
        until("the world to be at rest", || {
            let processes = world.processes();
            processes.iter().any(|process| process.starts_with("cat: "))
        });
        world
    }

    /// The directory of the world, `$W` in its lines.
    #[must_use]
    pub fn directory(&self) -> &str {
        self.directory.to_str().expect("a path in ASCII")
    }

    /// The path by which this process sees what the world has at `path`, which is relative to `$W`.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let inside = self.directory.join(path);
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        root.join(inside.strip_prefix("/").expect("an absolute path"))
    }

    /// Whether the world has a control group of its own.
    #[must_use]
    pub fn has_cgroup(&self) -> bool {
        self.group.is_some()
    }

    /// Reads a file of the world.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        let path = path.as_ref();
        fs::read_to_string(self.at(path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Whether there is something at `path`, be it a link to nowhere.
    #[must_use]
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Writes a file, its directories made where they are missing.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a file's path")).expect("make directories");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Writes a shell script that can be executed.
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
        let busybox = busybox.expect("busybox is needed: apt-get install busybox-static");
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

    /// A line of sh to run in the world; see [`Line`].
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

    /// Runs a line of sh to its end.
    #[track_caller]
    pub fn run(&self, line: &str) -> Done {
        self.line(line).run()
    }

    /// Runs a line of sh, which must succeed; returns what it printed, without the last newline.
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
        // The end of its input ends the first process, and with it the kernel all others. unshare(1) returns when they are gone.
        drop(self.input.take());
        let _ = self.holder.wait();
        if let Some(group) = &self.group {
            remove_group(group);
        }
        let removed = remove_directory(&self.directory);
        if !removed && !thread::panicking() {
            panic!("{} cannot be removed", self.directory.display());
        }
    }
}
