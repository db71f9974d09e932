//! The sweeps: interrupt a boot or a stop at each step, and check the remains.

use crate::trace::{Fault, Life, Role, Traced};
use crate::{BOUND, Snapshot, World};
use nix::errno::Errno;
use nix::libc;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The system calls that the error sweep makes fail.
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

/// The errors that it injects.
pub const ERRORS: [Errno; 3] = [Errno::ENOSPC, Errno::ENOMEM, Errno::EPERM];

/// The operation that is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `overlay-boot` of a subhost that does not run.
    Boot,
    /// `overlay-stop` of a subhost that runs.
    Stop,
}

/// The results of a sweep.
#[derive(Default, Debug)]
pub struct Summary {
    /// The number of injected faults.
    pub faults: usize,
    /// The number of faults after which the command reported a failure.
    pub reported: usize,
    /// The number of faults after which the command succeeded.
    pub survived: usize,
    /// The number of faults in a process inside after which the subhost ended by itself.
    pub ended: usize,
    /// Descriptions of everything that broke a promise.
    pub broken: Vec<String>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Summary {
            faults,
            reported,
            survived,
            ended,
            broken,
        } = self;
        let broken = broken.len();
        write!(
            f,
            "{faults} faults: {reported} reported, {survived} survived, {ended} ended by itself; {broken} broke a promise"
        )
    }
}

/// A sweep of one operation on a subhost. After each violation, it continues in a new world.
pub struct Sweep {
    act: Act,
    more: String,
    place: Place,
    /// Only every `stride`th step is tried.
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
        world.ok("chmod 700 mta"); // USERNS requires it
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
    /// Prepares a sweep of `act` with `more` lines in the configuration, at every `stride`th step.
    #[must_use]
    pub fn new(act: Act, more: &str, stride: usize) -> Self {
        Sweep {
            act,
            more: more.to_owned(),
            place: Place::new(more),
            stride,
        }
    }

    /// Kills each process at each step.
    pub fn kill(&mut self, mut progress: impl FnMut(&str)) -> Summary {
        let mut summary = Summary::default();
        let lives = self.count();
        // Each process starts at another offset, so that the strides do not all skip the same
        // steps.
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
                            format!("{what}, a step that was not reached: {error}"),
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

    /// Makes each call of [`CALLS`] fail once with each error of [`ERRORS`].
    pub fn fail(&mut self, mut progress: impl FnMut(&str)) -> Summary {
        let mut summary = Summary::default();
        let lives = self.count();
        let mut faults = Vec::new();
        for (role, life) in &lives {
            for (name, call) in CALLS {
                // The first write of overlay-stop is its here-document: less than a pipe holds,
                // into a new pipe. That write cannot fail, and a shell ignores the result.
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
                    format!("{what}, a step that was not reached: {error}"),
                );
            }
        }
        summary
    }

    /// Counts the steps of all processes in a run without a fault.
    fn count(&mut self) -> BTreeMap<Role, Life> {
        let traced = self.run(&Fault::None);
        assert_eq!(traced.done.status, 0, "{traced:#?}");
        self.check_kill(&traced, 0).expect("run without a fault");
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
            Ok(End::Reported) => summary.reported += 1,
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

    /// Records a violation and continues in a new world.
    fn report(&mut self, summary: &mut Summary, text: String) {
        // Printed at once, because the sweep may run for hours.
        eprintln!("\n{text}");
        summary.broken.push(text);
        self.place = Place::new(&self.more);
    }

    /// Checks after a kill that the next command works, and that nothing is left after the next
    /// stop.
    fn check_kill(&self, traced: &Traced, step: usize) -> Result<End, String> {
        let Place {
            world,
            conf,
            before,
        } = &self.place;
        let end = if traced.done.status == 0 {
            End::Survived
        } else {
            End::Reported
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

    /// Boots; a subhost that already runs counts as booted.
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
            // The interrupted command may still be running.
            let passing = boot.err.contains("it is starting or ending")
                || boot.err.contains("it runs already");
            if !passing || start.elapsed() > BOUND {
                return Err(format!("overlay-boot: {boot:?}"));
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Checks after an error that the command either reported it in one line and left nothing, or
    /// succeeded.
    fn check_error(&self, traced: &Traced) -> Result<End, String> {
        let Place { world, before, .. } = &self.place;
        let done = &traced.done;
        if done.status != 0 {
            let lines = done.err.lines().count();
            if lines != 1 {
                return Err(format!("{lines} lines on standard error, not 1"));
            }
            match self.act {
                Act::Boot => self.until_same(before)?,
                // The next stop completes the work.
                Act::Stop => {
                    let stop = world.run("overlay-stop mta");
                    if stop.status != 0 && !stop.err.trim_end().ends_with(": not running") {
                        return Err(format!("the next overlay-stop: {stop:?}"));
                    }
                    self.until_same(before)?;
                }
            }
            return Ok(End::Reported);
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
                false => Err(format!(
                    "the subhost does not run, and the log has no reason: {log}"
                )),
            };
        }
        let enter = world.run("overlay-go mta true");
        let stop = world.run("overlay-stop mta");
        if enter.status != 0 || stop.status != 0 {
            return Err(format!("the subhost is incomplete: {enter:?}, {stop:?}"));
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
    Reported,
    Survived,
    Ended,
}

fn world_runs(world: &World) -> Result<(), String> {
    let list = world.run("ob-list --names mta");
    match list.status {
        0 => Ok(()),
        _ => Err(format!("the subhost does not run: {list:?}")),
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
