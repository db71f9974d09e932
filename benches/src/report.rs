//! Writes docs/performance.md.

use crate::contender::Contender;
use crate::life::Times;
use crate::{Extent, Findings, median};
use std::fmt::Write;
use std::time::Duration;

/// The page.
pub fn report(findings: &Findings, extent: &Extent) -> String {
    let mut page = format!(
        "# Performance\n\n\
         Written by `make bench`, in one run:\n\
         {}.\n\n\
         The *floor* is `benches/src/bin/floor.rs`: one process that makes exactly the system calls that the\n\
         job needs. It reads no configuration, writes no log, takes no lock, reports nothing and undoes\n\
         nothing. The job is the same for all programs: a root that is an overlay of `/`, a network\n\
         namespace with a veth link in a bridge, new pid, ipc, uts and mount namespaces, /dev, /proc, /sys\n\
         and /run, and `sh` that runs a first command. That command checks the environment, so that no\n\
         runtime is credited for work it skipped. Where a runtime lacks a step (overlay, veth), the code of\n\
         the floor performs it in the same process before exec. Times cover whole commands. They are\n\
         medians of {} rounds in which all programs take turns, {} ms apart, so that no program waits for\n\
         the kernel to end the network of the previous one.\n",
        machine(),
        extent.rounds,
        crate::PAUSE
    );
    page.push_str(&goals(findings));
    page.push_str(&peers(findings));
    page.push_str(&counts(findings));
    page.push_str(&stages(findings));
    page.push_str(&many(findings));
    page.push_str(NOTES);
    page
}

/// What numbers cannot say.
const NOTES: &str = include_str!("notes.md");

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let processor = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let processor = processor
        .and_then(|line| Some(line.split_once(": ")?.1))
        .unwrap_or("?")
        .to_owned();
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let release = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!(
        "{cores} x {processor}, Linux {}, load average {load} at its end",
        release.trim()
    )
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn times(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64().max(1e-9)
}

/// The medians of one contender.
struct Medians {
    first: Option<Duration>,
    returned: Option<Duration>,
    enter: Option<Duration>,
    nsenter: Option<Duration>,
    stop: Option<Duration>,
    memory: Option<u64>,
}

fn medians(findings: &Findings, name: &str) -> Medians {
    let none = Vec::new();
    let found = findings
        .lives
        .iter()
        .find(|(contender, _)| contender.name == name);
    let lives: &Vec<Times> = found.map_or(&none, |(_, lives)| lives);
    let mut memory: Vec<u64> = lives.iter().filter_map(|life| life.memory).collect();
    memory.sort_unstable();
    Medians {
        first: median(lives.iter().filter_map(|life| life.first)),
        returned: median(lives.iter().filter_map(|life| life.returned)),
        enter: median(lives.iter().flat_map(|life| life.enter.clone())),
        nsenter: median(lives.iter().flat_map(|life| life.nsenter.clone())),
        stop: median(lives.iter().map(|life| life.stop)),
        memory: memory.get(memory.len() / 2).copied(),
    }
}

fn goals(findings: &Findings) -> String {
    let (floor, first, idle) = (
        medians(findings, "floor"),
        medians(findings, "first"),
        medians(findings, "idle"),
    );
    let mut rows = String::new();
    let mut row = |what: &str, reach: &str, found: String, reached: bool| {
        let mark = if reached { "yes" } else { "**no**" };
        let _ = writeln!(rows, "| {what} | {reach} | {found} | {mark} |");
    };
    let mut against = |what: &str, reach: f64, ours: Option<Duration>, floor: Option<Duration>| {
        let (ours, floor) = (ours.unwrap_or_default(), floor.unwrap_or_default());
        let factor = times(ours, floor);
        let found = format!("{} against {}: {factor:.2} x", ms(ours), ms(floor));
        row(
            what,
            &format!("at most {reach} x the floor"),
            found,
            factor <= reach,
        );
    };
    against(
        "boot until the first command inside, one cable",
        2.5,
        first.first,
        floor.first,
    );
    against("stop until all is gone", 3.0, idle.stop, floor.stop);
    against("`overlay-go NAME true`", 1.8, idle.enter, floor.enter);
    if let Some(boot) = findings.counts.as_ref().and_then(|counts| counts.first()) {
        let found = format!("{} and {}", boot.cost.processes, boot.cost.execs);
        row(
            "processes and execs at boot",
            "at most 12 and 10",
            found,
            boot.cost.processes <= 12 && boot.cost.execs <= 10,
        );
    }
    let last = findings.many.last();
    if let Some(last) = last {
        let sum: f64 = last.memory.iter().sum();
        let [guard, supervisor, reaper] = last.memory;
        let found = format!(
            "{sum:.0} KiB with {} running (guard {guard:.0}, supervisor {supervisor:.0}, reaper {reaper:.0}); {} KiB with one running",
            last.number,
            idle.memory.unwrap_or_default()
        );
        row(
            "memory (PSS) beyond the processes inside, per idle subhost",
            "at most 300 KiB",
            found,
            sum <= 300.0,
        );
    }
    if let (Some(one), Some(last)) = (findings.many.first(), last) {
        let grow = |part: fn(&crate::many::Many) -> Duration| times(part(last), part(one));
        let (boot, enter, list, stop) = (
            grow(|m| m.boot[0]),
            grow(|m| m.enter[0]),
            grow(|m| m.list),
            grow(|m| m.stop[0]),
        );
        let found = format!(
            "with {}: boot {boot:.2} x, enter {enter:.2} x, list {list:.2} x, stop {stop:.2} x (the floor: boot {:.2} x, enter {:.2} x, stop {:.2} x)",
            last.number,
            grow(|m| m.boot[1]),
            grow(|m| m.enter[1]),
            grow(|m| m.stop[1])
        );
        let most = [boot, enter, list, stop].into_iter().fold(0.0, f64::max);
        row(
            "boot, enter, list, stop of the N-th",
            "within 1.5 x of N = 1",
            found,
            most <= 1.5,
        );
    }
    let crowd = &findings.crowd;
    let [factor, floor] = [0, 1].map(|of| times(crowd.all[of], crowd.one[of]));
    let found = format!(
        "{} against {}: {factor:.2} x (the floor: {} against {}, {floor:.2} x)",
        ms(crowd.all[0]),
        ms(crowd.one[0]),
        ms(crowd.all[1]),
        ms(crowd.one[1])
    );
    row(
        &format!("stopping {} at once", crowd.number),
        "at most 5 x the time of one",
        found,
        factor <= 5.0,
    );
    format!("\n## Goals\n\n| | goal | this run | met |\n|---|---|---|---|\n{rows}")
}

