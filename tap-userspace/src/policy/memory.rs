//! The `memory_limiter` processor, and what else looks at memory. Comes in: items, and how much memory
//! the daemon uses; goes out: the items while that is below the soft limit. Above it they are refused
//! and counted, and [`Pressure`] is on: payload is not looked at then, which is the first to go. Above
//! the hard limit free memory is given back to the kernel besides.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    chain::Place,
    data::Record,
    processor::{Processor, Tally},
};
use crate::{
    config::processors::memory_limiter::MemoryLimiter,
    probe::sys,
    telemetry::metric::{Family, Number},
};

const USED: Family = Family::gauge(
    "tap_policy_memory_bytes",
    "Memory of the daemon that a memory limiter has measured last.",
);
const LIMITED: Family = Family::gauge(
    "tap_policy_memory_limited",
    "Whether a memory limiter refuses items now: 1, or 0.",
);
const LIMITS: Family = Family::counter(
    "tap_policy_memory_limits_total",
    "Looks at memory that found more than a limit (`limit`: soft, hard).",
);

/// Whether memory is short: one limiter or more says so. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Arc<AtomicUsize>);

impl Pressure {
    /// Whether it is.
    pub fn is_on(&self) -> bool {
        self.0.load(Relaxed) > 0
    }
}

/// A limiter's word that memory is short, until it is dropped.
#[derive(Debug)]
pub struct Short(Pressure);

impl Short {
    /// Gives it.
    pub fn of(pressure: &Pressure) -> Self {
        pressure.0.fetch_add(1, Relaxed);
        Self(pressure.clone())
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Bytes that the daemon uses.
pub type Used = fn() -> Option<u64>;

/// A running `memory_limiter`.
#[derive(Debug)]
pub struct Limiter {
    settings: MemoryLimiter,
    soft: u64,
    hard: u64,
    used: Used,
    pressure: Pressure,
    /// It refuses.
    short: Option<Short>,
    looked: Option<Instant>,
    shown: [Number; 2],
    limits: [Number; 2],
}

impl Limiter {
    /// With these settings.
    pub fn new(settings: MemoryLimiter, place: &Place<'_>) -> Self {
        Self::measuring(settings, place, total(), own)
    }

    /// With another measure, of `total` bytes.
    pub fn measuring(settings: MemoryLimiter, place: &Place<'_>, total: u64, used: Used) -> Self {
        let (soft, hard) = settings.limit.bytes(total);
        Self {
            settings,
            soft,
            hard,
            used,
            pressure: place.shared.pressure.clone(),
            short: None,
            looked: None,
            shown: [USED, LIMITED].map(|family| place.number(family, &[])),
            limits: ["soft", "hard"].map(|limit| place.number(LIMITS, &[("limit", limit)])),
        }
    }

    fn next(&self) -> Option<Instant> {
        self.looked.map(|looked| looked + self.settings.check_interval)
    }

    /// Looks at memory, if it is time.
    fn look(&mut self, now: Instant) {
        if self.next().is_some_and(|next| next > now) {
            return;
        }
        self.looked = Some(now);
        // What cannot be measured is not limited.
        let Some(mut used) = (self.used)() else { return };
        if used >= self.hard {
            self.limits[1].add(1);
            sys::give_memory_back();
            used = (self.used)().unwrap_or(used);
        }
        let [shown, limited] = &self.shown;
        shown.set(used);
        let mib = |bytes: u64| bytes >> 20;
        match (used >= self.soft, self.short.is_some()) {
            (true, false) => {
                self.short = Some(Short::of(&self.pressure));
                tracing::warn!(
                    used_mib = mib(used),
                    limit_mib = mib(self.soft),
                    "Memory is above the soft limit: items are refused, and no payload is looked at."
                );
            }
            (false, true) => {
                self.short = None;
                tracing::info!(used_mib = mib(used), "Memory is below the soft limit again.");
            }
            _ => {}
        }
        if self.short.is_some() {
            self.limits[0].add(1);
        }
        limited.set(u64::from(self.short.is_some()));
    }
}

impl<R: Record> Processor<R> for Limiter {
    fn process(&mut self, batch: &mut Vec<R>, now: Instant, tally: &mut Tally) {
        self.look(now);
        if self.short.is_some() {
            tally.refused += batch.len() as u64;
            batch.clear();
        }
    }

    /// Its word is taken back even where nothing comes any more.
    fn due(&self) -> Option<Instant> {
        self.short.is_some().then(|| self.next()).flatten()
    }

    fn release(&mut self, now: Instant, all: bool, _tally: &mut Tally) -> Vec<R> {
        if !all {
            self.look(now);
        }
        Vec::new()
    }
}

/// Memory of this process that it shares with nobody and that no file is behind.
fn own() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    kib(&status, "RssAnon:")
}

/// The bytes that a line `name` of a file in /proc says in kB.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Memory that there is: the least that a cgroup of this process may have, else the host's.
fn total() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = kib(&meminfo, "MemTotal:").unwrap_or(u64::MAX);
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    limit_of(Path::new("/sys/fs/cgroup"), own).map_or(host, |limit| limit.min(host))
}

