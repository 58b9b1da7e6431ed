//! Statements of the processor `transform`. Comes in: their text once, and items; goes out: the items, changed.
//!
//! The functions are OTTL's editors, with their arguments and results; what is computed is CEL
//! ([`crate::policy::expression`]). Patterns, keys, limits and modes are constants, read with the statement, so
//! that a wrong one is refused then. What a statement makes has at most a MiB.

use std::{collections::HashSet, sync::Arc};

use super::{
    parse::{self, Parts, Step},
    place::{Path, Places, Root, Takes, Target},
    words::in_cel,
};
use crate::policy::{
    data::{Attributes, Value},
    expression::{self, Expression, Failed, Subject},
    pattern::{self, Pattern, TEXT_MAX},
};

/// Why a statement cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its form.
    #[error(transparent)]
    Form(#[from] parse::Error),
    /// What it computes.
    #[error(transparent)]
    Expression(#[from] expression::Error),
    /// A pattern in it.
    #[error(transparent)]
    Pattern(#[from] pattern::Error),
    /// What its arguments are.
    #[error("`{0}`: {1}")]
    Arguments(String, String),
}

/// A statement over items of one kind.
#[derive(Clone, Debug)]
pub struct Statement {
    source: Arc<str>,
    editor: Editor,
    condition: Option<Expression>,
}

impl serde::Serialize for Statement {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.source)
    }
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// What is done.
#[derive(Clone, Debug)]
enum Editor {
    Set(Path, Expression),
    DeleteKey(Path, String),
    DeleteMatchingKeys(Path, Pattern),
    KeepKeys(Path, HashSet<String>),
    KeepMatchingKeys(Path, Pattern),
    Limit(Path, usize, HashSet<String>),
    TruncateAll(Path, usize, String),
    StringifyAll(Path),
    /// `replace_pattern`, and `replace_match` with a glob: what `$1` means is for the former.
    Replace(Path, Pattern, Expression, Dollars),
    ReplaceAll(Path, Of, Pattern, Expression, Dollars),
    MergeMaps(Path, Expression, Strategy),
    Flatten(Path, String, usize),
}

/// Whether `$1` in a replacement is a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dollars {
    Groups,
    Text,
}

/// What of a map is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Keys,
    Values,
}

/// How maps are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    Insert,
    Update,
    Upsert,
}

/// Functions: name, arguments (of which those behind a `?` may be left out).
const FUNCTIONS: [(&str, &[&str]); 14] = [
    ("set", &["target", "value"]),
    ("delete_key", &["target", "key"]),
    ("delete_matching_keys", &["target", "pattern"]),
    ("keep_keys", &["target", "keys"]),
    ("keep_matching_keys", &["target", "pattern"]),
    ("limit", &["target", "limit", "priority_keys"]),
    ("truncate_all", &["target", "limit", "?utf8_safe", "?truncation_marker"]),
    ("stringify_all", &["target"]),
    ("replace_pattern", &["target", "regex", "replacement", "?function"]),
    ("replace_match", &["target", "pattern", "replacement", "?function"]),
    ("replace_all_patterns", &["target", "mode", "regex", "replacement", "?function"]),
    ("replace_all_matches", &["target", "pattern", "replacement", "?function"]),
    ("merge_maps", &["target", "source", "strategy"]),
    ("flatten", &["target", "?prefix", "?depth", "?resolveConflicts"]),
];

/// A constant: something that asks for no variable.
struct Nothing;

impl Subject for Nothing {
    const VARIABLES: &'static [&'static str] = &[];

    fn variable<'v>(&'v self, _name: &str) -> Box<dyn cel::common::value::Val + 'v> {
        Box::new(cel::common::types::CelNull)
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        tried(&Self)
    }
}

/// The arguments of a function, in the order of [`FUNCTIONS`].
struct Arguments<'a> {
    statement: &'a str,
    names: &'static [&'static str],
    found: Vec<Option<&'a str>>,
    roots: &'static [Root],
}

