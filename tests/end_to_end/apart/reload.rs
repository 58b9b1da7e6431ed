//! A configuration that changes while tap runs: by SIGHUP, by another file, by the link of a ConfigMap.

use std::{
    collections::HashMap,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use tests::{
    bpf::census::Objects,
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

    /// Waits for words of the log; they come a little after the count.
    fn logs(&self, words: &str) -> Result<()> {
        let log = self.session.tap.log();
        wait::until_true(words, PATIENCE, || log.text().contains(words)).with_context(|| log.text())
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
        changing.logs("capture.exclude: [] → [{\"port\":")?;
        changing.logs("Needs a restart: rings.life: 16MiB → 1MiB")?;
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
        changing.logs("tap.yaml:1:49: capture.exclude[0].port: `0` is no port")?;
        // Both are as they were: the rule, and that accepted connections are looked at.
        let excluded = Connected::to(&listener)?.close()?;
        let both = changing.session.receiver.both(Connected::new()?.close()?)?;
        assert_eq!(both.server.str("connection.direction"), "ingress");
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

/// Connections to two ports for as long as it lives.
fn load(to: [SocketAddr; 2], stop: &AtomicBool) -> Result<[Vec<Ends>; 2]> {
    let mut made = [Vec::new(), Vec::new()];
    while !stop.load(Relaxed) {
        for (made, to) in made.iter_mut().zip(to) {
            let client = TcpStream::connect(to)?;
            made.push(Ends { client: client.local_addr()?, server: to });
            drop(client);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(made)
}

#[test]
fn a_thousand_reloads_under_load_lose_nothing_and_leave_nothing_behind() {
    apart(|| {
        let [seen, hidden] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
        let (seen, hidden) = (seen?, hidden?);
        let to = [seen.local_addr()?, hidden.local_addr()?];
        // What one has the kernel leave out, the other's processor does; each keeps the other's end
        // of a connection that was open meanwhile.
        let of = |exclude: &str, name: &str| {
            let port = to[1].port();
            format!(
                "capture: {{ exclude: [{exclude}] }}\nexporters: {{ otlp: {{}} }}\nprocessors:\n  \
                 filter/{name}: {{ traces: {{ span: ['attributes[\"server.port\"] == {port}'] }} }}\n\
                 service: {{ pipelines: {{ traces: {{ processors: [filter/{name}], exporters: [otlp] }} }} }}\n"
            )
        };
        let rule = format!("{{ port: {} }}", to[1].port());
        let files = [of(&rule, "a"), of("", "b")];
        let changing = Changing::with(&files[1])?;
        let pid = changing.session.tap.pid();
        let attached = Objects::of_process(pid)?;
        let stop = AtomicBool::new(false);
        let accepts = [seen.try_clone()?, hidden.try_clone()?]
            .map(|listener| std::thread::spawn(move || listener.incoming().for_each(drop)));
        let (mut memory, mut open) = (0, 0);
        let made = std::thread::scope(|scope| -> Result<_> {
            let loading = scope.spawn(|| load(to, &stop));
            let reloaded = (1..=1000).try_for_each(|turn: usize| {
                changing.tell(&files[(turn + 1) % 2])?;
                changing.wait_for("applied", turn as u64)?;
                if turn == 100 {
                    (memory, open) = (resident(pid)?, descriptors(pid)?);
                }
                Ok(())
            });
            stop.store(true, Relaxed);
            let made = loading.join().map_err(|_| anyhow!("the load has panicked"))?;
            reloaded.and(made)
        })?;
        drop(accepts);
        assert_eq!(changing.generation()?, 1001);
        assert_eq!(Objects::of_process(pid)?, attached);
        // Some more may be the exporter's connections, or a request for metrics.
        let more = descriptors(pid)?.saturating_sub(open);
        assert!(more < 10, "{more} descriptors more than after 100 reloads");
        let grown = resident(pid)?.saturating_sub(memory);
        assert!(grown < 16 << 20, "{grown} bytes more than after 100 reloads");
        let [wanted, unwanted] = made;
        assert!(wanted.len() >= 1000, "{}", wanted.len());
        let receiver = changing.session.finish()?;
        let spans = receiver.spans();
        let mut told: HashMap<_, usize> = HashMap::new();
        for span in spans.iter().filter(|span| span.name == "Connection") {
            if let (Some(local), Some(peer)) = (span.local(), span.peer()) {
                *told.entry((local, peer)).or_default() += 1;
            }
        }
        let count = |from, to| told.get(&(from, to)).copied().unwrap_or_default();
        let both = |ends: &Ends| [count(ends.client, ends.server), count(ends.server, ends.client)];
        // A port may have been a client's more than once.
        let mut times: HashMap<_, usize> = HashMap::new();
        wanted.iter().for_each(|ends| *times.entry((ends.client, ends.server)).or_default() += 1);
        let wrong = wanted.iter().find(|it| both(it) != [times[&(it.client, it.server)]; 2]);
        assert!(wrong.is_none(), "{} made: {wrong:?}", wanted.len());
        assert!(unwanted.iter().all(|ends| both(ends) == [0, 0]));
        Ok(())
    });
}

/// Bytes of memory that a process has.
fn resident(pid: u32) -> Result<usize> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split(' ').nth(1).context("statm without a second number")?;
    Ok(pages.parse::<usize>()? * 4096)
}
