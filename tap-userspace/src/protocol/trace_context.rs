//! W3C Trace Context: header fields of a request → the span context of the program that sent it
//! (<https://www.w3.org/TR/trace-context/>, the Recommendation of 2021). Strict, as whoever sends a
//! request chooses them: what the text forbids is no context.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::exchange::Headers;

/// The span that a request was made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// Not zero.
    pub trace_id: [u8; 16],
    /// `parent-id`; not zero.
    pub span_id: [u8; 8],
    /// `trace-flags` that have a meaning: sampled, and (level 2) that the trace id is random.
    pub flags: u8,
    /// `tracestate`, where it is valid and no longer than [`STATE_MAX`].
    pub state: Option<Cow<'a, str>>,
}

/// Bytes of `tracestate` that everybody should pass on (§3.3.1.5); a longer one is left out.
pub const STATE_MAX: usize = 512;

/// `tracestate` has no more entries (§3.3.1.1).
const ENTRIES_MAX: usize = 32;

const KNOWN_FLAGS: u8 = 0x03;

/// The context that a request's fields carry, if they carry one. `traceparent` has to be there
/// once; an invalid `tracestate` leaves it valid (§3.3).
pub fn of(fields: &Headers) -> Option<TraceContext<'_>> {
    let mut parents = fields.iter().filter(|(name, _)| *name == "traceparent");
    let (_, parent) = parents.next()?;
    if parents.next().is_some() {
        return None;
    }
    let (trace_id, span_id, flags) = parse_parent(parent)?;
    Some(TraceContext { trace_id, span_id, flags, state: state(fields) })
}

/// `version-format` of version 00, which later ones begin with as well (§3.2.2, §4).
fn parse_parent(text: &str) -> Option<([u8; 16], [u8; 8], u8)> {
    let (fields, rest) = text.as_bytes().split_first_chunk::<55>()?;
    if [2, 35, 52].iter().any(|at| fields[*at] != b'-') {
        return None;
    }
    let [version] = hex(&fields[..2])?;
    let more = match version {
        0xff => false,
        0 => rest.is_empty(),
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let (trace_id, span_id) = (hex(&fields[3..35])?, hex(&fields[36..52])?);
    let [flags] = hex(&fields[53..])?;
    let told = more && trace_id != [0; 16] && span_id != [0; 8];
    told.then_some((trace_id, span_id, flags & KNOWN_FLAGS))
}

/// Pairs of `HEXDIGLC`.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, [high, low]) in out.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// All `tracestate` fields as one (RFC 9110 §5.3).
fn state(fields: &Headers) -> Option<Cow<'_, str>> {
    let mut state: Option<Cow<'_, str>> = None;
    for (_, value) in fields.iter().filter(|(name, _)| *name == "tracestate") {
        state = Some(match state {
            None => Cow::Borrowed(value),
            Some(before) if before.len() + value.len() < STATE_MAX => {
                Cow::Owned(format!("{before},{value}"))
            }
            Some(_) => return None,
        });
    }
    state.filter(|state| is_state(state))
}

fn is_state(text: &str) -> bool {
    let mut keys: [&str; ENTRIES_MAX] = [""; ENTRIES_MAX];
    let mut count = 0;
    if text.len() > STATE_MAX {
        return false;
    }
    for entry in text.split(',').map(|entry| entry.trim_matches([' ', '\t'])) {
        // Empty ones are allowed.
        if entry.is_empty() {
            continue;
        }
        let Some((key, value)) = entry.split_once('=') else { return false };
        let Some(place) = keys.get_mut(count) else { return false };
        if !is_key(key) || !is_value(value) {
            return false;
        }
        *place = key;
        count += 1;
        if keys[..count - 1].contains(&key) {
            return false;
        }
    }
    count > 0
}

/// `key` (§3.3.1.3.1): one word, or tenant and system with `@` between.
fn is_key(key: &str) -> bool {
    let begins = |word: &str, digit: bool| {
        word.bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase() || (digit && first.is_ascii_digit()))
    };
    let goes_on = |word: &str| {
        word.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte)
        })
    };
    match key.split_once('@') {
        None => key.len() <= 256 && begins(key, false) && goes_on(key),
        Some((tenant, system)) => {
            let short = tenant.len() <= 241 && system.len() <= 14;
            let begun = begins(tenant, true) && begins(system, false);
            short && begun && goes_on(tenant) && goes_on(system)
        }
    }
}

/// `value` (§3.3.1.3.2). Blanks at its end were the list's.
fn is_value(value: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(plain)
}

