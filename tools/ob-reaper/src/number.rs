//! Decimal numbers, formatted and parsed without allocating.

/// A formatted number.
pub struct Decimal {
    digits: [u8; 10],
    start: usize,
}

impl Decimal {
    /// Formats `number`.
    pub fn new(number: u32) -> Decimal {
        let mut rest = number;
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

    /// Returns the digits, without leading zeros.
    pub fn text(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Parses a number of decimal digits. Returns None if it is no such number, or above `max`.
pub fn parse(text: &[u8], max: u32) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        let sum = sum.checked_mul(10)?.checked_add(digit)?;
        (sum <= max).then_some(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_has_all_digits_and_no_more() {
        assert_eq!(Decimal::new(0).text(), b"0");
        assert_eq!(Decimal::new(4_194_304).text(), b"4194304");
        assert_eq!(Decimal::new(u32::MAX).text(), b"4294967295");
    }

    #[test]
    fn numbers_are_digits_within_bounds() {
        assert_eq!(parse(b"0", 255), Some(0));
        assert_eq!(parse(b"255", 255), Some(255));
        assert_eq!(parse(b"256", 255), None);
        assert_eq!(parse(b"99999999999999999999", u32::MAX), None);
        assert_eq!(parse(b"", 255), None);
        assert_eq!(parse(b"-1", 255), None);
        assert_eq!(parse(b"1x", 255), None);
    }
}
