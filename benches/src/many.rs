//! Measures with many running subhosts, and many stops at once.

use crate::world::{Gone, World};
use crate::{life, median};
use anyhow::Result;
use std::time::Duration;

/// Medians at one number of running subhosts.
pub struct Many {
    /// The number, including the timed subhost.
    pub number: usize,
    /// `overlay-boot` until its return, and the floor.
    pub boot: [Duration; 2],
    /// `true` inside, by overlay-boot and the floor.
    pub enter: [Duration; 2],
    /// `overlay-list NAME`.
    pub list: Duration,
    /// `overlay-list` of all subhosts.
    pub list_all: Duration,
    /// A stop until the cable is gone, by overlay-boot and the floor.
    pub stop: [Duration; 2],
    /// The mean memory of guard, supervisor and reaper in KiB.
    pub memory: [f64; 3],
}

/// Stops of many subhosts with one command, by overlay-boot and the floor.
pub struct Crowd {
    /// The number of subhosts.
    pub number: usize,
    /// The stop of one.
    pub one: [Duration; 2],
    /// The stop of all.
    pub all: [Duration; 2],
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn boot(world: &World, name: &str) -> Result<Duration> {
    let conf = world.directory.join(name).join("idle.conf");
    world.time(&["overlay-boot".to_owned(), conf.display().to_string()])
}

/// Running subhosts. They end with the world.
pub struct Others(Vec<String>);

impl Others {
    /// Makes an empty set.
    pub fn none() -> Self {
        Others(Vec::new())
    }

    /// Boots more, until `number` run.
    fn boot(&mut self, world: &World, number: usize) -> Result<()> {
        while self.0.len() < number {
            let name = format!("s{}", self.0.len() + 1);
            world.place(&name)?;
            boot(world, &name)?;
            self.0.push(name);
        }
        Ok(())
    }

    /// Stops all; returns the duration.
    pub fn stop(&mut self, world: &World) -> Result<Duration> {
        let mut stop = vec!["overlay-stop".to_owned()];
        stop.append(&mut self.0);
        world.time(&stop)
    }
}

/// Times boots of one subhost while `number` - 1 more run.
pub fn measure(world: &World, others: &mut Others, number: usize, lives: usize) -> Result<Many> {
    eprintln!("bench: {number} subhosts");
    others.boot(world, number - 1)?;
    world.place("nth")?;
    world.place("floor")?;
    let floor = world.bin.join("floor").display().to_string();
    let place = world.directory.join("floor").display().to_string();
    let (mut ours, mut least) = ([const { Vec::new() }; 5], [const { Vec::new() }; 3]);
    let mut memory = [0.0; 3];
    for _ in 0..lives {
        std::thread::sleep(Duration::from_millis(200));
        ours[0].push(boot(world, "nth")?);
        std::thread::sleep(Duration::from_millis(50));
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
        std::thread::sleep(Duration::from_millis(50));
        least[1].push(world.time(&words(&format!("{floor} enter floor /bin/true")))?);
        least[2].push(world.time(&words(&format!("{floor} stop floor")))?);
    }
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

/// Times the stop of `number` subhosts with one command, and the stop of one.
pub fn crowd(world: &World, number: usize, times: usize) -> Result<Crowd> {
    let (mut one, mut all) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..times {
        for (count, found) in [(1, &mut one), (number, &mut all)] {
            let mut others = Others::none();
            others.boot(world, count)?;
            std::thread::sleep(Duration::from_millis(500));
            found[0].push(others.stop(world)?);
            std::thread::sleep(Duration::from_secs(1));
            found[1].push(floor_of_many(world, count)?);
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let medians = |times: [Vec<Duration>; 2]| times.map(|times| median(times).unwrap_or_default());
    Ok(Crowd {
        number,
        one: medians(one),
        all: medians(all),
    })
}

/// Boots `number` subhosts with the floor; returns the duration of their stop.
fn floor_of_many(world: &World, number: usize) -> Result<Duration> {
    let floor = world.bin.join("floor").display().to_string();
    let mut stop = words(&format!("{floor} stop"));
    for count in 0..number {
        let name = format!("f{count}");
        world.place(&name)?;
        let place = world.directory.join(&name).display().to_string();
        world.time(&words(&format!("{floor} boot {place} {name} br0")))?;
        stop.push(name);
    }
    std::thread::sleep(Duration::from_millis(500));
    world.time(&stop)
}