impl<'a> Arguments<'a> {
    fn new(statement: &'a str, parts: &Parts<'a>, roots: &'static [Root]) -> Result<Self, Error> {
        let wrong = |why: String| Error::Arguments(statement.to_owned(), why);
        let Some((_, names)) = FUNCTIONS.iter().find(|(name, _)| *name == parts.name) else {
            let known: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
            let meant = crate::config::place::closest(parts.name, &known);
            let more = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            return Err(wrong(format!("`{}` is no function of a statement; {more}", parts.name)));
        };
        let mut found = vec![None; names.len()];
        for (index, (name, text)) in parts.arguments.iter().enumerate() {
            let at = match name {
                Some(name) => names.iter().position(|known| known.trim_start_matches('?') == *name),
                None => Some(index).filter(|index| *index < names.len()),
            };
            let takes = || listed(names);
            let Some(place) = at.and_then(|at| found.get_mut(at)) else {
                return Err(wrong(format!("`{}` takes {}", parts.name, takes())));
            };
            if place.replace(*text).is_some() {
                return Err(wrong(format!("an argument is there twice; it takes {}", takes())));
            }
        }
        let missing = names
            .iter()
            .zip(&found)
            .find(|(name, found)| found.is_none() && !name.starts_with('?'));
        if let Some((name, _)) = missing {
            return Err(wrong(format!("`{}` also needs `{name}`", parts.name)));
        }
        Ok(Self { statement, names, found, roots })
    }

    fn wrong<T>(&self, why: impl Into<String>) -> Result<T, Error> {
        Err(Error::Arguments(self.statement.to_owned(), why.into()))
    }

    fn text(&self, index: usize) -> &'a str {
        self.found.get(index).copied().flatten().unwrap_or_default()
    }

    fn constant(&self, index: usize) -> Result<Option<Value>, Error> {
        let Some(text) = self.found.get(index).copied().flatten() else { return Ok(None) };
        let value = Expression::compile::<Nothing>(text).and_then(|expression| {
            expression.value(&Nothing).map_err(|failed| expression::Error::Reader(failed.0))
        });
        match value {
            Ok(value) => Ok(Some(value)),
            Err(_) => {
                self.wrong(format!("`{}` is to be a constant, not `{text}`", self.name(index)))
            }
        }
    }

    fn name(&self, index: usize) -> &'static str {
        self.names.get(index).map_or("", |name| name.trim_start_matches('?'))
    }

    /// A text; empty where it is not there.
    fn word(&self, index: usize) -> Result<String, Error> {
        match self.constant(index)? {
            Some(Value::Text(text)) => Ok(text.to_string()),
            None => Ok(String::new()),
            Some(_) => self.wrong(format!("`{}` is to be a text", self.name(index))),
        }
    }

    fn words(&self, index: usize) -> Result<HashSet<String>, Error> {
        let Some(Value::Array(values)) = self.constant(index)? else {
            return self.wrong(format!("`{}` is to be a list of texts", self.name(index)));
        };
        let words = values.iter().map(|value| value.text().map(str::to_owned));
        match words.collect() {
            Some(words) => Ok(words),
            None => self.wrong(format!("`{}` is to be a list of texts", self.name(index))),
        }
    }

    fn number(&self, index: usize) -> Result<Option<usize>, Error> {
        match self.constant(index)? {
            None => Ok(None),
            Some(Value::Int(number)) if number >= 0 => {
                Ok(Some(usize::try_from(number).unwrap_or(usize::MAX)))
            }
            Some(_) => self.wrong(format!("`{}` is to be an integer from 0 on", self.name(index))),
        }
    }

    /// The path to what is changed.
    fn path(&self, map: bool) -> Result<Path, Error> {
        let text = self.text(0);
        let (name, steps) = parse::path(text)?;
        let known = || self.roots.iter().map(|root| root.name()).collect::<Vec<_>>().join(", ");
        let Some(root) = Root::named(name).filter(|root| self.roots.contains(root)) else {
            return self.wrong(format!("`{name}` cannot be changed here; there are {}", known()));
        };
        let mut path = Path { root, steps: Vec::new() };
        for step in steps {
            let value = Expression::compile::<Nothing>(step)
                .ok()
                .and_then(|expression| expression.value(&Nothing).ok());
            path.steps.push(match value {
                Some(Value::Text(key)) => Step::Key(key.to_string()),
                Some(Value::Int(index)) if index >= 0 => {
                    Step::Index(usize::try_from(index).unwrap_or(usize::MAX))
                }
                _ => {
                    return self.wrong(format!(
                        "`[{step}]` in a path is to be a text or an integer, as [\"key\"]"
                    ));
                }
            });
        }
        let takes = root.takes();
        let deep = !path.steps.is_empty();
        if deep && !matches!(takes, Takes::Map | Takes::Any) {
            return self.wrong(format!("`{name}` has nothing inside"));
        }
        if map && !deep && !matches!(takes, Takes::Map | Takes::Any) {
            return self.wrong(format!("`{name}` is no map"));
        }
        if takes == Takes::Map && matches!(path.steps.first(), Some(Step::Index(_))) {
            return self.wrong(format!("`{name}` is a map: its keys are texts"));
        }
        Ok(path)
    }

    /// What replaces: a text.
    fn replacement<S: Subject>(&self, index: usize) -> Result<Expression, Error> {
        if self.found.get(index + 1).copied().flatten().is_some() {
            return self.wrong("tap has no functions on replacements: leave that argument out");
        }
        let expression = Expression::compile::<S>(self.text(index))?;
        match S::with_empty(|empty| expression.value(empty)) {
            Ok(Value::Text(_) | Value::Empty) | Err(_) => Ok(expression),
            Ok(_) => self.wrong("`replacement` is to be a text"),
        }
    }
}

