//! A YAML file as a tree that knows the place of everything. Comes in: text that nobody vouches for;
//! goes out: a [`Node`] of bounded size and depth, aliases and merges done, or the first [`Mistake`].
//!
//! The events are `saphyr-parser`'s. A parser that makes the types right away (`serde_yaml`,
//! `serde-saphyr`) can put nothing in place of `${…}` before it knows their types, tells one mistake
//! at most, and has lost the places when keys are compared with each other.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    rc::Rc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::place::{Mistake, Step};

/// Most values that a file has, those of its aliases counted each time.
pub const NODES_MAX: usize = 10_000;
/// Most bytes of them, counted in the same way.
const BYTES_MAX: usize = 4 << 20;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 32;

/// Where something is in a file, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl From<Marker> for Place {
    fn from(at: Marker) -> Self {
        Self { line: at.line(), column: at.col() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins; what came in place of a `${…}` is where that is.
    pub place: Place,
    /// What it is.
    pub content: Content,
    /// How it came to be, if it was not written here.
    pub expanded: Option<Rc<Expanded>>,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Content {
    /// Text, a number, true, false or nothing.
    Scalar {
        /// As it is written, without quotes.
        text: String,
        /// It has no quotes, so it may be other than text.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map from scalars; no key is there twice.
    Map(Vec<(Node, Node)>),
}

/// What a value with `${…}` was.
#[derive(Clone, Debug)]
pub struct Expanded {
    /// As it is written in the file.
    pub written: String,
    /// What it is where text is wanted; nothing where that is its content.
    pub original: Option<String>,
}

/// A scalar by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Unsigned(u64),
    /// A whole number below zero.
    Signed(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    /// What an unquoted scalar is (YAML 1.2.2, 10.3.2). Digits after a leading zero are text, as
    /// they are in most files.
    pub fn of(text: &'a str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            ".nan" | ".NaN" | ".NAN" => return Self::Float(f64::NAN),
            _ => {}
        }
        let (sign, digits) = match text.as_bytes() {
            [b'-', ..] => (-1.0, &text[1..]),
            [b'+', ..] => (1.0, &text[1..]),
            _ => (1.0, text),
        };
        if matches!(digits, ".inf" | ".Inf" | ".INF") {
            return Self::Float(sign * f64::INFINITY);
        }
        let based = [("0x", 16), ("0o", 8), ("0b", 2)];
        for (prefix, base) in based {
            if let Some(rest) = text.strip_prefix(prefix)
                && let Ok(number) = u64::from_str_radix(rest, base)
            {
                return Self::Unsigned(number);
            }
        }
        let bytes = digits.as_bytes();
        let starts = bytes.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.');
        let octal = bytes.len() > 1 && bytes[0] == b'0' && bytes[1].is_ascii_digit();
        if !starts || octal || !bytes.iter().any(u8::is_ascii_digit) {
            return Self::Text(text);
        }
        if bytes.iter().all(u8::is_ascii_digit) {
            if let Ok(number) = digits.parse::<u64>()
                && sign > 0.0
            {
                return Self::Unsigned(number);
            }
            if let Ok(number) = text.parse::<i64>() {
                return Self::Signed(number);
            }
        }
        let float = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
        match digits.parse::<f64>() {
            Ok(number) if bytes.iter().all(float) => Self::Float(sign * number),
            _ => Self::Text(text),
        }
    }
}

impl Node {
    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// Whether it is as if it were not there: what a variable leaves behind that is not set.
    pub fn is_gone(&self) -> bool {
        self.expanded.is_some() && self.is_null()
    }

    /// What kind of scalar it is, if it is one.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.content {
            Content::Scalar { text, plain: true } => Some(Scalar::of(text)),
            Content::Scalar { text, .. } => Some(Scalar::Text(text)),
            _ => None,
        }
    }

    /// A scalar's text.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value behind a step.
    fn below(&self, step: &Step) -> Option<&Self> {
        match (step, &self.content) {
            (Step::Key(key), Content::Map(pairs)) => {
                let mut found = pairs.iter().filter(|(name, _)| name.text() == Some(key));
                found.next().map(|(_, value)| value)
            }
            (Step::Index(index), Content::List(list)) => list.get(*index),
            _ => None,
        }
    }

    /// The last thing on a way that is there.
    pub fn along(&self, path: &[Step]) -> &Self {
        let mut at = self;
        for step in path {
            match at.below(step) {
                Some(below) => at = below,
                None => break,
            }
        }
        at
    }

    /// Takes out what a way leads to; says whether it was there.
    pub fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, way)) = path.split_last() else { return false };
        let mut at = self;
        for step in way {
            let below = match (step, &mut at.content) {
                (Step::Key(key), Content::Map(pairs)) => {
                    let mut found = pairs.iter_mut().filter(|(name, _)| name.text() == Some(key));
                    found.next().map(|(_, value)| value)
                }
                (Step::Index(index), Content::List(list)) => list.get_mut(*index),
                _ => None,
            };
            let Some(below) = below else { return false };
            at = below;
        }
        match (last, &mut at.content) {
            (Step::Key(key), Content::Map(pairs)) => {
                let before = pairs.len();
                pairs.retain(|(name, _)| name.text() != Some(key));
                pairs.len() < before
            }
            (Step::Index(index), Content::List(list)) if *index < list.len() => {
                // Those behind it keep their numbers, for what is said of them.
                list[*index] = Self {
                    place: list[*index].place,
                    content: Content::Scalar { text: String::new(), plain: true },
                    expanded: Some(Rc::new(Expanded { written: String::new(), original: None })),
                };
                true
            }
            _ => false,
        }
    }
}

