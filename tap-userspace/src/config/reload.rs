//! A configuration that changes while tap runs. Comes in: SIGHUP, and what becomes of the file; goes
//! out: a [`Reloaded`] to whoever applies it, or the [`ConfigError`], a log and metrics of either.
//!
//! The file is looked at once a second (stat(2)), as are those that it takes in by `${file:…}`. That
//! sees all that a watch would: editors that write a new file over the old one, the symbolic link of a
//! ConfigMap that leads elsewhere, a file that is away for a moment; on every file system, and with
//! nothing to set up again after it. What is still being written is waited for: a change counts once
//! it is the same for two looks, and while it is read.
//!
//! Nothing is half applied: the whole file is read and checked first. Keys that [`LIVE`] does not name
//! keep their value until a restart, and each that differs is warned about by name.

use std::{
    fs, mem,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    file::Config,
    load::{ConfigError, DEFAULT_PATH, Loaded},
    processors::Processor,
    show::{self, Change},
};
use crate::telemetry::metric::{Family, Number, Registry};

/// Between two looks.
pub const LOOK: Duration = Duration::from_secs(1);

/// Puts a value of one configuration in another.
type Take = fn(&mut Config, &Config);

/// Keys that take effect while tap runs; all others need a restart.
const LIVE: [(&str, Take); 5] = [
    ("capture.direction", |to, from| to.capture.direction = from.capture.direction),
    ("capture.loopback", |to, from| to.capture.loopback = from.capture.loopback),
    ("capture.include", |to, from| to.capture.include.clone_from(&from.capture.include)),
    ("capture.exclude", |to, from| to.capture.exclude.clone_from(&from.capture.exclude)),
    ("processors, service.pipelines.*.processors", processors),
];

/// The processors of pipelines that both have, but for `batch`, which is the exporters' queues'. What
/// only remains for others keeps its settings: for pipelines that are to come or go.
fn processors(to: &mut Config, from: &Config) {
    let mut keep: Vec<String> = Vec::new();
    for (id, pipeline) in to.service.pipelines.iter_mut().flat_map(|all| &mut all.0) {
        let mut same = from.service.pipelines.iter().flat_map(|all| &all.0);
        let same = same.find(|(other, _)| other == id);
        let Some((_, same)) = same else {
            keep.extend(pipeline.processors.iter().cloned());
            continue;
        };
        let is_batch = |of: &Config, name: &str| {
            matches!(of.processors.find(name), Some((_, Processor::Batch(_))))
        };
        let before = mem::take(&mut pipeline.processors);
        let steps = same.processors.iter().filter(|name| !is_batch(from, name)).cloned();
        let batches = before
            .into_iter()
            .filter(|name| matches!(to.processors.find(name), Some((_, Processor::Batch(_)))));
        pipeline.processors = steps.chain(batches).collect();
    }
    to.processors.replace(&from.processors, |name| keep.iter().any(|kept| kept == name));
}

/// A file that was read anew.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// What holds from now on: of the keys that need a restart, what held before.
    pub config: Config,
    /// What is another now.
    pub difference: Vec<Change>,
    /// What would be another after a restart.
    pub waiting: Vec<Change>,
}

impl Reloaded {
    /// What a new file makes of a running configuration.
    pub fn new(running: &Config, file: &Config) -> Result<Self, serde_yaml::Error> {
        let mut config = running.clone();
        for (_, take) in LIVE {
            take(&mut config, file);
        }
        Ok(Self {
            difference: show::difference(running, &config)?,
            waiting: show::difference(&config, file)?,
            config,
        })
    }
}

/// What tells one state of a file from another: another file, or other bytes of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of what is there now; the last link leads to it.
    fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// Watches the file of a running tap.