/// Names of arguments, for an error.
fn listed(names: &[&str]) -> String {
    let of = |name: &&str| match name.strip_prefix('?') {
        Some(name) => format!("[{name}]"),
        None => (*name).to_owned(),
    };
    format!("({})", names.iter().map(of).collect::<Vec<_>>().join(", "))
}

impl Statement {
    /// Reads a statement over `S`s that changes `P`s; `own`: names of contexts that say nothing there.
    pub fn compile<S: Subject, P: Places>(source: &str, own: &[&str]) -> Result<Self, Error> {
        if source.len() > parse::STATEMENT_MAX {
            return Err(parse::Error::Long.into());
        }
        // Its form is told of as it is written, its parts are read in CEL's words.
        parse::statement(source)?;
        let text = in_cel(source, own);
        let parts = parse::statement(&text)?;
        let arguments = Arguments::new(&text, &parts, P::ROOTS)?;
        let editor = editor::<S>(parts.name, &arguments)?;
        let condition = parts.condition.map(Expression::condition::<S>).transpose()?;
        Ok(Self { source: source.into(), editor, condition })
    }

    /// Its source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it is to do to `subject`, if its condition holds.
    pub fn decide<S: Subject>(&self, subject: &S) -> Result<Option<Change<'_>>, Failed> {
        if let Some(condition) = &self.condition
            && !condition.holds(subject)?
        {
            return Ok(None);
        }
        let value = match &self.editor {
            Editor::Set(_, value)
            | Editor::Replace(_, _, value, _)
            | Editor::ReplaceAll(_, _, _, value, _)
            | Editor::MergeMaps(_, value, _) => value.value(subject)?,
            _ => Value::Empty,
        };
        if value.weight() > TEXT_MAX {
            return Err(Failed(format!(
                "`{}`: a value of more than {TEXT_MAX} bytes",
                self.source
            )));
        }
        Ok(Some(Change { statement: self, value }))
    }
}

