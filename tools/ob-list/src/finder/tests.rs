use super::*;
use ob_document::confid;

/// A new directory with state directories; removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ob-list-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Directory(directory)
    }

    /// Writes the state of a subhost whose pid 1 is this test. Returns its lock.
    fn write(&self, name: &str, facts: &[&str]) -> File {
        let state_dir = StateDir::below(&self.0, name);
        let lock = state_dir.lock().unwrap().unwrap();
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
        state_dir.write(&document).unwrap();
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

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn state_follows_from_lock_marker_and_pid_1() {
    let directory = Directory::new("states");
    let _held = [
        directory.write("b-running", &["alive"]),
        directory.write("a-starting", &[]),
        directory.write("c-ending", &["ended"]),
        directory.write("d-stopping", &["alive"]),
    ];
    drop(directory.write("e-dead", &["ended"]));
    drop(directory.write("f-orphan", &["alive"]));
    let mark = File::create(directory.0.join("d-stopping/stopping")).unwrap();
    ob_sys::lock::lock(&mark).unwrap();
    drop(directory.write("g-torn", &["ended"]));
    std::fs::remove_file(directory.0.join("g-torn/lock")).unwrap();
    std::fs::create_dir(directory.0.join("g-nothing")).unwrap();
    std::fs::write(directory.0.join("g-nothing/lock"), "").unwrap();
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
    let states = directory.states();
    let states: Vec<_> = states
        .iter()
        .map(|(name, state)| (&**name, *state))
        .collect();
    assert_eq!(states, expected);
}

#[test]
fn unverified_pid_is_not_listed() {
    let directory = Directory::new("pid");
    drop(directory.write("dead", &["ended"]));
    let _held = directory.write("alive", &["alive"]);
    let pid = |name: &str| directory.named(name).unwrap().document.number("pid").ok();
    assert_eq!(pid("dead"), None);
    assert_eq!(pid("alive"), Some(u64::from(std::process::id())));
}

#[test]
fn listing_a_dead_subhost_does_not_block_a_boot() {
    let directory = Directory::new("race");
    drop(directory.write("a", &["ended"]));
    let state_dir = StateDir::below(&directory.0, "a");
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            for _ in 0..2000 {
                directory.states();
            }
        });
        while !looker.is_finished() {
            assert!(state_dir.lock().unwrap().is_some());
        }
    });
}

#[test]
fn name_is_not_a_pattern_and_file_must_match() {
    let directory = Directory::new("named");
    let conf = |name: &str, text: &str| {
        let path = directory.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let ours = conf(".a/web.conf", "BASE=.\n");
    let other = conf(".b/web.conf", "BASE=.\n");
    let renamed = conf(".a/old.conf", "BASE=.\nNAME=new\n");
    let _held = [
        directory.write("web", &["alive", ".a/web.conf"]),
        directory.write("axd", &["alive"]),
        directory.write("old", &["alive", ".a/old.conf"]),
        directory.write("gone", &["alive", ".a/gone.conf"]),
    ];
    let name = |operand: &str| directory.named(operand).unwrap().document.name().to_owned();
    let failure = |operand: &str| format!("{:#}", directory.named(operand).err().unwrap());
    assert_eq!(name("web"), "web");
    assert_eq!(name(&ours), "web");
    assert_eq!(name(&renamed), "old");
    assert_eq!(name(&ours.replace("web.conf", "gone.conf")), "gone");
    let expected = format!("web: running, but from {ours}, not {other}");
    assert_eq!(failure(&other), expected);
    assert_eq!(failure("a.d"), "a.d: not running");
    assert_eq!(
        failure("a b").split(':').next(),
        Some("NAME=a b cannot be a name")
    );
    assert_eq!(failure("/no/such.conf"), "such: not running");
    assert_eq!(failure("such.conf"), "such: not running");
    assert_eq!(failure("/no/.conf"), "/no/.conf: not running");
    // The identity of the file matches at any path, the path matches with any file there.
    let moved = ours.replace("web.conf", "moved");
    std::fs::rename(&ours, &moved).unwrap();
    assert_eq!(name(&moved), "web");
    conf(".a/web.conf", "");
    assert_eq!((name(&ours), name(&moved)), ("web".into(), "web".into()));
    assert_eq!(
        name(&format!("{}/.a/../.a/web.conf", directory.0.display())),
        "web"
    );
    // If NAME is a command, several subhosts are started from one configuration.
    let many = conf(".a/many.conf", "");
    let _held = ["x", "y"].map(|name| directory.write(name, &["alive", ".a/many.conf"]));
    let expected = format!("{many}: started as x and y; give one of these names");
    assert_eq!(failure(&many), expected);
}

#[test]
fn damaged_document_is_reported_and_subhost_still_listed() {
    let directory = Directory::new("damaged");
    drop(directory.write("a", &["ended"]));
    std::fs::write(directory.0.join("a/subhost"), "{").unwrap();
    let subhost = directory.named("a").unwrap();
    assert_eq!(subhost.state, State::Dead);
    assert!(format!("{:#}", subhost.damage.unwrap()).contains("no document"));
}
