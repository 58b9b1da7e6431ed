//! Batches that wait on disk (`sending_queue.storage`). Comes in: an encoded OTLP request and how
//! many items it holds; it counts as accepted when it has reached the disk. Goes out: the same, in
//! the order in which they came, in this process or in whatever process comes next; once a batch
//! is done with, that reaches the disk before the next one is taken.
//!
//! A folder holds segment files (`<number>-<salt>.log`) to which records ([`record`]) are appended.
//! A batch is done when four bytes of its header say so, written over in place: this needs no room
//! on a full disk. A segment whose batches are all done is deleted. What is damaged is skipped and
//! counted, and its file is set aside (`.damaged`): never deleted or counted again, and its whole
//! batches are sent as all others.
//!
//! Why an own log and not an embedded store, measured on ext4 (virtio disk; p50 of 256 KiB a batch,
//! where one byte and `fdatasync` take 0.09 ms; `cargo xtask bench queue`). The last two columns: a
//! file of 50 batches is cut, or one bit of it is changed, at 200 places (fjall: 100; this: at every
//! one, by the tests).
//!
//! | | store a batch | be done with it | disk used | cut | one bit changed |
//! | --- | --- | --- | --- | --- | --- |
//! | this | 0.42 ms | 0.11 ms | 1.0 × | keeps all before the cut | keeps all but the batch it is in |
//! | redb 3.1 | 0.97 ms | 0.22 to 0.38 ms | 2.0 × | keeps none; opening panics in 199 | keeps 48.6; opening panics in 3 |
//! | fjall 2.11 | 0.48 ms | 0.20 ms | 1.5 to 1.9 × | keeps all before the cut | keeps none: the journal is refused |
//!
//! Both are made for keys in any order, of which a queue has none. A queue's own needs they do not
//! meet: one damaged batch must not take the others along, and it must be possible to be done with
//! batches on a full disk. fjall brings 43 crates besides, some under licences that tap does not
//! link. What was given up: this file.

mod queue;
pub mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

pub use self::queue::{DiskQueue, Pushed};
use self::record::{DONE, HEADER, Header, LARGEST, STATE_AT, Scan};

/// Nothing that tap wrote is longer: a segment may be over its size by one record.
const LARGEST_SEGMENT: u64 = (64 << 20) + (HEADER + LARGEST) as u64;

/// The file whose lock says whose the folder is.
const LOCK: &str = "lock";

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Batches.
    pub batches: u64,
    /// Items in them.
    pub items: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of all files, those set aside included.
    pub disk: u64,
}

impl Limits {
    /// After so many bytes a segment is full: small enough that what is done with does not hold
    /// the disk for long, large enough that files are few.
    fn segment(&self) -> u64 {
        (self.disk / 128).clamp(64 << 10, 64 << 20)
    }
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made, read or written.
    #[error(
        "the sending queue's folder {} cannot be used: {error}; give tap a folder that it may write \
         to in sending_queue.storage", folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "the sending queue's folder {} is in use by another tap (process {holder}): stop it, or \
         give this one another folder in sending_queue.storage", folder.display()
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Its process id, as it wrote it.
        holder: String,
    },
}

/// Why a batch is not stored.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no room by [`Limits`].
    #[error("the queue is full")]
    Full,
    /// The disk does not take it. Nothing of it is left there.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// What was found in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Batches that wait.
    pub batches: u64,
    /// Items in them.
    pub items: u64,
    /// Files with something damaged in them, seen for the first time.
    pub damaged_segments: u64,
    /// Items lost with that, as far as can be told.
    pub damaged_items: u64,
}

/// A batch that was taken and is not done.
#[derive(Debug)]
pub struct Ticket {
    /// Number and salt.
    segment: (u64, u64),
    at: u64,
    header: Header,
}

impl Ticket {
    /// Items in the batch.
    pub const fn items(&self) -> u64 {
        self.header.items as u64
    }
}

/// What [`Store::take`] finds.
#[derive(Debug)]
pub enum Taken {
    /// A batch: the room asked for, then its payload.
    Batch(Ticket, Vec<u8>),
    /// One that can no longer be read, of so many items. It is out of the queue.
    Damaged(u64),
}

