//! The soak: boots and stops, again and again, and what grows meanwhile.

use crate::World;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Kernel objects of which a subhost has some, as /proc/slabinfo counts them on the whole machine.
const SLABS: [&str; 8] = [
    "mnt_cache",
    "net_namespace",
    "pid_namespace",
    "uts_namespace",
    "nsproxy",
    "ovl_inode",
    "task_struct",
    "pid",
];

/// How much there is of everything, by name.
pub type Counts = BTreeMap<String, usize>;

/// What a soak has seen.
pub struct Soak {
    /// The counts now and then, of the world, and of the machine.
    pub samples: Vec<(usize, Counts, Counts)>,
    /// How long each cycle took.
    pub times: Vec<Duration>,
}

/// Boots and stops a subhost with two cables and a share `cycles` times, and counts at the beginning, at the end, and twenty times
/// between. The first cycles are not counted: they make what stays for good.
pub fn soak(cycles: usize, mut progress: impl FnMut(usize, Duration)) -> Soak {
    let world = World::new();
    world.ok("ip link add br0 type bridge && ip link set br0 up; mkdir shared");
    let conf = world.subhost("mta", "CABLES=br0= =\nSHARE=../shared:/mnt");
    let cycle = || {
        // Made anew, so that neither grows.
        world.ok("rm -rf mta/root mta/work; mkdir mta/root mta/work");
        let start = Instant::now();
        world.ok(&format!(
            "overlay-boot {conf}; overlay-go mta true; overlay-stop mta"
        ));
        start.elapsed()
    };
    for _ in 0..3 {
        cycle();
    }
    let mut soak = Soak {
        samples: vec![(0, of_world(&world), of_machine())],
        times: Vec::new(),
    };
    for number in 1..=cycles {
        let time = cycle();
        soak.times.push(time);
        progress(number, time);
        if number % (cycles / 20).max(1) == 0 || number == cycles {
            soak.samples.push((number, of_world(&world), of_machine()));
        }
    }
    soak
}

impl Soak {
    /// What of the world's has grown, in words: there, nothing may.
    #[must_use]
    pub fn grown(&self) -> Vec<String> {
        let (Some((_, first, _)), Some((_, last, _))) = (self.samples.first(), self.samples.last())
        else {
            return Vec::new();
        };
        let grown = last
            .iter()
            .filter(|(what, count)| *count > first.get(*what).unwrap_or(&0));
        grown
            .map(|(what, count)| format!("{what}: {count}, not {}", first.get(what).unwrap_or(&0)))
            .collect()
    }

    /// How much more there is of each of the machine's kernel objects for one cycle more, in the median of all pairs of counts: others on
    /// the machine have some too, and come and go.
    #[must_use]
    pub fn slopes(&self) -> BTreeMap<String, f64> {
        let of = |what: &String| {
            let mut slopes = Vec::new();
            for (index, (x, _, before)) in self.samples.iter().enumerate() {
                for (y, _, after) in &self.samples[index + 1..] {
                    let count = |counts: &Counts| *counts.get(what).unwrap_or(&0) as f64;
                    slopes.push((count(after) - count(before)) / (y - x).max(1) as f64);
                }
            }
            slopes.sort_by(f64::total_cmp);
            slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
        };
        let names = self.samples.first().map(|(_, _, counts)| counts.keys());
        names
            .into_iter()
            .flatten()
            .map(|what| (what.clone(), of(what)))
            .collect()
    }

    /// The median time of a cycle in each tenth of all.
    #[must_use]
    pub fn medians(&self) -> Vec<Duration> {
        let size = self.times.len().div_ceil(10).max(1);
        let tenths = self.times.chunks(size).map(|tenth| {
            let mut tenth = tenth.to_vec();
            tenth.sort_unstable();
            tenth[tenth.len() / 2]
        });
        tenths.collect()
    }
}

/// Mounts, links, namespaces, control groups, processes, zombies and open files of a world, all counted without a process in it.
fn of_world(world: &World) -> Counts {
    let lines = |path: &str| world.read(path).lines().count();
    let mut counts = Counts::new();
    counts.insert("mounts".into(), lines("/proc/1/mountinfo"));
    counts.insert("links".into(), lines("/proc/1/net/dev"));
    let entries = |path: &str| fs::read_dir(world.at(path)).map_or(0, Iterator::count);
    counts.insert("named network namespaces".into(), entries("/run/netns"));
    counts.insert("states".into(), entries("/run/overlay-boot"));
    counts.insert("files in /run".into(), entries("/run"));
    let groups = fs::read_dir(world.at("/sys/fs/cgroup"))
        .into_iter()
        .flatten()
        .flatten();
    let groups = groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    counts.insert("control groups".into(), groups.count());
    // One that has just ended is the world's first process's to reap.
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let (mut processes, mut zombies, mut files) = (0, 0, 0);
        for entry in fs::read_dir(world.at("/proc")).expect("/proc").flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let Some((_, state)) = stat.rsplit_once(") ") else {
                continue; // /proc/stat
            };
            processes += 1;
            zombies += usize::from(state.starts_with('Z'));
            files += fs::read_dir(entry.path().join("fd")).map_or(0, Iterator::count);
        }
        if zombies == 0 || Instant::now() > end {
            counts.insert("processes".into(), processes);
            counts.insert("zombies".into(), zombies);
            counts.insert("open files".into(), files);
            return counts;
        }
    }
}

/// What the machine counts.
fn of_machine() -> Counts {
    let mut counts = Counts::new();
    let table = fs::read_to_string("/proc/slabinfo").unwrap_or_default(); // root's alone
    for line in table.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(active)) = (words.next(), words.next()) else {
            continue;
        };
        if SLABS.contains(&name) {
            counts.insert(name.to_owned(), active.parse().unwrap_or(0));
        }
    }
    let files = fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
    let files = files
        .split_whitespace()
        .next()
        .and_then(|files| files.parse().ok());
    counts.insert("open files".into(), files.unwrap_or(0));
    counts
}
