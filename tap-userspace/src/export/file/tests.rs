use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use super::*;
use crate::config::exporters::{Exporter, Exporters};

fn settings(path: &Path, more: &str) -> exporters::File {
    let yaml = format!("file: {{ path: {}, {more} }}", path.display());
    let exporters: Exporters = serde_yaml::from_str(&yaml).unwrap();
    match exporters.find("file").unwrap().1 {
        Exporter::File(file) => (**file).clone(),
        other => panic!("{other:?}"),
    }
}

fn open(path: &Path, more: &str) -> Result<Arc<Writer>, OpenError> {
    Writer::open(&"file".into(), &settings(path, more))
}

fn put(writer: &Writer, line: &str) -> io::Result<()> {
    writer.append(&writer.prepare(format!("{line}\n").into_bytes()).unwrap())
}

fn lines(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let text = if path.extension().is_some_and(|end| end == "zst") {
        zstd::stream::decode_all(bytes.as_slice()).unwrap()
    } else {
        bytes
    };
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_emptied() {
    let home = tempfile::tempdir().unwrap();
    for (name, more) in [("a.jsonl", ""), ("a.zst", "compression: zstd")] {
        let path = home.path().join(name);
        for (line, append, expected) in
            [("1", true, &["1"][..]), ("2", true, &["1", "2"]), ("3", false, &["3"])]
        {
            let writer = open(&path, &format!("append: {append}, {more}")).unwrap();
            put(&writer, line).unwrap();
            assert_eq!(lines(&path), expected, "{name}");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_torn_line_is_not_continued() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.jsonl");
    fs::write(&path, "{}\n{\"torn\":").unwrap();
    put(&open(&path, "").unwrap(), "next").unwrap();
    assert_eq!(lines(&path), ["{}", "{\"torn\":", "next"]);
}

/// A file that is cut anywhere gives all that was whole, and what comes next.
#[test]
fn a_torn_frame_is_cut_off_wherever_it_is_torn() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.zst");
    let mut ends = vec![0];
    for line in ["first", "second", "third"] {
        put(&open(&path, "compression: zstd").unwrap(), line).unwrap();
        ends.push(fs::metadata(&path).unwrap().len());
    }
    let whole = fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        put(&open(&path, "compression: zstd").unwrap(), "next").unwrap();
        let kept = ends.iter().rposition(|end| *end <= cut as u64).unwrap();
        let expected = [&["first", "second", "third"][..kept], &["next"]].concat();
        assert_eq!(lines(&path), expected, "{cut}");
    }
    // What was never ours is put aside.
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.zst");
    fs::write(&path, "a shopping list\n").unwrap();
    put(&open(&path, "compression: zstd").unwrap(), "next").unwrap();
    assert_eq!(lines(&path), ["next"]);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn a_full_file_is_followed_by_another() {
    let home = tempfile::tempdir().unwrap();
    for (name, more) in [("a.jsonl", ""), ("b.zst", "compression: zstd, ")] {
        let path = home.path().join(name);
        let rotation = "rotation: { max_megabytes: 1, max_backups: 2 }";
        let writer = open(&path, &format!("{more}{rotation}")).unwrap();
        // Nothing that zstd makes much smaller.
        let mut seed = 1_u64;
        let mut noise = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{seed:016x}")
        };
        let mut written = Vec::new();
        for _ in 0..14 {
            let line: String = (0..25_000).map(|_| noise()).collect();
            put(&writer, &line).unwrap();
            written.push(line);
        }
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned() + "-";
        let mut full: Vec<_> = fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&stem))
            .collect();
        full.sort();
        assert_eq!(full.len(), 2, "{full:?}");
        full.push(path);
        assert!(full.iter().all(|path| fs::metadata(path).unwrap().len() <= 1 << 20));
        let kept: Vec<String> = full.iter().flat_map(|path| lines(path)).collect();
        // All but the oldest, in their order.
        assert!(kept.len() > 4 && written.ends_with(&kept), "{}", kept.len());
    }
}

#[test]
fn an_old_file_is_followed_by_another() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.jsonl");
    let writer = open(&path, "rotation: { max_days: 1 }").unwrap();
    for (line, days, files) in [("1", 0, 1), ("2", 0, 1), ("3", 2, 2), ("4", 0, 2)] {
        let age = Duration::from_secs(days * 24 * 3600);
        writer.lock().open.as_mut().unwrap().began -= age;
        put(&writer, line).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), files, "{line}");
    }
    assert_eq!(lines(&path), ["3", "4"]);
}

#[test]
fn a_file_that_is_moved_or_removed_is_begun_again() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("x");
    let path = folder.join("a.jsonl");
    assert!(matches!(open(&path, ""), Err(OpenError::File { .. })));
    let writer = open(&path, "create_directory: true").unwrap();
    put(&writer, "1").unwrap();
    assert!(matches!(open(&path, ""), Err(OpenError::Locked { .. })));
    fs::rename(&path, folder.join("moved")).unwrap();
    put(&writer, "2").unwrap();
    assert_eq!((lines(&folder.join("moved")), lines(&path)), (vec!["1".into()], vec!["2".into()]));
    fs::remove_dir_all(&folder).unwrap();
    put(&writer, "3").unwrap();
    assert_eq!(lines(&path), ["3"]);
    // Without the key the folder is somebody else's to make.
    drop(writer);
    let writer = open(&path, "").unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(put(&writer, "4").unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::create_dir(&folder).unwrap();
    put(&writer, "5").unwrap();
    assert_eq!(lines(&path), ["5"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for path in [home.path(), Path::new("/dev/null"), Path::new("/proc/nowhere/x")] {
        assert!(matches!(open(path, ""), Err(OpenError::File { .. })), "{}", path.display());
    }
}