pub struct Reloader {
    path: PathBuf,
    /// What the file takes in.
    files: Vec<PathBuf>,
    running: Config,
    /// As it was when it was read last.
    read: Vec<Option<Stamp>>,
    /// As it was at the last look.
    seen: Vec<Option<Stamp>>,
    /// That it is gone was told.
    missed: bool,
    numbers: Numbers,
}

/// What became of a look.
#[derive(Debug)]
pub enum Outcome {
    /// Another file, which is to be applied.
    New(Box<Reloaded>),
    /// It says what it said.
    Same,
    /// It cannot be used: nothing changes.
    Bad(ConfigError),
}

impl Reloader {
    /// Of the file at `path`, or the default one, which said `running`. Numbers go to `registry`.
    pub fn new(path: Option<&Path>, running: Config, registry: &Registry) -> Self {
        let mut new = Self {
            path: path.unwrap_or(Path::new(DEFAULT_PATH)).to_owned(),
            files: Vec::new(),
            running,
            read: Vec::new(),
            seen: Vec::new(),
            missed: false,
            numbers: Numbers::new(registry),
        };
        // What it takes in is watched as well. It has just been read; if it was changed since, what
        // holds is not what is there, and the next look finds out.
        if let Ok(loaded) = Loaded::read(&new.path) {
            new.files = loaded.files;
            new.read = if loaded.config == new.running { new.stamps() } else { Vec::new() };
        }
        new.seen = new.stamps();
        new
    }

    /// Looks at the file: whether it is another, and whole.
    pub fn look(&mut self) -> Option<Outcome> {
        let now = self.stamps();
        let before = mem::replace(&mut self.seen, now);
        if self.seen == self.read {
            self.missed = false;
            return None;
        }
        if self.seen != before {
            return None;
        }
        if self.seen.first().is_none_or(Option::is_none) {
            if !mem::replace(&mut self.missed, true)
                && self.read.first().is_some_and(Option::is_some)
            {
                let path = self.path.display();
                tracing::warn!(%path, "The configuration file is gone; what it said holds.");
            }
            return None;
        }
        Some(self.load())
    }

    /// Reads the file now, whatever it was (SIGHUP).
    pub fn load(&mut self) -> Outcome {
        let before = self.stamps();
        let loaded = Loaded::read(&self.path);
        if let Ok(loaded) = &loaded {
            self.files.clone_from(&loaded.files);
        }
        // What changes under the reader's hands is looked at again.
        self.read = if self.stamps() == before { before } else { Vec::new() };
        self.seen.clone_from(&self.read);
        self.missed = false;
        let reloaded = match loaded {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{}:{warning}.", self.path.display());
                }
                Reloaded::new(&self.running, &loaded.config)
            }
            Err(error) => return self.bad(error),
        };
        match reloaded {
            Ok(reloaded) if reloaded.difference.is_empty() && reloaded.waiting.is_empty() => {
                self.numbers.same.add(1);
                Outcome::Same
            }
            Ok(reloaded) => Outcome::New(Box::new(reloaded)),
            Err(error) => {
                let error = std::io::Error::other(error);
                self.bad(ConfigError::Read { path: self.path.clone(), error })
            }
        }
    }

    fn bad(&self, error: ConfigError) -> Outcome {
        self.numbers.bad.add(1);
        self.numbers.successful.set(0);
        Outcome::Bad(error)
    }

    /// Has `apply` bring what was read into force, and tells how that went. What it refuses changes
    /// nothing.
    pub fn apply(
        &mut self,
        outcome: Outcome,
        apply: &mut dyn FnMut(&Config) -> Result<(), String>,
    ) {
        let path = self.path.display().to_string();
        let reloaded = match outcome {
            Outcome::New(reloaded) => reloaded,
            Outcome::Same => {
                self.numbers.ok();
                tracing::info!(%path, "The configuration was read again; it says the same.");
                return;
            }
            Outcome::Bad(error) => {
                for line in error.lines() {
                    tracing::error!("{line}");
                }
                tracing::error!(%path, "The configuration was not taken; the running one stays.");
                return;
            }
        };
        if !reloaded.difference.is_empty()
            && let Err(why) = apply(&reloaded.config)
        {
            self.numbers.failed.add(1);
            self.numbers.successful.set(0);
            tracing::error!(%path, why, "The configuration could not be applied.");
            return;
        }
        self.numbers.applied.add(1);
        self.numbers.ok();
        if !reloaded.difference.is_empty() {
            self.numbers.generation.add(1);
        }
        let generation = self.numbers.generation.value();
        tracing::info!(%path, generation, "The configuration was reloaded.");
        for change in &reloaded.difference {
            tracing::info!(generation, "Changed: {change}.");
        }
        for change in &reloaded.waiting {
            tracing::warn!("Needs a restart: {change}.");
        }
        self.running = reloaded.config;
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        [&self.path].into_iter().chain(&self.files).map(|path| Stamp::of(path)).collect()
    }
}

