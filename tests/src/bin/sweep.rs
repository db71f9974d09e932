//! `make sweep`: every process of a boot and of a stop killed at every step, and every system call that matters failing once.
//!
//! `sweep [kill|fail [STRIDE]]`: only the one, and only every STRIDEth step.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use end_to_end::sweep::{Act, Summary, Sweep};
    use std::io::Write;
    use std::time::Instant;

    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let stride = arguments
        .next()
        .map_or(1, |number| number.parse().expect("a number"));
    let wanted = |kind: &str| only.as_deref().is_none_or(|only| only == kind);
    let progress = |text: &str| {
        // One line, over and over; a file gets none of it.
        let mut stderr = std::io::stderr();
        if std::io::IsTerminal::is_terminal(&stderr) {
            let _ = write!(stderr, "\r\x1b[K{text:.150}");
        }
    };
    let confs = [("plain", ""), ("in a user namespace", "USERNS=auto")];
    let mut broken = false;
    for (name, more) in confs {
        for act in [Act::Boot, Act::Stop] {
            for kind in ["kill", "fail"].into_iter().filter(|kind| wanted(kind)) {
                let start = Instant::now();
                let mut sweep = Sweep::new(act, more, stride);
                let summary: Summary = match kind {
                    "kill" => sweep.kill(progress),
                    _ => sweep.fail(progress),
                };
                progress("");
                let seconds = start.elapsed().as_secs();
                println!("{name}, {act:?}, {kind}: {summary} ({seconds} s)");
                for text in &summary.broken {
                    println!("    {text}");
                }
                broken |= !summary.broken.is_empty();
            }
        }
    }
    std::process::ExitCode::from(u8::from(broken))
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("sweep: only for x86_64: the registers of a traced process are told nowhere else");
    std::process::exit(1);
}
