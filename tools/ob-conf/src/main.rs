//! Reads the configuration of a subhost and prints its document: the first stage.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;
use ob_conf::check;
use ob_conf::conf::Conf;
use ob_conf::evaluation::{Evaluation, words};
use ob_conf::problem::{Weight, unknown_variable};
use ob_document::printable::copy;
use ob_document::{
    Document, FREE, Kind, Silent, Tool, Usage, VARIABLES, is_plan, printable, quote, send, undo,
    unknown_option,
};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

const TOOL: Tool = Tool {
    name: "ob-conf",
    help: "\
Usage: ob-conf CONF [VAR=VALUE...] [VAR...]     print the document of a subhost
       ob-conf CONF [VAR=VALUE...] -- CMD...    export the variables, exec CMD
       ob-conf - [KEY=VALUE...] [KEY...]        read a document from stdin
       ob-conf --undo - [KEY=VALUE...]          remove facts from documents
       ob-conf --check CONF                     report every problem
       ob-conf --mistyped CMD OPTION HELP       report an unknown option of CMD
       ob-conf --printable [PREFIX]             make stdin safe for a terminal

Reads a configuration, subhost.conf(5), and prints the document, ob-document(5).
VAR=VALUE overrides the file. With VAR, only these variables are evaluated and
printed.

  -e, --env       print for eval in a shell: NAME='mta', one variable a line
  -c, --check     report every problem with line and remedy; change nothing
      --look      run no !COMMAND; reject a file that other users can change
  -h, --help      print this
  -V, --version   print the version

Examples:
  ob-conf mta.conf | ob-mount | ob-cable | ob-unshare
  vars=$(ob-conf --env mta.conf NAME LOG) || exit; eval \"$vars\"
",
    failed: 1,
};

fn main() -> ExitCode {
    TOOL.main(run)
}

/// The command line.
#[derive(Default)]
struct Request {
    env: bool,
    check: bool,
    look: bool,
    undo: bool,
    source: String,
    given: Vec<(String, String)>,
    wanted: Vec<String>,
    command: Option<Vec<std::ffi::OsString>>,
}

fn run(tool: &Tool, parser: lexopt::Parser) -> Result<ExitCode> {
    let request = parse(tool, parser)?;
    if request.command.is_none() {
        return answer(request);
    }
    // Status 125, as of env(1), distinguishes a failure of ob-conf from one of the command.
    Ok(match answer(request) {
        Err(error) if error.is::<Silent>() => ExitCode::from(125),
        outcome => Tool {
            failed: 125,
            ..TOOL
        }
        .report(outcome),
    })
}

/// Prints the document or the problems, or executes the command.
fn answer(request: Request) -> Result<ExitCode> {
    if request.check {
        let conf = Conf::read(Path::new(&request.source))?;
        return report(&conf);
    }
    if request.undo {
        return undo(&TOOL, |document| {
            let keys = request.given.iter().map(|(key, _)| key.as_str());
            keys.filter(|key| !is_plan(key))
                .for_each(|key| document.remove(key));
            Ok(())
        });
    }
    let document = if request.source == "-" {
        amend(&request)?
    } else if request.look {
        let conf = Conf::look(Path::new(&request.source))?;
        let evaluation = Evaluation::new(&conf, &request.given, &request.wanted);
        evaluation.look().document()?
    } else {
        let conf = Conf::read(Path::new(&request.source))?;
        let evaluation = Evaluation::new(&conf, &request.given, &request.wanted);
        let mut document = evaluation.document()?;
        if request.is_plan() {
            warn(&conf, &mut document);
        }
        document
    };
    match request.command {
        Some(command) => Ok(become_command(&document, &command)),
        None => print(&document, &request),
    }
}

