//! Numbers as text for a scraper: Prometheus text 0.0.4 or OpenMetrics 1.0, by the `Accept` header.
//! Names follow the OpenTelemetry specification's "Prometheus and OpenMetrics Compatibility": what
//! these have no letter for becomes `_`, the unit is at the end, `_total` behind it.

use std::{borrow::Cow, fmt::Write as _};

use super::{
    Family, Kind, Label, Read, Sample, Value,
    histogram::{Buckets, Exemplar, Histogram},
};

/// Form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header prefers (RFC 9110 §12.5.1); Prometheus text where it says nothing.
    pub fn negotiate(accept: &str) -> Self {
        let mut best = (0.0, Self::Prometheus);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Prometheus,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
            let weight = weight.parse().unwrap_or(0.0);
            if weight > best.0 {
                best = (weight, format);
            }
        }
        best.1
    }

    /// Its `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Numbers as text.
pub fn render(read: &[Read], format: Format) -> String {
    let mut out = String::with_capacity(16 << 10);
    for Read { family, samples } in read {
        let name = name(family);
        head(&mut out, &name, family, format);
        for sample in samples {
            match &sample.value {
                Value::Number(number) => {
                    let total = if family.kind == Kind::Counter { "_total" } else { "" };
                    series(&mut out, &name, total, sample, None, format);
                    // Writing to a string cannot fail.
                    writeln!(out, " {number}").unwrap_or_default();
                }
                Value::Histogram(histogram) => buckets(&mut out, &name, sample, histogram, format),
            }
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

/// The family's name as OpenMetrics has it: a counter's without `_total`.
fn name(family: &Family) -> String {
    let mut name = String::with_capacity(family.name.len() + 16);
    for letter in family.name.chars() {
        let known = letter.is_ascii_alphanumeric() || letter == ':';
        match if known { letter } else { '_' } {
            '_' if name.ends_with('_') => {}
            letter => name.push(letter),
        }
    }
    if family.kind == Kind::Counter && name.ends_with("_total") {
        name.truncate(name.len() - "_total".len());
    }
    let unit = unit(family);
    if !unit.is_empty() && !name.ends_with(unit) {
        name.push('_');
        name.push_str(unit);
    }
    name
}

/// The unit's word; none for what is only counted (`{connection}`).
fn unit(family: &Family) -> &'static str {
    match family.unit {
        "s" => "seconds",
        "By" => "bytes",
        "1" if family.kind == Kind::Gauge => "ratio",
        _ => "",
    }
}

fn head(out: &mut String, name: &str, family: &Family, format: Format) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let total = match (format, family.kind) {
        (Format::Prometheus, Kind::Counter) => "_total",
        _ => "",
    };
    let help = family.help;
    writeln!(out, "# HELP {name}{total} {help}\n# TYPE {name}{total} {kind}").unwrap_or_default();
    let unit = unit(family);
    if format == Format::OpenMetrics && !unit.is_empty() {
        writeln!(out, "# UNIT {name} {unit}").unwrap_or_default();
    }
}

fn buckets(out: &mut String, name: &str, sample: &Sample, histogram: &Histogram, format: Format) {
    // `/metrics` reads explicit buckets only: the text has no others.
    let Buckets::Explicit(bounds, counts) = &histogram.buckets else { return };
    let mut total = 0;
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    for (at, (bound, count)) in bounds.zip(counts).enumerate() {
        total += count;
        series(out, name, "_bucket", sample, Some(bound), format);
        write!(out, " {total}").unwrap_or_default();
        if let (Format::OpenMetrics, Some(exemplar)) = (format, histogram.exemplar(at)) {
            write_exemplar(out, exemplar);
        }
        out.push('\n');
    }
    series(out, name, "_sum", sample, None, format);
    writeln!(out, " {}", number(histogram.sum, format)).unwrap_or_default();
    series(out, name, "_count", sample, None, format);
    writeln!(out, " {total}").unwrap_or_default();
}

fn write_exemplar(out: &mut String, exemplar: &Exemplar) {
    out.push_str(" # {trace_id=\"");
    exemplar.trace_id.iter().for_each(|byte| write!(out, "{byte:02x}").unwrap_or_default());
    out.push_str("\",span_id=\"");
    exemplar.span_id.iter().for_each(|byte| write!(out, "{byte:02x}").unwrap_or_default());
    let (value, milliseconds) = (exemplar.value, exemplar.time_ns / 1_000_000);
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    write!(out, "\"}} {value} {seconds}.{rest:03}").unwrap_or_default();
}

/// A float in the form's own spelling: OpenMetrics wants to see that it is one.
fn number(value: f64, format: Format) -> String {
    match format {
        _ if value == f64::INFINITY => "+Inf".to_owned(),
        // Without an exponent, so that a bound is spelled the same in both.
        Format::OpenMetrics if value.fract() == 0.0 => format!("{value}.0"),
        _ => value.to_string(),
    }
}

/// `name{labels}`.
fn series(
    out: &mut String,
    name: &str,
    suffix: &str,
    sample: &Sample,
    bound: Option<f64>,
    format: Format,
) {
    out.push_str(name);
    out.push_str(suffix);
    let mut separator = '{';
    let mut label = |key: &str, value: &str| {
        out.push(separator);
        separator = ',';
        let letters = key.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' });
        out.extend(letters);
        out.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    };
    for (key, value) in &sample.labels {
        let text = match value {
            Label::Text(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        };
        label(key, &text);
    }
    if let Some(bound) = bound {
        label("le", &number(bound, format));
    }
    if separator == ',' {
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::{super::histogram::Aggregation, *};

    const SEEN: Family = Family::counter("tap_records_seen_total", "Records due.");
    const OPEN: Family = Family::gauge("tap_connection_open", "Connections in the table.");

    #[test]
    fn names_are_translated() {
        for (family, expected) in [
            (SEEN, "tap_records_seen"),
            (OPEN, "tap_connection_open"),
            (Family::gauge("tap_records_in_ring_total", ""), "tap_records_in_ring_total"),
            (
                Family::histogram("http.server.request.duration", "s", ""),
                "http_server_request_duration_seconds",
            ),
            (
                Family::histogram("http.client.request.body.size", "By", ""),
                "http_client_request_body_size_bytes",
            ),
            (
                Family::counter("tap.connection.closed", "").of("", "{connection}"),
                "tap_connection_closed",
            ),
            (Family::counter("tap.connection.io", "").of("", "By"), "tap_connection_io_bytes"),
            (Family::counter("a.bytes", "").of("", "By"), "a_bytes"),
            (Family::gauge("a..b-c", "").of("", "1"), "a_b_c_ratio"),
        ] {
            assert_eq!(name(&family), expected);
        }
    }

    #[test]
    fn the_scraper_says_what_it_wants() {
        use Format::{OpenMetrics, Prometheus};
        for (accept, expected) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain", Prometheus),
            ("application/openmetrics-text", OpenMetrics),
            (
                "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            ("text/plain;q=0.6, Application/OpenMetrics-Text;version=1.0.0;q=0.5", Prometheus),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=x", Prometheus),
            ("image/png, ,;;", Prometheus),
        ] {
            assert_eq!(Format::negotiate(accept), expected, "{accept}");
        }
    }

    fn sample(name: &'static str, labels: &[(&'static str, &str)], value: Value) -> Sample {
        Sample { name, labels: super::super::owned(labels), value, delta_since: None }
    }

    #[test]
    fn numbers_render_in_both_forms() {
        let seen = sample(SEEN.name, &[("kind", "a\"b\\c\n")], Value::Number(3));
        let open = sample(OPEN.name, &[], Value::Number(7));
        let read = [
            Read { family: SEEN, samples: vec![seen] },
            Read { family: OPEN, samples: vec![open] },
        ];
        let body = "tap_records_seen_total{kind=\"a\\\"b\\\\c\\n\"} 3\n\
                    # HELP tap_connection_open Connections in the table.\n\
                    # TYPE tap_connection_open gauge\n\
                    tap_connection_open 7\n";
        assert_eq!(
            render(&read, Format::Prometheus),
            format!(
                "# HELP tap_records_seen_total Records due.\n\
                 # TYPE tap_records_seen_total counter\n{body}"
            )
        );
        assert_eq!(
            render(&read, Format::OpenMetrics),
            format!(
                "# HELP tap_records_seen Records due.\n\
                 # TYPE tap_records_seen counter\n{body}# EOF\n"
            )
        );
    }

    #[test]
    fn histograms_render_with_exemplars_where_these_may_be() {
        const TOOK: Family = Family::histogram("a.b", "s", "Took.");
        let mut histogram = Histogram::new(Aggregation::Explicit, &[0.000_05, 0.5, 1.0]);
        histogram.record(0.25, None);
        let time_ns = 1_700_000_000_045_000_000;
        let exemplar = Exemplar { value: 0.0, time_ns, trace_id: [0xab; 16], span_id: [1; 8] };
        histogram.record(2.0, Some(exemplar));
        let value = Value::Histogram(Box::new(histogram));
        let read =
            [Read { family: TOOK, samples: vec![sample(TOOK.name, &[("x.y", "z")], value)] }];
        assert_eq!(
            render(&read, Format::Prometheus),
            "# HELP a_b_seconds Took.\n\
             # TYPE a_b_seconds histogram\n\
             a_b_seconds_bucket{x_y=\"z\",le=\"0.00005\"} 0\n\
             a_b_seconds_bucket{x_y=\"z\",le=\"0.5\"} 1\n\
             a_b_seconds_bucket{x_y=\"z\",le=\"1\"} 1\n\
             a_b_seconds_bucket{x_y=\"z\",le=\"+Inf\"} 2\n\
             a_b_seconds_sum{x_y=\"z\"} 2.25\n\
             a_b_seconds_count{x_y=\"z\"} 2\n"
        );
        assert_eq!(
            render(&read, Format::OpenMetrics),
            format!(
                "# HELP a_b_seconds Took.\n\
                 # TYPE a_b_seconds histogram\n\
                 # UNIT a_b_seconds seconds\n\
                 a_b_seconds_bucket{{x_y=\"z\",le=\"0.00005\"}} 0\n\
                 a_b_seconds_bucket{{x_y=\"z\",le=\"0.5\"}} 1\n\
                 a_b_seconds_bucket{{x_y=\"z\",le=\"1.0\"}} 1\n\
                 a_b_seconds_bucket{{x_y=\"z\",le=\"+Inf\"}} 2 # {{trace_id=\"{}\",span_id=\"{}\"}} 2 1700000000.045\n\
                 a_b_seconds_sum{{x_y=\"z\"}} 2.25\n\
                 a_b_seconds_count{{x_y=\"z\"}} 2\n# EOF\n",
                "ab".repeat(16),
                "01".repeat(8)
            )
        );
    }
}
