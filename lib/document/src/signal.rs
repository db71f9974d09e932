//! Numbers of signals, for STOP_SIGNAL.

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use std::str::FromStr;

/// SIGRTMIN and SIGRTMAX as glibc and kill(1) count them. musl reserves one more number, so that
/// SIGRTMIN of this program may differ from that of systemd inside.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Returns the number of a signal: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
///
/// # Errors
/// There is no such signal, or a process cannot handle it.
pub fn parse(word: &str) -> Result<i32> {
    let name = word.strip_prefix("SIG").unwrap_or(word);
    let number =
        number(name).filter(|number| (1..=31).contains(number) || (RTMIN..=RTMAX).contains(number));
    let Some(number) = number else {
        bail!("there is no signal {word}");
    };
    let fixed = [Signal::SIGKILL as i32, Signal::SIGSTOP as i32];
    ensure!(
        !fixed.contains(&number),
        "no process can handle the signal {word}"
    );
    Ok(number)
}

fn number(name: &str) -> Option<i32> {
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (Some(offset), _) => Some(RTMIN.saturating_add(digits(offset.strip_prefix('+')?)?)),
        (_, Some("")) => Some(RTMAX),
        (_, Some(offset)) => Some(RTMAX.saturating_sub(digits(offset.strip_prefix('-')?)?)),
        _ => digits(name).or_else(|| {
            Signal::from_str(&format!("SIG{name}"))
                .ok()
                .map(|it| it as i32)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_are_names_or_numbers() {
        for (word, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("15", 15),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("PWR", 30),
        ] {
            assert_eq!(parse(word).ok(), Some(number), "{word}");
        }
        for word in [
            "",
            "SIG",
            "0",
            "-1",
            "+15",
            "32",
            "65",
            "KILL",
            "9",
            "STOP",
            "term",
            "RTMIN+31",
            "RTMIN+",
            "RTMIN3",
            "RTMAX+1",
            "RTMIN++3",
            "TERM ",
            "99999999999",
            "SIGSIGTERM",
        ] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
