//! Lists the subhosts and their states.
#![forbid(unsafe_code)]

mod clock;
mod detail;
mod finder;
mod json;
mod operand;
mod subhost;
mod table;

use anyhow::{Context, Result, bail};
use finder::Finder;
use lexopt::prelude::*;
use ob_document::printable::{printable, printable_json};
use ob_document::{Silent, Tool, Usage, closest, state};
use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use subhost::{State, Subhost};
use table::View;

const TOOL: Tool = Tool {
    name: "ob-list",
    help: "\
Usage: ob-list [OPTION...] [NAME|CONF...]

Lists subhosts: name, state (starting, running, stopping, or dead if their
processes were killed), pid 1, uptime, cables, configuration. With operands,
lists only these and exits with 1 unless all of them run.

  -l, --long             also print memory, processor time, tasks, the size of
                         the files in UPPER, and addresses
  -j, --json             print one JSON array, for programs
  -n, --names            print only names
  -c, --confs            print only configurations of running subhosts
  -d, --documents        print documents, for ob-unshare --undo; exit with 0 if
                         all operands exist, in any state
  -s, --state STATE      print only subhosts in STATE
  -a, --all              print all, the same as no operand
  -w, --watch[=SECONDS]  repeat every 2 seconds, or every SECONDS
  -h, --help             print this
  -V, --version          print the version

Examples:
  ob-list -l
  ob-list --documents mta | ob-room --undo --cleanup 'ob-cable --undo'
",
    failed: 1,
};

/// The form of the output.
#[derive(Clone, Copy, Default, PartialEq)]
enum Form {
    #[default]
    Table,
    Json,
    Names,
    Confs,
    Documents,
}

/// The command line.
#[derive(Default)]
struct Request {
    form: Form,
    long: bool,
    state: Option<State>,
    watch: Option<Duration>,
    operands: Vec<OsString>,
}

fn main() -> ExitCode {
    TOOL.main(run)
}

fn run(tool: &Tool, parser: lexopt::Parser) -> Result<ExitCode> {
    let request = parse(tool, parser)?;
    if let Some(pause) = request.watch {
        loop {
            let (subhosts, _) = find(tool, &request)?;
            redraw(&report(&subhosts, &request))?;
            std::thread::sleep(pause);
        }
    }
    let (subhosts, complete) = find(tool, &request)?;
    print(&report(&subhosts, &request))?;
    let all_run = request.form == Form::Documents
        || request.operands.is_empty()
        || subhosts
            .iter()
            .all(|subhost| subhost.state == State::Running);
    Ok(ExitCode::from(u8::from(!(complete && all_run))))
}

fn parse(tool: &Tool, mut parser: lexopt::Parser) -> Result<Request> {
    let mut request = Request::default();
    let (mut all, mut is_bare_watch) = (false, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('l') | Long("long") => request.long = true,
            Short('j') | Long("json") => request.form = Form::Json,
            Short('n') | Long("names") => request.form = Form::Names,
            Short('c') | Long("confs") => request.form = Form::Confs,
            Short('d') | Long("documents") => request.form = Form::Documents,
            Short('s') | Long("state") => request.state = Some(state(&parser.value()?.string()?)?),
            Short('a') | Long("all") => all = true,
            Short('w') | Long("watch") => {
                let seconds = parser.optional_value();
                is_bare_watch = seconds.is_none();
                request.watch = Some(pause(seconds)?);
            }
            Value(operand) => {
                request.operands.push(operand);
                break;
            }
            other => return Err(tool.common(&other)),
        }
    }
    request.operands.extend(parser.raw_args()?);
    check_operands(&request.operands, is_bare_watch)?;
    if all && !request.operands.is_empty() {
        bail!(Usage("--all goes without a name".to_owned()));
    }
    // The other forms do not print measurements.
    request.long &= matches!(request.form, Form::Table | Form::Json);
    Ok(request)
}

