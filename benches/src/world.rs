//! The world of the benchmark: private mounts, processes and network, a bridge, and a directory for
//! each subhost.

use anyhow::{Context, Result, ensure};
use ob_cable::links::{Links, Watch};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The bridge of all cables.
pub const BRIDGE: &str = "br0";

/// The script that every pid 1 runs with `sh`; its first command ends the timing of a boot.
const INIT: &str = "/bench-mark start\nexec /bench-mark stay\n";

/// The bound of each wait.
const BOUND: Duration = Duration::from_secs(30);

/// Paths of the world.
pub struct World {
    /// The parent of the directories of the subhosts.
    pub directory: PathBuf,
    /// The directory of floor, mark and the tools.
    pub bin: PathBuf,
}

/// Runs this program again in new namespaces; the shell stays as pid 1 and reaps.
pub fn become_worldly(arguments: impl Iterator<Item = std::ffi::OsString>) -> anyhow::Error {
    let line = "mount -t tmpfs -o mode=755 tmpfs /run && mount -t sysfs sysfs /sys && { mount -t cgroup2 cgroup2 /sys/fs/cgroup || :; } && ip link set lo up && ip link add br0 type bridge && ip link set br0 up && \"$0\" --in-world \"$@\"; exit $?";
    let exe = std::env::current_exe().unwrap_or_default();
    // The highest priority, so that other load on the machine does not disturb the measurement.
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
    /// Makes the directory beside the programs, on a filesystem that can carry an overlay.
    pub fn new(bin: PathBuf) -> Result<Self> {
        let directory = bin.join(format!("bench-{}", std::process::id()));
        let directory = match bin.starts_with("/tmp") || fs::create_dir(&directory).is_err() {
            true => PathBuf::from(format!("/var/tmp/bench-{}", std::process::id())),
            false => directory,
        };
        fs::create_dir_all(&directory)?;
        Ok(World { directory, bin })
    }

    /// Prepares the directory of the subhost `name`; returns its path.
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

    /// Returns a command with the tools and scripts on its PATH.
    pub fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    /// Runs a command, which must succeed; returns the duration.
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

/// Observes the end of a subhost: its cable disappears.
pub struct Gone {
    watch: Watch,
    links: Links,
    index: Vec<i32>,
}

impl Gone {
    /// Starts to observe the cable of the subhost `name`.
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

    /// Waits until the cable is gone.
    pub fn wait(mut self) -> Result<()> {
        self.watch.wait(&mut self.links, &mut self.index, BOUND)?;
        ensure!(self.index.is_empty(), "the cable is still there");
        Ok(())
    }
}

/// Observes the creation of a file, with inotify(7) and so without delay.
pub struct Mark {
    inotify: nix::sys::inotify::Inotify,
    path: PathBuf,
}

impl Mark {
    /// Starts to observe the file `mark` in the upper layer `root`.
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

    /// Waits for the file; returns the time of its creation, and its text.
    pub fn wait(&self, mut failed: impl FnMut() -> bool) -> Result<(Instant, String)> {
        use nix::poll::{PollFd, PollFlags, poll};
        use nix::sys::inotify::AddWatchFlags;
        use std::os::fd::AsFd;
        let end = Instant::now() + BOUND;
        let mut made = None;
        loop {
            let mut events = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
            if poll(&mut events, 200_u16)? == 0 {
                ensure!(!failed(), "the subhost ended before its first command");
                ensure!(
                    Instant::now() < end,
                    "timeout: waited for the first command"
                );
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

/// Checks the results of the first command.
pub fn verify(facts: &str) -> Result<()> {
    let facts: Vec<&str> = facts.lines().collect();
    for (kind, fact) in ["pid", "mnt", "ipc", "uts", "net"].iter().zip(&facts) {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        ensure!(
            !fact.is_empty() && Path::new(fact) != ours,
            "the subhost shares the {kind} namespace with the bench"
        );
    }
    for (what, fact) in ["overlay", "cable", "dev"].iter().zip(&facts[6..]) {
        ensure!(what == fact, "wrong environment inside: {fact}");
    }
    Ok(())
}