/// Prints the problems that do not prevent a boot on stderr, and adds all to the document as
/// `warnings`, for the log.
fn warn(conf: &Conf, document: &mut Document) {
    let mut warnings = Vec::new();
    for problem in check::passed(conf, document) {
        let warning = format!("warning: {}", problem.line(conf));
        if problem.weight == Weight::Passed {
            TOOL.warn(&warning);
        }
        warnings.push(warning);
    }
    if !warnings.is_empty() {
        document.set("warnings", warnings);
    }
}

impl Request {
    /// Returns whether the whole document is requested, as by the first stage of a boot.
    fn is_plan(&self) -> bool {
        !self.env && self.wanted.is_empty() && self.command.is_none()
    }
}

/// Parses the command line.
fn parse(tool: &Tool, mut parser: lexopt::Parser) -> Result<Request> {
    let mut request = Request::default();
    let mut operands = Vec::new();
    while let Some(arg) = parser.next()? {
        match arg {
            Short('e') | Long("env") => request.env = true,
            Short('c') | Long("check") => request.check = true,
            Long("look") => request.look = true,
            Long("undo") => request.undo = true,
            Long("mistyped") => return report_unknown_option(parser),
            Long("printable") => return copy_printable(parser),
            Value(operand) => {
                operands.push(operand);
                break;
            }
            other => return Err(tool.common(&other)),
        }
    }
    operands.extend(parser.raw_args()?);
    if let Some(end) = operands.iter().position(|operand| operand == "--") {
        let command = operands.split_off(end).split_off(1);
        if command.is_empty() {
            bail!(Usage("-- wants a command after it".to_owned()));
        }
        request.command = Some(command);
    }
    let mut operands = operands.into_iter().map(|operand| {
        let text = operand.into_string();
        text.map_err(|text| Usage(format!("{} is not UTF-8", text.to_string_lossy())))
    });
    let Some(source) = operands.next() else {
        bail!(Usage(
            "expects a configuration; see ob-conf --help".to_owned()
        ));
    };
    request.source = source?;
    for operand in operands {
        let operand = operand?;
        match operand.split_once('=') {
            Some((key, value)) => request.given.push((key.to_owned(), value.to_owned())),
            None => request.wanted.push(operand),
        }
    }
    check_request(&request)?;
    Ok(request)
}

/// Fails if the parts of the command line contradict one another.
fn check_request(request: &Request) -> Result<()> {
    if request.source != "-" {
        refuse_unknown(&request.given)?;
    }
    if request.undo && (request.source != "-" || !request.wanted.is_empty()) {
        bail!(Usage(
            "--undo reads documents from standard input; write ob-conf --undo -".to_owned()
        ));
    }
    if request.check && !(request.given.is_empty() && request.wanted.is_empty()) {
        bail!(Usage("--check takes a configuration alone".to_owned()));
    }
    Ok(())
}

/// Fails if an assignment would have no effect: a configuration has only variables, no facts.
fn refuse_unknown(given: &[(String, String)]) -> Result<()> {
    let is_known =
        |name: &str| name.starts_with(FREE) || VARIABLES.iter().any(|known| known.name == name);
    match given.iter().find(|(name, _)| !is_known(name)) {
        Some((name, _)) => bail!(Usage(unknown_variable(name))),
        None => Ok(()),
    }
}

/// Prints all problems. Returns status 1 if there is one.
fn report(conf: &Conf) -> Result<ExitCode> {
    let problems = check::problems(conf);
    let report: String = problems.iter().map(|problem| problem.shown(conf)).collect();
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(ExitCode::from(u8::from(!problems.is_empty())))
}

/// Prints the usage error for an unknown option of a script, and exits with status 2.
fn report_unknown_option(mut parser: lexopt::Parser) -> Result<Request> {
    let words: Vec<String> = parser
        .raw_args()?
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let [name, option, help] = words.as_slice() else {
        bail!(Usage("--mistyped wants CMD, OPTION and HELP".to_owned()));
    };
    let text = format!("{name}: {}", unknown_option(name, help, option));
    let _ = writeln!(std::io::stderr(), "{}", printable(&text));
    std::process::exit(2)
}

