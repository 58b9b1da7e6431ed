//! Ring bytes → [`Record`], by checked copies. Whatever comes in, the worst that happens is a
//! [`Bad`], which the caller counts.

use tap_common::record::{Close, Data, Dns, Header, Kind, Open, Owner, Process};

/// A record of the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A connection is established.
    Open(Open),
    /// A process used an accepted socket.
    Owner(Owner),
    /// Bytes of one direction, with what of them was captured.
    Data(Data, &'a [u8]),
    /// A connection ended.
    Close(Close),
    /// A process executed the file of this name.
    Exec(Process, &'a [u8]),
    /// A process forked.
    Fork(Process),
    /// A process exited.
    Exit(Process),
    /// A DNS message crossed UDP.
    Dns(Dns, &'a [u8]),
}

impl Record<'_> {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Owner(_) => Kind::Owner,
            Self::Data(..) => Kind::Data,
            Self::Close(_) => Kind::Close,
            Self::Exec(..) => Kind::Exec,
            Self::Fork(_) => Kind::Fork,
            Self::Exit(_) => Kind::Exit,
            Self::Dns(..) => Kind::Dns,
        }
    }
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Shorter than what its kind needs, or than it says of itself.
    #[error("a record of {0} bytes is cut short")]
    Short(usize),
    /// No such kind.
    #[error("a record has the unknown kind {0}")]
    Kind(u8),
}

/// Decodes one record. What stands behind its own length is stale and not looked at.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, Bad> {
    let header: Header = copy(bytes)?;
    let kind = Kind::from_wire(header.kind).ok_or(Bad::Kind(header.kind))?;
    Ok(match kind {
        Kind::Open => Record::Open(copy(bytes)?),
        Kind::Owner => Record::Owner(copy(bytes)?),
        Kind::Data => Record::Data(copy(bytes)?, payload::<Data>(bytes, header)?),
        Kind::Close => Record::Close(copy(bytes)?),
        Kind::Exec => Record::Exec(copy(bytes)?, payload::<Process>(bytes, header)?),
        Kind::Fork => Record::Fork(copy(bytes)?),
        Kind::Exit => Record::Exit(copy(bytes)?),
        Kind::Dns => Record::Dns(copy(bytes)?, payload::<Dns>(bytes, header)?),
    })
}

/// Bytes of `bytes` that are the record, without what is stale behind it; the whole where it is no
/// record.
pub fn exact(bytes: &[u8]) -> &[u8] {
    let Ok(record) = decode(bytes) else { return bytes };
    let len = match record {
        Record::Open(_) => size_of::<Open>(),
        Record::Owner(_) => size_of::<Owner>(),
        Record::Data(_, payload) => size_of::<Data>() + payload.len(),
        Record::Close(_) => size_of::<Close>(),
        Record::Exec(_, name) => size_of::<Process>() + name.len(),
        Record::Fork(_) | Record::Exit(_) => size_of::<Process>(),
        Record::Dns(_, message) => size_of::<Dns>() + message.len(),
    };
    &bytes[..len]
}

fn payload<T>(bytes: &[u8], header: Header) -> Result<&[u8], Bad> {
    let from = size_of::<T>();
    bytes.get(from..from.saturating_add(header.payload_len as usize)).ok_or(Bad::Short(bytes.len()))
}

/// The record types, in which every bit pattern is a value.
trait Plain: Copy {}
impl Plain for Header {}
impl Plain for Open {}
impl Plain for Owner {}
impl Plain for Data {}
impl Plain for Close {}
impl Plain for Process {}
impl Plain for Dns {}

#[expect(unsafe_code, reason = "the one place where bytes become records")]
fn copy<T: Plain>(bytes: &[u8]) -> Result<T, Bad> {
    if bytes.len() < size_of::<T>() {
        return Err(Bad::Short(bytes.len()));
    }
    // SAFETY: long enough, read unaligned, and `T` is a `repr(C)` structure of integers.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Bytes of a record, for tests and recordings.
#[expect(unsafe_code, reason = "the way back")]
pub fn bytes_of<T: Copy>(record: &T) -> &[u8] {
    // SAFETY: the callers pass the `repr(C)` records, which have no implicit padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) }
}

#[doc(hidden)]
pub fn fuzz_decode(bytes: &[u8]) {
    if decode(bytes).is_ok() {
        assert!(decode(exact(bytes)).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use tap_common::record::Lane;

    use super::*;

    fn header(kind: u8, payload_len: u32) -> Header {
        Header {
            kind,
            lane: Lane::Life as u8,
            flags: 0,
            payload_len,
            cookie: 7,
            generation: 1,
            number: 2,
            time_ns: 3,
        }
    }

    #[test]
    fn bad_bytes_are_refused() {
        assert_eq!(decode(&[]), Err(Bad::Short(0)));
        assert_eq!(decode(&[1; 31]), Err(Bad::Short(31)));
        assert_eq!(decode(&[0; 64]), Err(Bad::Kind(0)));
        assert_eq!(decode(&[9; 64]), Err(Bad::Kind(9)));
        let open = header(Kind::Open as u8, 0);
        assert_eq!(decode(bytes_of(&open)), Err(Bad::Short(32)));
        let data = Data {
            header: header(3, 5),
            offset: 0,
            position: 0,
            previous_ns: 0,
            segment_len: 5,
            turn: 1,
            tgid: 0,
            pad: 0,
        };
        let mut bytes = bytes_of(&data).to_vec();
        assert_eq!(decode(&bytes), Err(Bad::Short(72)));
        bytes.extend(b"12345stale");
        assert_eq!(decode(&bytes), Ok(Record::Data(data, b"12345")));
        assert_eq!(exact(&bytes).len(), 77);
        let huge = Data { header: header(3, u32::MAX), ..data };
        assert_eq!(decode(bytes_of(&huge)), Err(Bad::Short(72)));
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 1u64;
        let mut bytes = vec![0; 300];
        for round in 0..20_000 {
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            bytes[0] = (round % 9) as u8;
            fuzz_decode(&bytes[..round % 300]);
        }
    }
}
