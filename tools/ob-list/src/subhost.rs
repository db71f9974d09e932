//! A subhost as it is found at rest, and the state that it is in.

use crate::detail::{Detail, Meter};
use anyhow::{Context, Result, bail, ensure};
use ob_document::state::{StateDir, lives, open_pid1};
use ob_document::{Document, confid};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a subhost is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Its pid 1 is alive.
    Running,
    /// Somebody boots it; there is no pid 1 yet.
    Starting,
    /// Somebody stops it, or it has ended and is being cleaned up.
    Stopping,
    /// Whoever booted or stopped it was killed, and has left something behind.
    Dead,
}

impl State {
    /// All states, in the order of a life.
    pub const ALL: [State; 4] = [
        State::Starting,
        State::Running,
        State::Stopping,
        State::Dead,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Starting => "starting",
            State::Stopping => "stopping",
            State::Dead => "dead",
        }
    }

    fn of(signs: &Signs) -> Self {
        match signs {
            Signs { stopped: true, .. } => State::Stopping,
            Signs { held: false, .. } => State::Dead,
            Signs { alive: true, .. } => State::Running,
            Signs { begun: true, .. } => State::Stopping,
            _ => State::Starting,
        }
    }
}

/// What the state follows from.
#[derive(Default)]
struct Signs {
    /// Somebody holds its lock.
    held: bool,
    /// Somebody holds the mark of those who stop it, or lives and is noted in it.
    stopped: bool,
    /// There was a pid 1.
    begun: bool,
    /// And it is alive, as is proven.
    alive: bool,
}

/// One subhost.
pub struct Subhost {
    /// Its document at rest, less the facts about a pid 1 that is not there any more; only its name where there is none yet.
    pub document: Document,
    /// What it is doing.
    pub state: State,
    /// How long its pid 1 has been alive.
    pub uptime: Option<Duration>,
    /// What `-l` tells of it; none without, or if it does not run.
    pub detail: Option<Detail>,
    /// Why its document cannot be read.
    pub damage: Option<anyhow::Error>,
    /// Whether nobody has laid down a document for it yet.
    unknown: bool,
}

/// Where subhosts are looked for, and with what.
pub struct Finder {
    /// The directory that all of them rest in.
    directory: PathBuf,
    /// How long the host has been up.
    now: Duration,
    /// What measures those that run, if that is wanted.
    meter: Option<Meter>,
}

impl Finder {
    /// Looks below `directory`, and also measures with `long`.
    pub fn new(directory: &Path, long: bool) -> Result<Self> {
        Ok(Finder {
            directory: directory.to_owned(),
            now: uptime_of_host().context("read /proc/uptime")?,
            meter: long.then(Meter::new).transpose()?,
        })
    }

    /// All subhosts, by name.
    pub fn all(&self) -> Result<Vec<Subhost>> {
        let names = self.names()?;
        let found = names.iter().map(|name| self.look(name));
        found.filter_map(Result::transpose).collect()
    }

