//! The table of subhosts, in columns that fit the terminal.

use crate::detail::{Address, Detail};
use crate::subhost::{State, Subhost};
use ob_document::printable;
use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};
use std::net::IpAddr;
use std::time::Duration;

const COLUMNS: [&str; 6] = ["NAME", "STATE", "PID", "UPTIME", "CABLES", "CONF"];
// The indexes of columns.
const NAME: usize = 0;
const STATE: usize = 1;
const PID: usize = 2;
const CABLES: usize = 4;
const CONF: usize = 5;

/// The columns to shorten if a line is too long, in this order, and the least width of each.
const CUT: [(usize, usize); 4] = [(CONF, 16), (CABLES, 6), (NAME, 10), (CONF, 4)];

/// The width of a line if neither the terminal nor COLUMNS gives another.
const WIDTH: usize = 80;

const RESET: &str = "\x1b[0m";

/// The properties of the output.
pub struct View {
    /// The number of characters in a line.
    pub width: usize,
    /// The number of lines; `None` if the output is not a terminal.
    pub height: Option<usize>,
    /// Whether the terminal shows colours.
    pub colours: bool,
}

impl View {
    /// Returns the properties of standard output. COLUMNS is used if that is not a terminal.
    pub fn of_output() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if !stdout().is_terminal() {
            let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok());
            return View {
                width: columns.filter(|width| *width > 0).unwrap_or(WIDTH),
                height: None,
                colours: false,
            };
        }
        let size = ob_sys::terminal::size(stdout()).ok();
        let known = |length| usize::from(length) > 0;
        let size = size.filter(|size| known(size.ws_col) && known(size.ws_row));
        View {
            width: size.map_or(WIDTH, |size| size.ws_col.into()),
            height: Some(size.map_or(24, |size| size.ws_row.into())),
            colours: variable("NO_COLOR").is_none()
                && variable("TERM").is_some_and(|term| term != "dumb"),
        }
    }
}

/// Returns the table, with a heading, and the lines of `-l` below each measured subhost.
pub fn table(subhosts: &[Subhost], view: &View) -> String {
    let heading = COLUMNS.map(str::to_owned);
    let rows: Vec<[String; 6]> = subhosts.iter().map(cells).collect();
    let widths = widths(rows.iter().chain([&heading]), view.width);
    let mut table = String::new();
    let (bold, reset) = if view.colours {
        ("\x1b[1m", RESET)
    } else {
        ("", "")
    };
    let _ = writeln!(table, "{bold}{}{reset}", line(&heading, &widths, view, ""));
    for (subhost, row) in subhosts.iter().zip(&rows) {
        let colour = if view.colours {
            colour(subhost.state)
        } else {
            ""
        };
        let _ = writeln!(table, "{}", line(row, &widths, view, colour));
        if let Some(detail) = &subhost.detail {
            for line in wrapped(&words(detail), view.width) {
                let _ = writeln!(table, "{line}");
            }
        }
    }
    table
}

fn cells(subhost: &Subhost) -> [String; 6] {
    let document = &subhost.document;
    let cables = document.list("CABLES").unwrap_or_default().join(" ");
    let pid = document.number("pid").map(|pid| pid.to_string());
    let or_dash = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    [
        document.name().to_owned(),
        subhost.state.word().to_owned(),
        pid.unwrap_or_default(),
        subhost.uptime.map(span).unwrap_or_default(),
        cables,
        subhost.conf().unwrap_or_default().to_owned(),
    ]
    .map(|text| printable(&text))
    .map(or_dash)
}

/// Returns the widths of the columns: each as wide as its longest cell, then cut to fit `width`.
fn widths<'a>(rows: impl Iterator<Item = &'a [String; 6]>, width: usize) -> [usize; 6] {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let all = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    let mut excess = all.saturating_sub(width);
    for (column, least) in CUT {
        let cut = excess.min(widths[column].saturating_sub(least));
        widths[column] -= cut;
        excess -= cut;
    }
    widths
}

fn line(row: &[String; 6], widths: &[usize; 6], view: &View, colour: &str) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let cell = fitted(cell, width, column == CONF);
        let _ = match column {
            PID => write!(line, "{cell:>width$}  "),
            CONF => write!(line, "{cell}"),
            _ => write!(line, "{cell:width$}  "),
        };
    }
    let mut line: String = line.chars().take(view.width).collect();
    line.truncate(line.trim_end().len());
    let state = widths[NAME] + 2;
    let mut places = line.char_indices().map(|(place, _)| place);
    let start = places.nth(state);
    if let (false, Some(start)) = (colour.is_empty(), start) {
        let end = (start + row[STATE].len()).min(line.len());
        line.insert_str(end, RESET);
        line.insert_str(start, colour);
    }
    line
}

/// Shortens a text to `width`: keeps the end of a path, and the beginning of any other text.
fn fitted(text: &str, width: usize, is_path: bool) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(3);
    if is_path {
        let end: String = text.chars().skip(length - kept).collect();
        return format!("...{end}");
    }
    let beginning: String = text.chars().take(kept).collect();
    format!("{beginning}...")
}

fn colour(state: State) -> &'static str {
    match state {
        State::Running => "\x1b[32m",
        State::Starting | State::Stopping => "\x1b[33m",
        State::Dead => "\x1b[31m",
    }
}

