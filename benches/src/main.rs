//! Measures overlay-boot, in one run beside a process that makes only the necessary system calls,
//! and beside other programs that do the same job. Writes performance.md and performance.svg. `make
//! bench`; `make bench-short` takes a minute and checks no limits.
#![forbid(unsafe_code)]

mod contender;
// The test library does not build for musl, but this file of it has no dependencies.
#[path = "../../tests/src/cost.rs"]
mod cost;
mod count;
mod life;
mod many;
mod plot;
mod report;
mod stages;
mod world;

use anyhow::{Context, Result, bail};
use contender::Contender;
use lexopt::prelude::*;
use life::Times;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use world::World;

/// The extent of a run.
pub struct Extent {
    /// Boots of each contender.
    rounds: usize,
    /// Numbers of running subhosts while one more is timed.
    numbers: &'static [usize],
    /// Timed boots at each of these numbers.
    lives: usize,
    /// The number of subhosts that are stopped at once.
    crowd: usize,
}

const LONG: Extent = Extent {
    rounds: 25,
    numbers: &[1, 100, 500, 1000],
    lives: 9,
    crowd: 100,
};
const SHORT: Extent = Extent {
    rounds: 2,
    numbers: &[1, 4],
    lives: 1,
    crowd: 3,
};

/// The results of a run.
pub struct Findings {
    lives: Vec<(Contender, Vec<Times>)>,
    counts: Option<Vec<count::Count>>,
    stages: Vec<stages::Stage>,
    many: Vec<many::Many>,
    crowd: many::Crowd,
    tini: Option<u64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut parser = lexopt::Parser::from_env();
    let (mut in_world, mut extent, mut output) = (false, LONG, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("in-world") => in_world = true,
            Long("short") => extent = SHORT,
            Long("output") => output = Some(PathBuf::from(parser.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("only root can start subhosts; sudo make bench");
    }
    if !in_world {
        return Err(world::become_worldly(std::env::args_os().skip(1)));
    }
    let exe = std::env::current_exe()?;
    let world = World::new(exe.parent().context("no directory")?.to_owned())?;
    let findings = measure(&world, &extent)?;
    let text = report::report(&findings, &extent);
    match output {
        None => print!("{text}"),
        Some(directory) => {
            std::fs::write(directory.join("performance.md"), text)?;
            std::fs::write(
                directory.join("performance.svg"),
                plot::plot(&findings.many)?,
            )?;
        }
    }
    Ok(())
}

fn measure(world: &World, extent: &Extent) -> Result<Findings> {
    let mut lives = contender::all(world)?
        .into_iter()
        .map(|contender| (contender, Vec::new()))
        .collect::<Vec<_>>();
    // A contender that fails the job is reported and not timed; a failure of the floor or of
    // overlay-boot is an error.
    for (contender, _) in &mut lives {
        if let Err(error) = life::live(world, contender, 1) {
            if ["floor", "first", "idle"].contains(&contender.name) {
                return Err(error);
            }
            eprintln!("bench: left out: {error:#}");
            contender.unfit = Some(format!("{error:#}"));
        }
        pause();
    }
    for round in 0..extent.rounds {
        let count = lives.len();
        for turn in 0..count {
            // The order rotates, so that no contender always follows the same other one.
            let (contender, times) = &mut lives[(turn * (1 + 2 * (round % 2)) + round) % count];
            if contender.unfit.is_none() {
                times.push(life::live(world, contender, 3)?);
                pause();
            }
        }
    }
    let counts = count::count(world)?;
    let stages = stages::measure(world, extent.rounds)?;
    let tini = life::tini();
    // Before the many: the kernel takes long to end a thousand network namespaces.
    let crowd = many::crowd(world, extent.crowd, extent.lives.min(3))?;
    let mut others = many::Others::none();
    let many = extent.numbers.iter();
    let many = many.map(|number| many::measure(world, &mut others, *number, extent.lives));
    let many = many.collect::<Result<_>>()?;
    others.stop(world)?;
    Ok(Findings {
        lives,
        counts,
        stages,
        many,
        crowd,
        tini,
    })
}

/// Milliseconds between two boots.
pub const PAUSE: u64 = 300;

/// Waits until the kernel has ended the previous network namespace: cleanup_net() is serial, so the
/// next boot would wait.
fn pause() {
    std::thread::sleep(Duration::from_millis(PAUSE));
}

/// Returns the median.
pub fn median(times: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
