use std::time::{Duration, Instant};

use super::*;
use crate::protocol::noise::Noise;

#[test]
fn values_of_listed_keys_are_taken_out_of_queries() {
    let cases = [
        // As the semantic conventions show it.
        ("q=OpenTelemetry&sig=abc", "q=OpenTelemetry&sig=REDACTED"),
        (
            "AWSAccessKeyId=AKIA&Signature=x%2By%3D&Expires=1",
            "AWSAccessKeyId=REDACTED&Signature=REDACTED&Expires=1",
        ),
        (
            "X-Amz-Signature=a&X-Amz-Security-Token=b&X-Amz-Date=c",
            "X-Amz-Signature=REDACTED&X-Amz-Security-Token=REDACTED&X-Amz-Date=c",
        ),
        (
            "X-Goog-Signature=a&x-goog-credential=b",
            "X-Goog-Signature=REDACTED&x-goog-credential=REDACTED",
        ),
        // Case and writing.
        (
            "TOKEN=a&Api_Key=b&apiKey=c&api-key=d&APIKEY=e",
            "TOKEN=REDACTED&Api_Key=REDACTED&apiKey=REDACTED&api-key=REDACTED&APIKEY=REDACTED",
        ),
        (
            "tok%65n=a&%54%4f%4b%45%4e=b&tok%2565n=c&tok%25252565n=d",
            "tok%65n=REDACTED&%54%4f%4b%45%4e=REDACTED&tok%2565n=REDACTED&tok%25252565n=REDACTED",
        ),
        (
            "token%00=a&%00token=b&+token=c&token%0d%0a=d",
            "token%00=REDACTED&%00token=REDACTED&+token=REDACTED&token%0d%0a=REDACTED",
        ),
        (
            "user[password]=a&user%5Bpwd%5D=b&token[]=c&user.secret=d",
            "user[password]=REDACTED&user%5Bpwd%5D=REDACTED&token[]=REDACTED&user.secret=REDACTED",
        ),
        // The whole value, whatever is in it.
        ("token=a=b;c/d?e#f&x=1", "token=REDACTED&x=1"),
        ("token=%00&key=\u{1f511}é&x=é", "token=REDACTED&key=REDACTED&x=é"),
        ("token==&x", "token=REDACTED&x"),
        // Separators of others.
        ("a=1;token=b", "a=1;token=REDACTED"),
        ("?token=b", "?token=REDACTED"),
        ("next=/cb?code=a&x=1", "next=/cb?code=REDACTED&x=1"),
        ("next=%2Fcb%3Fcode%3Dabc%26y%3D1&x=1", "next=%2Fcb%3Fcode%3DREDACTED&x=1"),
        ("next=%252Fcb%253Fcode%253Dabc&x=1", "next=%252Fcb%253Fcode%253DREDACTED&x=1"),
        (
            "next=https%3A%2F%2Fu%3Ap%252Fq%40h%2Fp%40&x=1",
            "next=https%3A%2F%2FREDACTED%3AREDACTED%40h%2Fp%40&x=1",
        ),
        ("next=https%3A//u:p@h/&x=1", "next=https%3A//REDACTED:REDACTED@h/&x=1"),
        ("next=https://h&mail=a@b", "next=https://h&mail=a@b"),
        // Nothing to take out.
        ("", ""),
        ("&&==&=x&token&token=&key", "&&==&=x&token&token=&key"),
        (
            "tokens=1&mytoken=2&page_token=3&keyboard=4&q=token",
            "tokens=1&mytoken=2&page_token=3&keyboard=4&q=token",
        ),
        ("q=token=abc&x=100%&y=%zz%2", "q=token=abc&x=100%&y=%zz%2"),
    ];
    let redaction = Redaction::default();
    for (query, expected) in cases {
        let out = redaction.query(query);
        assert_eq!(out, expected);
        assert_eq!(
            matches!(out, Cow::Borrowed(_)),
            query == expected,
            "{query} is copied if needed"
        );
        fuzz_redact(query.as_bytes());
    }
}

#[test]
fn targets_and_urls_lose_userinfo_and_parameters() {
    let cases = [
        ("/", "/"),
        ("*", "*"),
        ("/a/b@c:d/e?x=1", "/a/b@c:d/e?x=1"),
        ("/a?token=b#c", "/a?token=REDACTED"),
        ("/a;jsessionid=0A/b;v=1?token=b&c", "/a;jsessionid=REDACTED/b;v=1?token=REDACTED&c"),
        ("/reset/token=abc/x?y=1", "/reset/token=REDACTED/x?y=1"),
        ("/cb#access_token=a&state=b", "/cb#access_token=REDACTED&state=b"),
        ("/proxy/http://u:p@h/x", "/proxy/http://REDACTED:REDACTED@h/x"),
        ("http://u:p@h:80/x?y", "http://REDACTED:REDACTED@h:80/x?y"),
        ("http://u@h", "http://REDACTED@h"),
        ("http://:p@h", "http://REDACTED:REDACTED@h"),
        ("http://u:p@q@h/@", "http://REDACTED:REDACTED@h/@"),
        ("http://u:p%2Fq&r;s=t\\@h/", "http://REDACTED:REDACTED@h/"),
        ("http:///u:p@h/", "http:///REDACTED:REDACTED@h/"),
        ("//u:p@h/", "//REDACTED:REDACTED@h/"),
        ("u:p@h:443", "REDACTED:REDACTED@h:443"),
        ("h:443", "h:443"),
        ("http://@h/", "http://@h/"),
        ("https://[::1]:8443/a?b=c@d", "https://[::1]:8443/a?b=c@d"),
        ("amqp://é:ü@h/?key=ö", "amqp://REDACTED:REDACTED@h/?key=REDACTED"),
    ];
    let redaction = Redaction::default();
    for (url, expected) in cases {
        let out = redaction.url(url);
        assert_eq!(out, expected);
        assert_eq!(matches!(out, Cow::Borrowed(_)), url == expected, "{url} is copied if needed");
        assert_eq!(redaction.target(url), expected);
        assert_eq!(redaction.url(&out), out, "twice");
    }
}

