//! Paths in lines of text, with an octal code for each character that would end the line. Paths in
//! `/proc/PID/mountinfo` have the same codes.

use ob_sys::mountinfo;

/// Replaces control characters and backslashes by a backslash and three octal digits, so that the
/// text is one line.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_ascii_control() || c == '\\' {
            escaped += &format!("\\{:03o}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Reverses [`escape`]. A backslash without three octal digits stays.
pub fn unescape(text: &str) -> String {
    let plain = mountinfo::unescape(text.as_bytes());
    String::from_utf8(plain).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_is_one_line_and_unescapes_to_itself() {
        for text in [
            "",
            "/a b",
            "/a\nb\r",
            "\\",
            "\\012",
            "\\\\x",
            "ä\u{85}\t\\",
            "/a\\b",
        ] {
            let escaped = escape(text);
            assert!(!escaped.contains(char::is_control) || text.contains('\u{85}'));
            assert_eq!(unescape(&escaped), text);
        }
        assert_eq!(escape("a\nb\\"), "a\\012b\\134");
        // As earlier versions wrote it.
        assert_eq!(unescape("/a\\b\\+12\\"), "/a\\b\\+12\\");
    }
}
