//! OTLP's protobuf → [`Span`], [`LogRecord`]. The input is tap's own encoders', or a file's in tests; what is
//! no protobuf, or no UTF-8 where text is due, is [`Malformed`]. Unknown fields are passed over.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Attributes, Event, Link, LogRecord, Resource, Scope, Source, Span, Value};

/// Deepest nesting of values.
const DEPTH: u32 = 32;

/// No OTLP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no OTLP message: {0}")]
pub struct Malformed(&'static str);

/// One field of a message.
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Message<'a>),
}

/// The rest of a message. Texts and bytes of it become slices of the memory that it all lies in;
/// everything else is read where it is, since each slice counts in that memory's owners.
#[derive(Clone, Copy)]
struct Message<'a> {
    memory: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    fn whole(memory: &'a Bytes) -> Self {
        Self { memory, rest: memory }
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| CUT)?;
                let (rest, after) = self.rest.split_at_checked(len).ok_or(CUT)?;
                self.rest = after;
                Field::Bytes(Self { rest, ..*self })
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed("a field of an unknown type")),
        };
        Ok(Some((tag >> 3, field)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, after) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = after;
        Ok(*bytes)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(CUT)
    }

    fn bytes(self) -> Bytes {
        self.memory.slice_ref(self.rest)
    }

    fn text(self) -> Result<ByteString, Malformed> {
        // Nothing of it need be kept alive for what is empty.
        if self.rest.is_empty() {
            return Ok(ByteString::new());
        }
        ByteString::try_from(self.bytes()).map_err(|_| Malformed("a text is not in UTF-8"))
    }
}

const CUT: Malformed = Malformed("it is cut off");

/// Attributes that were written are none.
pub const NO_ATTRIBUTES: Malformed = Malformed("its attributes cannot be read again");

impl<'a> Field<'a> {
    fn message(self) -> Result<Message<'a>, Malformed> {
        match self {
            Self::Bytes(message) => Ok(message),
            _ => Err(Malformed("a number stands where bytes are due")),
        }
    }

    fn text(self) -> Result<ByteString, Malformed> {
        self.message()?.text()
    }

    fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => Ok(number),
            Self::Fixed32(number) => Ok(number.into()),
            Self::Bytes(_) => Err(Malformed("bytes stand where a number is due")),
        }
    }

    fn small(self) -> Result<u32, Malformed> {
        Ok(self.number()? as u32)
    }

    /// An id; one of another length is none.
    fn id<const N: usize>(self) -> Result<[u8; N], Malformed> {
        Ok(<[u8; N]>::try_from(self.message()?.rest).unwrap_or([0; N]))
    }

    fn pair(self, into: &mut Attributes) -> Result<(), Malformed> {
        into.0.push(pair(self.message()?, DEPTH)?);
        Ok(())
    }
}

/// Reads the `Span` in `bytes`.
pub fn span(bytes: &Bytes, source: Source) -> Result<Span, Malformed> {
    let mut span = Span { source, ..Span::default() };
    span.attributes.0.reserve(32);
    let mut reader = Message::whole(bytes);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => span.trace_id = field.id()?,
            2 => span.span_id = field.id()?,
            3 => span.trace_state = field.text()?,
            4 => span.parent_span_id = field.id()?,
            5 => span.name = field.text()?,
            6 => span.kind = field.small()?,
            7 => span.start_ns = field.number()?,
            8 => span.end_ns = field.number()?,
            9 => field.pair(&mut span.attributes)?,
            10 => span.dropped_attributes = field.small()?,
            11 => span.events.push(event(field.message()?)?),
            12 => span.dropped_events = field.small()?,
            13 => span.links.push(link(field.message()?)?),
            14 => span.dropped_links = field.small()?,
            15 => {
                let mut reader = field.message()?;
                while let Some((number, field)) = reader.next()? {
                    match number {
                        2 => span.status_message = field.text()?,
                        3 => span.status = field.small()?,
                        _ => {}
                    }
                }
            }
            16 => span.flags = field.small()?,
            _ => {}
        }
    }
    Ok(span)
}

fn event(mut reader: Message<'_>) -> Result<Event, Malformed> {
    let mut event = Event::default();
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => event.time_ns = field.number()?,
            2 => event.name = field.text()?,
            3 => field.pair(&mut event.attributes)?,
            4 => event.dropped_attributes = field.small()?,
            _ => {}
        }
    }
    Ok(event)
}

fn link(mut reader: Message<'_>) -> Result<Link, Malformed> {
    let mut link = Link::default();
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => link.trace_id = field.id()?,
            2 => link.span_id = field.id()?,
            3 => link.trace_state = field.text()?,
            4 => field.pair(&mut link.attributes)?,
            5 => link.dropped_attributes = field.small()?,
            6 => link.flags = field.small()?,
            _ => {}
        }
    }
    Ok(link)
}

