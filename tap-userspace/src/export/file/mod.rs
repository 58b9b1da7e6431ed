//! The `file` exporter's file. Comes in: requests as lines of OTLP/JSON, from every signal that goes
//! there; goes out: an [`Outcome`] for each. Lines are whole: what could not be written to its end is
//! taken back, and what an earlier process has left torn is not continued.
//!
//! With `zstd` each piece is a frame of its own, followed by a skippable frame (RFC 8878, 3.1.2) that
//! says where a piece ends: `zstdcat` gives the lines, and a torn end can be told.

mod rotation;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;

use super::transport::{Outcome, compress};
use crate::config::{environment::Compression, exporters};

/// What ends each piece of a compressed file: a skippable frame of four bytes.
const PIECE_END: [u8; 12] = *b"\x5d\x2a\x4d\x18\x04\x00\x00\x00tap\n";

/// No piece is longer, so that a torn one is found within this.
const LONGEST_PIECE: u64 = 64 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made or written.
    #[error(
        "{exporter}: {} cannot be written: {error}; give a `path` that tap may write to, or set \
         `create_directory: true`", path.display()
    )]
    File {
        /// The exporter.
        exporter: Arc<str>,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// Another process writes to it.
    #[error(
        "{exporter}: another tap writes to {}: stop it, or give this one another `path`",
        path.display()
    )]
    Locked {
        /// The exporter.
        exporter: Arc<str>,
        /// The file.
        path: PathBuf,
    },
}

/// The file, as long as this lives nobody else's.
#[derive(Debug)]
pub struct Writer {
    settings: exporters::File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// The first opening may empty the file.
    opened: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    /// When the file was made.
    began: SystemTime,
}

impl Writer {
    /// Opens the file of `exporter`. A disk that is full is no reason not to start.
    pub fn open(exporter: &Arc<str>, settings: &exporters::File) -> Result<Arc<Self>, OpenError> {
        let writer = Self { settings: settings.clone(), state: Mutex::default() };
        match writer.look(&mut writer.lock()) {
            Ok(_) => {}
            Err(error) if is_full(&error) => {
                tracing::warn!(%exporter, %error, "The file exporter's disk is full.");
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let path = settings.path.clone();
                return Err(OpenError::Locked { exporter: exporter.clone(), path });
            }
            Err(error) => {
                let path = settings.path.clone();
                return Err(OpenError::File { exporter: exporter.clone(), path, error });
            }
        }
        Ok(Arc::new(writer))
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// The line as it is written.
    pub fn prepare(&self, line: Vec<u8>) -> Result<Vec<u8>, String> {
        if self.settings.compression.is_none() {
            return Ok(line);
        }
        let mut piece = compress(Compression::Zstd, &[], &line)?;
        piece.extend_from_slice(&PIECE_END);
        Ok(piece)
    }

    /// Writes what was prepared, whole or not at all.
    pub fn append(&self, piece: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let open = self.look(&mut state)?;
        if self.is_over(open, piece.len()) {
            rotation::rotate(&self.settings.path, SystemTime::now())?;
            state.open = None;
            self.look(&mut state)?;
            self.prune();
        }
        let open = self.look(&mut state)?;
        match open.file.write_all(piece) {
            Ok(()) => {
                open.len += piece.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What is there of it is taken back. If that fails, the file is looked at anew, as
                // after a crash.
                if open.file.set_len(open.len).is_err() {
                    state.open = None;
                }
                Err(error)
            }
        }
    }

    /// The file, opened if that is due: the first time, and where somebody has moved or removed it.
    fn look<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Open> {
        if state.open.as_ref().is_some_and(|open| !self.is_there(open)) {
            state.open = None;
        }
        let open = match state.open.take() {
            Some(open) => open,
            None => self.reopen(!state.opened && !self.settings.append)?,
        };
        state.opened = true;
        Ok(state.open.insert(open))
    }

    /// Whether the path still leads to this file.
    fn is_there(&self, open: &Open) -> bool {
        let Ok(own) = open.file.metadata() else { return false };
        fs::metadata(&self.settings.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()))
    }

    fn reopen(&self, empty: bool) -> io::Result<Open> {
        let path = &self.settings.path;
        if self.settings.create_directory
            && let Some(folder) = path.parent()
        {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if empty {
            file.set_len(0)?;
        }
        if self.settings.compression.is_some() {
            if !cut_torn_piece(&mut file)? {
                // Nothing of ours that is whole; it may be somebody else's.
                rotation::rotate(path, SystemTime::now())?;
                drop(file);
                file = options.open(path)?;
                file.try_lock()?;
            }
        } else {
            end_torn_line(&mut file)?;
        }
        let metadata = file.metadata()?;
        let began = metadata.created().or_else(|_| metadata.modified());
        let began = began.unwrap_or_else(|_| SystemTime::now());
        Ok(Open { len: metadata.len(), began, file })
    }

    /// Whether another file is to be begun before so many bytes more.
    fn is_over(&self, open: &Open, more: usize) -> bool {
        let Some(rotation) = &self.settings.rotation else { return false };
        let age = open.began.elapsed().unwrap_or_default();
        open.len > 0
            && (open.len + more as u64 > rotation.most_bytes()
                || rotation.most_age().is_some_and(|most| age >= most))
    }

    /// Deletes what is beyond the number and the age of what is kept. What cannot be deleted is
    /// tried again after the next rotation.
    fn prune(&self) {
        let Some(rotation) = &self.settings.rotation else { return };
        let age = rotation.most_age();
        if let Err(error) =
            rotation::prune(&self.settings.path, rotation.max_backups, age, SystemTime::now())
        {
            let path = self.settings.path.display();
            tracing::warn!(%path, %error, "Old files of a file exporter cannot be deleted.");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a piece on a thread that may wait for the disk.
pub(super) async fn append(writer: &Arc<Writer>, piece: Bytes) -> Outcome {
    let writer = writer.clone();
    let written = tokio::task::spawn_blocking(move || writer.append(&piece)).await;
    match written {
        Ok(Ok(())) => Outcome::Taken { rejected: 0, message: String::new() },
        Ok(Err(error)) => Outcome::again(error.to_string(), "write"),
        Err(error) => Outcome::again(error.to_string(), "_OTHER"),
    }
}

/// Whether the disk has no room.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A line without its end is left as it is, and the next one begins behind it.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" { file.write_all(b"\n") } else { Ok(()) }
}

/// Cuts off a piece without its end: its lines were never counted as written. False if no piece's
/// end can be found.
fn cut_torn_piece(file: &mut File) -> io::Result<bool> {
    let len = file.seek(SeekFrom::End(0))?;
    if len == 0 {
        return Ok(true);
    }
    // First where it should be, then anywhere.
    for window in [PIECE_END.len() as u64, LONGEST_PIECE] {
        let from = len.saturating_sub(window);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.take(len - from).read_to_end(&mut tail)?;
        if let Some(at) = memchr::memmem::rfind(&tail, &PIECE_END) {
            let whole = from + (at + PIECE_END.len()) as u64;
            if whole < len {
                file.set_len(whole)?;
            }
            return Ok(true);
        }
    }
    Ok(false)
}