/// What waits, or was taken and is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Batches.
    pub batches: u64,
    /// Items in them.
    pub items: u64,
    /// Bytes of them, headers included.
    pub bytes: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    salt: u64,
    len: u64,
    /// Batches that are not marked as done.
    left: u64,
    /// Its file is never deleted.
    damaged: bool,
    /// Its file has been renamed.
    aside: bool,
}

impl Segment {
    const fn key(&self) -> (u64, u64) {
        (self.number, self.salt)
    }

    fn name(&self) -> String {
        let end = if self.aside { ".damaged" } else { "" };
        format!("{:020}-{:016x}.log{end}", self.number, self.salt)
    }

    /// From a file's name, which is that of a segment or not.
    fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        let (stem, aside) = match name.strip_suffix(".damaged") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let (number, salt) = stem.strip_suffix(".log")?.split_once('-')?;
        let salt = u64::from_str_radix(salt, 16).ok()?;
        // Numbers go on from the highest for longer than any disk lives.
        let number = number.parse().ok().filter(|number| *number <= u64::MAX / 2)?;
        let segment = Self { number, salt, len: 0, left: 0, damaged: aside, aside };
        (segment.name() == name).then_some(segment)
    }
}

/// The batches of one folder. Every call may wait for the disk.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    limits: Limits,
    /// By number.
    segments: VecDeque<Segment>,
    /// In the order in which they came.
    waiting: VecDeque<Ticket>,
    held: Held,
    /// Whether the last segment may be appended to. Files are open only while they are used, so that
    /// nothing keeps the file system from being mounted read-only.
    appending: bool,
    /// Length of the last segment without an append that failed and is still to be cut off.
    torn: Option<u64>,
    next: u64,
    /// Bytes of files that were set aside and have nothing to send.
    aside: u64,
    damaged_segments: u64,
    /// Held as long as this lives.
    _lock: File,
}

impl Store {
    /// Makes or reads `folder`, which is this process's until the store is dropped.
    pub fn open(folder: &Path, limits: Limits) -> Result<(Self, Recovery), OpenError> {
        let wrong = |error| OpenError::Folder { folder: folder.into(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
        let lock = lock(folder)?;
        // For people; on a full disk it is left out.
        drop(fs::write(folder.join(LOCK), std::process::id().to_string()));
        let mut store = Self {
            folder: folder.into(),
            limits,
            segments: VecDeque::new(),
            waiting: VecDeque::new(),
            held: Held::default(),
            appending: false,
            torn: None,
            next: 0,
            aside: 0,
            damaged_segments: 0,
            _lock: lock,
        };
        let recovery = store.recover().map_err(wrong)?;
        Ok((store, recovery))
    }

    fn recover(&mut self) -> io::Result<Recovery> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            found.extend(Segment::parse(&entry?.file_name()));
        }
        // Two of one number are not ours, but have an order all the same.
        found.sort_by_key(Segment::key);
        let mut recovery = Recovery::default();
        for mut segment in found {
            self.next = self.next.max(segment.number + 1);
            let scan = self.read_segment(&mut segment)?;
            if scan.damaged && !segment.aside {
                recovery.damaged_segments += 1;
                recovery.damaged_items += scan.damaged_items;
                self.set_aside(&mut segment);
            }
            segment.left = scan.waiting.len() as u64;
            for (at, header) in scan.waiting {
                self.count_in(&header);
                self.waiting.push_back(Ticket { segment: segment.key(), at, header });
            }
            self.segments.push_back(segment);
        }
        recovery.batches = self.held.batches;
        recovery.items = self.held.items;
        self.prune();
        Ok(recovery)
    }

    /// What is in a segment's file. One that the disk cannot read, or that is too long to be
    /// tap's, is damaged as a whole.
    fn read_segment(&self, segment: &mut Segment) -> io::Result<Scan> {
        let mut file = match File::open(self.path(segment)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => return Ok(Scan { damaged: true, ..Scan::default() }),
        };
        segment.len = file.metadata()?.len();
        let mut bytes = Vec::new();
        if segment.len > LARGEST_SEGMENT || file.read_to_end(&mut bytes).is_err() {
            return Ok(Scan { damaged: true, ..Scan::default() });
        }
        Ok(record::scan(segment.salt, &bytes))
    }

