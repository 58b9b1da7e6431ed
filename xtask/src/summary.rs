//! One closing line out of the many that cargo prints for a workspace's test binaries.

use std::io::{BufRead, Write};
use std::ops::AddAssign;

/// What the test binaries said together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Binaries that reported.
    pub binaries: u32,
    /// Tests passed.
    pub passed: u32,
    /// Tests failed.
    pub failed: u32,
    /// Tests ignored.
    pub ignored: u32,
    /// Tests left out by the filter.
    pub filtered: u32,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.binaries += other.binaries;
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.filtered += other.filtered;
    }
}

impl Summary {
    /// Reads one line; `None` when it is not a binary's result.
    pub fn of_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut summary = Self { binaries: 1, ..Self::default() };
        for part in counts.split("; ") {
            let (count, what) = part.split_once(' ')?;
            let place = match what {
                "passed" => &mut summary.passed,
                "failed" => &mut summary.failed,
                "ignored" => &mut summary.ignored,
                "filtered out" => &mut summary.filtered,
                _ => continue,
            };
            *place = count.parse().ok()?;
        }
        Some(summary)
    }

    /// Passes lines on as they come and adds up the results among them.
    pub fn pass_on(input: impl BufRead, mut output: impl Write) -> std::io::Result<Self> {
        let mut total = Self::default();
        for line in input.split(b'\n') {
            let mut line = line?;
            if let Some(one) = Self::of_line(&String::from_utf8_lossy(&line)) {
                total += one;
            }
            line.push(b'\n');
            output.write_all(&line)?;
            output.flush()?;
        }
        Ok(total)
    }

    /// The line, in cargo's own words.
    pub fn line(&self, ok: bool) -> String {
        let Self { binaries, passed, failed, ignored, filtered } = self;
        let word = if ok { "ok" } else { "FAILED" };
        format!(
            "test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; \
             0 measured; {filtered} filtered out; in {binaries} test binaries"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "running 3 tests\ntest a ... ok\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
        test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1s\n";

    #[test]
    fn results_add_up_and_lines_pass() {
        let mut out = Vec::new();
        let total = Summary::pass_on(TWO.as_bytes(), &mut out).unwrap();
        assert_eq!(out, TWO.as_bytes());
        let want = Summary { binaries: 2, passed: 7, failed: 2, ignored: 1, filtered: 5 };
        assert_eq!(total, want);
        assert!(
            total.line(false).starts_with("test result: FAILED. 7 passed; 2 failed; 1 ignored")
        );
    }

    #[test]
    fn other_lines_are_no_results() {
        for line in ["", "test result", "test result: ok", "test result: ok. many passed; 0 failed"]
        {
            assert_eq!(Summary::of_line(line), None, "{line:?}");
        }
    }
}
