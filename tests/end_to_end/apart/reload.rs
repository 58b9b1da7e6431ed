//! A configuration that changes while tap runs: by SIGHUP, by another file, by the link of a ConfigMap.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::{
    span::Span,
    stage::{Session, apart},
    tap::Launch,
    wait::{self, PATIENCE},
    workload::{Connected, Ends},
};

/// A session whose configuration is a file of the test's own.
struct Changing {
    session: Session,
    path: PathBuf,
    _home: TempDir,
}

impl Changing {
    fn with(text: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("tap.yaml");
        fs::write(&path, text)?;
        Self::at(home, path)
    }

    fn at(home: TempDir, path: PathBuf) -> Result<Self> {
        let file = path.to_str().context("a path that is no text")?;
        let session = Session::with(&Launch::new().env("TAP_CONFIG", file))?;
        Ok(Self { session, path, _home: home })
    }

    fn reloads(&self, result: &str) -> Result<u64> {
        let label = format!("result=\"{result}\"");
        Ok(self.session.tap.metrics()?.count("tap_config_reloads_total", &[&label]))
    }

    fn generation(&self) -> Result<u64> {
        Ok(self.session.tap.metrics()?.count("tap_config_generation", &[]))
    }

    /// Waits for a count of reloads with a result.
    fn wait_for(&self, result: &str, count: u64) -> Result<()> {
        wait::until_true(&format!("{count} reloads {result}"), PATIENCE, || {
            self.reloads(result).is_ok_and(|found| found >= count)
        })
        .with_context(|| self.session.tap.log().text())?;
        ensure!(self.reloads(result)? == count, "{}", self.session.tap.log().text());
        Ok(())
    }

    /// Another text in the same file, and SIGHUP.
    fn tell(&self, text: &str) -> Result<()> {
        fs::write(&self.path, text)?;
        self.session.tap.signal(libc::SIGHUP)
    }
}

fn excluding(listener: &TcpListener) -> Result<String> {
    let port = listener.local_addr()?.port();
    Ok(format!("capture: {{ exclude: [{{ port: {port} }}] }}\n"))
}

fn is_seen<S: std::borrow::Borrow<Span>>(spans: &[S], ends: Ends) -> bool {
    spans.iter().any(|span| span.borrow().is_between(ends.client, ends.server))
}

#[test]
fn at_sighup_rules_change_and_what_is_open_keeps_its_own() {
    apart(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let other = TcpListener::bind("127.0.0.1:0")?;
        let changing = Changing::with("")?;
        ensure!(changing.generation()? == 1);
        let mut held = Connected::to(&listener)?;
        held.send(100)?;
        let before = Connected::to(&listener)?.close()?;
        changing.tell(&excluding(&listener)?)?;
        changing.wait_for("applied", 1)?;
        let excluded = Connected::to(&listener)?.close()?;
        let beside = Connected::to(&other)?.close()?;
        held.send(100)?;
        let held = held.close()?;
        changing.tell("rings: { life: 1MiB }\n")?;
        changing.wait_for("applied", 2)?;
        ensure!(changing.generation()? == 3);
        let after = Connected::to(&listener)?.close()?;
        let log = changing.session.tap.log().text();
        for words in ["capture.exclude: [] → [{\"port\":", "Needs a restart: rings.life: 16MiB → 1MiB"]
        {
            ensure!(log.contains(words), "{words}: {log}");
        }
        let spans = changing.session.finish()?.spans();
        let seen = [before, excluded, beside, held, after].map(|ends| is_seen(&spans, ends));
        assert_eq!(seen, [true, false, true, true, true]);
        Ok(())
    });
}

