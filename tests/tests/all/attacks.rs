//! Attacks of a hostile root inside, and the work of an honest one, at each level of protection:
//! runs the table of the package `attacks` in real subhosts, with the accomplices outside.

mod outside;

use attacks::results::{Measured, kernel, of_kernel, put_into};
use attacks::{Ends, Entry, Kind, LEVELS, Level, Part, find, table};
use end_to_end::{Done, Line, World, attack, is_root_or_tell};
use std::panic::resume_unwind;
use std::thread;

/// The beginning of a line of a careless administrator: open descriptors and a secret.
const CARELESS: &str = "exec 7</ 8</etc/passwd; cd /usr; SECRET_TOKEN=x";

/// A world with two subhosts at one level, over the root of the machine.
struct Site {
    world: World,
    level: Level,
}

impl Site {
    fn new(level: Level) -> Self {
        let world = World::new();
        world.ok("mkdir lib shared readonly; mount --bind lib /var/lib; ip link add br0 type bridge; ip link add canary type bridge");
        world.ok("echo kept >readonly/canary; echo secret >masked");
        let site = Site { world, level };
        let mapped = match level {
            Level::Strict => "SHARE=../shared:/srv/mapped:idmap\n",
            Level::No | Level::Yes => "",
        };
        let more = format!(
            "CABLES=br0=\nSHARE=../shared:/srv/shared\n{mapped}SHARE=../readonly:/srv/readonly:ro\nMASK=/srv/masked"
        );
        site.world.write("a/root/srv/masked", "secret\n");
        site.boot("a", &more);
        site.boot("b", "CABLES=br0=");
        site
    }

    /// Boots the subhost `name`, which contains the program of the attacks. The caller has a secret
    /// in the environment and open directories.
    fn boot(&self, name: &str, more: &str) -> String {
        let conf = self.prepare(name, more);
        self.world.ok(&format!("{CARELESS} overlay-boot {conf}"));
        conf
    }

    /// Like `boot`, but only writes the configuration. BASE is closed to other users.
    fn prepare(&self, name: &str, more: &str) -> String {
        let level = self.level.word();
        let text = format!("PROTECT={level}\n{more}\nBASE=.\nSTART=none\nSTOP_TIMEOUT=1\n");
        let conf = self.world.conf(name, &text);
        let program = self.world.at(format!("{name}/root/attack"));
        std::fs::copy(attack(), program).expect("copy the program of the attacks");
        self.world.ok(&format!("chmod 700 {name}"));
        conf
    }

    /// Prepares a line that a careless administrator runs inside.
    fn go(&self, line: &str) -> Line {
        let enter = format!("{CARELESS} overlay-go a -- sh -c \"$LINE\"");
        self.world.line(&enter).env("LINE", line)
    }

    fn measured(&self, name: &str, ends: Ends, why: &str) -> Measured {
        Measured {
            name: name.to_owned(),
            level: self.level,
            ends,
            why: why.to_owned(),
        }
    }

    /// Runs the entries without an accomplice, eight per line, because each line has a time limit.
    fn try_inside(&self) -> Vec<Measured> {
        let inside = |entry: &&&Entry| matches!(entry.part, Part::Inside(_));
        let table = table();
        let names: Vec<_> = table
            .iter()
            .filter(inside)
            .map(|entry| entry.name)
            .collect();
        let tried = names.chunks(8).map(|names| {
            let line = format!("/attack each {}", names.join(" "));
            self.go(&line).run().ok()
        });
        let judge =
            |said: String| -> Vec<_> { said.lines().map(|line| self.judge(line)).collect() };
        tried.flat_map(judge).collect()
    }

    /// Runs the entries with an accomplice outside.
    fn try_outside(&self) -> Vec<Measured> {
        let not_inside = |entry: &&&Entry| !matches!(entry.part, Part::Inside(_));
        let table = table();
        let mut entries: Vec<_> = table.iter().filter(not_inside).collect();
        // This entry ends the subhost.
        entries.sort_by_key(|entry| entry.name == "ended");
        let played = entries.iter().map(|entry| {
            let played = outside::play(self, entry.name);
            let (ends, why) = played.unwrap_or_else(|| panic!("no accomplice for {}", entry.name));
            self.measured(entry.name, ends, &why)
        });
        played.collect()
    }

    /// Parses a line of `attack each`.
    fn judge(&self, line: &str) -> Measured {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (name, status, why) = (word(), word(), word());
        let entry = find(name).unwrap_or_else(|| panic!("unknown entry: {line}"));
        let ends = status.parse().ok().and_then(|status| entry.ends(status));
        let ends = ends.unwrap_or_else(|| panic!("at {}: {line}", self.level.word()));
        self.measured(name, ends, why)
    }

