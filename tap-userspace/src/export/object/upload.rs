//! An object on its way into a store. Comes in: an object with its name; goes out: a message that
//! holds both, as it waits on disk too, and that [`crate::export::transport`] takes apart again.

use std::iter::Peekable;

use bytes::Bytes;
use object_store::path::Path;

use crate::export::{otlp::Requests, queue::Queued, transport::Transport};

/// An object that waits.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its name.
    pub key: Path,
    /// All of it.
    pub bytes: Bytes,
    /// Of its transaction.
    pub trace_id: [u8; 16],
}

impl Queued for Upload {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.key.as_ref().len() + self.bytes.len()
    }

    fn trace_id(&self) -> &[u8; 16] {
        &self.trace_id
    }
}

/// Makes requests of objects, one of each.
pub struct Uploads;

impl Requests for Uploads {
    type Item = Upload;

    fn next(
        &self,
        items: &mut Peekable<impl Iterator<Item = Upload>>,
        buffer: &mut Vec<u8>,
    ) -> Option<(usize, u64)> {
        let upload = items.next()?;
        buffer.clear();
        buffer.resize(Transport::HEADROOM, 0);
        write(&upload.key, &upload.bytes, buffer);
        Some((Transport::HEADROOM, 1))
    }
}

/// Appends the message: the length of the name, the name, the object.
fn write(key: &Path, bytes: &[u8], out: &mut Vec<u8>) {
    let key = key.as_ref().as_bytes();
    // Templates make no name that is longer than stores take, 1024 bytes.
    let len = u16::try_from(key.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&key[..len.into()]);
    out.extend_from_slice(bytes);
}

/// The name and the object of such a message; `None` of what is none.
pub fn read(message: &Bytes) -> Option<(Path, Bytes)> {
    let len = usize::from(u16::from_be_bytes(*message.first_chunk()?));
    let key = std::str::from_utf8(message.get(2..2 + len)?).ok()?;
    Some((Path::parse(key).ok()?, message.slice(2 + len..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for bad in [&b""[..], b"\0", b"\0\x02a", b"\0\x01\xff{}", b"\0\x03a//", b"\xff\xff{}"] {
            assert_eq!(read(&Bytes::from_static(bad)), None, "{bad:?}");
        }
        for (key, object) in [("a", ""), ("2026/11/21/x-\u{fc}.json", "{\"metadata\":{}}")] {
            let (key, bytes) = (Path::from(key), Bytes::from(object));
            let upload = Upload { key: key.clone(), bytes: bytes.clone(), trace_id: [0; 16] };
            let mut buffer = b"of before".to_vec();
            let next = Uploads.next(&mut [upload].into_iter().peekable(), &mut buffer);
            assert_eq!(next, Some((Transport::HEADROOM, 1)));
            let message = Bytes::from(buffer).slice(Transport::HEADROOM..);
            assert_eq!(read(&message), Some((key, bytes)));
        }
        assert_eq!(Uploads.next(&mut [].into_iter().peekable(), &mut Vec::new()), None);
    }
}
