//! Snapshots of the host of a world, to check that nothing is left behind.

use crate::{BOUND, World, until};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Mounts, links, network namespaces, control groups, files in /run and /tmp, device nodes, and
/// processes of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// One line for each object except processes.
    things: BTreeSet<String>,
    processes: Vec<String>,
}

/// Prints a line for each object except processes, which begins with the kind of the object.
const LOOK: &str = r#"
sed 's/^[0-9]* [0-9]* /mount /; s/shared:[0-9]*/shared/' /proc/1/mountinfo
ip -o link | sed 's/^[0-9]*: \([^:@]*\).*<\(.*\)>.*/link \1 \2/; s/NO-CARRIER,//; s/,LOWER_UP//'
find /run /tmp -xdev -printf 'file %p %y %m\n'
find /run/netns -mindepth 1 -printf 'netns %f\n' 2>/dev/null
[ ! -e /sys/fs/cgroup/the-host ] || find /sys/fs/cgroup -type d -printf 'cgroup %p\n'
cat /proc/sys/kernel/hostname
"#;

/// How long a process may exit after the command that waits for it.
const EXIT: Duration = Duration::from_secs(2);

/// How often the processes are listed at least: a loaded machine slows the tests and the processes
/// alike.
const LOOKS: usize = 100;

/// The device nodes that every program needs. A world has the /dev of the machine.
const NODES: [&str; 9] = [
    "console", "full", "kmsg", "null", "ptmx", "random", "tty", "urandom", "zero",
];

/// Type, mode, owner and number of each node of the machine, a line each.
pub(crate) fn nodes() -> Vec<String> {
    let nodes = NODES.iter().map(|name| {
        let path = format!("/dev/{name}");
        let state = fs::symlink_metadata(&path).map_or_else(
            |_| "missing".to_owned(),
            |it| format!("{:o} {}:{} {:x}", it.mode(), it.uid(), it.gid(), it.rdev()),
        );
        format!("node {path} {state}")
    });
    nodes.collect()
}

/// Whether the first boot creates this for good: the shared mount /run/netns, as of `ip netns add`,
/// the parent of the state directories, and the logs.
fn is_for_good(thing: &str) -> bool {
    let words: Vec<&str> = thing.split(' ').collect();
    match words[..] {
        [
            "file",
            "/run/netns" | "/run/overlay-boot",
            "d",
            "755" | "700",
        ] => true,
        ["file", path, "f", "640"] => path.starts_with("/tmp/overlay-") && path.ends_with(".log"),
        ["mount", _, _, "/run/netns", ..] => true,
        ["file", "/run/network", "d", _] => true, // made by ifup
        _ => false,
    }
}

impl Snapshot {
    /// Returns the differences to `now` in words; `None` if there are none.
    #[must_use]
    pub fn difference(&self, now: &Snapshot) -> Option<String> {
        let new: Vec<&String> = now.things.difference(&self.things).collect();
        let gone: Vec<&String> = self.things.difference(&now.things).collect();
        if new.is_empty() && gone.is_empty() && self.processes == now.processes {
            return None;
        }
        let (before, after) = (&self.processes, &now.processes);
        let running: Vec<&String> = after
            .iter()
            .filter(|process| !before.contains(process))
            .collect();
        Some(format!(
            "left behind: {new:?}, gone: {gone:?}, processes: {running:?}"
        ))
    }
}

impl World {
    /// Takes a snapshot after the placeholder of the subhost `name`, which has no service, has
    /// started.
    #[must_use]
    pub fn snapshot_of_idle(&self, name: &str) -> Snapshot {
        until("the placeholder", || {
            self.inside(name, "ps").contains("dummy_service")
        });
        self.snapshot()
    }

    /// Takes a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let things = self.ok(LOOK);
        let things = things.lines().filter(|thing| !is_for_good(thing));
        Snapshot {
            things: things.map(str::to_owned).chain(nodes()).collect(),
            processes: self.processes(),
        }
    }

    /// Returns the sorted command lines of all processes in the world and in its subhosts, without
    /// zombies: the scheduler decides when pid 1 of the world reaps orphans.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("/proc")).expect("read /proc of the world");
        let mut processes: Vec<String> = entries
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .as_encoded_bytes()
                    .iter()
                    .all(u8::is_ascii_digit)
            })
            .filter_map(|entry| {
                let command = fs::read(entry.path().join("cmdline")).ok()?;
                let name = fs::read_to_string(entry.path().join("comm")).ok()?;
                // proc(5): a zombie has an empty command line.
                if command.is_empty() {
                    return None;
                }
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                Some(format!("{}: {command}", name.trim()))
            })
            .collect();
        processes.sort();
        processes
    }

    /// Checks that the host is in the same state. Processes may exit within `EXIT` and `LOOKS`.
    #[track_caller]
    pub fn assert_same(&self, before: &Snapshot) {
        let now = self.snapshot();
        let new: Vec<&String> = now.things.difference(&before.things).collect();
        let gone: Vec<&String> = before.things.difference(&now.things).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "left behind: {new:#?}, gone: {gone:#?}"
        );
        let mut processes = now.processes;
        let start = Instant::now();
        let mut looks = 0;
        while processes != before.processes && (start.elapsed() < EXIT || looks < LOOKS) {
            sleep(Duration::from_millis(5));
            processes = self.processes();
            looks += 1;
        }
        assert_eq!(
            processes,
            before.processes,
            "processes after {:?}",
            start.elapsed()
        );
    }

    /// Waits until the host is as in the snapshot, for an end that no command waits for.
    #[track_caller]
    pub fn until_same(&self, before: &Snapshot) {
        let start = Instant::now();
        while self.snapshot() != *before && start.elapsed() < BOUND {
            sleep(Duration::from_millis(20));
        }
        self.assert_same(before);
    }
}
