//! Namespaces that a process holds open, a directory, and lines of shell that are run in them.

use crate::snapshot::nodes;
use crate::{BOUND, NO_LOOP, NOT_INSTALLED, NOT_ROOT, bin, is_root, not_done, scripts, until};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, statfs};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

/// What the names of our control groups and directories begin with.
const OURS: &str = "overlay-boot-test";

/// Where lines find their programs, after the tools and scripts.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the first process of a world does: `$1` is "overlay" if the directory `$2` is on one, which cannot carry another; the
/// rest are directories that are wanted, also if they are below the /tmp that is hidden.
///
/// Its shell stays as pid 1, for it reaps all that is orphaned, and ends with our end of its input.
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
    /// The nodes of the machine's /dev, which no test may change.
    nodes: Vec<String>,
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
            nodes: nodes(),
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

    /// Whether images can be made and mounted; if not, reports that the calling test skips `what`.
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

    /// Writes `$W/NAME/NAME.conf` and makes live, root and work beside it; returns its path.
    pub fn conf(&self, name: &str, text: &str) -> String {
        for directory in ["live", "root", "work"] {
            fs::create_dir_all(self.at(name).join(directory)).expect("make directories");
        }
        self.write(format!("{name}/{name}.conf"), text);
        format!("{}/{name}/{name}.conf", self.directory())
    }

    /// The same with a configuration that boots at once: over the busybox root, no services. The lines of `more` come first, so that
    /// they count.
    pub fn subhost(&self, name: &str, more: &str) -> String {
        self.conf(
            name,
            &format!("{more}\nBASE=.\nLOWER=../busybox\nSTART=none\n"),
        )
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
        Line {
            command,
            line: line.to_owned(),
            input: String::new(),
        }
    }

    /// The document at rest of the subhost `name`.
    #[must_use]
    pub fn document(&self, name: &str) -> serde_json::Value {
        let line = self.read(format!("/run/overlay-boot/{name}/subhost"));
        serde_json::from_str(&line).expect("a document")
    }

    /// Whether the subhost `name` has begun: whether its document tells of a pid 1.
    #[must_use]
    pub fn is_up(&self, name: &str) -> bool {
        let line = fs::read_to_string(self.at(format!("/run/overlay-boot/{name}/subhost")));
        line.is_ok_and(|line| line.contains("\"pid\":"))
    }

    /// Runs a line of the subhost's own sh inside of it, without the tools' help: to look at what they have made.
    #[track_caller]
    pub fn inside(&self, name: &str, line: &str) -> String {
        let pid = &self.document(name)["pid"];
        let enter = format!("nsenter --target {pid} --mount --uts --ipc --net --pid");
        self.line(&format!("exec {enter} /bin/sh -c \"$LINE\""))
            .env("LINE", line)
            .run()
            .ok()
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
        if !thread::panicking() {
            assert!(removed, "{} cannot be removed", self.directory.display());
            assert_eq!(nodes(), self.nodes, "the machine's /dev has changed");
        }
    }
}

/// A line of sh that is going to be run.
pub struct Line {
    command: Command,
    line: String,
    input: String,
}

impl Line {
    /// With one more variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With `text` as its standard input, which is empty else.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        text.clone_into(&mut self.input);
        self
    }

    /// Runs it to its end, and to the end of its output: something that it left behind with that open is waited for too.
    #[track_caller]
    pub fn run(self) -> Done {
        self.start().wait()
    }

    /// Starts it.
    #[must_use]
    pub fn start(mut self) -> Running {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("sh and nsenter(1) are needed");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let input = self.input;
        // It may end without having read it.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let out = read_all(child.stdout.take().expect("it is a pipe"));
        let err = read_all(child.stderr.take().expect("it is a pipe"));
        Running {
            child,
            line: self.line,
            out,
            err,
        }
    }
}

/// A line of sh that runs. It is killed when it goes out of scope.
pub struct Running {
    child: Child,
    line: String,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Running {
    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Done {
        let deadline = Instant::now() + BOUND;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (out, err) = (self.out.recv_timeout(left()), self.err.recv_timeout(left()));
        let (Ok(out), Ok(err)) = (out.clone(), err.clone()) else {
            panic!("no end of: {}\nof its output: {out:?}, {err:?}", self.line);
        };
        let status = self.child.wait().expect("its status");
        let status = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Done {
            line: self.line.clone(),
            status,
            out,
            err,
        }
    }

    /// The number of its process, on the machine: nsenter(1), whose child is in the world.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a line ended and what it said.
#[derive(Debug, Clone)]
pub struct Done {
    /// The line.
    pub line: String,
    /// Its status, 128+N if signal N ended it.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Done {
    /// What it printed, without the last newline; panics if it has failed.
    #[track_caller]
    pub fn ok(mut self) -> String {
        assert!(self.status == 0, "{self:#?}");
        if self.out.ends_with('\n') {
            self.out.pop();
        }
        self.out
    }

    /// Checks that it has failed with `status` and said one line, which holds all of `words`.
    #[track_caller]
    pub fn fails(&self, status: i32, words: &[&str]) -> &Self {
        assert_eq!(self.status, status, "{self:#?}");
        assert_eq!(self.err.lines().count(), 1, "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no '{word}' in {self:#?}");
        }
        self
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        sender.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    receiver
}

/// unshare(1)'s options for a user namespace, with subordinate ids where we have some; none for root.
fn user_namespace() -> Vec<&'static str> {
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

/// Makes the world's directory on the first filesystem that can carry an overlay, or at least be written to.
fn make_directory() -> PathBuf {
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
            made.push(directory.canonicalize().expect("its path"));
        }
    }
    let is_good =
        |path: &PathBuf| statfs(path).is_ok_and(|fs| fs.filesystem_type() != OVERLAYFS_SUPER_MAGIC);
    let best = made.iter().position(is_good).unwrap_or(0);
    assert!(
        !made.is_empty(),
        "there is no directory to work in; set OB_TMP"
    );
    let directory = made.remove(best);
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| sweep(directory.parent().expect("its place")));
    for other in made.into_iter().filter(|other| *other != directory) {
        let _ = fs::remove_dir(other);
    }
    directory
}

/// Only a user namespace like the world's may remove what belonged to other users in it.
fn remove_directory(directory: &Path) -> bool {
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

/// Removes the directories that killed tests have left: those that nobody holds, and that are not just being made.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(OURS));
        let made = entry.metadata().and_then(|status| status.modified());
        let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() > 600));
        if is_ours && is_old && File::open(entry.path()).is_ok_and(|held| held.try_lock().is_ok()) {
            let _ = remove_directory(&entry.path());
        }
    }
}

/// Makes a control group, where there is a tree that we may write to; removes those that killed tests have left.
fn make_group() -> Option<PathBuf> {
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

fn remove_group(group: &Path) {
    if thread::panicking() {
        let _ = try_remove_group(group);
        return;
    }
    // The kernel takes a moment to let go of the dead.
    until("the end of a control group", || try_remove_group(group));
}

fn try_remove_group(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            try_remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}
