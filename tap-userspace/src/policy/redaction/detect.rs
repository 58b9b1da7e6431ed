//! Secrets that are known by their form. Comes in: any text; goes out: where they stand in it. Linear in the text.

use std::{ops::Range, sync::OnceLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::pattern::Pattern;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detector {
    /// Numbers of payment cards: 13 to 19 digits, alone or in groups apart by a blank or `-`, that begin as
    /// cards do (2 to 6) and whose last digit is right (Luhn, ISO/IEC 7812-1).
    CardNumber,
    /// E-mail addresses, also with `%40`.
    Email,
    /// JSON Web Tokens, signed (RFC 7515) or encrypted (RFC 7516).
    Jwt,
}

impl Detector {
    /// Where there is one, in their order.
    pub fn find(self, text: &str) -> Vec<Range<usize>> {
        static EMAIL: OnceLock<Option<Pattern>> = OnceLock::new();
        static JWT: OnceLock<Option<Pattern>> = OnceLock::new();
        let all = |pattern: &'static OnceLock<Option<Pattern>>, source: &str| {
            let Some(pattern) = pattern.get_or_init(|| Pattern::new(source).ok()) else {
                return Vec::new();
            };
            pattern.regex().find_iter(text).map(|found| found.range()).collect()
        };
        match self {
            Self::CardNumber => card_numbers(text),
            Self::Email if !(text.contains('@') || text.contains("%40")) => Vec::new(),
            Self::Email => all(
                &EMAIL,
                r"[A-Za-z0-9._%+'-]+(?:@|%40)(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}",
            ),
            Self::Jwt if !text.contains("eyJ") => Vec::new(),
            Self::Jwt => all(&JWT, r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}"),
        }
    }
}

/// Fewest and most digits of a card's number.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

fn card_numbers(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        // A group of digits begins here: a number may.
        match number_at(bytes, at) {
            Some(end) => {
                found.push(at..end);
                at = end;
            }
            None => {
                at += bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            }
        }
    }
    found
}

/// The end of the number of a card that begins at a group of digits, if one does: the longest.
fn number_at(bytes: &[u8], begin: usize) -> Option<usize> {
    if !(b'2'..=b'6').contains(&bytes[begin]) {
        return None;
    }
    let mut digits = [0; *DIGITS.end()];
    let (mut len, mut at, mut end) = (0, begin, None);
    while let Some(&byte) = bytes.get(at) {
        if byte.is_ascii_digit() {
            *digits.get_mut(len)? = byte - b'0';
            len += 1;
            at += 1;
            let inside = bytes.get(at).is_some_and(u8::is_ascii_digit);
            if !inside && DIGITS.contains(&len) && is_luhn(&digits[..len]) {
                end = Some(at);
            }
            if len == *DIGITS.end() {
                break;
            }
        } else if matches!(byte, b' ' | b'-') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
            at += 1;
        } else {
            break;
        }
    }
    end
}

/// Whether the last digit is right for the others; not all are the same.
fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, &digit)| match (index % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) => digit * 2 - if digit > 4 { 9 } else { 0 },
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(by: Detector, text: &str) -> Vec<&str> {
        by.find(text).into_iter().map(|range| &text[range]).collect()
    }

    /// Numbers that the networks publish for tests.
    #[test]
    fn cards_are_known_by_their_last_digit() {
        for (text, expected) in [
            ("4111111111111111", &["4111111111111111"][..]),
            ("pan=4111 1111 1111 1111&x", &["4111 1111 1111 1111"]),
            ("5555-5555-5555-4444.", &["5555-5555-5555-4444"]),
            ("378282246310005 and 6011111111111117", &["378282246310005", "6011111111111117"]),
            ("2223003122003222", &["2223003122003222"]),
            ("4111 1111 1111 1111 2027", &["4111 1111 1111 1111"]),
            ("12 4111111111111111", &["4111111111111111"]),
            ("card4222222222222", &["4222222222222"]),
            ("4111111111111112", &[]),
            ("41111111111111110000000000", &[]),
            ("1700000000123456789", &[]),
            ("0000000000000000", &[]),
            ("4111  1111 1111 1111", &[]),
            ("411111111111111", &[]),
            ("é4111111111111111é", &["4111111111111111"]),
            ("", &[]),
        ] {
            assert_eq!(found(Detector::CardNumber, text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_and_tokens_are_known_by_their_form() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9";
        let jwe = "eyJhbGciOiJkaXIifQ..aGVsbG8.d29ybGQ.dGFn";
        for (by, text, expected) in [
            (Detector::Email, "to a.b+c@example.co.uk, x", &["a.b+c@example.co.uk"][..]),
            (Detector::Email, "?user=a%40example.org&x", &["a%40example.org"]),
            (Detector::Email, "a@localhost, @x.de, a@b.c", &[]),
            (Detector::Jwt, &format!("Bearer {jwt};"), &[jwt]),
            (Detector::Jwt, &format!("token={jwe}&"), &[jwe]),
            (Detector::Jwt, "eyJhbGciOiJIUzI1NiJ9", &[]),
        ] {
            assert_eq!(found(by, text), expected, "{text}");
        }
    }

    #[test]
    fn long_texts_are_walked_once() {
        let begin = std::time::Instant::now();
        for text in ["4 ".repeat(1 << 17), "4".repeat(1 << 18), "a@".repeat(1 << 17)] {
            for by in [Detector::CardNumber, Detector::Email, Detector::Jwt] {
                drop(by.find(&text));
            }
        }
        // Quadratic work would take hours.
        assert!(begin.elapsed().as_secs() < 60);
    }
}