    /// The names of all subhosts, sorted.
    fn names(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read {}", self.directory.display()))?,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| Document::new(name).is_ok());
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the subhost that `operand` names: a word is the name of one, a path is the
    /// configuration of one. No file is read for it, and none is opened.
    ///
    /// Fails if there is none, or if the one of that name was started from another configuration.
    pub fn named(&self, operand: &OsStr) -> Result<Subhost> {
        let path = Path::new(operand);
        let word = operand.to_str().filter(|name| !name.contains('/'));
        let possible = word.map_or(Ok(()), |name| Document::new(name).map(drop));
        if let (Some(name), Ok(())) = (word, &possible)
            && let Some(subhost) = self.look(name)?
        {
            return Ok(subhost);
        }
        // Administrators name a configuration without its path, too, in its directory.
        let operand = Operand::new(path, word.is_some());
        // The name by default; the line NAME may have given another one.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".conf").unwrap_or(&name);
        let namesake = match Document::new(name) {
            Ok(_) => self.look(name)?,
            Err(_) => None,
        };
        if let Some(subhost) = &namesake {
            // A boot that was killed before it noted its configuration.
            let is_unknown = subhost.state == State::Dead && subhost.conf().is_none();
            if is_unknown || operand.is_of(&subhost.document) {
                return Ok(namesake.expect("it is there"));
            }
        }
        let mut names = self.names()?;
        names.retain(|name| {
            let document = StateDir::below(&self.directory, name).document();
            matches!(document, Ok(Some(document)) if operand.is_of(&document))
        });
        ensure!(
            names.len() < 2,
            "{}: started as {}; give one of these names",
            path.display(),
            names.join(" and ")
        );
        if let Some(name) = names.first()
            && let Some(subhost) = self.look(name)?
        {
            return Ok(subhost);
        }
        possible?;
        let path = path.display();
        match namesake {
            Some(subhost) => {
                let conf = subhost.conf().unwrap_or("no file");
                bail!(
                    "{name}: {}, but from {conf}, not {path}",
                    subhost.state.word()
                )
            }
            None if name.is_empty() => bail!("{path}: not running"),
            None => bail!("{name}: not running"),
        }
    }

    /// Looks what lies at rest for `name`; none if nothing does.
    fn look(&self, name: &str) -> Result<Option<Subhost>> {
        let home = StateDir::below(&self.directory, name);
        let context = || format!("{name}: look at its lock");
        let lock = match File::open(home.file("lock")) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            lock => Some(lock.with_context(context)?),
        };
        // If nobody holds it we do, shared, until we have looked: so what lies there was left behind.
        let held = lock
            .as_ref()
            .is_some_and(|lock| lock.try_lock_shared().is_err());
        let (document, damage) = match home.document() {
            Ok(document) => (document, None),
            Err(error) => (Some(Document::new(name)?), Some(error)),
        };
        if !held {
            match &lock {
                // Removed under us; what lies there now is another's.
                Some(lock) if !home.is_lock(lock) => return self.look(name),
                None if !home.file("").exists() => return Ok(None),
                None if !is_torn(&home) => return self.look(name),
                _ => {}
            }
        }
        let unknown = held && document.is_none();
        let mut document = document.map_or_else(|| Document::new(name), Ok)?;
        let pid_1 = open_pid1(&document);
        let state = State::of(&Signs {
            held,
            stopped: is_being_stopped(&home),
            begun: document.has("pid"),
            alive: pid_1.is_some(),
        });
        let uptime = document.number("start").ok();
        let uptime = uptime.map(|start| self.now.saturating_sub(ticks(start)));
        if pid_1.is_none() {
            for fact in ["pid", "pidns", "start"] {
                document.remove(fact);
            }
        }
        let detail = match (&self.meter, &pid_1) {
            (Some(meter), Some(pid_1)) => {
                let measured = meter.measure(&document, pid_1);
                Some(measured.with_context(|| name.to_owned())?)
            }
            _ => None,
        };
        Ok(Some(Subhost {
            uptime: uptime.filter(|_| pid_1.is_some()),
            document,
            state,
            detail,
            damage,
            unknown,
        }))
    }

    /// Waits for the document of one that has only just begun to start, since nobody can stop what it knows nothing of.
    pub fn wait_for_document(&self, subhost: Subhost) -> Result<Option<Subhost>> {
        let mut subhost = subhost;
        for _ in 0..500 {
            if !subhost.unknown {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
            match self.look(subhost.document.name())? {
                Some(found) => subhost = found,
                None => return Ok(None),
            }
        }
        Ok(Some(subhost))
    }
}

impl Subhost {
    /// The configuration that it was started from.
    pub fn conf(&self) -> Option<&str> {
        self.document.optional("CONFIG")
    }
}

/// The configuration that an operand names.
struct Operand<'a> {
    path: Option<PathBuf>,
    confid: Option<String>,
    /// The operand if it is a word, which names no configuration that is called otherwise.
    word: Option<&'a OsStr>,
}

impl<'a> Operand<'a> {
    fn new(path: &'a Path, is_word: bool) -> Self {
        let status = if is_word {
            // Another user may have made a link there, which leads to the configuration of any
            // subhost.
            path.symlink_metadata()
        } else {
            path.metadata()
        };
        let status = status.ok().filter(Metadata::is_file);
        Operand {
            path: std::path::absolute(path).ok(),
            confid: status.as_ref().map(confid),
            word: is_word.then_some(path.as_os_str()),
        }
    }

