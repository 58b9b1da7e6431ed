//! Secrets in the bodies of messages. Comes in: what was kept of a body, cut anywhere. Goes out: the
//! same, the values of listed keys taken out, all else byte for byte.
//!
//! JSON is looked through as bytes: each text that a `:` follows is a key, at any depth, in lines of
//! JSON and in events with JSON as well, and in what was cut off. A form is a query. Not looked
//! through: JSON in a text of JSON, URLs in values, multipart forms, XML, protobuf, and whatever is
//! compressed.

use std::borrow::Cow;

use super::{FIELD, Redaction, lists};

impl Redaction {
    /// A text body; `form`: its type says that it is `application/x-www-form-urlencoded`.
    pub fn body<'a>(&self, body: &'a str, form: bool) -> Cow<'a, str> {
        if !self.on {
            return Cow::Borrowed(body);
        }
        // curl's `--data` calls everything a form.
        let json = body.trim_start().starts_with(['{', '[', '"']);
        if form && !json { self.query(body) } else { self.json(body) }
    }

    fn json<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let bytes = text.as_bytes();
        let (mut out, mut copied, mut at) = (String::new(), 0, 0);
        while let Some(begin) = find(bytes, at, b'"') {
            at = string_end(bytes, begin);
            let behind = blank_end(bytes, at);
            if bytes.get(behind) != Some(&b':') {
                continue;
            }
            let key = bytes.get(begin + 1..at.saturating_sub(1)).unwrap_or_default();
            at = behind + 1;
            if !lists(&self.keys, Some(&unescaped(key))) {
                continue;
            }
            let value = blank_end(bytes, at);
            at = value_end(bytes, value);
            if at > value {
                out.push_str(text.get(copied..value).unwrap_or_default());
                out.extend(['"']);
                out.push_str(FIELD);
                out.extend(['"']);
                copied = at;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        Cow::Owned(out)
    }
}

fn find(bytes: &[u8], from: usize, wanted: u8) -> Option<usize> {
    memchr::memchr(wanted, bytes.get(from..)?).map(|at| from + at)
}

/// Behind the text whose `"` stands at `begin`, or at the end of all.
fn string_end(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(here) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += here + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

fn blank_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Behind the value that begins at `begin`: a text, all that a bracket encloses, or a word.
fn value_end(bytes: &[u8], begin: usize) -> usize {
    let (mut at, mut depth) = (begin, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return at + depth,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// A key without JSON's escapes (RFC 8259, section 7).
fn unescaped(key: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', key).is_none() {
        return Cow::Borrowed(key);
    }
    let (mut out, mut rest) = (Vec::with_capacity(key.len()), key);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else { break };
        rest = after;
        let digits = rest.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
        let coded = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match (escape, coded) {
            (b'u', Some(coded)) => {
                rest = rest.get(4..).unwrap_or_default();
                let character = char::from_u32(coded).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // What they stand for is blank, and counts for nothing in a key.
            (b'b' | b'f' | b'n' | b'r' | b't', _) => out.push(b' '),
            (other, _) => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// Any text, cut anywhere, keeps what is no secret.
#[doc(hidden)]
pub fn fuzz_body(bytes: &[u8]) {
    let redaction = Redaction::default();
    let text = String::from_utf8_lossy(bytes);
    for form in [false, true] {
        let out = redaction.body(&text, form);
        assert_eq!(redaction.body(&out, form), out, "redacted twice");
    }
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
        let out: serde_json::Value =
            serde_json::from_str(&redaction.json(&text)).expect("it is JSON still");
        assert_eq!(shown(&redaction, &value), shown(&redaction, &out));
    }
}

/// A JSON value without what is taken out.
fn shown(redaction: &Redaction, value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Array(all) => all.iter().map(|it| shown(redaction, it)).collect(),
        Value::Object(all) => {
            let of = |(key, value): (&String, &Value)| {
                let secret = lists(&redaction.keys, Some(key.as_bytes()));
                (key.clone(), if secret { Value::Null } else { shown(redaction, value) })
            };
            all.iter().map(of).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_listed_keys_are_taken_out_and_all_else_is_kept() {
        const R: &str = "\"[REDACTED]\"";
        let rows: &[(&str, String)] = &[
            (
                r#"{"user":"a", "password" : "p\"q", "n": 1.50}"#,
                format!(r#"{{"user":"a", "password" : {R}, "n": 1.50}}"#),
            ),
            (
                r#"{"a":{"access_token":["x",{"y":"]"}],"b":2}}"#,
                format!(r#"{{"a":{{"access_token":{R},"b":2}}}}"#),
            ),
            (
                r#"[{"token":12},{"token":null},{"token":true }]"#,
                format!(r#"[{{"token":{R}}},{{"token":{R}}},{{"token":{R} }}]"#),
            ),
            (r#"{"Client-Secret":{}}"#, format!(r#"{{"Client-Secret":{R}}}"#)),
            (r#"{"pass\u0077ord":"x"}"#, format!(r#"{{"pass\u0077ord":{R}}}"#)),
            // Cut off: in a value, in a bracket, behind a colon, in a key.
            (r#"{"token":"abc"#, format!(r#"{{"token":{R}"#)),
            (r#"{"token":"abc\"#, format!(r#"{{"token":{R}"#)),
            (r#"{"token":{"a":["#, format!(r#"{{"token":{R}"#)),
            (r#"{"token": "#, r#"{"token": "#.into()),
            (r#"{"tok"#, r#"{"tok"#.into()),
            // Lines, and events.
            ("{\"a\":1}\n{\"secret\":\"s\"}\n", format!("{{\"a\":1}}\n{{\"secret\":{R}}}\n")),
            (
                "data: {\"api_key\":\"k\",\"b\":2}\n\n",
                format!("data: {{\"api_key\":{R},\"b\":2}}\n\n"),
            ),
            // Values that look like keys, and keys that are none of the list.
            (r#"{"a":"token","b":":"}"#, r#"{"a":"token","b":":"}"#.into()),
            (r#"{"tokens_used":5}"#, r#"{"tokens_used":5}"#.into()),
            ("plain text, \"quoted\": as it is", "plain text, \"quoted\": as it is".into()),
            ("", String::new()),
        ];
        for (text, wanted) in rows {
            assert_eq!(Redaction::default().body(text, false), *wanted, "{text}");
            assert_eq!(Redaction::off().body(text, false), *text);
        }
    }

    #[test]
    fn forms_are_queries_unless_they_are_json() {
        let redaction = Redaction::default();
        for (text, wanted) in [
            ("user=a&password=p%26q&b=2", "user=a&password=REDACTED&b=2"),
            ("{\"password\":\"p\"}", "{\"password\":\"[REDACTED]\"}"),
        ] {
            assert_eq!(redaction.body(text, true), wanted);
        }
        assert_eq!(redaction.body("password=p", false), "password=p");
    }

    #[test]
    fn any_bytes() {
        let mut seed = 1u64;
        let alphabet = br#"{}[]":,\ tokenpassword=&u0041"#;
        for len in 0..400 {
            let text: Vec<u8> = (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    alphabet[(seed >> 33) as usize % alphabet.len()]
                })
                .collect();
            fuzz_body(&text);
        }
    }
}
