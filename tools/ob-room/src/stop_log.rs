//! `ob-room --log`: the output of stop scripts, for overlay-stop(8).

use anyhow::Result;
use ob_document::state::StateDir;
use ob_document::{Document, Tool, log, printable};
use std::io::{BufRead, BufReader, Read};

/// The longest line that is kept together.
const LONGEST: u64 = 4096;

/// Copies standard input to standard output and to the log of the subhost `name`, line by line. On
/// standard output each line begins with the name.
pub fn copy(tool: &Tool, name: &str) -> Result<()> {
    let state = StateDir::of(name).document().ok().flatten();
    // Without LOG, the lines are only printed.
    let document = state.map_or_else(|| Document::new(name), Ok)?;
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut line = Vec::new();
    let prefix = format!("{name}: ");
    while input.by_ref().take(LONGEST).read_until(b'\n', &mut line)? > 0 {
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        // A reader that is gone must not end the stop scripts, which would get SIGPIPE.
        let _ = printable::copy(line.as_slice(), std::io::stdout(), &prefix);
        let text = String::from_utf8_lossy(&line);
        let text = printable(text.trim_end_matches('\n'));
        log::append(tool, &document, &text);
        line.clear();
    }
    Ok(())
}
