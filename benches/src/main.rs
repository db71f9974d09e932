//! How long the program takes, in one run beside a process that makes the needed system calls alone, and beside others that do the
//! same job. Writes performance.md, and performance.svg beside it. `make bench`, or in a minute and without judging: `make bench-short`.
#![forbid(unsafe_code)]

mod contender;
// The crate of the tests is not one for musl, but this file of it needs nothing.
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

/// How much is measured.
pub struct Extent {
    /// Lives of each contender.
    rounds: usize,
    /// How many run while the next one is timed.
    numbers: &'static [usize],
    /// Lives at each of these numbers.
    lives: usize,
    /// How many are ended at once.
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

/// All that one run has found.
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
                plot::plot(&findings.many),
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
    // One that does not do the job here is told of, and not timed; of the floor and ours that is an error.
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
            // Nobody always follows the same one.
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
    // The crowd before the many: the kernel is long in ending a thousand network namespaces.
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

/// Milliseconds between two lives.
pub const PAUSE: u64 = 300;

/// Lets the kernel end the network namespace of the one before: it takes them one after another, and who comes next would wait.
fn pause() {
    std::thread::sleep(Duration::from_millis(PAUSE));
}

/// The middle one.
pub fn median(times: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