fn editor<S: Subject>(name: &str, with: &Arguments<'_>) -> Result<Editor, Error> {
    Ok(match name {
        "set" => {
            let path = with.path(false)?;
            let value = Expression::compile::<S>(with.text(1))?;
            if path.steps.is_empty() {
                let tried = S::with_empty(|empty| value.value(empty));
                fits(with, path.root, tried.ok().as_ref())?;
            }
            Editor::Set(path, value)
        }
        "delete_key" => Editor::DeleteKey(with.path(true)?, with.word(1)?),
        "delete_matching_keys" => {
            Editor::DeleteMatchingKeys(with.path(true)?, Pattern::new(&with.word(1)?)?)
        }
        "keep_keys" => Editor::KeepKeys(with.path(true)?, with.words(1)?),
        "keep_matching_keys" => {
            Editor::KeepMatchingKeys(with.path(true)?, Pattern::new(&with.word(1)?)?)
        }
        "limit" => {
            let (limit, first) = (with.number(1)?.unwrap_or_default(), with.words(2)?);
            if first.len() > limit {
                return with.wrong(format!("`limit` {limit} is less than the keys that go first"));
            }
            Editor::Limit(with.path(true)?, limit, first)
        }
        "truncate_all" => {
            let (limit, marker) = (with.number(1)?.unwrap_or_default(), with.word(3)?);
            match with.constant(2)? {
                None | Some(Value::Bool(true)) => {}
                _ => {
                    return with
                        .wrong("texts are never cut within a character: leave `utf8_safe` out");
                }
            }
            if marker.len() > limit {
                return with.wrong("`truncation_marker` is longer than `limit`");
            }
            Editor::TruncateAll(with.path(true)?, limit, marker)
        }
        "stringify_all" => Editor::StringifyAll(with.path(true)?),
        "replace_pattern" => {
            let pattern = Pattern::new(&with.word(1)?)?;
            Editor::Replace(with.path(false)?, pattern, with.replacement::<S>(2)?, Dollars::Groups)
        }
        "replace_match" => {
            let pattern = Pattern::glob(&with.word(1)?)?;
            Editor::Replace(with.path(false)?, pattern, with.replacement::<S>(2)?, Dollars::Text)
        }
        "replace_all_patterns" => {
            let of = match &*with.word(1)? {
                "key" => Of::Keys,
                "value" => Of::Values,
                _ => return with.wrong("`mode` is \"key\" or \"value\""),
            };
            let (path, pattern) = (with.path(true)?, Pattern::new(&with.word(2)?)?);
            Editor::ReplaceAll(path, of, pattern, with.replacement::<S>(3)?, Dollars::Groups)
        }
        "replace_all_matches" => {
            let (path, pattern) = (with.path(true)?, Pattern::glob(&with.word(1)?)?);
            Editor::ReplaceAll(path, Of::Values, pattern, with.replacement::<S>(2)?, Dollars::Text)
        }
        "merge_maps" => {
            let strategy = match &*with.word(2)? {
                "insert" => Strategy::Insert,
                "update" => Strategy::Update,
                "upsert" => Strategy::Upsert,
                _ => return with.wrong("`strategy` is \"insert\", \"update\" or \"upsert\""),
            };
            Editor::MergeMaps(with.path(true)?, Expression::compile::<S>(with.text(1))?, strategy)
        }
        _ => {
            match with.constant(3)? {
                None | Some(Value::Bool(false)) => {}
                _ => {
                    return with
                        .wrong("tap has no `resolveConflicts`: the last of equal keys holds");
                }
            }
            let depth = with.number(2)?.unwrap_or(usize::MAX);
            Editor::Flatten(with.path(true)?, with.word(1)?, depth)
        }
    })
}

