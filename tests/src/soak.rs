//! The soak test: boots and stops a subhost many times and reports which counts grow.

use crate::World;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Slab caches of kernel objects that each subhost uses. /proc/slabinfo counts them for the whole
/// machine.
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

/// Counts by name.
pub type Counts = BTreeMap<String, usize>;

/// The measurements of a soak test.
pub struct Soak {
    /// The number of the cycle, the counts of the world and the counts of the machine.
    pub samples: Vec<(usize, Counts, Counts)>,
    /// The duration of each cycle.
    pub times: Vec<Duration>,
}

/// Boots and stops a subhost with two cables and a share `cycles` times. Takes about twenty
/// samples. The first cycles do not count, because they make directories that stay.
pub fn soak(cycles: usize, mut progress: impl FnMut(usize, Duration)) -> Soak {
    let world = World::new();
    world.ok("ip link add br0 type bridge && ip link set br0 up; mkdir shared");
    let conf = world.subhost("mta", "CABLES=br0= =\nSHARE=../shared:/mnt");
    let cycle = || {
        // Empty layers, so that they do not grow.
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
    /// Returns the counts of the world that have grown. None of them may grow.
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

    /// Returns the growth of each kernel object of the machine per cycle: the median of the slopes
    /// of all pairs of samples, because other processes on the machine use such objects too.
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

    /// Returns the median duration of a cycle in each tenth of all cycles.
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

/// Counts the mounts, links, namespaces, control groups, processes, zombies and open files of a
/// world, without starting a process in it.
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
    // The first process of the world may take a moment to reap a child.
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

/// Counts the objects of the machine.
fn of_machine() -> Counts {
    let mut counts = Counts::new();
    let table = fs::read_to_string("/proc/slabinfo").unwrap_or_default(); // readable only by root
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
