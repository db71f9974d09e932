//! Counts the processes, execs and system calls of commands with strace(1). These counts do not
//! vary with the load.

use crate::contender::is_here;
use crate::cost::Cost;
use crate::world::World;
use anyhow::{Context, Result};

/// The cost of a command with all processes that it starts.
pub struct Count {
    /// The command.
    pub command: String,
    /// Its cost.
    pub cost: Cost,
}

/// Counts a boot, an entry, a list and a stop; `None` without strace.
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
        // With -D, strace is not the parent of the command: the command returns while strace traces
        // on.
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
