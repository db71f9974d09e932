//! How it goes with many subhosts, and with many at once.

use crate::world::{Gone, World};
use crate::{life, median, pause};
use anyhow::Result;
use std::time::Duration;

/// Medians at one number of running subhosts.
pub struct Many {
    /// How many run, the one that is timed among them.
    pub number: usize,
    /// `overlay-boot` until it returned, and the floor.
    pub boot: [Duration; 2],
    /// `true` inside.
    pub enter: [Duration; 2],
    /// `overlay-list NAME`.
    pub list: Duration,
    /// `overlay-list` of all.
    pub list_all: Duration,
    /// Until all was gone.
    pub stop: [Duration; 2],
    /// Memory of guard, supervisor and reaper in KiB: the mean of a subhost.
    pub memory: [f64; 3],
}

/// Ending many with one command.
pub struct Crowd {
    /// How many.
    pub number: usize,
    /// One alone.
    pub one: Duration,
    /// All of them.
    pub all: Duration,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn boot(world: &World, name: &str) -> Result<Duration> {
    let conf = world.directory.join(name).join("idle.conf");
    world.time(&["overlay-boot".to_owned(), conf.display().to_string()])
}

/// Some that run. The world that they are in takes them along when it ends.
struct Others(Vec<String>);

impl Others {
    fn boot(world: &World, number: usize) -> Result<Self> {
        let mut others = Others(Vec::new());
        for number in 1..=number {
            let name = format!("s{number}");
            world.place(&name)?;
            boot(world, &name)?;
            others.0.push(name);
        }
        Ok(others)
    }

    fn stop(mut self, world: &World) -> Result<Duration> {
        if self.0.is_empty() {
            return Ok(Duration::ZERO);
        }
        let mut stop = vec!["overlay-stop".to_owned()];
        stop.append(&mut self.0);
        world.time(&stop)
    }
}

/// Times lives of one more beside `number` - 1 others.
pub fn measure(world: &World, number: usize, lives: usize) -> Result<Many> {
    eprintln!("bench: {number} subhosts");
    let others = Others::boot(world, number - 1)?;
    world.place("nth")?;
    world.place("floor")?;
    let floor = world.bin.join("floor").display().to_string();
    let place = world.directory.join("floor").display().to_string();
    let (mut ours, mut least) = ([const { Vec::new() }; 5], [const { Vec::new() }; 3]);
    let mut memory = [0.0; 3];
    for _ in 0..lives {
        std::thread::sleep(Duration::from_millis(200));
        ours[0].push(boot(world, "nth")?);
        ours[1].push(world.time(&words("overlay-go nth true"))?);
        ours[2].push(world.time(&words("overlay-list nth"))?);
        ours[3].push(world.time(&words("overlay-list"))?);
        let gone = Gone::watch("nth")?;
        if memory == [0.0; 3] {
            for name in others.0.iter().map(String::as_str).chain(["nth"]) {
                let parts = life::parts(name)?;
                for (sum, part) in memory.iter_mut().zip(parts) {
                    *sum += f64::from(u32::try_from(part)?) / f64::from(u32::try_from(number)?);
                }
            }
        }
        ours[4].push(world.time(&words("overlay-stop nth"))?);
        gone.wait()?;
        std::thread::sleep(Duration::from_millis(200));
        least[0].push(world.time(&words(&format!("{floor} boot {place} floor br0")))?);
        std::thread::sleep(Duration::from_millis(20));
        least[1].push(world.time(&words(&format!("{floor} enter floor /bin/true")))?);
        least[2].push(world.time(&words(&format!("{floor} stop floor")))?);
    }
    let stopped = others.stop(world)?;
    if number > 1 {
        eprintln!("bench: {} ended in {stopped:?}", number - 1);
    }
    std::thread::sleep(Duration::from_secs(1));
    let [boot, enter, list, list_all, stop] = ours.map(|times| median(times).unwrap_or_default());
    let [floor_boot, floor_enter, floor_stop] =
        least.map(|times| median(times).unwrap_or_default());
    Ok(Many {
        number,
        boot: [boot, floor_boot],
        enter: [enter, floor_enter],
        list,
        list_all,
        stop: [stop, floor_stop],
        memory,
    })
}

/// Times the end of `number` with one command, and of one.
pub fn crowd(world: &World, number: usize, times: usize) -> Result<Crowd> {
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for _ in 0..times {
        one.push(Others::boot(world, 1)?.stop(world)?);
        pause();
        all.push(Others::boot(world, number)?.stop(world)?);
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(Crowd {
        number,
        one: median(one).unwrap_or_default(),
        all: median(all).unwrap_or_default(),
    })
}
