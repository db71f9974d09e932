//! Times each stage of a boot alone, one after another, without a room.

use crate::world::World;
use crate::{median, pause};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A stage.
pub struct Stage {
    /// The command.
    pub command: &'static str,
    /// The duration until the stage has printed its document, or has exited without one.
    pub time: Duration,
}

/// Times the stages of a boot.
pub fn measure(world: &World, rounds: usize) -> Result<Vec<Stage>> {
    let place = world.place("stages")?;
    let conf = place.join("idle.conf").display().to_string();
    let commands: [&str; 8] = [
        "/bin/sh -c :",
        "ob-conf --version",
        "ob-conf --env CONF NAME LOG CONFIG",
        "ob-room true",
        "ob-conf CONF",
        "ob-mount",
        "ob-cable",
        "ob-unshare",
    ];
    let mut times = [const { Vec::new() }; 8];
    for _ in 0..rounds {
        let mut document = String::new();
        for (command, times) in commands.iter().zip(&mut times) {
            let words: Vec<String> = command
                .split(' ')
                .map(|word| {
                    if word == "CONF" {
                        conf.clone()
                    } else {
                        word.to_owned()
                    }
                })
                .collect();
            let is_stage = matches!(
                *command,
                "ob-conf CONF" | "ob-mount" | "ob-cable" | "ob-unshare"
            );
            let (time, line) = run(world, &words, &document)?;
            if is_stage {
                ensure!(!line.is_empty(), "{command} prints no document");
                document = line;
            }
            times.push(time);
        }
        for undo in ["ob-unshare --undo", "ob-cable --undo", "ob-mount --undo"] {
            let words: Vec<String> = undo.split(' ').map(str::to_owned).collect();
            run(world, &words, &document)?;
        }
        pause();
    }
    let times = times.map(|times| median(times).unwrap_or_default());
    let stages = commands.into_iter().zip(times);
    Ok(stages
        .map(|(command, time)| Stage { command, time })
        .collect())
}

fn run(world: &World, words: &[String], input: &str) -> Result<(Duration, String)> {
    let start = Instant::now();
    let mut child = world
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    // The last stage stays; a command without output is waited for.
    if line.is_empty() {
        child.wait()?;
    }
    let time = start.elapsed();
    if words.len() > 1 {
        child.wait()?;
    }
    Ok((time, line))
}