#[test]
fn header_fields_are_taken_out_by_name() {
    let redaction = Redaction::default().with_headers(["X-Custom ", "x-other"]);
    let cases = [
        ("authorization", "Bearer a", "[REDACTED]"),
        ("Cookie", "a=b", "[REDACTED]"),
        ("SET-COOKIE", "a=b; Path=/", "[REDACTED]"),
        ("proxy-authorization", "", "[REDACTED]"),
        ("X-Api-Key", "a", "[REDACTED]"),
        ("x-custom", "a", "[REDACTED]"),
        ("X-OTHER", "a", "[REDACTED]"),
        ("x-others", "a", "a"),
        ("host", "h", "h"),
        ("referer", "https://u:p@h/?token=a", "https://REDACTED:REDACTED@h/?token=REDACTED"),
        ("Location", "/cb?code=a&state=b", "/cb?code=REDACTED&state=b"),
        ("user-agent", "x/1 (http://h/?token=a)", "x/1 (http://h/?token=a)"),
    ];
    for (name, value, expected) in cases {
        assert_eq!(redaction.header(name, value), expected, "{name}");
    }
}

#[test]
fn further_keys_are_taken_out_and_off_is_off() {
    let long = "k".repeat(100);
    let redaction = Redaction::default().with_keys(["Tenant-Pin", "_", &long]);
    let query = format!("tenantpin=1&{long}=2&=3&token=4&x=5");
    let expected = format!("tenantpin=REDACTED&{long}=REDACTED&=3&token=REDACTED&x=5");
    assert_eq!(redaction.query(&query), expected);
    let off = Redaction::off();
    assert_eq!(off.query("token=a"), "token=a");
    assert_eq!(off.url("http://u:p@h"), "http://u:p@h");
    assert_eq!(off.header("cookie", "a"), "a");
}

#[test]
fn the_default_keys_are_in_the_form_they_are_compared_in() {
    assert!(KEYS.is_sorted());
    for key in KEYS {
        let normal: Vec<_> = key.bytes().filter_map(normal).collect();
        assert_eq!(normal, key.as_bytes());
    }
}

/// `key` in another of its writings.
fn disguise(noise: &mut Noise, key: &str) -> String {
    let mut out = String::new();
    for character in key.chars() {
        if noise.below(8) == 0 {
            out.push(['-', '_'][noise.below(2) as usize]);
        }
        let character =
            if noise.below(2) == 0 { character.to_ascii_uppercase() } else { character };
        match noise.below(4) {
            0 => {
                out += &format!("%{}{:02x}", "25".repeat(noise.below(3) as usize), character as u8);
            }
            _ => out.push(character),
        }
    }
    out
}

#[test]
fn no_secret_of_a_listed_key_survives_and_all_else_does() {
    const SECRET: &str = "s3cr3t";
    const SPICE: &[&str] =
        &["=", ";", "?", "#", "/", "%3D", "%00", "@", "://", "%", "%25", "é", "+"];
    let mut noise = Noise::new(5);
    let redaction = Redaction::default();
    for _ in 0..50_000 {
        let (mut query, mut expected) = (String::new(), String::new());
        for pair in 0..noise.below(6) {
            if pair > 0 {
                query.push('&');
                expected.push('&');
            }
            if noise.below(2) == 0 {
                let plain = format!("field{pair}=va%20lue{pair}");
                query += &plain;
                expected += &plain;
                continue;
            }
            let key = KEYS[noise.below(KEYS.len() as u32) as usize];
            let key = disguise(&mut noise, key);
            let mut spice = || SPICE[noise.below(SPICE.len() as u32) as usize];
            query += &format!("{key}={}{SECRET}{}{SECRET}{}", spice(), spice(), spice());
            expected += &format!("{key}=REDACTED");
        }
        assert_eq!(redaction.query(&query), expected, "{query}");
        assert_eq!(redaction.url(&format!("/p?{query}")), format!("/p?{expected}"));
    }
}

#[test]
fn noise_breaks_no_rule() {
    const PARTS: &[&str] = &[
        "&", "=", ";", "?", "#", "/", "://", "@", ":", "%", "25", "3d", "%3D", "%26", "%2F",
        "token", "KEY", "a", "[", "]", ".", "-", "é", "\0",
    ];
    let mut noise = Noise::new(9);
    for _ in 0..50_000 {
        let mut part = || PARTS[noise.below(PARTS.len() as u32) as usize];
        let text: String = (0..24).map(|_| part()).collect();
        fuzz_redact(text.as_bytes());
        let mut bytes = text.into_bytes();
        noise.stir(&mut bytes);
        fuzz_redact(&bytes);
    }
}

#[test]
fn the_work_is_linear() {
    // 1 MiB each; a quadratic walk would take minutes.
    let mut widths = String::new();
    for depth in 0..1000 {
        widths += &format!(":/%{}2f", "25".repeat(depth));
    }
    for unit in [
        "&", "=", "token=a&", "%25", "25", "%", "://", ":%2f%2f", "/", "@", "a", ";", "%2", &widths,
    ] {
        for prefix in ["", "%", "token", "token=", "a://"] {
            let text = prefix.to_owned() + &unit.repeat((1 << 20) / unit.len());
            let began = Instant::now();
            fuzz_redact(text.as_bytes());
            assert!(began.elapsed() < Duration::from_secs(2), "{prefix} and many {unit}");
        }
    }
}