    /// Stores a batch. When this returns it is on the disk.
    pub fn append(&mut self, items: u32, payload: &[u8]) -> Result<(), Refused> {
        let size = (HEADER + payload.len()) as u64;
        if !self.has_room(items, size) {
            return Err(Refused::Full);
        }
        self.repair()?;
        let fresh = !self.appending;
        match self.write(items, payload) {
            // The file may have met a limit of its own (RLIMIT_FSIZE): a new one is tried, once.
            Err(_) if !fresh && self.torn.is_none() => self.write(items, payload)?,
            other => other?,
        }
        Ok(())
    }

    fn has_room(&mut self, items: u32, size: u64) -> bool {
        let Limits { batches, items: most_items, bytes, disk } = self.limits;
        if self.held.batches == 0 && self.used() + size > disk {
            // All of it is done.
            self.appending = false;
            self.prune();
        }
        self.held.batches < batches
            && self.held.items + u64::from(items) <= most_items
            && self.held.bytes + size <= bytes
            && self.used() + size <= disk
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum::<u64>() + self.aside
    }

    fn write(&mut self, items: u32, payload: &[u8]) -> io::Result<()> {
        let full = self.segments.back().is_none_or(|last| last.len >= self.limits.segment());
        if full || !self.appending {
            self.begin_segment()?;
        }
        let Some(segment) = self.segments.back() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let header =
            Header::new(segment.salt, items, payload).ok_or(io::ErrorKind::FileTooLarge)?;
        let at = segment.len;
        let file = OpenOptions::new().write(true).open(self.path(segment))?;
        let written = file
            .write_all_at(&header.to_bytes(segment.salt), at)
            .and_then(|()| file.write_all_at(payload, at + HEADER as u64))
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            // What was written may be there or not; it must not be found by the next process.
            self.torn = Some(at);
            return self.repair().and(Err(error));
        }
        self.waiting.push_back(Ticket { segment: segment.key(), at, header });
        self.count_in(&header);
        if let Some(segment) = self.segments.back_mut() {
            segment.len += header.size();
            segment.left += 1;
        }
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let mut salt = [0; 8];
        // Without randomness the salt keeps nobody from imitating headers, and that is all.
        getrandom::fill(&mut salt).unwrap_or_default();
        let segment = Segment {
            number: self.next,
            salt: u64::from_le_bytes(salt),
            len: 0,
            left: 0,
            damaged: false,
            aside: false,
        };
        let path = self.path(&segment);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        // The name must be on the disk before what is in the file counts.
        if let Err(error) = self.sync_folder() {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        self.next += 1;
        self.segments.push_back(segment);
        self.appending = true;
        self.prune();
        Ok(())
    }

    /// Cuts off an append that failed, and begins a new segment with the next one.
    fn repair(&mut self) -> io::Result<()> {
        let (Some(len), Some(last)) = (self.torn, self.segments.back()) else { return Ok(()) };
        self.appending = false;
        let path = self.path(last);
        if len == 0 {
            fs::remove_file(&path)?;
            self.segments.pop_back();
        } else {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(len)?;
            file.sync_data()?;
        }
        self.torn = None;
        Ok(())
    }

    /// The oldest batch that nobody has taken, behind `room` bytes of zeros.
    pub fn take(&mut self, room: usize) -> Option<Taken> {
        let ticket = self.waiting.pop_front()?;
        match self.read(&ticket, room) {
            Some(payload) => Some(Taken::Batch(ticket, payload)),
            None => {
                self.damaged(&ticket);
                Some(Taken::Damaged(ticket.items()))
            }
        }
    }

    fn read(&self, ticket: &Ticket, room: usize) -> Option<Vec<u8>> {
        let segment = &self.segments[self.find(ticket.segment)?];
        let file = File::open(self.path(segment)).ok()?;
        let mut bytes = vec![0; room + ticket.header.len as usize];
        file.read_exact_at(&mut bytes[room..], ticket.at + HEADER as u64).ok()?;
        ticket.header.fits(segment.salt, &bytes[room..]).then_some(bytes)
    }

