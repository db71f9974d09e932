//! Messages: one line on standard error, made without allocating.

use crate::sys;

/// Long enough for every message with a path in it that a person would type.
const LONGEST: usize = 512;

/// Prints `ob-reaper: ` and the pieces as one line on standard error, in one write; cut where it gets too long.
///
/// A failure to write is not told: there is nowhere left to tell it.
pub fn say(pieces: &[&[u8]]) {
    let mut line = [0; LONGEST];
    let bytes = [b"ob-reaper: ".as_slice()]
        .into_iter()
        .chain(pieces.iter().copied())
        .flatten();
    let mut length = 0;
    for (place, &byte) in line[..LONGEST - 1].iter_mut().zip(bytes) {
        // A line break in a name must not make two messages out of one.
        *place = if byte < b' ' { b'?' } else { byte };
        length += 1;
    }
    line[length] = b'\n';
    let _ = sys::write_all(2, &line[..=length]);
}

/// A number in decimal digits.
pub struct Decimal {
    digits: [u8; 10],
    start: usize,
}

impl Decimal {
    /// The digits of `number`; a negative number counts as 0, which no pid, status or signal is.
    pub fn new(number: i32) -> Decimal {
        let mut rest = number.max(0).cast_unsigned();
        let mut digits = [b'0'; 10];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] += (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Decimal { digits, start };
            }
        }
    }

    /// As text.
    pub fn text(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Reads a number in decimal digits that is not above `most`.
pub fn number(text: &[u8], most: u32) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        let sum = sum.checked_mul(10)?.checked_add(digit)?;
        (sum <= most).then_some(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_has_exactly_its_digits() {
        assert_eq!(Decimal::new(0).text(), b"0");
        assert_eq!(Decimal::new(4_194_304).text(), b"4194304");
        assert_eq!(Decimal::new(i32::MAX).text(), b"2147483647");
    }

    #[test]
    fn numbers_are_digits_within_bounds() {
        assert_eq!(number(b"0", 255), Some(0));
        assert_eq!(number(b"255", 255), Some(255));
        assert_eq!(number(b"256", 255), None);
        assert_eq!(number(b"99999999999999999999", u32::MAX), None);
        assert_eq!(number(b"", 255), None);
        assert_eq!(number(b"-1", 255), None);
        assert_eq!(number(b"1x", 255), None);
    }
}
