//! Certificates between tap and a receiver that is a process of its own, by OpenTelemetry's Python
//! messages: they expire, and are replaced while tap runs.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use tests::{
    process::Process,
    programs::{
        otlp::{Mode, Site},
        pki::{self, Authority, Identity},
    },
    receiver::Protocol,
    stage::apart,
    tap::{Launch, Tap},
    wait::{PATIENCE, until_true},
    workload::Ends,
};

use super::{
    drills::{at_rest, to},
    queue::{BATCH, connections},
};

fn with(launch: Launch, variables: &[(&str, String)]) -> Launch {
    variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}

#[test]
fn a_certificate_that_expires_is_told_of_and_a_new_one_gets_everything() {
    /// Time for the first spans to arrive; on a machine that is slower a longer one is tried.
    const GOOD: [Duration; 3] =
        [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(90)];
    apart(|| {
        let (home, authority) = (tempfile::tempdir()?, Authority::new()?);
        let mut site = Site::new()?;
        let variables = pki::variables(&authority.roots(), None);
        let mut ends = connections(0)?;
        let mut begun = None;
        for (number, good) in GOOD.into_iter().enumerate() {
            let identity = authority.identity(&format!("short{number}"), good)?;
            site.with_tls(&identity, None);
            let receiver = site.start(Mode::Ok)?;
            let tap = with(to(&site, Protocol::Grpc, home.path()), &variables).start()?;
            ends.extend(connections(4)?);
            if SystemTime::now() + Duration::from_secs(2) < identity.until {
                site.wait_for_all(&ends, 0)?;
                begun = Some((identity, receiver, tap));
                break;
            }
            // Perhaps before they were on the disk.
            ends.clear();
            tap.kill()?;
        }
        let (identity, receiver, tap) = begun.context("this machine is too slow")?;
        let last = GOOD[2];
        // Its times are whole seconds.
        let over = identity.until + Duration::from_secs(2);
        until_true("the certificate to expire", last, || SystemTime::now() > over)?;
        // A connection that was made before would go on.
        drop(receiver);
        let receiver = site.start(Mode::Ok)?;
        ends.extend(connections(4)?);
        let before = site.requests().len();
        at_rest(&tap, 8)?;
        tap.kill()?;
        let tap = with(to(&site, Protocol::Grpc, home.path()), &variables).start()?;
        ends.extend(connections(4)?);
        let told = tap.log().wait_for("a word on the certificate", PATIENCE, |line| {
            line.contains("xpired").then(|| line.to_owned())
        });
        let told = told.with_context(|| format!("{:?}: {:#?}", identity, site.requests()))?;
        assert!(told.contains("127.0.0.1"), "{told}");
        let left = at_rest(&tap, 4)?;
        ensure!(left >= 16 && site.requests().len() == before, "{left} spans are left");
        drop(receiver);
        site.with_tls(&authority.identity("renewed", Duration::from_secs(3600))?, None);
        let _receiver = site.start(Mode::Ok)?;
        site.wait_for_all(&ends, BATCH)?;
        let accounting = tap.stop()?.check()?;
        assert_eq!(accounting.spans("dropped"), 0, "{accounting:?}");
        Ok(())
    });
}

/// The files that a daemon was told of.
struct Shown(tempfile::TempDir);

impl Shown {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As those do who replace files under a running program: each at once.
    fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        fs::write(self.path("new"), content)?;
        Ok(fs::rename(self.path("new"), self.path(name))?)
    }

    fn show(&self, authority: &Authority, identity: &Identity) -> Result<()> {
        self.put("ca.pem", &fs::read(authority.roots())?)?;
        self.put("tap.pem", &fs::read(&identity.certificate)?)?;
        self.put("tap.key", &fs::read(&identity.key)?)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let (certificate, key) = (self.path("tap.pem"), self.path("tap.key"));
        let identity = Identity { certificate, key, until: SystemTime::UNIX_EPOCH };
        pki::variables(&self.path("ca.pem"), Some(&identity))
    }
}

/// An authority, and who it vouches for.
struct Trust {
    authority: Authority,
    server: Identity,
    client: Identity,
}

impl Trust {
    fn new() -> Result<Self> {
        let (authority, good) = (Authority::new()?, Duration::from_secs(3600));
        let (server, client) =
            (authority.identity("server", good)?, authority.identity("client", good)?);
        Ok(Self { authority, server, client })
    }

    fn start(&self, site: &mut Site) -> Result<Process> {
        site.with_tls(&self.server, Some(&self.authority.roots()));
        site.start(Mode::Ok)
    }
}

const CANNOT: &str = "Changed certificates cannot be used.";

/// Authority, server and client are replaced twice. Before each time the files cannot be used for a
/// while: then those of before hold. The receiver that runs at the end.
fn replace(site: &mut Site, tap: &Tap, shown: &Shown, mut trust: Trust) -> Result<Process> {
    let arrive = |site: &Site| {
        let before = site.requests().len();
        until_true("more requests", PATIENCE, || site.requests().len() > before + 2)
    };
    let mut receiver = trust.start(site)?;
    arrive(site)?;
    for (number, broken) in ["ca.pem", "tap.key"].into_iter().enumerate() {
        let new = Trust::new()?;
        // No certificate at all; and a key that is not the certificate's.
        match broken {
            "ca.pem" => shown.put(broken, b"none")?,
            _ => shown.put(broken, &fs::read(&new.client.key)?)?,
        }
        // What is connected would go on.
        drop(receiver);
        receiver = trust.start(site)?;
        arrive(site).with_context(|| format!("certificates of before a broken {broken}"))?;
        ensure!(tap.log().with(CANNOT).len() == number + 1, "{broken}");
        drop(receiver);
        shown.show(&new.authority, &new.client)?;
        trust = new;
        receiver = trust.start(site)?;
        arrive(site).with_context(|| format!("certificates that replace a broken {broken}"))?;
    }
    Ok(receiver)
}

#[test]
fn certificates_that_are_replaced_under_load_are_used_and_nothing_is_lost() {
    apart(|| {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let (home, shown) = (tempfile::tempdir()?, Shown(tempfile::tempdir()?));
            let (mut site, trust) = (Site::new()?, Trust::new()?);
            shown.show(&trust.authority, &trust.client)?;
            site.with_tls(&trust.server, None);
            let tap = with(to(&site, protocol, home.path()), &shown.variables()).start()?;
            let done = AtomicBool::new(false);
            let (receiver, ends) = thread::scope(|scope| -> Result<_> {
                let load = scope.spawn(|| -> Result<Vec<Ends>> {
                    let mut ends = Vec::new();
                    while !done.load(Relaxed) {
                        ends.extend(connections(1)?);
                        thread::sleep(Duration::from_millis(10));
                    }
                    Ok(ends)
                });
                let receiver = replace(&mut site, &tap, &shown, trust);
                done.store(true, Relaxed);
                let ends = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
                Ok((receiver.with_context(|| tap.log().text())?, ends))
            })?;
            // Each time the receiver was killed, a request may have been under way.
            site.wait_for_all(&ends, 4 * BATCH)?;
            let accounting = tap.stop()?.check()?;
            assert_eq!(accounting.spans("dropped") + accounting.spans("rejected"), 0);
            drop(receiver);
        }
        Ok(())
    });
}
