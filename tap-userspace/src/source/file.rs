//! Recordings: everything that the connection stage is told, in the order it was told, so that the
//! same spans come out again.
//!
//! A file is 16 bytes of head (`TAPREC`, a version of this format, the ABI version, the recording
//! tap's own process id) and frames: length
//! and CRC-32 of what follows, one byte of kind, the body. Integers are little-endian; record
//! bodies are as the kernel of the recording machine wrote them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use tap_common::ABI_VERSION;

use crate::enrich::process::Process;

const MAGIC: [u8; 8] = *b"TAPREC\x00\x01";

/// Longest frame: a snapshot of a million connections.
const FRAME_MAX: u32 = 256 << 20;

/// One thing that the connection stage is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Monotonic time, and what to add for the wall clock.
    Clock(u64, i64),
    /// A kernel record.
    Record(Vec<u8>),
    /// Who the process is that later records name; `None` if nobody knows.
    Process(u32, Option<Arc<Process>>),
    /// The end of a round over the rings; whether the data ring was empty.
    Tick(bool),
    /// A snapshot: close records one after another.
    Snapshot(Vec<u8>),
    /// A connection from the host's list of sockets, as an open record.
    Listed(Vec<u8>),
    /// An address and port that somebody listens on.
    Listens(IpAddr, u16),
    /// The end, with the last snapshot.
    Flush(Vec<u8>),
}

/// Why a recording cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read the recording: {0}")]
    Io(#[from] io::Error),
    /// It is no recording.
    #[error("offset 0: this is no recording of tap (it does not begin with TAPREC)")]
    NoRecording,
    /// It is of another version.
    #[error(
        "offset 8: the recording has kernel-record version {0}, this tap reads {ABI_VERSION}; replay it with the tap that made it"
    )]
    Version(u32),
    /// A frame is cut off: the recording tap was killed, or the file was truncated.
    #[error(
        "offset {0}: the recording is cut off inside a frame; everything before it was replayed"
    )]
    Truncated(u64),
    /// A frame is damaged.
    #[error("offset {0}: the recording is damaged ({1}); everything before it was replayed")]
    Damaged(u64, &'static str),
}

/// Writes a recording.
pub struct Writer {
    file: BufWriter<File>,
    /// Whom the file has told of, by process.
    told: HashMap<u32, Option<Arc<Process>>>,
}

impl Writer {
    /// Creates the file, which only its owner may read: it holds payload.
    pub fn create(path: &Path, self_tgid: u32) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&MAGIC)?;
        file.write_all(&ABI_VERSION.to_le_bytes())?;
        file.write_all(&self_tgid.to_le_bytes())?;
        Ok(Self { file, told: HashMap::new() })
    }

    /// Tells who a process is, unless the file has told so before.
    pub fn process(&mut self, tgid: u32, process: Option<&Arc<Process>>) -> io::Result<()> {
        let same = match (self.told.get(&tgid), process) {
            (Some(Some(told)), Some(process)) => Arc::ptr_eq(told, process) || told == process,
            (Some(None), None) => true,
            _ => false,
        };
        if same {
            return Ok(());
        }
        self.told.insert(tgid, process.cloned());
        self.frame(&Frame::Process(tgid, process.cloned()))
    }

    /// Writes one frame.
    pub fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        match frame {
            Frame::Clock(now, offset) => {
                self.write(1, &[&now.to_le_bytes(), &offset.to_le_bytes()])
            }
            Frame::Record(bytes) => self.record(bytes),
            Frame::Process(tgid, process) => {
                let json = serde_json::to_vec(&process.as_deref())?;
                self.write(3, &[&tgid.to_le_bytes(), &json])
            }
            Frame::Tick(drained) => self.write(4, &[&[u8::from(*drained)]]),
            Frame::Snapshot(bytes) => self.write(5, &[bytes]),
            Frame::Listed(bytes) => self.write(6, &[bytes]),
            Frame::Listens(address, port) => {
                let address = match address {
                    IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
                    IpAddr::V6(six) => six.octets(),
                };
                self.write(7, &[&address, &port.to_le_bytes()])
            }
            Frame::Flush(bytes) => {
                self.write(8, &[bytes])?;
                self.file.flush()
            }
        }
    }

    /// Writes a kernel record without copying it first.
    pub fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(2, &[bytes])
    }

    fn write(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&[kind]);
        parts.iter().for_each(|part| crc.update(part));
        self.file.write_all(&(len as u32).to_le_bytes())?;
        self.file.write_all(&crc.finalize().to_le_bytes())?;
        self.file.write_all(&[kind])?;
        parts.iter().try_for_each(|part| self.file.write_all(part))
    }
}

/// Reads a recording, frame by frame.
pub struct Reader<R> {
    from: R,
    offset: u64,
    /// The recording tap's process, whose connections are left out; 0 if it traced itself.
    pub self_tgid: u32,
}

impl Reader<BufReader<File>> {
    /// Opens the file and checks its head.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(BufReader::with_capacity(1 << 20, File::open(path)?))
    }
}

