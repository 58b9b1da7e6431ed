//! Patterns of paths and names: `*` is any run of characters (`/` too), `?` is one.
#![forbid(unsafe_code)]

use std::{fmt, str::FromStr};

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 512;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Whether it fits all of `text`. Takes at most as many steps as both are long, multiplied.
    pub fn fits(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where the last `*` stands, and how far the text is that it took.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(byte) if *byte == b'?' || *byte == text[t] => (p, t) = (p + 1, t + 1),
                _ => {
                    let Some((at, taken)) = star else { return false };
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }

    /// Whether it is about a whole path: it has a `/`.
    pub fn is_path(&self) -> bool {
        self.0.contains('/')
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > PATTERN_MAX {
            return Err(format!(
                "`{text}` is no pattern: write 1 to {PATTERN_MAX} bytes, as /usr/bin/*"
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit() {
        for (pattern, text, fits) in [
            ("curl", "curl", true),
            ("curl", "curls", false),
            ("curl", "", false),
            ("*", "", true),
            ("*", "/a/b", true),
            ("/usr/*/curl", "/usr/local/bin/curl", true),
            ("/usr/*/curl", "/usr/curl", false),
            ("python3.?", "python3.9", true),
            ("python3.?", "python3.11", false),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "xabyabz", false),
            ("a*b*c*", "a-b-c-d", true),
            ("**?**", "x", true),
        ] {
            assert_eq!(pattern.parse::<Glob>().unwrap().fits(text), fits, "{pattern} {text}");
        }
        assert!("".parse::<Glob>().is_err() && "a".repeat(513).parse::<Glob>().is_err());
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern: Glob = "*a".repeat(250).parse().unwrap();
        assert!(!pattern.fits(&("a".repeat(4000) + "b")));
        assert!(!pattern.fits(&"a".repeat(249)));
    }
}
