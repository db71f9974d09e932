//! What a world's host is like: for "nothing is left behind".

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
    /// All but the processes, one a line.
    things: BTreeSet<String>,
    processes: Vec<String>,
}

/// Prints all but the processes, a line each that begins with its kind.
const LOOK: &str = r#"
sed 's/^[0-9]* [0-9]* /mount /; s/shared:[0-9]*/shared/' /proc/1/mountinfo
ip -o link | sed 's/^[0-9]*: \([^:@]*\).*<\(.*\)>.*/link \1 \2/; s/NO-CARRIER,//; s/,LOWER_UP//'
find /run /tmp -xdev -printf 'file %p %y %m\n'
find /run/netns -mindepth 1 -printf 'netns %f\n' 2>/dev/null
[ ! -e /sys/fs/cgroup/the-host ] || find /sys/fs/cgroup -type d -printf 'cgroup %p\n'
cat /proc/sys/kernel/hostname
"#;

/// The nodes of the machine that every program relies on. A world has the machine's own /dev.
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

/// What the first boot leaves for good: the directory of namespaces is a shared mount, as `ip netns add` makes it; the directory of
/// the states; and the log of each, which is there to be read.
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
        ["file", "/run/network", "d", _] => true, // ifup's
        _ => false,
    }
}

impl Snapshot {
    /// What is different in `now`, in words; none if nothing is.
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
    /// What the world's host is like when the subhost `name`, which has no service, has come to rest.
    #[must_use]
    pub fn snapshot_of_idle(&self, name: &str) -> Snapshot {
        until("the stand-in", || {
            self.inside(name, "ps").contains("dummy_service")
        });
        self.snapshot()
    }

    /// What the world's host is like now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let things = self.ok(LOOK);
        let things = things.lines().filter(|thing| !is_for_good(thing));
        Snapshot {
            things: things.map(str::to_owned).chain(nodes()).collect(),
            // Those that have ended and are about to be reaped are there no more.
            processes: self
                .processes()
                .into_iter()
                .filter(|process| !process.ends_with(": "))
                .collect(),
        }
    }

    /// The command lines of all processes in the world, those of its subhosts too, sorted.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("/proc")).expect("the world's /proc");
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
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                Some(format!("{}: {command}", name.trim()))
            })
            .collect();
        processes.sort();
        processes
    }

    /// Checks that the host is what it was. Only processes may take a moment to be reaped by the world's first one.
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
        until(
            &format!(
                "the processes to be {:#?} again, not {processes:#?}",
                before.processes
            ),
            || {
                processes = self.processes();
                processes == before.processes
            },
        );
    }

    /// Waits until the host is what it was: for what happens without anybody waiting for it.
    #[track_caller]
    pub fn until_same(&self, before: &Snapshot) {
        let start = Instant::now();
        while self.snapshot() != *before && start.elapsed() < BOUND {
            sleep(Duration::from_millis(20));
        }
        self.assert_same(before);
    }
}
