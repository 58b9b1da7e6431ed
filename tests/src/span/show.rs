//! Spans as a failed test shows them: some lines instead of some hundred.

use std::fmt;

use super::{Attributes, Span, Value};

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => write!(f, "{text:?}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Double(number) => write!(f, "{number:?}"),
            Self::Array(values) => {
                f.write_str("[")?;
                values.iter().try_for_each(|value| write!(f, "{value:?} "))?;
                f.write_str("]")
            }
            Self::Map(attributes) => write!(f, "{attributes:?}"),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Empty => f.write_str("nothing"),
        }
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        self.0.iter().try_for_each(|(name, value)| write!(f, " {name}={value:?}"))?;
        f.write_str(" }")
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, scope, kind, status, trace_id, span_id, dropped_events, .. } = self;
        let lasted = self.end_ns.wrapping_sub(self.start_ns) / 1000;
        writeln!(f, "{name} ({scope}, kind {kind}) {trace_id} {span_id} {status:?}, {lasted} µs")?;
        writeln!(f, "  {:?}", self.attributes)?;
        writeln!(f, "  links {:?}, {dropped_events} events dropped", self.links)?;
        for event in &self.events {
            let after = event.time_ns.wrapping_sub(self.start_ns).cast_signed() / 1000;
            writeln!(f, "  {after:>9} µs {} {:?}", event.name, event.attributes)?;
        }
        Ok(())
    }
}
