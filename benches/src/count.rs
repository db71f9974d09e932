//! What is free of noise: processes, execs and system calls, counted by strace(1).

use crate::contender::is_here;
use crate::cost::Cost;
use crate::world::World;
use anyhow::{Context, Result};

/// What one command has taken, with all that it started.
pub struct Count {
    /// The command.
    pub command: String,
    /// What it took.
    pub cost: Cost,
}

/// Counts a boot, an entry and an end; nothing where there is no strace.
pub fn count(world: &World) -> Result<Option<Vec<Count>>> {
    if !is_here("strace") {
        return Ok(None);
    }
    let place = world.place("count")?;
    let conf = place.join("idle.conf");
    let mut counts = Vec::new();
    for command in [
        format!("overlay-boot {}", conf.display()),
        "overlay-go count true".to_owned(),
        "overlay-list count".to_owned(),
        "overlay-stop count".to_owned(),
    ] {
        let trace = world.directory.join("trace");
        // With -D strace is no parent of ours: it goes on tracing what stays, while the command returns.
        let line = format!(
            "exec strace -D -f -qq -o {} {command} >/dev/null 2>&1",
            trace.display()
        );
        world.time(&["sh".to_owned(), "-c".to_owned(), line])?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let trace = std::fs::read_to_string(&trace).context("read the trace")?;
        let cost = Cost::of(&trace);
        counts.push(Count { command, cost });
    }
    for count in &mut counts {
        count.command = count
            .command
            .replace(&conf.display().to_string(), "CONF")
            .replace("count", "NAME");
    }
    Ok(Some(counts))
}
