//! The sweeps: a boot or a stop that is broken off at each of its steps, and what is left of it.

use crate::trace::{Fault, Life, Role, Traced};
use crate::{BOUND, Snapshot, World};
use nix::errno::Errno;
use nix::libc;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The system calls that the sweep of errors lets fail.
pub const CALLS: [(&str, i64); 22] = [
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("pivot_root", libc::SYS_pivot_root),
    ("setns", libc::SYS_setns),
    ("unshare", libc::SYS_unshare),
    ("clone3", libc::SYS_clone3),
    ("socket", libc::SYS_socket),
    ("sendto", libc::SYS_sendto),
    ("sendmsg", libc::SYS_sendmsg),
    ("openat2", libc::SYS_openat2),
    ("mkdir", libc::SYS_mkdir),
    ("rename", libc::SYS_rename),
    ("pipe2", libc::SYS_pipe2),
    ("flock", libc::SYS_flock),
    ("memfd_create", libc::SYS_memfd_create),
    ("write", libc::SYS_write),
];

/// What they fail with.
pub const ERRORS: [Errno; 3] = [Errno::ENOSPC, Errno::ENOMEM, Errno::EPERM];

/// What is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `overlay-boot` of a subhost that is not there.
    Boot,
    /// `overlay-stop` of one that runs.
    Stop,
}

/// What was tried.
#[derive(Default, Debug)]
pub struct Summary {
    /// How many faults were put in.
    pub faults: usize,
    /// After how many of them the boot or stop has said that it failed.
    pub told: usize,
    /// After how many it has done its work nevertheless.
    pub survived: usize,
    /// Those in a process inside, with which the subhost has ended by itself.
    pub ended: usize,
    /// What was not as it is promised.
    pub broken: Vec<String>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Summary {
            faults,
            told,
            survived,
            ended,
            broken,
        } = self;
        let broken = broken.len();
        write!(
            f,
            "{faults} faults: {told} told, {survived} survived, {ended} ended by itself; {broken} left something or lied"
        )
    }
}

/// A subhost to try it on, in a world that is made anew whenever something was left in it.
pub struct Sweep {
    act: Act,
    more: String,
    place: Place,
    /// Every how many steps one is taken.
    stride: usize,
}

struct Place {
    world: World,
    conf: String,
    before: Snapshot,
}

impl Place {
    fn new(more: &str) -> Self {
        let world = World::new();
        world.ok("ip link add br0 type bridge && ip link set br0 up; mkdir -p shared; mkfifo go");
        let conf = world.subhost(
            "mta",
            &format!("{more}\nCABLES=br0= =\nSHARE=../shared:/mnt"),
        );
        world.ok("chmod 700 mta"); // as USERNS wants it
        world.ok(&format!("overlay-boot {conf} && overlay-stop {conf}"));
        let before = world.snapshot();
        Place {
            world,
            conf,
            before,
        }
    }
}

impl Sweep {
    /// Sweeps `act`, with `more` lines in the configuration, taking every `stride`th step.
    #[must_use]
    pub fn new(act: Act, more: &str, stride: usize) -> Self {
        Sweep {
            act,
            more: more.to_owned(),
            place: Place::new(more),
            stride,
        }
    }

    /// Kills every process at every step.
    pub fn kill(&mut self, mut progress: impl FnMut(&str)) -> Summary {
        let mut summary = Summary::default();
        let lives = self.count();
        // Where the strides begin differs from process to process, so that they do not all miss the same.
        for (number, role) in lives.keys().enumerate() {
            let mut step = 1 + number % self.stride;
            loop {
                let fault = Fault::Kill {
                    role: role.clone(),
                    step,
                };
                let traced = self.run(&fault);
                let what = describe(&traced, role, &format!("killed at step {step}"));
                progress(&format!("{:?}: {what}; {summary}", self.act));
                let checked = self.check_kill(&traced, step);
                if !traced.hit {
                    if let Err(error) = checked {
                        self.report(
                            &mut summary,
                            format!("{what}, which it did not come to: {error}"),
                        );
                    }
                    break;
                }
                self.judge(&mut summary, &what, checked, &traced);
                step += self.stride;
            }
        }
        summary
    }

    /// Has every call of [`CALLS`] fail once, with each of [`ERRORS`].
    pub fn fail(&mut self, mut progress: impl FnMut(&str)) -> Summary {
        let mut summary = Summary::default();
        let lives = self.count();
        let mut faults = Vec::new();
        for (role, life) in &lives {
            for (name, call) in CALLS {
                // The first that overlay-stop writes is its here-document: fewer bytes than a pipe holds, into a pipe of its own. That
                // cannot fail, and a shell does not look whether it has.
                let here = self.act == Act::Stop && role == "0" && name == "write";
                let first = if here { 2 } else { 1 };
                for nth in first..=life.calls.get(&call).copied().unwrap_or(0) {
                    for errno in ERRORS {
                        faults.push((role, name, call, nth, errno));
                    }
                }
            }
        }
        for (role, name, call, nth, errno) in faults.into_iter().step_by(self.stride) {
            let fault = Fault::Error {
                role: role.clone(),
                call,
                nth,
                errno,
            };
            let traced = self.run(&fault);
            let what = describe(
                &traced,
                role,
                &format!("{name} number {nth} fails with {errno:?}"),
            );
            progress(&format!("{:?}: {what}; {summary}", self.act));
            let checked = self.check_error(&traced);
            if traced.hit {
                self.judge(&mut summary, &what, checked, &traced);
            } else if let Err(error) = checked {
                self.report(
                    &mut summary,
                    format!("{what}, which it did not come to: {error}"),
                );
            }
        }
        summary
    }