fn peers(findings: &Findings) -> String {
    let floor = medians(findings, "floor");
    let mut table = "\n## Comparison with other programs\n\n| | first command | command returned | `true` inside | stop | private memory |\n|---|---|---|---|---|---|\n".to_owned();
    let cell = |time: Option<Duration>, floor: Option<Duration>| match (time, floor) {
        (Some(time), Some(floor)) => format!("{} ({:.1} x)", ms(time), times(time, floor)),
        _ => "-".to_owned(),
    };
    let mut unfit = String::new();
    for (contender, lives) in &findings.lives {
        let Contender {
            name,
            unfit: reason,
            ..
        } = contender;
        if let Some(reason) = reason {
            let _ = writeln!(
                unfit,
                "- {name} is left out, because it failed here: {}",
                reason.replace('\n', " ")
            );
            continue;
        }
        if lives.is_empty() {
            continue;
        }
        let found = medians(findings, name);
        let title = match *name {
            "first" => "overlay-boot, a first command in START",
            "idle" => "overlay-boot, START=none",
            other => other,
        };
        let stop = found.stop.filter(|_| *name != "first");
        let _ = writeln!(
            table,
            "| {title} | {} | {} | {} | {} | {} |",
            cell(found.first, floor.first),
            cell(found.returned, floor.returned),
            cell(found.enter, floor.enter),
            cell(stop, floor.stop),
            found
                .memory
                .map_or("-".to_owned(), |memory| format!("{memory} KiB")),
        );
    }
    let idle = medians(findings, "idle");
    if idle.nsenter.is_some() {
        let _ = writeln!(
            table,
            "| nsenter -a, of a subhost | - | - | {} | - | - |",
            cell(idle.nsenter, floor.enter)
        );
    }
    if let Some(tini) = findings.tini {
        let _ = writeln!(
            table,
            "| tini, only as pid 1 | - | - | - | - | {tini} KiB |"
        );
    }
    if !unfit.is_empty() {
        table.push('\n');
    }
    table + &unfit
}

fn counts(findings: &Findings) -> String {
    let Some(counts) = &findings.counts else {
        return String::new();
    };
    let mut table = "\n## Counted\n\nBy strace(1), children included; a test fails if the numbers grow (tests/tests/all/budget.rs).\n\n\
                     | | processes | execs | system calls |\n|---|---|---|---|\n"
        .to_owned();
    for count in counts {
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            count.command, count.cost.processes, count.cost.execs, count.cost.calls
        );
    }
    table
}

fn stages(findings: &Findings) -> String {
    let mut table = "\n## A boot by stage\n\nEach stage alone, one after another and without a room, until it has printed the document.\n\
                     `ob-conf --version` is the start and the exit of a tool: the exec in each stage. In a boot the\n\
                     stages start at the same time.\n\n\
                     | | |\n|---|---|\n"
        .to_owned();
    for stage in &findings.stages {
        let _ = writeln!(table, "| `{}` | {} |", stage.command, ms(stage.time));
    }
    table
}

fn many(findings: &Findings) -> String {
    let mut table = "\n## Many\n\n![Boot, entry and stop over the number of subhosts that run](performance.svg)\n\n\
                     | running | boot | floor | enter | floor | list NAME | list all | stop | floor | memory of one |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for m in &findings.many {
        let [boot, floor_boot] = m.boot.map(ms);
        let [enter, floor_enter] = m.enter.map(ms);
        let [stop, floor_stop] = m.stop.map(ms);
        let _ = writeln!(
            table,
            "| {} | {boot} | {floor_boot} | {enter} | {floor_enter} | {} | {} | {stop} | {floor_stop} | {:.0} KiB |",
            m.number,
            ms(m.list),
            ms(m.list_all),
            m.memory.iter().sum::<f64>()
        );
    }
    table
}
