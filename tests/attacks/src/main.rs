//! Runs one entry inside a subhost, or all: `attack NAME`.

use attacks::{Failed, Kind, Part, find, results, table};
use nix::unistd::alarm;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
Usage: attack NAME    run one entry here. Status 0: the attack succeeded, or the
                      work was done; 1: not; 2: the entry cannot run here.
                      One line gives the reason.
       attack each NAME...
                      run one after another; print name, status, reason
       attack all     run each entry that needs no accomplice outside
       attack list    print all entries
       attack page FILE
                      write the table of the results into FILE";

/// Seconds after which an entry counts as hanging.
const BOUND: u32 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => list(),
        ["each", names @ ..] => try_each(names),
        ["all"] => try_all(),
        ["page", page] => put_into(page),
        [name, ..] if !name.starts_with('-') => try_one(name),
        _ => {
            println!("{USAGE}");
            ExitCode::from(3)
        }
    }
}

fn list() -> ExitCode {
    for entry in table() {
        let expected = entry.expected.map(|ends| ends.word());
        let number = match (entry.number, entry.kind) {
            (0, Kind::Attack) => "next".to_owned(),
            (0, Kind::Work) => "work".to_owned(),
            (number, _) => number.to_string(),
        };
        println!(
            "{number:>4} {:<24} {:<24} {}",
            entry.name,
            expected.join(" "),
            entry.words
        );
    }
    ExitCode::SUCCESS
}

fn try_one(name: &str) -> ExitCode {
    let Some(entry) = find(name) else {
        println!("unknown entry {name}; see attack list");
        return ExitCode::from(3);
    };
    alarm::set(BOUND);
    let tried = match entry.part {
        Part::Inside(function) | Part::Both(function) => function(),
        Part::Outside => Err(Failed::NotHere(
            "the entry runs outside of the subhost".to_owned(),
        )),
    };
    let (status, why) = match &tried {
        Ok(()) => (0, String::new()),
        Err(Failed::Refused(why)) => (1, why.clone()),
        Err(Failed::NotHere(why)) => (2, why.clone()),
    };
    if !why.is_empty() {
        println!("{}", why.replace('\n', " "));
    }
    ExitCode::from(status)
}

fn try_all() -> ExitCode {
    let table = table();
    let inside = table
        .iter()
        .filter(|entry| matches!(entry.part, Part::Inside(_)));
    try_each(&inside.map(|entry| entry.name).collect::<Vec<_>>())
}

/// Each entry gets a new process, so that no state remains from another entry.
fn try_each(names: &[&str]) -> ExitCode {
    for name in names {
        let tried = Command::new("/proc/self/exe").arg(name).output();
        let (status, why) = match tried {
            Ok(output) => {
                let signal = output.status.signal().unwrap_or_default();
                let status = output.status.code().unwrap_or(128 + signal);
                let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
                if status > 2 {
                    said.push_str(&String::from_utf8_lossy(&output.stderr));
                }
                (status, said)
            }
            Err(error) => (127, error.to_string()),
        };
        println!("{name} {status} {}", why.trim().replace('\n', " "));
    }
    ExitCode::SUCCESS
}

fn put_into(page: &str) -> ExitCode {
    let put = std::fs::read_to_string(page)
        .map_err(|error| error.to_string())
        .and_then(|text| results::put_into(&text).ok_or_else(|| "the page has no marks".to_owned()))
        .and_then(|text| std::fs::write(page, text).map_err(|error| error.to_string()));
    match put {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attack: {page}: {error}");
            ExitCode::FAILURE
        }
    }
}