#[test]
fn a_bad_file_changes_nothing() {
    apart(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let changing = Changing::with(&excluding(&listener)?)?;
        changing.tell("capture: { direction: egress, exclude: [{ port: 0 }] }\n")?;
        changing.wait_for("invalid", 1)?;
        let metrics = changing.session.tap.metrics()?;
        assert_eq!(metrics.count("tap_config_last_reload_successful", &[]), 0);
        assert_eq!((changing.generation()?, changing.reloads("applied")?), (1, 0));
        let log = changing.session.tap.log().text();
        ensure!(log.contains("tap.yaml:1:49: capture.exclude[0].port: `0` is no port"), "{log}");
        // Both are as they were: the rule, and that accepted connections are looked at.
        let excluded = Connected::to(&listener)?.close()?;
        let both = changing.session.receiver.both(Connected::new()?.close()?)?;
        assert_eq!(both.server.str("connection.direction"), Some("ingress"));
        fs::remove_file(&changing.path)?;
        changing.session.tap.signal(libc::SIGHUP)?;
        changing.wait_for("invalid", 2)?;
        changing.tell("")?;
        changing.wait_for("applied", 1)?;
        let included = Connected::to(&listener)?.close()?;
        let spans = changing.session.finish()?.spans();
        assert_eq!([excluded, included].map(|ends| is_seen(&spans, ends)), [false, true]);
        Ok(())
    });
}

/// As kubelet does it: a folder of its own for each version, and one link that is replaced.
#[test]
fn the_link_of_a_config_map_is_followed_by_itself() {
    apart(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let home = tempfile::tempdir()?;
        let version = |name: &str, text: &str| -> Result<()> {
            fs::create_dir(home.path().join(name))?;
            Ok(fs::write(home.path().join(name).join("tap.yaml"), text)?)
        };
        let turn = |home: &Path, to: &str| -> Result<()> {
            symlink(to, home.join("..data_tmp"))?;
            Ok(fs::rename(home.join("..data_tmp"), home.join("..data"))?)
        };
        version("..1", "")?;
        version("..2", &excluding(&listener)?)?;
        turn(home.path(), "..1")?;
        symlink("..data/tap.yaml", home.path().join("tap.yaml"))?;
        let path = home.path().join("tap.yaml");
        let changing = Changing::at(home, path)?;
        let before = Connected::to(&listener)?.close()?;
        let home = changing.path.parent().context("a file without a folder")?;
        turn(home, "..2")?;
        fs::remove_dir_all(home.join("..1"))?;
        changing.wait_for("applied", 1)?;
        let excluded = Connected::to(&listener)?.close()?;
        let spans = changing.session.finish()?.spans();
        assert_eq!([before, excluded].map(|ends| is_seen(&spans, ends)), [true, false]);
        Ok(())
    });
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn a_hundred_reloads_lose_no_connection_and_leave_nothing_behind() {
    apart(|| {
        let [seen, hidden] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
        let (seen, hidden) = (seen?, hidden?);
        let changing = Changing::with("")?;
        let mut wanted = vec![Connected::to(&seen)?.close()?];
        let mut unwanted = Vec::new();
        let before = descriptors(changing.session.tap.pid())?;
        for turn in 1..=100 {
            let hide = turn % 2 == 1;
            changing.tell(&if hide { excluding(&hidden)? } else { String::new() })?;
            // Whatever holds at this moment, this one is looked at.
            wanted.push(Connected::to(&seen)?.close()?);
            changing.wait_for("applied", turn)?;
            let ends = Connected::to(&hidden)?.close()?;
            if hide { &mut unwanted } else { &mut wanted }.push(ends);
        }
        assert_eq!(changing.generation()?, 101);
        // The last request for metrics may still be open.
        wait::until_true("as many descriptors as before", PATIENCE, || {
            descriptors(changing.session.tap.pid()).is_ok_and(|now| now <= before)
        })?;
        let spans = changing.session.finish()?.spans();
        let lost: Vec<_> = wanted.iter().filter(|ends| !is_seen(&spans, **ends)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(!unwanted.iter().any(|ends| is_seen(&spans, *ends)));
        Ok(())
    });
}