/// Reads the text of a file: one document, or none, which is a map without keys.
pub fn parse(text: &str) -> Result<Node, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        text,
        events: Parser::new_from_str(text),
        left: Size { nodes: NODES_MAX, bytes: BYTES_MAX },
        anchors: HashMap::new(),
    };
    let root = reader.document()?;
    Ok(root.unwrap_or_else(|| Node {
        place: Place { line: 1, column: 1 },
        content: Content::Map(Vec::new()),
        expanded: None,
    }))
}

struct Reader<'a> {
    text: &'a str,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// What there may still be.
    left: Size,
    /// What aliases stand for, and how much that is.
    anchors: HashMap<usize, (Node, Size)>,
}

/// How much a value is.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, saphyr_parser::Span), Mistake> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let line = self.text.lines().nth(error.marker().line().saturating_sub(1));
                let hint = match line.is_some_and(|line| line.contains("${")) {
                    true => "; within [ ] and { } a `${…}` has quotes around it",
                    false => "",
                };
                let why = format!("not YAML: {}{hint}", error.info());
                Err(Mistake::new((*error.marker()).into(), why))
            }
            None => Err(Mistake::new(Place::default(), "not YAML: it ends too early")),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Mistake> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(_), span) if root.is_some() => {
                    return Err(Mistake::new(span.start.into(), "a second document: have one"));
                }
                (Event::DocumentStart(_), _) => {
                    let (event, span) = self.next()?;
                    root = Some(self.value(event, span, 1)?);
                }
                _ => {}
            }
        }
    }

    /// The value that begins with `event`.
    fn value(
        &mut self,
        event: Event<'a>,
        span: saphyr_parser::Span,
        depth: usize,
    ) -> Result<Node, Mistake> {
        let place = Place::from(span.start);
        let left = self.left;
        let bytes = if let Event::Scalar(text, ..) = &event { text.len() } else { 0 };
        self.take(Size { nodes: 1, bytes }, place)?;
        if depth > DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} lists and maps within one another");
            return Err(Mistake::new(place, why));
        }
        let (content, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), place)?;
                (Content::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                is_text(tag.as_deref(), place)?;
                (Content::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                is_text(tag.as_deref(), place)?;
                (Content::Map(self.map(depth)?), anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(Mistake::new(place, "an alias of what it is itself in"));
                };
                // Counted before it is copied.
                take(&mut self.left, *size, place)?;
                return Ok(node.clone());
            }
            _ => return Err(Mistake::new(place, "not YAML: a value was expected")),
        };
        let node = Node { place, content, expanded: None };
        if anchor > 0 {
            // The copy counts as well.
            let size =
                Size { nodes: left.nodes - self.left.nodes, bytes: left.bytes - self.left.bytes };
            self.take(size, place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn take(&mut self, size: Size, place: Place) -> Result<(), Mistake> {
        take(&mut self.left, size, place)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Mistake> {
        let mut list = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(list);
            }
            list.push(self.value(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, Mistake> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        let mut names = HashSet::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.value(event, span, depth + 1)?;
            let behind = Place { line: span.end.line(), column: span.end.col() + 2 };
            let Some(name) = key.text() else {
                return Err(Mistake::new(key.place, "a key is one word, no list and no map"));
            };
            let (event, span) = self.next()?;
            let mut value = self.value(event, span, depth + 1)?;
            if value.text() == Some("") && value.is_null() {
                // There is nothing there that had a place.
                value.place = behind;
            }
            if name == "<<" && matches!(key.content, Content::Scalar { plain: true, .. }) {
                merged.push(value);
                continue;
            }
            if !names.insert(name.to_owned()) {
                return Err(Mistake::new(key.place, format!("the key `{name}` is there twice")));
            }
            pairs.push((key, value));
        }
        for value in merged {
            merge(value, &mut pairs, &mut names)?;
        }
        Ok(pairs)
    }
}

/// Takes `size` from what is left.
fn take(left: &mut Size, size: Size, place: Place) -> Result<(), Mistake> {
    let nodes = left.nodes.checked_sub(size.nodes).ok_or_else(|| {
        Mistake::new(place, format!("more than {NODES_MAX} values, aliases counted each time"))
    })?;
    let bytes = left.bytes.checked_sub(size.bytes).ok_or_else(|| {
        let most = BYTES_MAX >> 20;
        Mistake::new(place, format!("more than {most} MiB of text, aliases counted each time"))
    })?;
    *left = Size { nodes, bytes };
    Ok(())
}

/// Adds the pairs of `<<: *alias` that are not there (YAML 1.1, merge key).
fn merge(
    value: Node,
    pairs: &mut Vec<(Node, Node)>,
    names: &mut HashSet<String>,
) -> Result<(), Mistake> {
    match value.content {
        Content::Map(more) => {
            for (key, value) in more {
                if names.insert(key.text().unwrap_or_default().to_owned()) {
                    pairs.push((key, value));
                }
            }
            Ok(())
        }
        Content::List(list) => list.into_iter().try_for_each(|value| merge(value, pairs, names)),
        Content::Scalar { .. } => Err(Mistake::new(value.place, "`<<` takes a map, as *alias")),
    }
}

/// Whether a tag says that a scalar is text whatever it looks like. Tags of no meaning here are
/// mistakes.
fn is_text(tag: Option<&Tag>, place: Place) -> Result<bool, Mistake> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
        // `!`: not to be guessed.
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(true),
        Some(tag) => {
            let why = format!("tap knows no tag `{}{}`: leave it out", tag.handle, tag.suffix);
            Err(Mistake::new(place, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line.
    fn shown(node: &Node) -> String {
        match &node.content {
            Content::Scalar { text, plain } => {
                format!("{}{}", if *plain { "" } else { "'" }, text)
            }
            Content::List(list) => {
                let list: Vec<_> = list.iter().map(shown).collect();
                format!("[{}]", list.join(" "))
            }
            Content::Map(pairs) => {
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| format!("{}={}", shown(key), shown(value)))
                    .collect();
                format!("{{{}}}", pairs.join(" "))
            }
        }
    }

    #[test]
    fn files_become_trees() {
        for (text, expected) in [
            ("", "{}"),
            ("# a comment\n", "{}"),
            ("\u{feff}a: 1\n", "{a=1}"),
            ("---\na: 1\n...\n", "{a=1}"),
            ("a:\n- x\n- 'y'\n- \"1\"\n", "{a=[x 'y '1]}"),
            ("a: { b: [], c: {} }", "{a={b=[] c={}}}"),
            ("a: |\n  x\n  y\n", "{a='x\ny\n}"),
            ("a: !!str 1\nb: !!int 1\nc: ! 1", "{a='1 b=1 c='1}"),
            ("a: &x { b: 1 }\nc: *x\nd: { <<: *x, b: 2, e: 3 }", "{a={b=1} c={b=1} d={b=2 e=3}}"),
            (
                "a: &x { b: 1 }\nc: &y { d: 1 }\ne: { <<: [*x, *y] }\n",
                "{a={b=1} c={d=1} e={b=1 d=1}}",
            ),
        ] {
            assert_eq!(parse(text).map(|node| shown(&node)).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for (text, place, words) in [
            ("a: [\n", "", "not YAML"),
            ("a: b: c\n", "1:5", "not YAML"),
            ("a: { b: ${env:C} }\n", "1:", "has quotes around it"),
            ("a: 1\n---\nb: 2\n", "2:1", "second document"),
            ("a: 1\nb: 2\na: 3\n", "3:1", "`a` is there twice"),
            ("{ a: 1, a: 1 }", "1:9", "there twice"),
            ("? [a]\n: 1\n", "1:3", "one word"),
            ("a: !custom x\n", "1:4", "no tag `!custom`"),
            ("a: *nobody\n", "1:4", "not YAML"),
            ("a: &a [*a]\n", "1:8", "itself"),
            ("a: { <<: 1 }", "1:10", "`<<` takes a map"),
        ] {
            let mistake = parse(text).map(|node| shown(&node)).unwrap_err().to_string();
            assert!(mistake.starts_with(place) && mistake.contains(words), "{text:?}: {mistake}");
        }
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert!(parse(&deep).unwrap_err().to_string().contains("within one another"));
        let many = "- a\n".repeat(NODES_MAX);
        assert!(parse(&many).unwrap_err().to_string().contains("values"));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let below = format!("*a{}", level - 1);
            let all = [&*below; 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{all}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().to_string().contains("aliases counted"));
    }

    #[test]
    fn scalars_are_those_of_the_core_schema() {
        use Scalar::{Bool, Float, Null, Signed, Text, Unsigned};
        for (text, expected) in [
            ("", Null),
            ("~", Null),
            ("null", Null),
            ("true", Bool(true)),
            ("False", Bool(false)),
            ("yes", Text("yes")),
            ("0", Unsigned(0)),
            ("42", Unsigned(42)),
            ("+42", Unsigned(42)),
            ("-7", Signed(-7)),
            ("0x1f", Unsigned(31)),
            ("0o17", Unsigned(15)),
            ("0123", Text("0123")),
            ("18446744073709551615", Unsigned(u64::MAX)),
            ("18446744073709551616", Float(18_446_744_073_709_551_616.0)),
            ("1.5", Float(1.5)),
            (".5", Float(0.5)),
            ("1e3", Float(1000.0)),
            ("-.inf", Float(f64::NEG_INFINITY)),
            (".", Text(".")),
            ("-", Text("-")),
            ("1.2.3", Text("1.2.3")),
            ("10m", Text("10m")),
            ("1-2", Text("1-2")),
            ("infinity", Text("infinity")),
            ("nan", Text("nan")),
        ] {
            assert_eq!(Scalar::of(text), expected, "{text}");
        }
    }

    #[test]
    fn ways_lead_to_places() {
        let text = "a:\n  b: [x, y]\n  c:\nd: { e: 1 }\n";
        let tree = parse(text).unwrap();
        for (steps, place) in [
            (vec![Step::from("a"), "b".into(), 1.into()], "2:10"),
            (vec!["a".into(), "b".into()], "2:6"),
            (vec!["a".into(), "c".into()], "3:5"),
            (vec!["d".into(), "e".into()], "4:9"),
            (vec!["d".into(), "f".into()], "4:4"),
            (vec!["a".into(), "b".into(), 7.into()], "2:6"),
        ] {
            assert_eq!(tree.along(&steps).place.to_string(), place, "{steps:?}");
        }
    }
}