    /// What all processes do when nothing goes wrong.
    fn count(&mut self) -> BTreeMap<Role, Life> {
        let traced = self.run(&Fault::None);
        assert_eq!(traced.done.status, 0, "{traced:#?}");
        self.check_kill(&traced, 0).expect("a boot without a fault");
        traced.lives
    }

    fn run(&self, fault: &Fault) -> Traced {
        let Place { world, conf, .. } = &self.place;
        match self.act {
            Act::Boot => world.run_with(&format!("overlay-boot {conf}"), fault),
            Act::Stop => {
                world.ok(&format!("overlay-boot {conf}"));
                world.run_with("overlay-stop mta", fault)
            }
        }
    }

    fn judge(
        &mut self,
        summary: &mut Summary,
        what: &str,
        checked: Result<End, String>,
        traced: &Traced,
    ) {
        summary.faults += 1;
        match checked {
            Ok(End::Told) => summary.told += 1,
            Ok(End::Survived) => summary.survived += 1,
            Ok(End::Ended) => summary.ended += 1,
            Err(error) => {
                let done = &traced.done;
                let status = done.status;
                let said = done.err.trim_end();
                self.report(
                    summary,
                    format!("{what}: {error} (status {status}, said '{said}')"),
                );
            }
        }
    }

    /// Notes what went wrong, and goes on in a new world.
    fn report(&mut self, summary: &mut Summary, text: String) {
        // At once, for it may be long until the end.
        eprintln!("\n{text}");
        summary.broken.push(text);
        self.place = Place::new(&self.more);
    }

    /// After a kill: whatever comes next finds its way, and then all is as it was.
    fn check_kill(&self, traced: &Traced, step: usize) -> Result<End, String> {
        let Place {
            world,
            conf,
            before,
        } = &self.place;
        let end = if traced.done.status == 0 {
            End::Survived
        } else {
            End::Told
        };
        match step % 3 {
            0 => {}
            1 => self.boot_again()?,
            _ => {
                let list = world.run("overlay-list");
                if list.status != 0 {
                    return Err(format!("overlay-list: {list:?}"));
                }
            }
        }
        let stop = world.run(&format!("overlay-stop {conf}"));
        let stopped = stop.status == 0 || stop.err.trim_end().ends_with(": not running");
        if !stopped {
            return Err(format!("overlay-stop: {stop:?}"));
        }
        self.until_same(before)?;
        Ok(end)
    }

    /// Boots; that it runs already counts too, if it does.
    fn boot_again(&self) -> Result<(), String> {
        let Place { world, conf, .. } = &self.place;
        let start = Instant::now();
        loop {
            let boot = world.run(&format!("overlay-boot {conf}"));
            if boot.status == 0 {
                return world_runs(world);
            }
            if boot.err.contains("it runs already") && world_runs(world).is_ok() {
                return Ok(());
            }
            // What was hit may still be on its way.
            let passing = boot.err.contains("it is starting or ending")
                || boot.err.contains("it runs already");
            if !passing || start.elapsed() > BOUND {
                return Err(format!("overlay-boot: {boot:?}"));
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// After an error: it was told, once, and nothing is left; or all is well.
    fn check_error(&self, traced: &Traced) -> Result<End, String> {
        let Place { world, before, .. } = &self.place;
        let done = &traced.done;
        if done.status != 0 {
            let lines = done.err.lines().count();
            if lines != 1 {
                return Err(format!("it said {lines} lines"));
            }
            match self.act {
                Act::Boot => self.until_same(before)?,
                // The next one does it.
                Act::Stop => {
                    let stop = world.run("overlay-stop mta");
                    if stop.status != 0 && !stop.err.trim_end().ends_with(": not running") {
                        return Err(format!("the next overlay-stop: {stop:?}"));
                    }
                    self.until_same(before)?;
                }
            }
            return Ok(End::Told);
        }
        if self.act == Act::Stop {
            self.until_same(before)?;
            return Ok(End::Survived);
        }
        if world_runs(world).is_err() {
            self.until_same(before)?;
            let log = world.read("/tmp/overlay-mta.log");
            return match log.contains("pid 1 has ended") || log.contains("pid 1 was ended") {
                true => Ok(End::Ended),
                false => Err(format!("it does not run, and the log tells: {log}")),
            };
        }
        let enter = world.run("overlay-go mta true");
        let stop = world.run("overlay-stop mta");
        if enter.status != 0 || stop.status != 0 {
            return Err(format!("it is not all there: {enter:?}, {stop:?}"));
        }
        self.until_same(before)?;
        Ok(End::Survived)
    }

    fn until_same(&self, before: &Snapshot) -> Result<(), String> {
        let start = Instant::now();
        let patience = Duration::from_secs(20);
        loop {
            let now = self.place.world.snapshot();
            let Some(difference) = before.difference(&now) else {
                return Ok(());
            };
            if start.elapsed() > patience {
                return Err(difference);
            }
            sleep(Duration::from_millis(10));
        }
    }
}

enum End {
    Told,
    Survived,
    Ended,
}

fn world_runs(world: &World) -> Result<(), String> {
    let list = world.run("ob-list --names mta");
    match list.status {
        0 => Ok(()),
        _ => Err(format!("it does not run: {list:?}")),
    }
}

fn describe(traced: &Traced, role: &str, what: &str) -> String {
    let life = traced.lives.get(role);
    let names = life.map_or_else(Vec::new, |life| {
        let mut names = life.names.clone();
        names.dedup();
        names
    });
    let mut text = String::new();
    let _ = write!(text, "process {role} ({}) {what}", names.join(", "));
    text
}