/// Copies stdin to stdout without unprintable characters, for a script, and exits.
fn copy_printable(mut parser: lexopt::Parser) -> Result<Request> {
    let words: Vec<_> = parser.raw_args()?.collect();
    let prefix = match words.as_slice() {
        [] => String::new(),
        [prefix] => printable(&prefix.to_string_lossy()),
        _ => bail!(Usage("--printable wants one PREFIX".to_owned())),
    };
    match copy(std::io::stdin(), std::io::stdout(), &prefix) {
        // The reader of the pipe has exited, such as head(1).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => bail!(Silent),
        copied => copied.context("copy the standard input")?,
    }
    std::process::exit(0)
}

/// Reads a document from stdin, and applies the assignments of the command line.
///
/// With this a stage can be a shell script.
fn amend(request: &Request) -> Result<Document> {
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .context("read the document")?;
    if input.is_empty() {
        bail!(Silent);
    }
    let mut document = Document::parse(&input)?;
    for (key, value) in &request.given {
        match key.strip_suffix('+') {
            Some(list) => append(&mut document, list, value)?,
            None => document.set(key, amended(key, value)),
        }
    }
    let mut document = Document::parse(&document.line())?;
    if !request.wanted.is_empty() {
        document.retain(&request.wanted);
    }
    Ok(document)
}

/// Appends one element to a list, which may be absent.
fn append(document: &mut Document, key: &str, value: &str) -> Result<()> {
    let mut list = document.list(key)?;
    list.push(value);
    let list: Value = list.into();
    document.set(key, list);
    Ok(())
}

/// Returns the value of `key` for the text of an assignment.
///
/// The value of a variable has the kind of the variable. The value of a fact is parsed as JSON; it
/// is a text if it is not JSON.
fn amended(key: &str, value: &str) -> Value {
    let variable = VARIABLES.iter().find(|variable| variable.name == key);
    match variable.map(|variable| variable.kind) {
        Some(Kind::Words) => words(value),
        Some(Kind::Lines) => value.lines().map(Value::from).collect(),
        Some(_) => value.into(),
        None if key.starts_with(|c: char| c.is_ascii_uppercase()) => value.into(),
        None => serde_json::from_str(value).unwrap_or_else(|_| value.into()),
    }
}

/// Executes the command with the plan in its environment. Returns the status of env(1) if that
/// fails.
fn become_command(document: &Document, command: &[std::ffi::OsString]) -> ExitCode {
    let error = Command::new(&command[0])
        .args(&command[1..])
        .envs(document.environment())
        .exec();
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let error = anyhow::Error::from(error).context(format!("run {}", command[0].to_string_lossy()));
    TOOL.complain(&error.context(document.name().to_owned()));
    ExitCode::from(if missing { 127 } else { 126 })
}

/// Prints the document, or its variables for a shell.
fn print(document: &Document, request: &Request) -> Result<ExitCode> {
    if !request.env {
        send(document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut output = String::new();
    for (key, value) in document.variables() {
        let named = request.wanted.iter().any(|wanted| wanted == key);
        if !is_name(key) {
            ensure!(!named, "{key:?} cannot be the name of a shell variable");
        } else if named || key.starts_with(|c: char| c.is_ascii_uppercase()) {
            output += &format!("{key}={}\n", quote(&value));
        }
    }
    let mut stdout = std::io::stdout();
    stdout
        .write_all(output.as_bytes())
        .and_then(|()| stdout.flush())
        .context("print the variables")?;
    Ok(ExitCode::SUCCESS)
}

/// Returns whether `key` is the name of a shell variable.
///
/// A shell would execute a line that begins with another key.
fn is_name(key: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    key.chars().all(word) && key.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn only_shell_variable_names_are_names() {
        for name in ["NAME", "_x", "MINE_2"] {
            assert!(is_name(name), "{name}");
        }
        for other in ["", "2A", "A;B", "A B", "A\nB", "A-B", "Ä", "A$(x)"] {
            assert!(!is_name(other), "{other}");
        }
    }
}
