//! Text of one line, as the kernel writes paths in `/proc/PID/mountinfo`: what would end the line
//! is a backslash and three octal digits.

/// Writes control characters and backslashes in octal.
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

/// Reads it again. A backslash without three octal digits stands for itself.
pub fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut read = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part
            .get(..3)
            .filter(|digits| digits.bytes().all(|c| c.is_ascii_digit()));
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                read.push(char::from(code));
                read += &part[3..];
            }
            None => {
                read.push('\\');
                read += part;
            }
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_line_and_comes_back() {
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
