//! Files that are full: their new names, and which of them go. The names are lumberjack's, as in the
//! Collector: `spans.jsonl` becomes `spans-2026-11-21T20-30-05.123.jsonl`, in UTC.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::export::line;

/// Length of a stamp.
const STAMP: usize = "2026-11-21T20-30-05.123".len();

/// Looks so far for a name that is free, a millisecond each.
const ATTEMPTS: u64 = 1000;

/// Gives the file the name of a full one; nothing is overwritten.
pub fn rotate(path: &Path, now: SystemTime) -> io::Result<()> {
    for later in 0..ATTEMPTS {
        let full = named(path, now + Duration::from_millis(later));
        if fs::symlink_metadata(&full).is_err() {
            return fs::rename(path, full);
        }
    }
    Err(io::Error::other("no name for the full file is free"))
}

/// Deletes the oldest full files of `path`: all but `keep` (zero: none), and those older than `age`.
pub fn prune(path: &Path, keep: usize, age: Option<Duration>, now: SystemTime) -> io::Result<()> {
    let folder = folder(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(stamp) = name.to_str().and_then(|name| stamp_in(path, name)) {
            found.push((stamp.to_owned(), folder.join(&name)));
        }
    }
    // Stamps sort as their times do; the newest first.
    found.sort_by(|a, b| b.cmp(a));
    let oldest = age.and_then(|age| now.checked_sub(age)).map(stamp);
    for (index, (stamp, path)) in found.into_iter().enumerate() {
        let beyond = keep > 0 && index >= keep;
        if beyond || oldest.as_ref().is_some_and(|oldest| stamp < *oldest) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What stands before and after the stamp in the names of full files.
fn parts(path: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let end = text(path.extension());
    (format!("{}-", text(path.file_stem())), if end.is_empty() { end } else { format!(".{end}") })
}

fn named(path: &Path, at: SystemTime) -> PathBuf {
    let (begin, end) = parts(path);
    path.with_file_name(format!("{begin}{}{end}", stamp(at)))
}

/// The stamp in the name of a full file of `path`, if it is one.
fn stamp_in<'a>(path: &Path, name: &'a str) -> Option<&'a str> {
    let (begin, end) = parts(path);
    let stamp = name.strip_prefix(&begin)?.strip_suffix(&end)?;
    let shape = |stamp: &str| stamp.replace(|c: char| c.is_ascii_digit(), "0");
    (stamp.len() == STAMP && shape(stamp) == "0000-00-00T00-00-00.000").then_some(stamp)
}

/// `2026-11-21T20-30-05.123`.
fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = Vec::new();
    line::time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), &mut text);
    // Without its quotes, and to the millisecond.
    let text = String::from_utf8_lossy(&text[1..=STAMP]);
    text.replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_293_005_123 + 1000 * seconds)
    }

    #[test]
    fn names_are_lumberjacks() {
        for (path, expected) in [
            ("/a/spans.jsonl", "/a/spans-2026-11-21T20-30-05.123.jsonl"),
            ("/a/spans", "/a/spans-2026-11-21T20-30-05.123"),
            ("a.b.zst", "a.b-2026-11-21T20-30-05.123.zst"),
        ] {
            let path = Path::new(path);
            let named = named(path, at(0));
            assert_eq!(named, Path::new(expected));
            let name = named.file_name().unwrap().to_str().unwrap();
            assert_eq!(stamp_in(path, name), Some("2026-11-21T20-30-05.123"));
        }
        let path = Path::new("spans.jsonl");
        for other in [
            "spans.jsonl",
            "spans-.jsonl",
            "spans-2026-11-21T20-30-05.123.jsonl.bak",
            "spans-2026-11-21T20:30:05.123.jsonl",
            "spans-x2026-11-21T20-30-05.123.jsonl",
            "spans-2026-11-21T20-30-05.1234.jsonl",
            "other-2026-11-21T20-30-05.123.jsonl",
        ] {
            assert_eq!(stamp_in(path, other), None, "{other}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_only_own_files_go() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spans.jsonl");
        for n in 0..5 {
            fs::write(&path, n.to_string()).unwrap();
            // Twice in the same millisecond.
            rotate(&path, at(n / 2 * 60)).unwrap();
        }
        let others = ["spans-x.jsonl", "spans-2020-01-01T00-00-00.000.txt"];
        others.iter().for_each(|name| fs::write(home.path().join(name), "").unwrap());
        let left = || {
            let mut left: Vec<_> = fs::read_dir(home.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
                .filter_map(|path| fs::read_to_string(path).ok())
                .filter(|text| !text.is_empty())
                .collect();
            left.sort();
            left.concat()
        };
        assert_eq!(left(), "01234");
        for (keep, age, expected) in
            [(0, None, "01234"), (4, None, "1234"), (0, Some(70), "234"), (1, Some(600), "4")]
        {
            prune(&path, keep, age.map(Duration::from_secs), at(121)).unwrap();
            assert_eq!(left(), expected, "{keep} {age:?}");
        }
        assert!(others.iter().all(|name| home.path().join(name).exists()));
    }
}
