//! Subhosts in a world: how tests write their configurations, boot them and look at them.

use crate::{World, is_root};
use std::fs;

impl World {
    /// Writes `$W/NAME/NAME.conf` and makes live, root and work beside it; returns its path.
    pub fn conf(&self, name: &str, text: &str) -> String {
        for directory in ["live", "root", "work"] {
            fs::create_dir_all(self.at(name).join(directory)).expect("make directories");
        }
        self.write(format!("{name}/{name}.conf"), text);
        format!("{}/{name}/{name}.conf", self.directory())
    }

    /// The same with a configuration that boots at once: over the busybox root, no services. The lines of `more` come first, so that
    /// they count.
    pub fn subhost(&self, name: &str, more: &str) -> String {
        self.conf(
            name,
            &format!("{more}\nBASE=.\nLOWER=../busybox\nSTART=none\n"),
        )
    }

    /// Writes the INIT script `$W/NAME/init`, which prints `text`.
    pub fn init(&self, name: &str, text: &str) {
        self.script(format!("{name}/init"), &format!("cat <<'END'\n{text}\nEND"));
    }

    /// Boots the configuration `conf`.
    #[track_caller]
    pub fn boot(&self, conf: &str) {
        self.ok(&format!("overlay-boot {conf}"));
    }

    /// Boots by the line `boot`, finds the subhost `name` running, and stops it by the line `stop`.
    #[track_caller]
    pub fn boot_and_stop(&self, name: &str, boot: &str, stop: &str) {
        self.ok(boot);
        assert_eq!(
            self.inside(name, "echo $$ >/root/was-here; cat /etc/passwd | wc -l"),
            "1",
            "{boot}"
        );
        self.ok(stop);
        assert!(!self.has(format!("/run/netns/{name}")), "{stop}");
    }

    /// The document at rest of the subhost `name`.
    #[must_use]
    pub fn document(&self, name: &str) -> serde_json::Value {
        let line = self.read(format!("/run/overlay-boot/{name}/subhost"));
        serde_json::from_str(&line).expect("a document")
    }

    /// Whether the subhost `name` has begun: whether its document tells of a pid 1.
    #[must_use]
    pub fn is_up(&self, name: &str) -> bool {
        let line = fs::read_to_string(self.at(format!("/run/overlay-boot/{name}/subhost")));
        line.is_ok_and(|line| line.contains("\"pid\":"))
    }

    /// Runs a line of the subhost's own sh inside of it, without the tools' help: to look at what they have made.
    #[track_caller]
    pub fn inside(&self, name: &str, line: &str) -> String {
        let pid = &self.document(name)["pid"];
        let enter = format!("nsenter --target {pid} --mount --uts --ipc --net --pid");
        self.line(&format!("exec {enter} /bin/sh -c \"$LINE\""))
            .env("LINE", line)
            .run()
            .ok()
    }

    /// The names of the subhosts that ob-list shows, separated by blanks.
    #[must_use]
    pub fn names(&self) -> String {
        self.run("ob-list --names").out.replace('\n', " ")
    }

    /// Returns the state of a subhost as ob-list shows it, or "none".
    #[must_use]
    pub fn state(&self, name: &str) -> String {
        let list = self.run(&format!("ob-list --json {name}"));
        let list: serde_json::Value = serde_json::from_str(&list.out).unwrap_or_default();
        list[0]["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Where something is mounted in the subhost. Without root of the host the devices are the host's, each bound.
    #[track_caller]
    pub fn mounts(&self, name: &str) -> String {
        let mounts = self.inside(name, "cut -d' ' -f5 /proc/1/mountinfo | sort");
        let is_device =
            |path: &&str| path.starts_with("/dev/") && !["/dev/pts", "/dev/shm"].contains(path);
        let mounts = mounts.lines().filter(|path| is_root() || !is_device(path));
        mounts.collect::<Vec<_>>().join(" ")
    }
}

/// Makes a world in which the subhost mta runs, with `lines` in its configuration; returns the world
/// and the path of the configuration.
#[must_use]
#[track_caller]
pub fn booted(lines: &str) -> (World, String) {
    let world = World::new();
    let conf = world.subhost("mta", lines);
    world.boot(&conf);
    (world, conf)
}