/// Whether what a `set` gives can be put there, as far as it shows without an item.
fn fits(with: &Arguments<'_>, root: Root, tried: Option<&Value>) -> Result<(), Error> {
    let name = root.name();
    let (fits, due) = match (root.takes(), tried) {
        (_, None | Some(Value::Empty)) | (Takes::Any, _) => return Ok(()),
        (Takes::Map, Some(value)) => (matches!(value, Value::Map(_)), "a map".to_owned()),
        (Takes::Text, Some(value)) => (value.text().is_some(), "a text".to_owned()),
        (Takes::Number, Some(value)) => (matches!(value, Value::Int(_)), "an integer".to_owned()),
        (Takes::Name(names), Some(value)) => {
            let fits = match value {
                // A text may be another one for another item.
                Value::Text(text) => {
                    names.contains(&&**text) || !with.text(1).starts_with(['"', '\''])
                }
                Value::Int(number) => (0..names.len() as i64).contains(number),
                _ => false,
            };
            (fits, format!("one of {}", names.join(", ")))
        }
    };
    if fits { Ok(()) } else { with.wrong(format!("`{name}` takes {due}")) }
}

/// What a statement does to one item.
#[derive(Debug)]
pub struct Change<'a> {
    statement: &'a Statement,
    value: Value,
}

impl Change<'_> {
    /// Does it.
    pub fn make<P: Places>(self, item: &mut P) -> Result<(), Failed> {
        let source = &self.statement.source;
        make(&self.statement.editor, self.value, item)
            .map_err(|Failed(why)| Failed(format!("`{source}`: {why}")))
    }
}

fn make<P: Places>(editor: &Editor, value: Value, item: &mut P) -> Result<(), Failed> {
    match editor {
        // As in OTTL, nothing is put nowhere.
        Editor::Set(..) if value == Value::Empty => {}
        Editor::Set(path, _) => path.put(item, value)?,
        Editor::DeleteKey(path, key) => {
            if let Some(map) = map_at(path, item)? {
                map.remove(key);
            }
        }
        Editor::DeleteMatchingKeys(path, pattern) => {
            retain(path, item, |key| !pattern.matches(key))?;
        }
        Editor::KeepKeys(path, keys) => retain(path, item, |key| keys.contains(key))?,
        Editor::KeepMatchingKeys(path, pattern) => retain(path, item, |key| pattern.matches(key))?,
        Editor::Limit(path, limit, first) => {
            let Some(map) = map_at(path, item)? else { return Ok(()) };
            if map.len() > *limit {
                let mut kept = map.iter().filter(|(key, _)| first.contains(&***key)).count();
                map.0.retain(|(key, _)| {
                    if first.contains(&**key) {
                        return true;
                    }
                    kept += 1;
                    kept <= *limit
                });
            }
        }
        Editor::TruncateAll(path, limit, marker) => {
            let Some(map) = map_at(path, item)? else { return Ok(()) };
            for (_, value) in &mut map.0 {
                if let Value::Text(text) = value
                    && text.len() > *limit
                {
                    let end = text.floor_char_boundary(limit - marker.len());
                    *value = format!("{}{marker}", &text[..end]).into();
                }
            }
        }
        Editor::StringifyAll(path) => {
            let Some(map) = map_at(path, item)? else { return Ok(()) };
            for (_, value) in map.0.iter_mut().filter(|(_, value)| value.text().is_none()) {
                *value = value.as_text().into_owned().into();
            }
        }
        Editor::Replace(path, pattern, _, dollars) => {
            let with = replacement(&value)?;
            if let Some(Target::Text(text)) = path.find(item)
                && let Some(replaced) = replace(pattern, text, with, *dollars)?
            {
                *text = replaced.into();
            }
        }
        Editor::ReplaceAll(path, of, pattern, _, dollars) => {
            let with = replacement(&value)?;
            let Some(map) = map_at(path, item)? else { return Ok(()) };
            match of {
                Of::Values => {
                    for (_, value) in &mut map.0 {
                        if let Some(text) = value.text()
                            && let Some(replaced) = replace(pattern, text, with, *dollars)?
                        {
                            *value = replaced.into();
                        }
                    }
                }
                Of::Keys => {
                    let mut replaced = Attributes::default();
                    for (key, value) in map.iter() {
                        let key = match replace(pattern, key, with, *dollars)? {
                            Some(new) => new.into(),
                            None => key.clone(),
                        };
                        replaced.set(key, value.clone());
                    }
                    *map = replaced;
                }
            }
        }
        Editor::MergeMaps(path, _, strategy) => {
            let Value::Map(from) = value else {
                return Err(Failed("what is to be merged is no map".to_owned()));
            };
            let Some(map) = map_at(path, item)? else { return Ok(()) };
            for (key, value) in from.0 {
                let there = map.get(&key).is_some();
                if match strategy {
                    Strategy::Insert => !there,
                    Strategy::Update => there,
                    Strategy::Upsert => true,
                } {
                    map.set(key, value);
                }
            }
        }
        Editor::Flatten(path, prefix, depth) => {
            let Some(map) = map_at(path, item)? else { return Ok(()) };
            let mut flat = Flat { out: Attributes::default(), bytes: 0, depth: *depth };
            flat.map(prefix, map, 0)?;
            *map = flat.out;
        }
    }
    Ok(())
}

