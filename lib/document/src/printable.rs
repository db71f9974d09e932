//! Text that is safe for a terminal.
//!
//! A name, a path or a line that root inside a subhost chose can have escape sequences, which set
//! the title of a terminal, move its cursor, and in some terminals insert input. Each character
//! that is not simply shown is replaced by `?`.

use std::io::{ErrorKind, Read, Write};

/// Returns whether a terminal shows `c` and does nothing else.
///
/// C0, DEL and C1 are control characters. The rest are invisible, or change the order in which text
/// is shown (CVE-2021-42574), so that a text looks like a different text.
#[must_use]
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        && !matches!(c, '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns one line of text with each unprintable character, newlines included, replaced by `?`.
#[must_use]
pub fn printable(line: &str) -> String {
    line.replace(|c| !is_printable(c), "?")
}

/// Returns JSON with the same value and each unprintable character replaced by a `\u` escape.
///
/// Outside of strings, the only such character of our JSON is the newline between two elements.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_printable(c) || c == '\n' {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            text += &format!("\\u{unit:04x}");
        }
    }
    text
}

/// Copies text with each unprintable character except newlines and tabs replaced by `?`, and with
/// `prefix` before each line.
///
/// Writes the output of each read(2) at once, so that `overlay-log -f` shows each new line.
pub fn copy(mut input: impl Read, mut output: impl Write, prefix: &str) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    // The number of bytes at the start of the buffer that begin an incomplete character.
    let mut kept = 0;
    let mut is_new_line = true;
    loop {
        let length = match input.read(&mut buffer[kept..]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            length => length?,
        };
        let bytes = &buffer[..kept + length];
        let complete = if length == 0 {
            bytes.len()
        } else {
            complete(bytes)
        };
        let mut text = String::new();
        let mut add = |c: char| {
            if std::mem::replace(&mut is_new_line, c == '\n') {
                text.push_str(prefix);
            }
            let is_shown = is_printable(c) || c == '\n' || c == '\t';
            text.push(if is_shown { c } else { '?' });
        };
        for chunk in bytes[..complete].utf8_chunks() {
            chunk.valid().chars().for_each(&mut add);
            chunk.invalid().iter().for_each(|_| add('?'));
        }
        output.write_all(text.as_bytes())?;
        output.flush()?;
        if length == 0 {
            return Ok(());
        }
        let all = bytes.len();
        buffer.copy_within(complete..all, 0);
        kept = all - complete;
    }
}

/// Returns the length of `bytes` without an incomplete character at the end.
fn complete(bytes: &[u8]) -> usize {
    // A character has at most four bytes, so only the last three can be the beginning of one.
    let tail = bytes.len().saturating_sub(3);
    let start = (tail..bytes.len()).find(|&start| {
        std::str::from_utf8(&bytes[start..])
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    });
    start.unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_of_every_kind_are_replaced() {
        assert_eq!(
            printable("a\u{1b}[2J\n\t\u{7f}\u{9b}\u{202e}é\u{200b}𝄞"),
            "a?[2J?????é?𝄞"
        );
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"a": "\u{9b}\u{7f}\u{e0041}\n"});
        let text = printable_json(&format!("[{value}]\n"));
        assert_eq!(text, "[{\"a\":\"\\u009b\\u007f\\udb40\\udc41\\n\"}]\n");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap()[0],
            value
        );
    }

    /// Gives one piece of a text at each read.
    struct Pieces<'a>(Vec<&'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            self.0.remove(0).read(buffer)
        }
    }

    #[test]
    fn characters_and_lines_are_copied_across_reads() {
        let copied = |pieces: &[&'static [u8]], prefix: &str| {
            let mut output = Vec::new();
            copy(Pieces(pieces.to_vec()), &mut output, prefix).unwrap();
            String::from_utf8(output).unwrap()
        };
        let text = "é\t𝄞\u{9b}\n".as_bytes();
        for at in 0..text.len() {
            let (one, two) = (&text[..at], &text[at..]);
            let pieces: Vec<&[u8]> = [one, two].into_iter().filter(|p| !p.is_empty()).collect();
            assert_eq!(copied(&pieces, ""), "é\t𝄞?\n", "{at}");
        }
        assert_eq!(
            copied(&[b"\x9b31m\xff", b"\xf0\x9d", b"x\xc3"], ""),
            "?31m???x?"
        );
        assert_eq!(
            copied(&[b"a\nb", b"c\n", b"\nd"], "> "),
            "> a\n> bc\n> \n> d"
        );
        assert_eq!(copied(&[], "> "), "");
    }
}