    /// Parses the result of `attack NAME`.
    fn judge_status(&self, name: &str, done: &Done) -> (Ends, String) {
        let line = format!("{name} {} {}", done.status, done.out.trim());
        let measured = self.judge(&line);
        (measured.ends, measured.why)
    }
}

/// Runs all entries at one level.
fn measure(level: Level) -> Vec<Measured> {
    let site = Site::new(level);
    let mut measured = site.try_inside();
    measured.extend(site.try_outside());
    let names: Vec<&str> = table().iter().map(|entry| entry.name).collect();
    measured.sort_by_key(|one| names.iter().position(|name| *name == one.name));
    let missing = |name: &&&str| !measured.iter().any(|one| one.name == **name);
    let missing: Vec<_> = names.iter().filter(missing).collect();
    assert!(missing.is_empty(), "no result for {missing:?}");
    measured
}

/// Whether an attack may end either way: one that a level lets through may fail for a reason of the
/// machine, such as a sysctl. One that must stand stands on every machine.
fn may_differ(one: &Measured) -> bool {
    let entry = find(&one.name).expect("it was tried");
    entry.expected(one.level) == Ends::Falls
}

/// Returns whether the outcome differs from the table.
fn unexpected(one: &Measured) -> bool {
    let entry = find(&one.name).expect("it was tried");
    one.ends != Ends::NotTried && one.ends != entry.expected(one.level) && !may_differ(one)
}

/// Returns whether the outcome differs from the record of this kernel; `false` without a record.
fn unlike(recorded: &[Measured], one: &Measured) -> bool {
    let same = |other: &&Measured| (&other.name, other.level) == (&one.name, one.level);
    // This machine may have fewer or more features than the machine of the record.
    let agrees = |other: &Measured| {
        other.ends == one.ends
            || [other.ends, one.ends].contains(&Ends::NotTried)
            || may_differ(one)
    };
    !recorded.is_empty() && !recorded.iter().find(same).is_some_and(agrees)
}

#[test]
fn attack_that_may_fall_may_stand_and_no_other() {
    let mut seen = [false; 2];
    for entry in table()
        .into_iter()
        .filter(|entry| entry.kind == Kind::Attack)
    {
        for level in LEVELS {
            let falls = entry.expected(level) == Ends::Falls;
            let measured = |ends| Measured {
                name: entry.name.to_owned(),
                level,
                ends,
                why: String::new(),
            };
            assert!(!unexpected(&measured(Ends::Stands)), "{}", entry.name);
            assert_eq!(unexpected(&measured(Ends::Falls)), !falls, "{}", entry.name);
            let recorded = [measured(Ends::Stands)];
            assert_eq!(
                unlike(&recorded, &measured(Ends::Falls)),
                !falls,
                "{}",
                entry.name
            );
            seen[usize::from(falls)] = true;
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn every_attack_and_work_ends_as_expected() {
    if !is_root_or_tell("attacks") {
        return;
    }
    let measured: Vec<Measured> = thread::scope(|scope| {
        let levels = LEVELS.map(|level| scope.spawn(move || measure(level)));
        let measured = levels.map(|level| level.join().unwrap_or_else(|why| resume_unwind(why)));
        measured.into_iter().flatten().collect()
    });
    let lines = |wrong: &dyn Fn(&Measured) -> bool| -> String {
        let wrong = measured.iter().filter(|one| wrong(one));
        wrong.map(|one| one.line() + "\n").collect()
    };
    let record = std::env::var_os("OB_ATTACKS_TO");
    if let Some(file) = &record {
        std::fs::write(file, lines(&|_| true)).expect("write the results");
    }
    let wrong = lines(&unexpected);
    assert!(wrong.is_empty(), "not as expected:\n{wrong}");
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel version");
    let recorded = of_kernel(&kernel(&release));
    let wrong = lines(&|one| unlike(&recorded, one));
    let is_new = record.is_some();
    assert!(is_new || wrong.is_empty(), "not as recorded:\n{wrong}");
}

/// Proves that the spies work: nsenter(1) leaks objects of the host.
#[test]
fn spy_finds_descriptors_that_nsenter_leaks() {
    if !is_root_or_tell("attacks") {
        return;
    }
    let site = Site::new(Level::No);
    let pid = &site.world.document("a")["pid"];
    let line = format!("nsenter --target {pid} --mount --pid --ipc true");
    for name in ["entered-program", "entered-descriptors", "entered-traced"] {
        let (ends, why) = outside::entered_by(&site, name, &line, "! pidof attack");
        assert_eq!(ends, Ends::Falls, "{name}: {why}");
    }
}

#[test]
fn table_in_security_md_shows_the_results() {
    let page = include_str!("../../../docs/security.md");
    let made = put_into(page).expect("a page with marks");
    assert!(
        made == page,
        "docs/security.md is out of date; run make attacks"
    );
}
