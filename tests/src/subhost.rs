//! Subhosts in a world: their configurations, and their state while they run.

use crate::{World, is_root};
use std::fs;

impl World {
    /// Writes `$W/NAME/NAME.conf`, makes live, root and work beside it, and returns its path.
    pub fn conf(&self, name: &str, text: &str) -> String {
        for directory in ["live", "root", "work"] {
            fs::create_dir_all(self.at(name).join(directory)).expect("make directories");
        }
        self.write(format!("{name}/{name}.conf"), text);
        format!("{}/{name}/{name}.conf", self.directory())
    }

    /// Like `conf`, but with a configuration that boots: over the busybox root, without services.
    /// The lines of `more` come first, so that they override the defaults.
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

    /// Boots with the line `boot`, checks that the subhost `name` runs, and stops it with the line
    /// `stop`.
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

    /// Returns the document in the state file of the subhost `name`.
    #[must_use]
    pub fn document(&self, name: &str) -> serde_json::Value {
        let line = self.read(format!("/run/overlay-boot/{name}/subhost"));
        serde_json::from_str(&line).expect("a document")
    }

    /// Returns whether the document of the subhost `name` has a pid 1.
    #[must_use]
    pub fn is_up(&self, name: &str) -> bool {
        let line = fs::read_to_string(self.at(format!("/run/overlay-boot/{name}/subhost")));
        line.is_ok_and(|line| line.contains("\"pid\":"))
    }

    /// Runs a line with /bin/sh of the subhost inside it, by nsenter(1) and not by ob-enter, to
    /// check the work of the tools independently; returns its output.
    #[track_caller]
    pub fn inside(&self, name: &str, line: &str) -> String {
        let pid = &self.document(name)["pid"];
        let enter = format!("nsenter --target {pid} --mount --uts --ipc --net --pid");
        self.line(&format!("exec {enter} /bin/sh -c \"$LINE\""))
            .env("LINE", line)
            .run()
            .ok()
    }

    /// Returns the names that ob-list prints, separated by blanks.
    #[must_use]
    pub fn names(&self) -> String {
        self.run("ob-list --names").out.replace('\n', " ")
    }

    /// Returns the state of a subhost as ob-list prints it, or "none".
    #[must_use]
    pub fn state(&self, name: &str) -> String {
        let list = self.run(&format!("ob-list --json {name}"));
        let list: serde_json::Value = serde_json::from_str(&list.out).unwrap_or_default();
        list[0]["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Returns the mount points in the subhost, without bound device nodes. In a user namespace
    /// mknod(2) returns EPERM, so that ob-mount binds the nodes of the host.
    #[track_caller]
    pub fn mounts(&self, name: &str) -> String {
        let mounts = self.inside(name, "cut -d' ' -f5 /proc/1/mountinfo | sort");
        let is_device =
            |path: &&str| path.starts_with("/dev/") && !["/dev/pts", "/dev/shm"].contains(path);
        let mounts = mounts.lines().filter(|path| is_root() || !is_device(path));
        mounts.collect::<Vec<_>>().join(" ")
    }
}

/// Makes a world in which the subhost mta runs, with `lines` in its configuration; returns the
/// world and the path of the configuration.
#[must_use]
#[track_caller]
pub fn booted(lines: &str) -> (World, String) {
    let world = World::new();
    let conf = world.subhost("mta", lines);
    world.boot(&conf);
    (world, conf)
}
