//! Times one boot, some entries and one stop of a subhost.

use crate::contender::Contender;
use crate::world::{Gone, Mark, World, verify};
use anyhow::{Context, Result, ensure};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The durations of the steps.
#[derive(Default)]
pub struct Times {
    /// Until the start of the first command inside.
    pub first: Option<Duration>,
    /// Until the return of the command that boots.
    pub returned: Option<Duration>,
    /// Of each entry that runs `true`.
    pub enter: Vec<Duration>,
    /// Of each entry with nsenter(1) into a subhost of overlay-boot.
    pub nsenter: Vec<Duration>,
    /// Until the cable is gone.
    pub stop: Duration,
    /// The memory of resident programs in KiB.
    pub memory: Option<u64>,
}

/// Boots, enters and ends a subhost.
pub fn live(world: &World, contender: &Contender, entries: usize) -> Result<Times> {
    live_it(world, contender, entries).with_context(|| contender.name.to_owned())
}

fn live_it(world: &World, contender: &Contender, entries: usize) -> Result<Times> {
    let name = contender.name;
    let mut times = Times::default();
    let root = world.directory.join(name).join("root");
    let mark = Mark::watch(&root)?;
    let mut command = world.command(&contender.boot);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn()?;
    if name != "idle" {
        let failed = |child: &mut Child| {
            child
                .try_wait()
                .is_ok_and(|end| end.is_some_and(|end| !end.success()))
        };
        let (made, facts) = mark.wait(|| failed(&mut child))?;
        times.first = Some(made - start);
        verify(&facts)?;
    }
    if !contender.stays {
        let status = child.wait()?;
        if name == "idle" || name == "floor" {
            times.returned = Some(start.elapsed());
        }
        ensure!(status.success(), "{:?}: {status}", contender.boot);
    }
    // The command may return before its children have exited, and an entry must not compete with
    // them.
    std::thread::sleep(Duration::from_millis(30));
    times.memory = memory(contender);
    for _ in 0..entries {
        if !contender.enter.is_empty() {
            times.enter.push(world.time(&contender.enter)?);
        }
        if name == "idle" && crate::contender::is_here("nsenter") {
            let words = ["nsenter", "-t", &pid_1(name)?, "-a", "true"].map(str::to_owned);
            times.nsenter.push(world.time(&words)?);
        }
    }
    let gone = Gone::watch(name)?;
    let start = Instant::now();
    if contender.stays {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        child.wait()?;
    } else {
        world.time(&contender.stop)?;
    }
    gone.wait()?;
    times.stop = start.elapsed();
    Ok(times)
}

/// Returns the pid of pid 1 of a subhost of overlay-boot.
pub fn pid_1(name: &str) -> Result<String> {
    Ok(fact(name, "pid")?.to_string())
}

/// Returns a number in the document of a subhost of overlay-boot.
pub fn fact(name: &str, key: &str) -> Result<u64> {
    let home = ob_document::state::StateDir::of(name);
    let document = home.document()?;
    document
        .with_context(|| format!("{name} has no document"))?
        .number(key)
}

/// Returns the memory of the resident programs of a contender.
fn memory(contender: &Contender) -> Option<u64> {
    if contender.name == "idle" {
        return ours(contender.name).ok();
    }
    if contender.resident.is_empty() {
        return None;
    }
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let title = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let program = title.split(['\0', ' ']).next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default();
        let is_resident = |resident: &&str| program == *resident || title.starts_with(resident);
        if contender.resident.iter().any(is_resident) {
            sum += share(entry.file_name().to_str()?.parse().ok()?).ok()?;
        }
    }
    Some(sum)
}

/// Returns the memory of guard, supervisor and reaper of a subhost of overlay-boot.
pub fn ours(name: &str) -> Result<u64> {
    Ok(parts(name)?.iter().sum())
}

/// Returns the memory of guard, supervisor and reaper, each.
pub fn parts(name: &str) -> Result<[u64; 3]> {
    let pid_1 = fact(name, "pid")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid_1}/stat"))?;
    let supervisor = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1));
    let supervisor = supervisor.context("stat")?.parse()?;
    Ok([
        share(fact(name, "guard")?)?,
        share(supervisor)?,
        share(pid_1)?,
    ])
}

fn share(pid: u64) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Returns the memory of tini(1) as an idle pid 1; `None` unless installed.
pub fn tini() -> Option<u64> {
    if !crate::contender::is_here("tini") {
        return None;
    }
    let mut tini = std::process::Command::new("tini")
        .args(["-s", "--", "sleep", "60"])
        .spawn()
        .ok()?;
    std::thread::sleep(Duration::from_millis(50));
    let share = share(tini.id().into()).ok();
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(tini.id()).ok()?),
        nix::sys::signal::Signal::SIGTERM,
    );
    let _ = tini.wait();
    share
}