    /// Returns whether the subhost was started from it, by whatever path; also if an editor has put
    /// a new file in its place.
    fn is_of(&self, document: &Document) -> bool {
        let Some(conf) = document.optional("CONFIG").map(Path::new) else {
            return false;
        };
        if self.word.is_some_and(|word| conf.file_name() != Some(word)) {
            return false;
        }
        let is_noted = |found: &String| document.optional("confid") == Some(found);
        let is_there = |found: &String| {
            conf.metadata()
                .is_ok_and(|status| confid(&status) == *found)
        };
        self.path.as_deref() == Some(conf)
            || self
                .confid
                .as_ref()
                .is_some_and(|found| is_noted(found) || is_there(found))
    }
}

/// Whether somebody stops it: its services, as overlay-stop does, which notes itself in the mark; or itself, under a lock.
fn is_being_stopped(home: &StateDir) -> bool {
    let Ok(mut mark) = File::open(home.file("stopping")) else {
        return false;
    };
    let mut noted = String::new();
    mark.try_lock_shared().is_err() || mark.read_to_string(&mut noted).is_ok_and(|_| lives(&noted))
}

/// Whether it has no lock, and gets none in a while: who was about to make it or had just removed it was killed.
fn is_torn(home: &StateDir) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    home.file("").exists() && !home.file("lock").exists()
}

/// The kernel counts a hundred of these a second for all that it tells to programs, on every machine that Rust runs on.
pub fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