/// Reads the `LogRecord` in `bytes`.
pub fn log_record(bytes: &Bytes, source: Source) -> Result<LogRecord, Malformed> {
    let mut record = LogRecord { source, ..LogRecord::default() };
    record.attributes.0.reserve(32);
    let mut reader = Message::whole(bytes);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => record.time_ns = field.number()?,
            2 => record.severity = field.small()?,
            3 => record.severity_text = field.text()?,
            5 => record.body = value(field.message()?, DEPTH)?,
            6 => field.pair(&mut record.attributes)?,
            7 => record.dropped_attributes = field.small()?,
            8 => record.flags = field.small()?,
            9 => record.trace_id = field.id()?,
            10 => record.span_id = field.id()?,
            11 => record.observed_ns = field.number()?,
            12 => record.event_name = field.text()?,
            _ => {}
        }
    }
    Ok(record)
}

/// Reads the `Resource` in `bytes`.
pub fn resource(bytes: &Bytes, schema_url: ByteString) -> Result<Resource, Malformed> {
    resource_in(Message::whole(bytes), schema_url)
}

fn resource_in(mut reader: Message<'_>, schema_url: ByteString) -> Result<Resource, Malformed> {
    let mut resource = Resource { schema_url, ..Resource::default() };
    while let Some((number, field)) = reader.next()? {
        if number == 1 {
            field.pair(&mut resource.attributes)?;
        }
    }
    Ok(resource)
}

/// Reads the `InstrumentationScope` in `bytes`.
pub fn scope(bytes: &Bytes, schema_url: ByteString) -> Result<Scope, Malformed> {
    scope_in(Message::whole(bytes), schema_url)
}

fn scope_in(mut reader: Message<'_>, schema_url: ByteString) -> Result<Scope, Malformed> {
    let mut scope = Scope { schema_url, ..Scope::default() };
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => scope.name = field.text()?,
            2 => scope.version = field.text()?,
            3 => field.pair(&mut scope.attributes)?,
            _ => {}
        }
    }
    Ok(scope)
}

/// A `KeyValue`.
fn pair(mut reader: Message<'_>, depth: u32) -> Result<(ByteString, Value), Malformed> {
    let mut pair = <(ByteString, Value)>::default();
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => pair.0 = field.text()?,
            2 => pair.1 = value(field.message()?, depth)?,
            _ => {}
        }
    }
    Ok(pair)
}

/// An `AnyValue`.
fn value(mut reader: Message<'_>, depth: u32) -> Result<Value, Malformed> {
    let deeper = depth.checked_sub(1).ok_or(Malformed("its values are nested too deep"))?;
    let mut value = Value::Empty;
    while let Some((number, field)) = reader.next()? {
        value = match number {
            1 => Value::Text(field.text()?),
            2 => Value::Bool(field.number()? != 0),
            3 => Value::Int(field.number()?.cast_signed()),
            4 => Value::Double(f64::from_bits(field.number()?)),
            5 => {
                let mut values = Vec::new();
                let mut reader = field.message()?;
                while let Some((number, field)) = reader.next()? {
                    if number == 1 {
                        values.push(self::value(field.message()?, deeper)?);
                    }
                }
                Value::Array(values)
            }
            6 => {
                let mut map = Attributes::default();
                let mut reader = field.message()?;
                while let Some((number, field)) = reader.next()? {
                    if number == 1 {
                        map.0.push(pair(field.message()?, deeper)?);
                    }
                }
                Value::Map(map)
            }
            7 => Value::Bytes(field.message()?.bytes()),
            _ => value,
        };
    }
    Ok(value)
}

/// The items of one request (`ExportTraceServiceRequest`, `ExportLogsServiceRequest`), each with the
/// bytes of its message: `of` makes them. Both have the same shape.
pub fn request<T>(
    bytes: &Bytes,
    mut of: impl FnMut(&Bytes, Source) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    use std::sync::Arc;

    /// The fields of a resource's or scope's message: what it is, what it holds, its schema.
    fn level<'a>(
        mut reader: Message<'a>,
    ) -> Result<(Message<'a>, Vec<Message<'a>>, ByteString), Malformed> {
        let mut about = Message { rest: &[], ..reader };
        let (mut inside, mut schema) = (Vec::new(), ByteString::new());
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => about = field.message()?,
                2 => inside.push(field.message()?),
                3 => schema = field.text()?,
                _ => {}
            }
        }
        Ok((about, inside, schema))
    }
    let mut items = Vec::new();
    let mut reader = Message::whole(bytes);
    while let Some((number, field)) = reader.next()? {
        if number != 1 {
            continue;
        }
        let (about, scopes, schema) = level(field.message()?)?;
        let resource = Arc::new(resource_in(about, schema)?);
        for message in scopes {
            let (about, inside, schema) = level(message)?;
            let scope = Arc::new(scope_in(about, schema)?);
            for item in inside {
                let source = Source { resource: resource.clone(), scope: scope.clone() };
                items.push(of(&item.bytes(), source)?);
            }
        }
    }
    Ok(items)
}