/// Fails if an operand was probably meant as an option: no name begins with `-`, and a number after
/// `-w` is not its value.
fn check_operands(operands: &[OsString], is_bare_watch: bool) -> Result<()> {
    let mut words = operands.iter().map(|word| word.to_string_lossy());
    if let Some(option) = words.clone().find(|word| word.starts_with('-')) {
        bail!(Usage(format!(
            "{option}: options come before the first name"
        )));
    }
    let number = words
        .next()
        .filter(|word| word.chars().all(|c| c.is_ascii_digit() || c == '.'));
    match number.filter(|name| is_bare_watch && !state::StateDir::of(name).file("").exists()) {
        Some(number) => bail!(Usage(format!("write -w{number} or --watch={number}"))),
        None => Ok(()),
    }
}

fn state(word: &str) -> Result<State> {
    let states = State::ALL;
    let found = states.into_iter().find(|state| state.word() == word);
    found.with_context(|| {
        let meant = closest(word, states.map(State::word));
        let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
        Usage(format!("there is no state {word}{meant}"))
    })
}

fn pause(seconds: Option<OsString>) -> Result<Duration> {
    let Some(seconds) = seconds else {
        return Ok(Duration::from_secs(2));
    };
    let text = seconds.to_string_lossy();
    let pause = text.parse().ok();
    let pause = pause.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    pause
        .filter(|pause| *pause >= Duration::from_millis(10))
        .with_context(|| Usage(format!("--watch={text} is not a number of seconds")))
}

/// Returns the requested subhosts, and whether all operands were found and all documents read.
///
/// Prints an error for each operand that was not found and each document that is damaged.
fn find(tool: &Tool, request: &Request) -> Result<(Vec<Subhost>, bool)> {
    let finder = Finder::new(Path::new(state::DIRECTORY), request.long)?;
    let mut complete = true;
    let mut complain = |error: &anyhow::Error| {
        tool.complain(error);
        complete = false;
    };
    let mut subhosts: Vec<Subhost> = Vec::new();
    if request.operands.is_empty() {
        subhosts = finder.all()?;
    }
    for operand in &request.operands {
        match finder.named(operand) {
            Ok(subhost) => {
                let name = subhost.document.name();
                if !subhosts.iter().any(|found| found.document.name() == name) {
                    subhosts.push(subhost);
                }
            }
            Err(error) => complain(&error),
        }
    }
    subhosts.retain(|subhost| request.state.is_none_or(|state| subhost.state == state));
    if request.form == Form::Documents {
        let known = subhosts
            .into_iter()
            .map(|found| finder.wait_for_document(found));
        subhosts = known.filter_map(Result::transpose).collect::<Result<_>>()?;
    }
    for subhost in &subhosts {
        if let Some(damage) = &subhost.damage {
            complain(damage);
        }
    }
    Ok((subhosts, complete))
}

fn report(subhosts: &[Subhost], request: &Request) -> String {
    let is_terminal = stdout().is_terminal();
    let line = |text: &str| match is_terminal {
        true => printable(text) + "\n",
        false => format!("{text}\n"),
    };
    match request.form {
        Form::Table if subhosts.is_empty() && !request.operands.is_empty() => String::new(),
        Form::Table => table::table(subhosts, &View::of_output()),
        Form::Json if is_terminal => printable_json(&json::array(subhosts)),
        Form::Json => json::array(subhosts),
        Form::Names => subhosts
            .iter()
            .map(|found| line(found.document.name()))
            .collect(),
        Form::Documents => subhosts.iter().map(|found| found.document.line()).collect(),
        Form::Confs => {
            let running = subhosts
                .iter()
                .filter(|found| found.state == State::Running);
            running.filter_map(Subhost::conf).map(line).collect()
        }
    }
}

/// Prints the report over the previous report, cut to the height of the terminal.
///
/// If standard output is not a terminal, prints the whole report and an empty line.
fn redraw(report: &str) -> Result<()> {
    let Some(height) = View::of_output().height else {
        return print(&format!("{report}\n"));
    };
    let mut screen = "\x1b[H".to_owned();
    // The last line stays empty, because a newline there would scroll.
    for line in report.lines().take(height.saturating_sub(1)) {
        screen.push_str(line);
        screen.push_str("\x1b[K\n");
    }
    screen.push_str("\x1b[J");
    print(&screen)
}

fn print(report: &str) -> Result<()> {
    let mut stdout = stdout();
    match stdout
        .write_all(report.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // The reader has closed the pipe, as `head -1` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => bail!(Silent),
        printed => printed.context("print the list"),
    }
}
