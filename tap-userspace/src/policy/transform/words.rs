//! Words of OTTL that CEL has another one for. Comes in: a statement, or a condition; goes out: the same with CEL's.
//! What stands in quotes stays.

/// Enumerations that are texts to tap, by what their names begin with.
const NAMED: [&str; 2] = ["STATUS_CODE_", "SPAN_KIND_"];

/// `METRIC_DATA_TYPE_…`.
const TYPES: [(&str, &str); 6] = [
    ("METRIC_DATA_TYPE_NONE", "None"),
    ("METRIC_DATA_TYPE_GAUGE", "Gauge"),
    ("METRIC_DATA_TYPE_SUM", "Sum"),
    ("METRIC_DATA_TYPE_HISTOGRAM", "Histogram"),
    ("METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM", "ExponentialHistogram"),
    ("METRIC_DATA_TYPE_SUMMARY", "Summary"),
];

/// `SEVERITY_NUMBER_…`, of which each has four numbers.
const SEVERITIES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

/// `source` in CEL's words; `own`: names of contexts that say nothing here, as `span` of spans.
pub fn in_cel(source: &str, own: &[&str]) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' | '\'' => {
                let len = quoted(rest);
                out.push_str(&rest[..len]);
                len
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let len = rest
                    .find(|character: char| {
                        !(character.is_ascii_alphanumeric() || character == '_')
                    })
                    .unwrap_or(rest.len());
                let (word, behind) = rest.split_at(len);
                // A member of that name, as `.not`, is none of them.
                if out.ends_with('.') {
                    out.push_str(word);
                } else if own.contains(&word)
                    && let Some(member) = behind.strip_prefix('.')
                {
                    rest = member;
                    continue;
                } else {
                    put(word, &mut out);
                }
                len
            }
            _ => {
                out.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    out
}

fn put(word: &str, out: &mut String) {
    let named = NAMED.iter().find_map(|prefix| word.strip_prefix(prefix));
    match word {
        "nil" => out.push_str("null"),
        "and" => out.push_str("&&"),
        "or" => out.push_str("||"),
        "not" => out.push('!'),
        // As older versions call it.
        "instrumentation_scope" => out.push_str("scope"),
        _ => match (named, TYPES.iter().find(|(name, _)| *name == word), severity(word)) {
            (Some(name), ..) => out.extend(["\"", name, "\""]),
            (_, Some((_, name)), _) => out.extend(["\"", name, "\""]),
            (_, _, Some(number)) => out.push_str(&number.to_string()),
            _ => out.push_str(word),
        },
    }
}

fn severity(word: &str) -> Option<usize> {
    let name = word.strip_prefix("SEVERITY_NUMBER_")?;
    if name == "UNSPECIFIED" {
        return Some(0);
    }
    let digit = name.strip_suffix(['2', '3', '4']).map(|_| &name[name.len() - 1..]);
    let level: usize = digit.map_or(Some(1), |digit| digit.parse().ok())?;
    let name = name.trim_end_matches(['2', '3', '4']);
    Some(SEVERITIES.iter().position(|known| *known == name)? * 4 + level)
}

/// Length of what is in quotes at the beginning of `text`, the quotes included; all of it where they are not
/// closed.
pub fn quoted(text: &str) -> usize {
    let mut characters = text.char_indices();
    let Some((_, quote)) = characters.next() else { return 0 };
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Names that paths begin with, wherever they stand in `source`.
pub fn roots(source: &str) -> Vec<&str> {
    const NONE: [&str; 10] =
        ["where", "and", "or", "not", "nil", "null", "true", "false", "in", "has"];
    let mut found = Vec::new();
    let (mut rest, mut before) = (source, ' ');
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' | '\'' => quoted(rest),
            'a'..='z' | 'A'..='Z' | '_' => {
                let len = rest
                    .find(|character: char| {
                        !(character.is_ascii_alphanumeric() || character == '_')
                    })
                    .unwrap_or(rest.len());
                let (word, behind) = rest.split_at(len);
                let calls = behind.trim_start().starts_with('(');
                let names =
                    behind.trim_start().starts_with('=') && !behind.trim_start().starts_with("==");
                let constant = word.starts_with(|first: char| first.is_ascii_uppercase());
                if !(before == '.' || calls || names || constant || NONE.contains(&word)) {
                    found.push(word);
                }
                len
            }
            _ => first.len_utf8(),
        };
        before = rest[..len].chars().last().unwrap_or(' ');
        rest = &rest[len..];
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_begin_with_names() {
        let text = "limit(span.attributes, depth = 2, [\"a.b\"]) where resource.attributes['x'] == nil \
                    and name.matches(\"x\") or STATUS_CODE_OK == status.code";
        assert_eq!(roots(text), ["span", "resource", "name", "status"]);
    }

    use super::*;

    #[test]
    fn words_are_said_in_cel() {
        for (ottl, cel) in [
            (
                "attributes[\"and\"] == nil and not (a or b)",
                "attributes[\"and\"] == null && ! (a || b)",
            ),
            ("span.attributes['span.x'] != span.name", "attributes['span.x'] != name"),
            ("resource.attributes[\"a\\\"or\"]", "resource.attributes[\"a\\\"or\"]"),
            ("status.code == STATUS_CODE_ERROR", "status.code == \"ERROR\""),
            ("kind == SPAN_KIND_SERVER", "kind == \"SERVER\""),
            ("severity_number >= SEVERITY_NUMBER_WARN", "severity_number >= 13"),
            ("severity_number == SEVERITY_NUMBER_FATAL4", "severity_number == 24"),
            ("type == METRIC_DATA_TYPE_SUM", "type == \"Sum\""),
            ("order and_more nor span", "order and_more nor span"),
            ("\"not closed and", "\"not closed and"),
            ("x.not", "x.not"),
        ] {
            assert_eq!(in_cel(ottl, &["span"]), cel);
        }
    }
}