/// Formats a time in its two largest units: 42s, 5m12s, 3h05m, 12d04h, 900d.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        (..100, _, _) => format!("{days}d{:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// Formats a size in its largest unit: 512, 2.4K, 13M, 1.2G.
#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
pub fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["", "K", "M", "G", "T", "P"].iter().peekable();
    while let Some(unit) = units.next() {
        let last = units.peek().is_none();
        match size {
            _ if unit.is_empty() && bytes < 1024 => return bytes.to_string(),
            ..9.95 if !unit.is_empty() => return format!("{size:.1}{unit}"),
            ..1023.5 => return format!("{size:.0}{unit}"),
            _ if last => return format!("{size:.0}{unit}"),
            _ => size /= 1024.0,
        }
    }
    bytes.to_string()
}

/// Returns the measurements of `-l`, in parts that a line break must not divide.
fn words(detail: &Detail) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(detail.memory.map(|bytes| format!("memory {}", size(bytes))));
    words.extend(
        detail
            .cpu
            .map(|time| format!("cpu {}", processor_time(time))),
    );
    words.extend(detail.tasks.map(|tasks| format!("tasks {tasks}")));
    words.extend(detail.upper.map(|upper| {
        let plural = if upper.files == 1 { "" } else { "s" };
        format!(
            "upper {} in {} file{plural}",
            size(upper.bytes),
            upper.files
        )
    }));
    let routable = detail
        .addresses
        .iter()
        .filter(|address| !is_link_local(address));
    words.extend(routable.map(|address| {
        let Address {
            interface,
            ip,
            prefix,
        } = address;
        // Root of the subhost chooses the names of links.
        format!("{} {ip}/{prefix}", printable(interface))
    }));
    words
}

fn processor_time(time: Duration) -> String {
    if time < Duration::from_secs(60) {
        return format!("{:.2}s", time.as_secs_f64());
    }
    span(time)
}

/// Returns whether an address is link-local: every link has such an address, and it is not routed.
fn is_link_local(address: &Address) -> bool {
    matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn wrapped(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + word.chars().count() <= width => {
                line.push_str("  ");
                line.push_str(word);
            }
            _ => lines.push(format!("    {word}").chars().take(width).collect()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 6]) -> [String; 6] {
        cells.map(str::to_owned)
    }

    fn lines(rows: &[[String; 6]], width: usize) -> Vec<String> {
        let view = View {
            width,
            height: None,
            colours: false,
        };
        let widths = widths(rows.iter(), width);
        rows.iter()
            .map(|row| line(row, &widths, &view, ""))
            .collect()
    }

    #[test]
    fn columns_are_aligned_and_fit_the_terminal() {
        let rows = [
            row(COLUMNS),
            row(["a", "running", "7", "42s", "br0=", "/opt/a.conf"]),
            row(["grün", "starting", "-", "-", "=.302", "/opt/b.conf"]),
        ];
        assert_eq!(
            lines(&rows, 80),
            [
                "NAME  STATE     PID  UPTIME  CABLES  CONF",
                "a     running     7  42s     br0=    /opt/a.conf",
                "grün  starting    -  -       =.302   /opt/b.conf",
            ]
        );
        let long = "x".repeat(64);
        let rows = [row([&long, "stopping", "4194304", "12d04h", &long, &long])];
        for width in [1, 10, 40, 79, 80, 81, 132] {
            assert!(lines(&rows, width)[0].chars().count() <= width, "{width}");
        }
    }

    #[test]
    fn long_path_keeps_its_end() {
        assert_eq!(
            fitted("/opt/subhost/mta/mta.conf", 16, true),
            ".../mta/mta.conf"
        );
        assert_eq!(fitted("br0= br1= br2=", 8, false), "br0= ...");
        assert_eq!(fitted("br0=", 4, false), "br0=");
    }

    #[test]
    fn colours_surround_only_the_state() {
        let rows = [row(["é", "running", "7", "42s", "-", "-"])];
        let view = |width| View {
            width,
            height: None,
            colours: true,
        };
        let widths = widths(rows.iter(), 80);
        let coloured = |width| line(&rows[0], &widths, &view(width), "<");
        assert_eq!(coloured(80), format!("é  <running{RESET}  7  42s  -  -"));
        assert_eq!(coloured(5), format!("é  <ru{RESET}"));
        assert_eq!(coloured(2), "é");
    }

    #[test]
    fn times_and_sizes_are_short() {
        let spans = [0, 59, 60, 3599, 3600, 86399, 86400, 8_640_000];
        assert_eq!(
            spans.map(|seconds| span(Duration::from_secs(seconds))),
            [
                "0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "100d"
            ]
        );
        assert_eq!(
            [
                0,
                1023,
                1024,
                2450,
                13 << 20,
                1023 << 20,
                (1 << 30) - 1,
                u64::MAX
            ]
            .map(size),
            [
                "0", "1023", "1.0K", "2.4K", "13M", "1023M", "1.0G", "16384P"
            ]
        );
    }

    #[test]
    fn details_wrap_between_words() {
        let words = ["memory 12M", "cpu 1m02s", "tasks 5"].map(str::to_owned);
        assert_eq!(
            wrapped(&words, 26),
            ["    memory 12M  cpu 1m02s", "    tasks 5"]
        );
    }
}
