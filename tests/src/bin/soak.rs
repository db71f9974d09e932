//! `make soak`: boots and stops a subhost, 1000 times by default, and reports which counts have
//! grown.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cycles = std::env::args().nth(1);
    let cycles = cycles.map_or(1000, |number| number.parse().expect("a number"));
    let soak = end_to_end::soak::soak(cycles, |number, time| {
        // A terminal shows one line that changes; a file gets every hundredth line.
        if stderr().is_terminal() {
            let _ = write!(
                stderr(),
                "\r\x1b[K{number} of {cycles}, {} ms",
                time.as_millis()
            );
        } else if number % 100 == 0 {
            eprintln!("{number} of {cycles}, {} ms", time.as_millis());
        }
    });
    println!("\n{cycles} cycles of overlay-boot, overlay-go and overlay-stop");
    let (_, first, _) = &soak.samples[0];
    let (_, last, _) = &soak.samples[soak.samples.len() - 1];
    for (what, count) in last {
        println!(
            "  {what}: {} before, {count} after",
            first.get(what).unwrap_or(&0)
        );
    }
    let mut bad = soak.grown();
    println!("growth on the whole machine per cycle:");
    for (what, slope) in soak.slopes() {
        println!("  {what}: {slope:+.3}");
        // A leak adds one object per cycle; a smaller slope comes from other processes.
        if slope > 0.5 {
            bad.push(format!("{what}: {slope:+.3} for each cycle"));
        }
    }
    let medians = soak.medians();
    let milliseconds: Vec<String> = medians
        .iter()
        .map(|time| time.as_millis().to_string())
        .collect();
    println!("milliseconds in each tenth: {}", milliseconds.join(" "));
    let half = medians.len() / 2;
    let (early, late) = (medians[..half].iter().min(), medians[half..].iter().min());
    let slower = early
        .zip(late)
        .filter(|(early, late)| **late > **early * 3 / 2);
    if let Some((early, late)) = slower {
        bad.push(format!(
            "a late cycle takes {} ms, an early one {}",
            late.as_millis(),
            early.as_millis()
        ));
    }
    match bad.is_empty() {
        true => println!("no count grows"),
        false => println!("counts grow: {bad:#?}"),
    }
    ExitCode::from(u8::from(!bad.is_empty()))
}
