//! The world that everything is measured in: its own mounts, processes and network, a bridge, and a directory for each subhost.

use anyhow::{Context, Result, ensure};
use ob_cable::links::{Links, Watch};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The bridge that all cables lead to.
pub const BRIDGE: &str = "br0";

/// What pid 1 of everybody's subhost is: `sh` with these lines, of which the first command is the one that is waited for.
const INIT: &str = "/bench-mark start\nexec /bench-mark stay\n";

/// How long anything may take.
const BOUND: Duration = Duration::from_secs(30);

/// Where the programs are.
pub struct World {
    /// The directory of the subhosts' directories.
    pub directory: PathBuf,
    /// The directory of floor and mark, and of the tools.
    pub bin: PathBuf,
}

/// Goes on in a world of its own; the shell stays as pid 1 and reaps.
pub fn become_worldly(arguments: impl Iterator<Item = std::ffi::OsString>) -> anyhow::Error {
    let line = "mount -t tmpfs -o mode=755 tmpfs /run && mount -t sysfs sysfs /sys && { mount -t cgroup2 cgroup2 /sys/fs/cgroup || :; } && ip link set lo up && ip link add br0 type bridge && ip link set br0 up && \"$0\" --in-world \"$@\"; exit $?";
    let exe = std::env::current_exe().unwrap_or_default();
    // Others that use the machine meanwhile are to wait: what is measured is not how many they are.
    let error = Command::new("nice")
        .args(["-n", "-20", "unshare"])
        .args([
            "-mnpu",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            line,
        ])
        .arg(exe)
        .args(arguments)
        .exec();
    anyhow::Error::from(error).context("run nice(1) and unshare(1)")
}

impl World {
    /// Makes the directory beside the programs, which must be on a filesystem that can carry an overlay.
    pub fn new(bin: PathBuf) -> Result<Self> {
        let directory = bin.join(format!("bench-{}", std::process::id()));
        let directory = match bin.starts_with("/tmp") || fs::create_dir(&directory).is_err() {
            true => PathBuf::from(format!("/var/tmp/bench-{}", std::process::id())),
            false => directory,
        };
        fs::create_dir_all(&directory)?;
        Ok(World { directory, bin })
    }

    /// The directory of the subhost `name`, made ready.
    pub fn place(&self, name: &str) -> Result<PathBuf> {
        let place = self.directory.join(name);
        for part in ["root", "work", "live", "bundle"] {
            fs::create_dir_all(place.join(part))?;
        }
        fs::copy(self.bin.join("mark"), place.join("root/bench-mark"))?;
        fs::write(place.join("root/bench-init"), INIT)?;
        let at = place.display();
        let conf = |start: &str| {
            format!("BASE=.\nNAME={name}\nLOG={at}/log\nCABLES={BRIDGE}=\nSTART={start}\n")
        };
        fs::write(place.join("first.conf"), conf("/bench-mark"))?;
        fs::write(place.join("idle.conf"), conf("none"))?;
        Ok(place)
    }

    /// A command with the tools and scripts on its path.
    pub fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, which is to be a good one; tells how long it took.
    pub fn time(&self, words: &[String]) -> Result<Duration> {
        let mut command = self.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let start = Instant::now();
        let child = command.spawn().with_context(|| format!("run {words:?}"))?;
        let output = child.wait_with_output()?;
        let time = start.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{words:?}: {} {said}",
            output.status
        );
        Ok(time)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The end of a subhost as everybody's is seen: its cable is gone.
pub struct Gone {
    watch: Watch,
    links: Links,
    index: Vec<i32>,
}

impl Gone {
    /// Begins to watch the cable of the subhost `name`.
    pub fn watch(name: &str) -> Result<Self> {
        let watch = Watch::begin()?;
        let mut links = Links::here()?;
        let link = links.find(&format!("{name}0"))?;
        let link = link.with_context(|| format!("{name} has no cable on the host"))?;
        Ok(Gone {
            watch,
            links,
            index: vec![link.index],
        })
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<()> {
        self.watch.wait(&mut self.links, &mut self.index, BOUND)?;
        ensure!(self.index.is_empty(), "its cable stays");
        Ok(())
    }
}

/// Waits for `path` to come into being, which inotify tells the moment it happens.
pub struct Mark {
    inotify: nix::sys::inotify::Inotify,
    path: PathBuf,
}

impl Mark {
    /// Begins to watch for the file `mark` in the directory `root`, an upper layer.
    pub fn watch(root: &Path) -> Result<Self> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let path = root.join("mark");
        let _ = fs::remove_file(&path);
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(
            root,
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_CLOSE_WRITE,
        )?;
        Ok(Mark { inotify, path })
    }

    /// Waits until it is there; tells when that was, and what was then written into it.
    pub fn wait(&self, mut failed: impl FnMut() -> bool) -> Result<(Instant, String)> {
        use nix::poll::{PollFd, PollFlags, poll};
        use nix::sys::inotify::AddWatchFlags;
        use std::os::fd::AsFd;
        let end = Instant::now() + BOUND;
        let mut made = None;
        loop {
            let mut events = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
            if poll(&mut events, 200_u16)? == 0 {
                ensure!(!failed(), "it has ended before its first command");
                ensure!(Instant::now() < end, "its first command does not come");
                continue;
            }
            let now = Instant::now();
            for event in self.inotify.read_events()? {
                if event.name.as_deref() != Some(std::ffi::OsStr::new("mark")) {
                    continue;
                }
                if event.mask.contains(AddWatchFlags::IN_CREATE) {
                    made.get_or_insert(now);
                } else if let Some(made) = made {
                    return Ok((made, fs::read_to_string(&self.path)?));
                }
            }
        }
    }
}

/// Fails unless what the first command has found is what it should be.
pub fn verify(facts: &str) -> Result<()> {
    let facts: Vec<&str> = facts.lines().collect();
    for (kind, fact) in ["pid", "mnt", "ipc", "uts", "net"].iter().zip(&facts) {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        ensure!(
            !fact.is_empty() && Path::new(fact) != ours,
            "it has our {kind} namespace"
        );
    }
    for (what, fact) in ["overlay", "cable", "dev"].iter().zip(&facts[6..]) {
        ensure!(what == fact, "it has: {fact}");
    }
    Ok(())
}