    fn damaged(&mut self, ticket: &Ticket) {
        self.finish(ticket);
        let Some(index) = self.find(ticket.segment) else { return };
        let Some(mut segment) = self.segments.remove(index) else { return };
        if index == self.segments.len() {
            self.appending = false;
        }
        segment.left -= 1;
        if !segment.damaged {
            self.damaged_segments += 1;
            self.set_aside(&mut segment);
        }
        self.segments.insert(index, segment);
        self.prune();
    }

    /// Segments that [`Self::take`] found damaged since this was last asked.
    pub const fn take_damaged_segments(&mut self) -> u64 {
        std::mem::replace(&mut self.damaged_segments, 0)
    }

    /// A batch is out of the queue, whatever the disk says; [`Self::mark`] must follow.
    pub fn finish(&mut self, ticket: &Ticket) {
        self.held.batches -= 1;
        self.held.items -= ticket.items();
        self.held.bytes -= ticket.header.size();
    }

    /// Puts down that a batch is done. Until this succeeds, the next process will send it again;
    /// it may be called as often as needed.
    pub fn mark(&mut self, ticket: &Ticket) -> io::Result<()> {
        let Some(index) = self.find(ticket.segment) else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(self.path(&self.segments[index]))?;
        file.write_all_at(&DONE, ticket.at + STATE_AT)?;
        file.sync_data()?;
        self.segments[index].left -= 1;
        self.prune();
        Ok(())
    }

    /// What waits, or was taken and is not done.
    pub const fn held(&self) -> Held {
        self.held
    }

    /// Nothing is appended any more. Where nothing waits, nothing is left behind.
    pub fn close(&mut self) {
        // Failed before, and tried for the last time.
        drop(self.repair());
        self.appending = false;
        self.prune();
    }

    /// Takes segments away that have nothing to send, from the oldest on.
    fn prune(&mut self) {
        while let Some(first) = self.segments.front() {
            let written_to = self.appending || self.torn.is_some();
            if first.left > 0 || (written_to && self.segments.len() == 1) {
                break;
            }
            if first.damaged {
                self.aside += first.len;
            } else if fs::remove_file(self.path(first)).is_err() {
                // All in it is marked as done, so it does no harm; it is tried again.
                break;
            }
            self.segments.pop_front();
        }
    }

    fn set_aside(&self, segment: &mut Segment) {
        let from = self.path(segment);
        (segment.damaged, segment.aside) = (true, true);
        // Where it cannot be renamed it is at least not deleted.
        segment.aside = fs::rename(from, self.path(segment)).is_ok();
        tracing::warn!(
            file = %self.path(segment).display(),
            "A part of the sending queue is damaged; the rest of it is sent, and the file is kept."
        );
    }

    fn count_in(&mut self, header: &Header) {
        self.held.batches += 1;
        self.held.items += u64::from(header.items);
        self.held.bytes += header.size();
    }

    fn find(&self, key: (u64, u64)) -> Option<usize> {
        self.segments.binary_search_by_key(&key, Segment::key).ok()
    }

    fn path(&self, segment: &Segment) -> PathBuf {
        self.folder.join(segment.name())
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Whether a tap could take the folder, made or not, for `tap check`: nothing is made, and it is let
/// go at once.
pub fn is_free(folder: &Path) -> Result<(), OpenError> {
    if folder.join(LOCK).exists() { lock(folder).map(drop) } else { Ok(()) }
}

/// Takes the folder for this process; the kernel lets it go with the process.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let wrong = |error| OpenError::Folder { folder: folder.into(), error };
    let path = folder.join(LOCK);
    // Not for writing: it is held for as long as tap runs.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_CREAT).mode(0o600).open(&path);
    let file = file.map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(wrong(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            drop(file.take(20).read_to_string(&mut holder));
            Err(OpenError::Locked { folder: folder.into(), holder })
        }
    }
}