/// Any bytes as fields, one a line, by turns of both names.
#[doc(hidden)]
pub fn fuzz_trace_context(bytes: &[u8]) {
    let mut fields = Headers::default();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate().take(8) {
        fields.push([&b"traceparent"[..], b"tracestate"][number % 2], line);
        if let Some(context) = of(&fields) {
            assert!(context.trace_id != [0; 16] && context.span_id != [0; 8]);
            assert!(context.flags <= KNOWN_FLAGS);
            let state = context.state.unwrap_or_default();
            assert!(state.len() <= STATE_MAX);
            assert!(state.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')), "{state:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in list {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// The cases of the W3C's own test suite (`test/test.py` of w3c/trace-context), and some more.
    #[test]
    fn a_traceparent_is_valid_to_the_letter() {
        let rest = "-12345678901234567890123456789012-1234567890123456-01";
        let with = |version: &str, more: &str| format!("{version}{rest}{more}");
        let cases = [
            (PARENT.to_owned(), Some(1)),
            (with("00", ""), Some(1)),
            (PARENT.replace("-01", "-00"), Some(0)),
            (PARENT.replace("-01", "-ff"), Some(3)),
            (with("cc", ""), Some(1)),
            (with("cc", "-what-the-future-will-be-like"), Some(1)),
            (with("cc", ".what-the-future-will-be-like"), None),
            (with("fe", "-"), Some(1)),
            (with("ff", ""), None),
            (with("00", "-what-the-future-will-not-be-like"), None),
            (with("00", "-"), None),
            (with("0", ""), None),
            (with("000", ""), None),
            (with(".0", ""), None),
            (with("0.", ""), None),
            (with("0\u{e9}", ""), None),
            (PARENT.to_uppercase(), None),
            (PARENT.replace('f', "F"), None),
            (PARENT.replace("-01", "-1"), None),
            (PARENT.replace("-01", "-0x"), None),
            (PARENT.replace("-01", "-.0"), None),
            (PARENT.replacen('-', "_", 1), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-{}-{}-01", "1".repeat(32), "0".repeat(16)), None),
            (format!("00-{}-{}-01", "1".repeat(31), "1".repeat(17)), None),
            (format!("00-+{}-{}-01", "1".repeat(31), "1".repeat(16)), None),
            (format!(" {PARENT}"), None),
            (format!("{PARENT} "), None),
            (PARENT[..54].to_owned(), None),
            (String::new(), None),
        ];
        for (text, want) in cases {
            let headers = fields(&[("TraceParent", &text)]);
            assert_eq!(of(&headers).map(|context| context.flags), want, "{text}");
        }
        let headers = fields(&[("traceparent", PARENT)]);
        let context = of(&headers).unwrap();
        assert_eq!(
            u128::from_be_bytes(context.trace_id),
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
        );
        assert_eq!(u64::from_be_bytes(context.span_id), 0x00f0_67aa_0ba9_02b7);
        // Which of two is meant nobody can say, even where they are the same.
        assert_eq!(of(&fields(&[("traceparent", PARENT), ("traceparent", PARENT)])), None);
        assert_eq!(of(&fields(&[("tracestate", "a=1")])), None);
    }

    #[test]
    fn a_tracestate_is_valid_to_the_letter() {
        let long = |key: usize, value: usize| format!("{}={}", "k".repeat(key), "v".repeat(value));
        let many =
            |count: usize| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        let cases = [
            ("foo=1".to_owned(), true),
            ("foo=1,bar=2".into(), true),
            ("foo=1 \t , \t bar=2, \t baz=3".into(), true),
            ("foo=1,,,bar=2,".into(), true),
            ("foo= 1".into(), true),
            ("foo=!#$%&'()*+-./:;<>?@[\\]^_`{|}~".into(), true),
            ("a-b_c*d/e=1".into(), true),
            ("0tenant@sys=1".into(), true),
            ("t@s/1=1".into(), true),
            (long(256, 200), true),
            (long(200, 256), true),
            (long(1, STATE_MAX - 2), false),
            (many(32), true),
            (many(33), false),
            (String::new(), false),
            (" , ,".into(), false),
            ("foo".into(), false),
            ("foo=".into(), false),
            ("=1".into(), false),
            ("foo=1=2".into(), false),
            ("foo =1".into(), false),
            ("FOO=1".into(), false),
            ("0foo=1".into(), false),
            ("foo.bar=1".into(), false),
            ("foo@=1".into(), false),
            ("@foo=1".into(), false),
            ("foo@0bar=1".into(), false),
            ("foo@bar@baz=1".into(), false),
            (format!("{}@v=1", "t".repeat(241)), true),
            (format!("{}@v=1", "t".repeat(242)), false),
            (format!("t@{}=1", "v".repeat(14)), true),
            (format!("t@{}=1", "v".repeat(15)), false),
            (long(257, 1), false),
            (long(1, 257), false),
            ("foo=1,foo=2".into(), false),
            ("foo=1;bar=2".into(), false),
            ("foo=\u{e9}".into(), false),
            ("foo=\u{7f}".into(), false),
        ];
        for (text, want) in cases {
            let headers = fields(&[("traceparent", PARENT), ("tracestate", &text)]);
            let context = of(&headers).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(context.state.as_deref(), want.then_some(&*text), "{text}");
        }
        // Several fields are one list.
        let two = [("traceparent", PARENT), ("tracestate", "foo=1"), ("tracestate", "bar=2")];
        assert_eq!(of(&fields(&two)).unwrap().state.as_deref(), Some("foo=1,bar=2"));
        let half = "v".repeat(250);
        let (one, other) = (format!("a={half}"), format!("b={half},c={half}"));
        let two = [("traceparent", PARENT), ("tracestate", &one), ("tracestate", &other)];
        assert_eq!(of(&fields(&two)).unwrap().state, None);
    }
}