fn uptime_of_host() -> Result<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let seconds = uptime.split_whitespace().next().unwrap_or_default();
    let seconds: f64 = seconds.parse()?;
    ensure!(seconds.is_finite() && seconds >= 0.0, "not a time");
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that subhosts rest in, of its own for each test.
    struct Rest(PathBuf);

    impl Rest {
        fn new(test: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("ob-list-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            Rest(directory)
        }

        /// Lays down a subhost whose pid 1 is this test, and returns its lock.
        fn lay_down(&self, name: &str, facts: &[&str]) -> File {
            let home = StateDir::below(&self.0, name);
            let lock = home.lock().unwrap().unwrap();
            let mut document = Document::new(name).unwrap();
            let pid = i32::try_from(std::process::id()).unwrap();
            let (pidns, start) = ob_document::state::identify(pid).unwrap();
            for fact in facts {
                match *fact {
                    "alive" => {
                        document.set("pid", pid);
                        document.set("pidns", pidns);
                        document.set("start", start);
                    }
                    "ended" => {
                        document.set("pid", pid);
                        document.set("pidns", pidns);
                        document.set("start", start + 1);
                    }
                    conf => {
                        let conf = self.0.join(conf);
                        document.set("CONFIG", conf.to_str().unwrap());
                        if let Ok(status) = conf.metadata() {
                            document.set("confid", confid(&status));
                        }
                    }
                }
            }
            home.write(&document).unwrap();
            lock
        }

        fn finder(&self) -> Finder {
            Finder::new(&self.0, false).unwrap()
        }

        fn named(&self, operand: &str) -> Result<Subhost> {
            self.finder().named(OsStr::new(operand))
        }

        fn states(&self) -> Vec<(String, &'static str)> {
            let found = self.finder().all().unwrap().into_iter();
            found
                .map(|subhost| (subhost.document.name().to_owned(), subhost.state.word()))
                .collect()
        }
    }

    impl Drop for Rest {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn state_follows_from_lock_marker_and_pid_1() {
        let rest = Rest::new("states");
        let _held = [
            rest.lay_down("b-running", &["alive"]),
            rest.lay_down("a-starting", &[]),
            rest.lay_down("c-ending", &["ended"]),
            rest.lay_down("d-stopping", &["alive"]),
        ];
        drop(rest.lay_down("e-dead", &["ended"]));
        drop(rest.lay_down("f-orphan", &["alive"]));
        let mark = File::create(rest.0.join("d-stopping/stopping")).unwrap();
        mark.lock().unwrap();
        drop(rest.lay_down("g-torn", &["ended"]));
        std::fs::remove_file(rest.0.join("g-torn/lock")).unwrap();
        std::fs::create_dir(rest.0.join("g-nothing")).unwrap();
        std::fs::write(rest.0.join("g-nothing/lock"), "").unwrap();
        let expected = [
            ("a-starting", "starting"),
            ("b-running", "running"),
            ("c-ending", "stopping"),
            ("d-stopping", "stopping"),
            ("e-dead", "dead"),
            ("f-orphan", "dead"),
            ("g-nothing", "dead"),
            ("g-torn", "dead"),
        ];
        let states = rest.states();
        let states: Vec<_> = states
            .iter()
            .map(|(name, state)| (&**name, *state))
            .collect();
        assert_eq!(states, expected);
    }

    #[test]
    fn unverified_pid_is_not_listed() {
        let rest = Rest::new("pid");
        drop(rest.lay_down("dead", &["ended"]));
        let _held = rest.lay_down("alive", &["alive"]);
        let pid = |name: &str| rest.named(name).unwrap().document.number("pid").ok();
        assert_eq!(pid("dead"), None);
        assert_eq!(pid("alive"), Some(u64::from(std::process::id())));
    }

    #[test]
    fn listing_a_dead_subhost_does_not_block_a_boot() {
        let rest = Rest::new("race");
        drop(rest.lay_down("a", &["ended"]));
        let home = StateDir::below(&rest.0, "a");
        std::thread::scope(|scope| {
            let looker = scope.spawn(|| {
                for _ in 0..2000 {
                    rest.states();
                }
            });
            while !looker.is_finished() {
                assert!(home.lock().unwrap().is_some());
            }
        });
    }

    #[test]
    fn name_is_not_a_pattern_and_file_must_match() {
        let rest = Rest::new("named");
        let conf = |name: &str, text: &str| {
            let path = rest.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let ours = conf(".a/web.conf", "BASE=.\n");
        let others = conf(".b/web.conf", "BASE=.\n");
        let renamed = conf(".a/old.conf", "BASE=.\nNAME=new\n");
        let _held = [
            rest.lay_down("web", &["alive", ".a/web.conf"]),
            rest.lay_down("axd", &["alive"]),
            rest.lay_down("old", &["alive", ".a/old.conf"]),
            rest.lay_down("gone", &["alive", ".a/gone.conf"]),
        ];
        let name = |operand: &str| rest.named(operand).unwrap().document.name().to_owned();
        let failure = |operand: &str| format!("{:#}", rest.named(operand).err().unwrap());
        assert_eq!(name("web"), "web");
        assert_eq!(name(&ours), "web");
        assert_eq!(name(&renamed), "old");
        assert_eq!(name(&ours.replace("web.conf", "gone.conf")), "gone");
        let expected = format!("web: running, but from {ours}, not {others}");
        assert_eq!(failure(&others), expected);
        assert_eq!(failure("a.d"), "a.d: not running");
        assert_eq!(
            failure("a b").split(':').next(),
            Some("NAME=a b cannot be a name")
        );
        assert_eq!(failure("/no/such.conf"), "such: not running");
        assert_eq!(failure("such.conf"), "such: not running");
        assert_eq!(failure("/no/.conf"), "/no/.conf: not running");
        // By the file itself, wherever it is now; by the path, whatever has been put there.
        let moved = ours.replace("web.conf", "moved");
        std::fs::rename(&ours, &moved).unwrap();
        assert_eq!(name(&moved), "web");
        conf(".a/web.conf", "");
        assert_eq!((name(&ours), name(&moved)), ("web".into(), "web".into()));
        assert_eq!(
            name(&format!("{}/.a/../.a/web.conf", rest.0.display())),
            "web"
        );
        // One whose NAME is a command can be started again and again.
        let many = conf(".a/many.conf", "");
        let _held = ["x", "y"].map(|name| rest.lay_down(name, &["alive", ".a/many.conf"]));
        let expected = format!("{many}: started as x and y; give one of these names");
        assert_eq!(failure(&many), expected);
    }

    #[test]
    fn damaged_document_is_reported_and_subhost_still_listed() {
        let rest = Rest::new("damaged");
        drop(rest.lay_down("a", &["ended"]));
        std::fs::write(rest.0.join("a/subhost"), "{").unwrap();
        let subhost = rest.named("a").unwrap();
        assert_eq!(subhost.state, State::Dead);
        assert!(format!("{:#}", subhost.damage.unwrap()).contains("no document"));
    }
}