impl<R: Read> Reader<R> {
    /// Checks the head.
    pub fn new(mut from: R) -> Result<Self, ReadError> {
        let mut head = [0; 16];
        if read_full(&mut from, &mut head)? < 16 || head[..8] != MAGIC {
            return Err(ReadError::NoRecording);
        }
        let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if version != ABI_VERSION {
            return Err(ReadError::Version(version));
        }
        let self_tgid = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        Ok(Self { from, offset: 16, self_tgid })
    }

    /// The next frame; `None` at the end of the file.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        let at = self.offset;
        let mut head = [0; 8];
        match read_full(&mut self.from, &mut head)? {
            0 => return Ok(None),
            8 => {}
            _ => return Err(ReadError::Truncated(at)),
        }
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if len == 0 || len > FRAME_MAX {
            return Err(ReadError::Damaged(at, "a frame of impossible length"));
        }
        // Grown as it is read: a damaged length must not ask for memory.
        let mut body = Vec::with_capacity(len.min(1 << 16) as usize);
        (&mut self.from).take(u64::from(len)).read_to_end(&mut body)?;
        if body.len() < len as usize {
            return Err(ReadError::Truncated(at));
        }
        if crc32fast::hash(&body).to_le_bytes() != head[4..8] {
            return Err(ReadError::Damaged(at, "a frame whose checksum is wrong"));
        }
        self.offset += 8 + u64::from(len);
        parse(&body).map(Some).ok_or(ReadError::Damaged(at, "a frame of unknown form"))
    }
}

fn parse(body: &[u8]) -> Option<Frame> {
    let (kind, body) = body.split_first()?;
    let eight = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    let four = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
    Some(match kind {
        1 => Frame::Clock(eight(0)?, eight(8)?.cast_signed()),
        2 => Frame::Record(body.to_vec()),
        3 => {
            let process: Option<Process> = serde_json::from_slice(body.get(4..)?).ok()?;
            Frame::Process(four(0)?, process.map(Arc::new))
        }
        4 => Frame::Tick(*body.first()? != 0),
        5 => Frame::Snapshot(body.to_vec()),
        6 => Frame::Listed(body.to_vec()),
        7 => {
            let octets: [u8; 16] = body.get(..16)?.try_into().ok()?;
            let port = u16::from_le_bytes(body.get(16..18)?.try_into().ok()?);
            Frame::Listens(std::net::Ipv6Addr::from(octets).to_canonical(), port)
        }
        8 => Frame::Flush(body.to_vec()),
        _ => return None,
    })
}

/// Reads until `buffer` is full or the end; says how much was read.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match from.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Reads any bytes as a recording, and as the inside of one frame, whose checksum would not let
/// them through.
#[doc(hidden)]
pub fn fuzz_recording(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let Ok(mut reader) = Reader::new(bytes) else { return };
        for _ in 0..=bytes.len() {
            match reader.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
        panic!("more frames than bytes");
    };
    read(bytes);
    let mut with_head = MAGIC.to_vec();
    with_head.extend(ABI_VERSION.to_le_bytes());
    with_head.extend([0; 4]);
    with_head.extend(bytes);
    read(&with_head);
    parse(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let process = Process { pid: 7, ..Process::default() };
        vec![
            Frame::Clock(1, -2),
            Frame::Listens("127.0.0.1".parse().unwrap(), 80),
            Frame::Listens("::1".parse().unwrap(), 443),
            Frame::Process(7, Some(Arc::new(process))),
            Frame::Process(8, None),
            Frame::Record(vec![1, 2, 3]),
            Frame::Tick(true),
            Frame::Listed(vec![4]),
            Frame::Snapshot(vec![]),
            Frame::Flush(vec![5; 1000]),
        ]
    }

    fn recording() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut writer = Writer::create(&path, 7).unwrap();
        frames().iter().for_each(|frame| writer.frame(frame).unwrap());
        drop(writer);
        std::fs::read(path).unwrap()
    }

    fn read(bytes: &[u8]) -> (Vec<Frame>, Option<ReadError>) {
        let mut frames = Vec::new();
        let mut reader = match Reader::new(bytes) {
            Ok(reader) => reader,
            Err(error) => return (frames, Some(error)),
        };
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let (read, error) = read(&recording());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(read, frames());
    }

    #[test]
    fn every_truncation_gives_the_good_part_and_its_offset() {
        let whole = recording();
        for len in 0..whole.len() {
            let (read, error) = read(&whole[..len]);
            assert_eq!(read, frames()[..read.len()]);
            match error {
                Some(ReadError::NoRecording) => assert!(len < 16),
                Some(ReadError::Truncated(at)) => assert!((at as usize) < len),
                None => {}
                other => panic!("{len}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let whole = recording();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            let (read, error) = read(&bytes);
            // The process id in the head has no checksum.
            assert_eq!(error.is_none(), (12..16).contains(&at), "byte {at}");
            assert_eq!(read, frames()[..read.len()]);
        }
    }

    #[test]
    fn a_process_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut writer = Writer::create(&path, 7).unwrap();
        let one = Arc::new(Process { pid: 1, ..Process::default() });
        for _ in 0..3 {
            writer.process(1, Some(&one)).unwrap();
            writer.process(2, None).unwrap();
        }
        drop(writer);
        assert_eq!(read(&std::fs::read(path).unwrap()).0.len(), 2);
    }
}