/// The map that a path leads to; `None` where there is nothing.
fn map_at<'a, P: Places>(
    path: &Path,
    item: &'a mut P,
) -> Result<Option<&'a mut Attributes>, Failed> {
    match path.find(item) {
        Some(Target::Map(map)) => Ok(Some(map)),
        None => Ok(None),
        Some(Target::Value(Value::Empty)) => Ok(None),
        Some(_) => Err(Failed("it is no map".to_owned())),
    }
}

fn retain<P: Places>(
    path: &Path,
    item: &mut P,
    keeps: impl Fn(&str) -> bool,
) -> Result<(), Failed> {
    if let Some(map) = map_at(path, item)? {
        map.0.retain(|(key, _)| keeps(key));
    }
    Ok(())
}

fn replacement(value: &Value) -> Result<&str, Failed> {
    value.text().ok_or_else(|| Failed("what replaces is no text".to_owned()))
}

fn replace(
    pattern: &Pattern,
    text: &str,
    with: &str,
    dollars: Dollars,
) -> Result<Option<String>, Failed> {
    pattern
        .replace(text, |captures, out| match dollars {
            Dollars::Groups => captures.expand(with, out),
            Dollars::Text => out.push_str(with),
        })
        .map_err(|error| Failed(error.to_string()))
}

/// A map that becomes flat.
struct Flat {
    out: Attributes,
    /// Of its keys.
    bytes: usize,
    depth: usize,
}

impl Flat {
    fn map(&mut self, prefix: &str, map: &Attributes, depth: usize) -> Result<(), Failed> {
        for (key, value) in map.iter() {
            let key = match prefix {
                "" => key.to_string(),
                _ => format!("{prefix}.{key}"),
            };
            self.value(key, value, depth)?;
        }
        Ok(())
    }

    fn value(&mut self, key: String, value: &Value, depth: usize) -> Result<(), Failed> {
        match value {
            Value::Map(map) if depth < self.depth => self.map(&key, map, depth + 1),
            Value::Array(values) if depth < self.depth => {
                for (index, value) in values.iter().enumerate() {
                    self.value(format!("{key}.{index}"), value, depth + 1)?;
                }
                Ok(())
            }
            _ => {
                self.bytes += key.len() + size_of::<Value>();
                if self.bytes > TEXT_MAX {
                    return Err(Failed(format!("its keys would have more than {TEXT_MAX} bytes")));
                }
                self.out.set(key, value.clone());
                Ok(())
            }
        }
    }
}

/// Reads any text as a statement; no text breaks that.
#[doc(hidden)]
pub fn fuzz_statement(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().take(4) {
        let line: String = line.chars().take(200).collect();
        for statement in [&*line, &format!("set(attributes[\"a\"], {line})")] {
            let told = in_cel(statement, &["span"]);
            let (as_written, as_told) = (parse::statement(statement), parse::statement(&told));
            if let (Ok(one), Ok(other)) = (as_written, as_told) {
                assert_eq!(one.arguments.len(), other.arguments.len(), "{statement}");
            }
        }
        let (begin, end) = line.split_once('[').unwrap_or((&line, ""));
        drop(parse::path(&format!("{begin}[{end}")));
    }
}
