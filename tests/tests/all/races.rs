//! Concurrent commands, and leaks over many boots.

use end_to_end::{World, until};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns a number from the environment, for the long form of a test.
fn number(variable: &str, default: usize) -> usize {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// Pseudo-random numbers that a seed determines.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn twenty_boots_of_one_configuration_start_one_subhost() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    for _ in 0..3 {
        let boots: Vec<_> = (0..20)
            .map(|_| world.line(&format!("overlay-boot {conf}")).start())
            .collect();
        let boots: Vec<_> = boots.into_iter().map(|boot| boot.wait()).collect();
        let (won, lost): (Vec<_>, Vec<_>) = boots.iter().partition(|boot| boot.status == 0);
        assert_eq!(won.len(), 1, "{won:?}");
        for boot in lost {
            boot.fails(1, &["mta: it ", " already"]);
        }
        let processes = world.processes();
        let reapers = processes
            .iter()
            .filter(|process| process.starts_with("ob-reaper"))
            .count();
        assert!(reapers <= 1, "{processes:#?}");
        until("the subhost to run", || {
            world.run("overlay-go mta true").status == 0
        });
        world.ok("overlay-stop mta");
        world.assert_same(&before);
    }
}

#[test]
fn twenty_subhosts_boot_and_stop_at_once() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    let before = world.snapshot();
    let confs: Vec<String> = (0..20)
        .map(|number| world.subhost(&format!("s{number}-"), "CABLES=br0="))
        .collect();
    let boots: Vec<_> = confs
        .iter()
        .map(|conf| world.line(&format!("overlay-boot {conf}")).start())
        .collect();
    for boot in boots {
        boot.wait().ok();
    }
    assert_eq!(
        world.ok("ob-list --names | wc -l; ls /run/netns | wc -l"),
        "20\n20"
    );
    world.ok("overlay-stop --all");
    world.assert_same(&before);
}

#[test]
fn concurrent_boot_stop_and_go_leave_nothing() {
    let rounds = number("OB_ROUNDS", 15);
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
        .subsec_nanos();
    let _ = writeln!(
        std::io::stderr(),
        "boot against stop against go: {rounds} rounds, OB_SEED={seed}"
    );
    let mut chance = Chance(number("OB_SEED", seed as usize) as u64);
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==\nSHARE=/etc:/mnt");
    let before = world.snapshot();
    for round in 0..rounds {
        let running = chance.below(2) == 0;
        if running {
            world.ok(&format!("overlay-boot {conf}"));
        }
        let mut lines = Vec::new();
        for command in [
            format!("overlay-boot {conf}"),
            "overlay-stop mta".to_owned(),
            "overlay-go mta true".to_owned(),
            "overlay-list".to_owned(),
            "overlay-stop mta".to_owned(),
        ] {
            let pause = Duration::from_millis(chance.below(120));
            lines.push((
                command.clone(),
                world
                    .line(&format!("sleep {}; exec {command}", pause.as_secs_f64()))
                    .start(),
            ));
        }
        for (command, line) in lines {
            let done = line.wait();
            let told = done.err.trim_end().lines().count() == 1;
            let good = match command.split(' ').next() {
                Some("overlay-boot") => done.status == 0 || (done.status == 1 && told),
                Some("overlay-stop") => {
                    done.status == 0
                        || (done.status == 1 && told && done.err.contains("mta: not running"))
                }
                Some("overlay-go") => {
                    done.status == 0
                        || (done.status == 125 && told)
                        || matches!(done.status, 137 | 143)
                }
                _ => done.status == 0,
            };
            assert!(good, "round {round}: {done:#?}");
        }
        let stop = world.run("overlay-stop mta");
        assert!(
            stop.status == 0 || stop.err.contains("mta: not running"),
            "round {round}: {stop:?}"
        );
        world.until_same(&before);
    }
}

#[test]
fn repeated_boots_leak_nothing() {
    let cycles = number("OB_CYCLES", 20);
    let soak = end_to_end::soak::soak(cycles, |_, _| ());
    let medians = soak.medians();
    let _ = writeln!(
        std::io::stderr(),
        "soak: {cycles} cycles of {} ms; make soak makes 1000",
        medians[medians.len() / 2].as_millis()
    );
    assert_eq!(soak.grown(), [""; 0]);
}
