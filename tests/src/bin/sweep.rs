//! `make sweep`: kills each process of a boot and of a stop at each step, and makes each important
//! system call fail once.
//!
//! `sweep [STRIDE] [WORD...]`: only every STRIDEth step, and only sweeps whose title contains all
//! words: plain or users, boot or stop, kill or fail.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use end_to_end::sweep::{Act, Summary, Sweep};
    use std::io::Write;
    use std::time::Instant;

    let mut stride = 1;
    let mut words = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(number) => stride = number,
            Err(_) => words.push(argument),
        }
    }
    let progress = |text: &str| {
        // A terminal shows one line that changes; a file gets none.
        let mut stderr = std::io::stderr();
        if std::io::IsTerminal::is_terminal(&stderr) {
            let _ = write!(stderr, "\r\x1b[K{text:.150}");
        }
    };
    let mut broken = false;
    for (users, more) in [("plain", ""), ("users", "USERNS=auto")] {
        for (act, verb) in [(Act::Boot, "boot"), (Act::Stop, "stop")] {
            for kind in ["kill", "fail"] {
                let title = format!("{users} {verb} {kind}");
                if !words.iter().all(|word| title.contains(word.as_str())) {
                    continue;
                }
                let start = Instant::now();
                let mut sweep = Sweep::new(act, more, stride);
                let summary: Summary = match kind {
                    "kill" => sweep.kill(progress),
                    _ => sweep.fail(progress),
                };
                progress("");
                let seconds = start.elapsed().as_secs();
                println!("{title}: {summary} ({seconds} s)");
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
    eprintln!("sweep: only for x86_64: the tracer reads the registers of that architecture");
    std::process::exit(1);
}