/// The least `memory.max` from `root` down to the cgroup `own`.
fn limit_of(root: &Path, own: &str) -> Option<u64> {
    let own: PathBuf = root.join(own);
    let around = own.ancestors().take_while(|folder| folder.starts_with(root));
    around
        .filter_map(|folder| {
            fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc, time::Duration};

    use super::*;
    use crate::policy::{chain::Shared, data::Span};

    thread_local!(static USED_NOW: Cell<u64> = const { Cell::new(0) });

    #[test]
    fn items_are_refused_above_the_soft_limit_and_taken_again_below() {
        let (shared, name) = (Shared::default(), Arc::from("memory_limiter"));
        let place = Place { pipeline: "traces", processor: &name, shared: &shared };
        let settings = serde_yaml::from_str("{ check_interval: 1s, limit_mib: 100 }").unwrap();
        let mut limiter = Limiter::measuring(settings, &place, 0, || Some(USED_NOW.get()));
        let mut now = Instant::now();
        for (mib, seconds, refused, hard) in [
            (79, 1000, false, 0),
            (80, 1000, true, 0),
            // Not looked at yet.
            (10, 999, true, 0),
            (10, 1, false, 0),
            (150, 1000, true, 1),
            (150, 1000, true, 2),
            (0, 1000, false, 2),
        ] {
            now += Duration::from_millis(seconds);
            USED_NOW.set(mib << 20);
            let mut batch = vec![Span::default(); 3];
            let mut tally = Tally::default();
            limiter.process(&mut batch, now, &mut tally);
            assert_eq!(batch.len(), if refused { 0 } else { 3 }, "{mib}");
            assert_eq!(tally, Tally { refused: 3 - batch.len() as u64, ..Tally::default() });
            assert_eq!(shared.pressure.is_on(), refused, "{mib}");
            assert_eq!(Processor::<Span>::due(&limiter).is_some(), refused, "{mib}");
            assert_eq!(limiter.limits[1].value(), hard, "{mib}");
        }
        // Its word is taken back with nothing coming, and when it goes.
        USED_NOW.set(90 << 20);
        now += Duration::from_secs(1);
        let mut tally = Tally::default();
        Processor::<Span>::process(&mut limiter, &mut Vec::new(), now, &mut tally);
        assert!(shared.pressure.is_on());
        USED_NOW.set(0);
        now += Duration::from_secs(1);
        assert!(Processor::<Span>::release(&mut limiter, now, false, &mut tally).is_empty());
        assert!(!shared.pressure.is_on());
        USED_NOW.set(90 << 20);
        Processor::<Span>::process(
            &mut limiter,
            &mut Vec::new(),
            now + Duration::from_secs(1),
            &mut tally,
        );
        assert!(shared.pressure.is_on());
        drop(limiter);
        assert!(!shared.pressure.is_on());
    }

    #[test]
    fn memory_is_measured_and_the_nearest_cgroup_with_a_limit_counts() {
        let held = vec![1u8; 32 << 20];
        assert!(own().unwrap() > held.len() as u64 / 2, "{:?}", own());
        assert!(total() > 64 << 20 && total() < 1 << 50);
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        for (folder, limit, expected) in [
            ("a/b", "max\n", None),
            ("", "9000\n", Some(9000)),
            ("a", "500\n", Some(500)),
            ("a/b", "700\n", Some(500)),
            ("a/b", "400\n", Some(400)),
        ] {
            fs::write(root.path().join(folder).join("memory.max"), limit).unwrap();
            assert_eq!(limit_of(root.path(), "a/b"), expected, "{folder} {limit}");
        }
    }
}
