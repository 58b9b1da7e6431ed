//! The configuration file, read: bounded, as it may be anything. Comes in: a path; goes out: a
//! checked [`Config`], what is to be warned of, and which files it hangs on; or every [`Mistake`] that
//! could be found at once.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    expand::{self, Process, Values},
    file::Config,
    place::{Mistake, Step},
    read,
    tree::{self, Place},
};

/// Where the file is looked for if none is named.
pub const DEFAULT_PATH: &str = "/etc/tap/tap.yaml";

/// Most bytes of a file; a ConfigMap has no more either.
const BYTES_MAX: u64 = 1 << 20;
/// Most mistakes that are told of one file.
const MISTAKES_MAX: usize = 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is wrong.
    #[error("{path}:{mistakes}", path = .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What and where.
        mistakes: Mistakes,
    },
}

impl ConfigError {
    /// A line for each mistake.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Read { .. } => vec![self.to_string()],
            Self::Wrong { path, mistakes } => {
                mistakes.0.iter().map(|mistake| format!("{}:{mistake}", path.display())).collect()
            }
        }
    }
}

/// All that was found to be wrong, at least one.
#[derive(Clone, Debug)]
pub struct Mistakes(Vec<Mistake>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = &*self.0 else { return Ok(()) };
        write!(f, "{first}")?;
        match rest.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more: `tap config validate` tells all)"),
        }
    }
}

/// A file that can be used.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// Variables that are not set.
    pub warnings: Vec<Mistake>,
    /// Files that came in by `${file:…}`.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            read_text(path).map_err(|error| ConfigError::Read { path: path.into(), error })?;
        Self::of(&text, &Process)
            .map_err(|mistakes| ConfigError::Wrong { path: path.into(), mistakes })
    }

    /// Reads and checks the text of a file, with what it takes from elsewhere.
    pub fn of(text: &str, values: &dyn Values) -> Result<Self, Mistakes> {
        let one = |mistake| Mistakes(vec![mistake]);
        let mut tree = tree::parse(text).map_err(one)?;
        let found = expand::expand(&mut tree, values).map_err(one)?;
        let mut mistakes = Vec::new();
        let mut culprits: Vec<Vec<Step>> = Vec::new();
        loop {
            // What is wrong is taken out, to find what else is.
            let mistake = match read::from_tree::<Config>(&tree) {
                Ok(config) if mistakes.is_empty() => {
                    let wrong = config.check().into_iter();
                    mistakes.extend(wrong.map(|mistake| mistake.locate(&tree)));
                    if mistakes.is_empty() {
                        return Ok(Self { config, warnings: found.warnings, files: found.files });
                    }
                    break;
                }
                Ok(_) => break,
                Err(mistake) => mistake,
            };
            let culprit = mistake.culprit();
            // What is around something that was taken out may only lack that.
            if !culprits.iter().any(|out| out.starts_with(&culprit)) {
                mistakes.push(mistake);
            }
            let gone = tree.remove(&culprit);
            culprits.push(culprit);
            if !gone || culprits.len() == MISTAKES_MAX {
                break;
            }
        }
        mistakes.sort_by_key(|mistake| mistake.place().unwrap_or(Place { line: 0, column: 0 }));
        Err(Mistakes(mistakes))
    }
}

/// The text of a file that is one, and not too long.
pub fn read_text(path: &Path) -> io::Result<String> {
    let other = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    // A pipe that nobody writes to is not waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(other("it is no file, but a folder, a pipe or a device: name a file".into()));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        let why = format!("it is longer than {} MiB: no configuration is", BYTES_MAX >> 20);
        return Err(other(why));
    }
    String::from_utf8(bytes).map_err(|_| other("it is no UTF-8: write it in that".into()))
}

impl Config {
    /// The file that holds if `path` is named or not; `None`: there is none, so all defaults.
    pub fn place(path: Option<&Path>) -> Option<&Path> {
        let default = Path::new(DEFAULT_PATH);
        path.or_else(|| default.exists().then_some(default))
    }

    /// The named file; without a name the default one, if it is there; else all defaults. What it
    /// warns of is in the log.
    pub fn find(path: Option<&Path>) -> Result<Self, ConfigError> {
        match Self::place(path) {
            Some(path) => Self::load(path),
            None => Ok(Self::default()),
        }
    }

    /// Reads and checks a file. What it warns of is in the log.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let loaded = Loaded::read(path)?;
        for warning in &loaded.warnings {
            tracing::warn!("{}:{warning}.", path.display());
        }
        Ok(loaded.config)
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        Loaded::of(text, &Process).map(|loaded| loaded.config)
    }
}