/// What `/metrics` tells.
struct Numbers {
    generation: Number,
    applied: Number,
    same: Number,
    bad: Number,
    failed: Number,
    successful: Number,
    time: Number,
}

const GENERATION: Family =
    Family::gauge("tap_config_generation", "Configurations that were in force, the first is 1.");
const RELOADS: Family =
    Family::counter("tap_config_reloads_total", "Times that the configuration was read again.");
const SUCCESSFUL: Family = Family::gauge(
    "tap_config_last_reload_successful",
    "Whether the configuration that was read last could be used.",
);
const TIME: Family = Family::gauge(
    "tap_config_last_reload_success_timestamp_seconds",
    "When a configuration was read last that could be used, Unix time.",
);

impl Numbers {
    fn new(registry: &Registry) -> Self {
        let reloads = |result| registry.number(RELOADS, &[("result", result)]);
        let numbers = Self {
            generation: registry.number(GENERATION, &[]),
            applied: reloads("applied"),
            same: reloads("unchanged"),
            bad: reloads("invalid"),
            failed: reloads("failed"),
            successful: registry.number(SUCCESSFUL, &[]),
            time: registry.number(TIME, &[]),
        };
        numbers.generation.set(1);
        numbers.ok();
        numbers
    }

    fn ok(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.successful.set(1);
        self.time.set(now.map_or(0, |now| now.as_secs()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::telemetry::metric::{Reader, text};

    struct Watched {
        home: tempfile::TempDir,
        reloader: Reloader,
        registry: Registry,
        applied: Vec<Config>,
    }

    impl Watched {
        /// A tap whose file says `text`.
        fn new(text: &str) -> Self {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("tap.yaml"), text).unwrap();
            Self::of(home)
        }

        fn of(home: tempfile::TempDir) -> Self {
            let path = home.path().join("tap.yaml");
            let registry = Registry::default();
            let running = Config::load(&path).unwrap();
            let reloader = Reloader::new(Some(&path), running, &registry);
            Self { home, reloader, registry, applied: Vec::new() }
        }

        fn path(&self) -> PathBuf {
            self.home.path().join("tap.yaml")
        }

        /// One look; whether it found something.
        fn look(&mut self) -> bool {
            let Some(outcome) = self.reloader.look() else { return false };
            let applied = &mut self.applied;
            self.reloader.apply(outcome, &mut |config| {
                applied.push(config.clone());
                Ok(())
            });
            true
        }

        fn metrics(&self) -> String {
            text::render(&self.registry.read(Reader::Scrape), text::Format::Prometheus)
        }

        fn has(&self, line: &str) -> bool {
            self.metrics().lines().any(|found| found == line)
        }
    }

    const EGRESS: &str = "capture: { direction: egress }\n";

    #[test]
    fn a_file_that_is_another_is_found_at_the_second_look() {
        let mut watched = Watched::new("");
        assert!(!watched.look() && !watched.look());
        fs::write(watched.path(), EGRESS).unwrap();
        assert!(!watched.look(), "it may still be being written");
        assert!(watched.look());
        assert_eq!(watched.applied, [Config::parse(EGRESS).unwrap()]);
        assert!(!watched.look() && !watched.look());
        assert!(watched.has("tap_config_generation 2"), "{}", watched.metrics());
        assert!(watched.has("tap_config_reloads_total{result=\"applied\"} 1"));
        // An editor that writes another file and renames it.
        fs::write(watched.home.path().join("new"), "").unwrap();
        fs::rename(watched.home.path().join("new"), watched.path()).unwrap();
        assert!(!watched.look());
        assert!(watched.look());
        assert_eq!(watched.applied.len(), 2);
    }

    #[test]
    fn a_bad_file_changes_nothing_and_a_good_one_after_it_does() {
        let mut watched = Watched::new("");
        fs::write(watched.path(), "capture: { direction: both }\n").unwrap();
        assert!(!watched.look() && watched.look() && !watched.look());
        assert!(watched.applied.is_empty());
        assert!(watched.has("tap_config_reloads_total{result=\"invalid\"} 1"));
        assert!(watched.has("tap_config_last_reload_successful 0"));
        assert!(watched.has("tap_config_generation 1"));
        fs::write(watched.path(), EGRESS).unwrap();
        assert!(!watched.look() && watched.look());
        assert_eq!(watched.applied.len(), 1);
        assert!(watched.has("tap_config_last_reload_successful 1"));
    }

    #[test]
    fn a_file_that_is_away_for_a_moment_or_for_good_is_no_change() {
        let mut watched = Watched::new(EGRESS);
        let aside = watched.home.path().join("aside");
        fs::rename(watched.path(), &aside).unwrap();
        assert!(!watched.look() && !watched.look() && !watched.look());
        fs::write(watched.path(), "").unwrap();
        assert!(!watched.look() && watched.look());
        assert_eq!(watched.applied, [Config::default()]);
    }

    #[test]
    fn the_link_of_a_config_map_that_leads_elsewhere_is_a_change() {
        let home = tempfile::tempdir().unwrap();
        for (folder, text) in [("..1", ""), ("..2", EGRESS)] {
            fs::create_dir(home.path().join(folder)).unwrap();
            fs::write(home.path().join(folder).join("tap.yaml"), text).unwrap();
        }
        symlink("..1", home.path().join("..data")).unwrap();
        symlink("..data/tap.yaml", home.path().join("tap.yaml")).unwrap();
        let mut watched = Watched::of(home);
        assert!(!watched.look());
        let home = watched.home.path();
        symlink("..2", home.join("..data_tmp")).unwrap();
        fs::rename(home.join("..data_tmp"), home.join("..data")).unwrap();
        fs::remove_dir_all(home.join("..1")).unwrap();
        assert!(!watched.look() && watched.look());
        assert_eq!(watched.applied, [Config::parse(EGRESS).unwrap()]);
    }

    #[test]
    fn a_file_that_is_taken_in_is_watched_as_well() {
        let home = tempfile::tempdir().unwrap();
        let part = home.path().join("direction");
        fs::write(&part, "ingress").unwrap();
        let text = format!("capture: {{ direction: '${{file:{}}}' }}\n", part.display());
        fs::write(home.path().join("tap.yaml"), text).unwrap();
        let mut watched = Watched::of(home);
        assert!(!watched.look());
        fs::write(&part, "egress").unwrap();
        assert!(!watched.look() && watched.look());
        assert_eq!(watched.applied, [Config::parse(EGRESS).unwrap()]);
    }

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_the_rest_applies() {
        let running = Config::default();
        let text = "capture: { direction: egress, self: true }\nrings: { life: 1MiB }\n";
        let reloaded = Reloaded::new(&running, &Config::parse(text).unwrap()).unwrap();
        assert_eq!(reloaded.config, Config::parse(EGRESS).unwrap());
        let lines = |changes: &[Change]| changes.iter().map(Change::to_string).collect::<Vec<_>>();
        assert_eq!(lines(&reloaded.difference), ["capture.direction: all → egress"]);
        assert_eq!(
            lines(&reloaded.waiting),
            ["capture.self: false → true", "rings.life: 16MiB → 1MiB"]
        );
    }

    /// Each key of the table is one, and taking it is all that it does.
    #[test]
    fn the_table_of_live_keys_is_true() {
        let other = "capture: { direction: egress, loopback: false, include: [{ port: 1 }], \
                     exclude: [{ port: 2 }] }\n";
        let other = Config::parse(other).unwrap();
        for (path, take) in LIVE.into_iter().filter(|(path, _)| path.starts_with("capture.")) {
            let mut config = Config::default();
            take(&mut config, &other);
            let changes = show::difference(&Config::default(), &config).unwrap();
            let paths: Vec<_> = changes.iter().map(|change| &*change.path).collect();
            assert_eq!(paths, [path]);
        }
    }

    #[test]
    fn processors_are_taken_but_for_batches_and_other_pipelines() {
        const EXPORTERS: &str = "exporters: { otlp: {} }\n";
        let with = |processors: &str, pipelines: &str| {
            let text = format!(
                "{EXPORTERS}processors: {{ {processors} }}\n\
                 service: {{ pipelines: {{ {pipelines} }} }}\n"
            );
            Config::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        let running = with(
            "filter/a: {}, filter/gone: {}, batch: { timeout: 1s }",
            "traces: { processors: [filter/a, batch], exporters: [otlp] }, \
             logs: { processors: [filter/gone], exporters: [otlp] }",
        );
        let file = with(
            "filter/a: { error_mode: silent }, filter/b: {}, batch: { timeout: 2s }",
            "traces: { processors: [filter/b, filter/a, batch], exporters: [otlp] }, \
             traces/new: { processors: [filter/b], exporters: [otlp] }",
        );
        let Reloaded { config, difference, waiting } = Reloaded::new(&running, &file).unwrap();
        let pipelines = &config.service.pipelines.as_ref().unwrap().0;
        let lists: Vec<_> = pipelines.iter().map(|(_, of)| of.processors.join(" ")).collect();
        assert_eq!(lists, ["filter/b filter/a batch", "filter/gone"]);
        assert_eq!(config.processors.find("filter/a"), file.processors.find("filter/a"));
        assert_eq!(config.processors.find("batch"), running.processors.find("batch"));
        let lines = |changes: &[Change]| -> String {
            changes.iter().map(|change| format!("{} ", change.path)).collect()
        };
        assert!(lines(&difference).contains("filter/a"), "{}", lines(&difference));
        let waiting = lines(&waiting);
        for path in ["processors.batch.timeout", "traces/new", "logs", "filter/gone"] {
            assert!(waiting.contains(path), "{waiting}");
        }
        // What is made of it can be used.
        config.service.check(&config.processors, &config.exporters).unwrap();
    }

    #[test]
    fn what_cannot_be_applied_is_tried_again_with_the_next_file() {
        let mut watched = Watched::new("");
        fs::write(watched.path(), EGRESS).unwrap();
        let outcome = watched.reloader.load();
        watched.reloader.apply(outcome, &mut |_| Err("no".into()));
        assert!(watched.has("tap_config_reloads_total{result=\"failed\"} 1"));
        assert!(watched.has("tap_config_generation 1"));
        let outcome = watched.reloader.load();
        let mut applied = 0;
        watched.reloader.apply(outcome, &mut |_| {
            applied += 1;
            Ok(())
        });
        assert_eq!(applied, 1);
        assert!(matches!(watched.reloader.load(), Outcome::Same));
        assert!(watched.has("tap_config_reloads_total{result=\"unchanged\"} 1"));
    }
}
