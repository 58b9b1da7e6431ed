//! How much one span may say (`OTEL_*_LIMIT`). Comes from the environment; the connection table
//! holds [`Limits::events`], the encoder the rest.

/// Limits of the OpenTelemetry SDK's environment, with the specification's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attributes of a span.
    pub attributes: u32,
    /// Characters of a string value, in arrays too; no limit unless set.
    pub value_length: Option<usize>,
    /// Events of a span.
    pub events: u32,
    /// Links of a span.
    pub links: u32,
    /// Attributes of an event.
    pub event_attributes: u32,
    /// Attributes of a link. tap's links have none, so it always holds.
    pub link_attributes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attributes: 128,
            value_length: None,
            events: 128,
            links: 128,
            event_attributes: 128,
            link_attributes: 128,
        }
    }
}

impl Limits {
    /// `value`, no longer than the limit on values.
    #[inline]
    pub fn cut<'a>(&self, value: &'a str) -> &'a str {
        match self.value_length {
            // A string has at most as many characters as bytes.
            Some(limit) if value.len() > limit => match value.char_indices().nth(limit) {
                Some((end, _)) => &value[..end],
                None => value,
            },
            _ => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_at_characters() {
        for (limit, value, cut) in [
            (None, "äöü", "äöü"),
            (Some(0), "äöü", ""),
            (Some(2), "äöü", "äö"),
            (Some(3), "äöü", "äöü"),
            (Some(4), "äöü", "äöü"),
            (Some(2), "abc", "ab"),
        ] {
            let limits = Limits { value_length: limit, ..Limits::default() };
            assert_eq!(limits.cut(value), cut, "{limit:?} {value}");
        }
    }
}
