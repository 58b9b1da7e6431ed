//! Expressions in CEL (the Common Expression Language) over spans and log records. Comes in: an
//! expression's source once, and items; goes out: what it gives.
//!
//! An expression is read when the configuration is: its syntax, whether it names variables that there
//! are, and whether it can give what is asked of it, tried with an item that says nothing. What it
//! costs is bounded: the source's length and depth, and no loop (`exists`, `all`, `map`, `filter`)
//! within another, as the lists that they walk are the peer's. Regular expressions (`matches`) are the
//! `regex` crate's, which take linear time.
//!
//! | variable | of | is |
//! | --- | --- | --- |
//! | `attributes["k"]`, `resource.attributes["k"]`, `scope.attributes["k"]` | all | an attribute; null where it is not there |
//! | `scope.name`, `scope.version` | all | the instrumentation scope |
//! | `trace_id`, `span_id` | all | in hex; empty where there is none |
//! | `name`, `trace_state`, `parent_span_id` | spans | |
//! | `kind` | spans | `UNSPECIFIED`, `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER`, `CONSUMER` |
//! | `status.code`, `status.message` | spans | the code is `UNSET`, `OK` or `ERROR` |
//! | `start_ns`, `end_ns`, `duration_ms` | spans | the duration with fractions |
//! | `events` | spans | a list of maps: `name`, `time_ns`, `attributes` |
//! | `name`, `time_ns`; `span` | span events | `span` has the variables of the span |
//! | `body`, `severity_number`, `severity_text`, `time_ns`, `observed_ns`, `event_name` | log records | |
//! | `resource`, `scope`, `attributes` | resources, scopes | |
//! | `name`, `description`, `unit`, `type`, `is_monotonic`, `aggregation_temporality` | metrics, data points | the type is `Gauge`, `Sum`, `Histogram`, `ExponentialHistogram` or `Summary` |
//! | `value`, `count`, `sum`, `start_ns`, `time_ns` | data points | null where the type has none |
#![forbid(unsafe_code)]

mod levels;

pub use levels::{MetricOf, PointOf, ScopeOf};

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Program,
    common::{
        ast::{EntryExpr, Expr, IdedEntryExpr},
        traits::{Container, Indexer, Iterable, Iterator as Keys, Sizer},
        types::{
            CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelNull, CelString, MAP_TYPE,
            Type,
        },
        value::{CowVal, Val},
    },
};

use super::data::{Attributes, Event, LogRecord, Resource, Scope, Source, Span, Value};

/// Longest source, in bytes.
const SOURCE_MAX: usize = 1024;
/// Deepest nesting of operators, calls and selections: evaluation goes down as deep.
const DEPTH_MAX: usize = 48;
/// Stack for reading a source, which may nest deeper before it is found to: the parser goes down
/// some ten functions for each bracket.
const STACK: usize = 128 << 20;

/// An expression over items of one kind.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    program: Arc<Program>,
    /// Variables that it asks for.
    wants: Arc<[&'static str]>,
}

/// Why an expression cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too long, or too deep.
    #[error(
        "an expression has at most {SOURCE_MAX} bytes, and {DEPTH_MAX} operators within one another"
    )]
    TooLarge,
    /// No expression of the language.
    #[error("`{0}` is no CEL expression: {1}")]
    Syntax(String, String),
    /// A variable that there is not.
    #[error("`{0}` is no variable here: there are {1}")]
    Unknown(String, String),
    /// A function that there is not.
    #[error("`{0}` is no function of CEL")]
    UnknownFunction(String),
    /// It cannot be true or false, or fails whatever the item.
    #[error("`{0}` can never hold: {1}")]
    Useless(String, String),
    /// There is no thread to read it on, or the parser broke.
    #[error("an expression cannot be read: {0}")]
    Reader(String),
    /// A loop in a loop.
    #[error("an expression has no `exists`, `all`, `map` or `filter` within another")]
    Nested,
}

/// An expression gave nothing that can be used: numbers and texts mixed, say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// What expressions are asked about.
pub trait Subject {
    /// The variables that there are.
    const VARIABLES: &'static [&'static str];
    /// One of them.
    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v>;
    /// One that says nothing, for expressions to be tried with.
    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T;
}

impl Expression {
    /// Reads an expression over `S`s.
    pub fn compile<S: Subject>(source: &str) -> Result<Self, Error> {
        let (program, variables) = compile(source, S::VARIABLES)?;
        let wants =
            S::VARIABLES.iter().copied().filter(|name| variables.iter().any(|it| it == name));
        let expression =
            Self { source: source.into(), program: Arc::new(program), wants: wants.collect() };
        // A function that there is not shows when it is called, unless it never is.
        match S::with_empty(|empty| expression.run(empty)) {
            Err(ExecutionError::UndeclaredReference(name)) => {
                Err(Error::UnknownFunction(name.to_string()))
            }
            Err(error) if !expression.reads_what_may_be_anything() => {
                Err(Error::Useless(source.to_owned(), error.to_string()))
            }
            _ => Ok(expression),
        }
    }

    /// Reads an expression over `S`s that is to be true or false.
    pub fn condition<S: Subject>(source: &str) -> Result<Self, Error> {
        let expression = Self::compile::<S>(source)?;
        let tried = S::with_empty(|empty| expression.value(empty));
        match tried {
            Ok(Value::Bool(_) | Value::Empty) | Err(_) => Ok(expression),
            Ok(_) => {
                Err(Error::Useless(source.to_owned(), "it is neither true nor false".to_owned()))
            }
        }
    }

    /// Its source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it asks for nothing.
    pub fn is_constant(&self) -> bool {
        self.wants.is_empty()
    }

    /// Whether it holds of `subject`; null does not.
    pub fn holds<S: Subject>(&self, subject: &S) -> Result<bool, Failed> {
        match self.value(subject)? {
            Value::Bool(holds) => Ok(holds),
            Value::Empty => Ok(false),
            _ => Err(Failed(format!("`{}` is neither true nor false", self.source))),
        }
    }

    /// What it gives for `subject`.
    pub fn value<S: Subject>(&self, subject: &S) -> Result<Value, Failed> {
        self.run(subject).map_err(|error| Failed(format!("`{}`: {error}", self.source)))
    }

    fn run<S: Subject>(&self, subject: &S) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(env().clone());
        for name in self.wants.iter() {
            context.add_variable_as_val(*name, subject.variable(name));
        }
        let value = cel::Value::resolve_val(self.program.expression(), &context)?;
        given(&*value, 0)
    }

    /// Whether one of its variables has no type of its own, so that only an item tells.
    fn reads_what_may_be_anything(&self) -> bool {
        const ANY: [&str; 9] =
            ["attributes", "resource", "scope", "body", "span", "events", "value", "count", "sum"];
        self.wants.iter().any(|name| ANY.contains(name))
    }
}

impl serde::Serialize for Expression {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

/// Reads a source that may name these variables; the program, and those that it names.
pub(super) fn compile(source: &str, names: &[&str]) -> Result<(Program, Vec<String>), Error> {
    if source.len() > SOURCE_MAX {
        return Err(Error::TooLarge);
    }
    let (program, of_loops) = with_stack(|| read(source))?;
    let variables: Vec<String> =
        program.references().variables().into_iter().map(str::to_owned).collect();
    let known = |name: &String| {
        of_loops.contains(name) || names.contains(&&**name) || TYPES.contains(&&**name)
    };
    match variables.iter().find(|name| !known(name)) {
        Some(unknown) => Err(Error::Unknown(unknown.clone(), names.join(", "))),
        None => Ok((program, variables)),
    }
}

/// Names of types, which CEL has as values.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The language's own functions.
pub(super) fn env() -> &'static Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| Arc::new(Env::stdlib()))
}

/// Runs what goes down deep on a stack of its own.
fn with_stack<T: Send>(deep: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, deep);
        let thread = thread.map_err(|error| Error::Reader(error.to_string()))?;
        thread.join().unwrap_or_else(|_| Err(Error::Reader("it panicked".to_owned())))
    })
}

/// Reads a source: the program, and the variables of its loops.
fn read(source: &str) -> Result<(Program, Vec<String>), Error> {
    let program = env().compile(source).map_err(|error| {
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Error::Syntax(source.to_owned(), text)
    })?;
    let mut names = Vec::new();
    let (depth, loops) = shape(program.expression(), &mut names);
    if depth > DEPTH_MAX {
        return Err(Error::TooLarge);
    }
    if loops > 1 {
        return Err(Error::Nested);
    }
    let names = names.into_iter().map(str::to_owned).collect();
    Ok((program, names))
}

/// How deep an expression is, and how many loops stand within one another; their variables are
/// added to `names`.
fn shape<'a>(of: &'a IdedExpr, names: &mut Vec<&'a str>) -> (usize, usize) {
    fn of_entry(of: &IdedEntryExpr) -> Vec<&IdedExpr> {
        match &of.expr {
            EntryExpr::StructField(field) => vec![&field.value],
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        }
    }
    let (inside, outside): (Vec<&IdedExpr>, Vec<&IdedExpr>) = match &of.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Default::default(),
        Expr::Call(call) => {
            (Vec::new(), call.target.as_deref().into_iter().chain(&call.args).collect())
        }
        Expr::List(list) => (Vec::new(), list.elements.iter().collect()),
        Expr::Select(select) => (Vec::new(), vec![&*select.operand]),
        Expr::Map(map) => (Vec::new(), map.entries.iter().flat_map(of_entry).collect()),
        Expr::Struct(of) => (Vec::new(), of.entries.iter().flat_map(of_entry).collect()),
        Expr::Comprehension(it) => {
            names.extend([it.iter_var.as_str(), it.accu_var.as_str()]);
            names.extend(it.iter_var2.as_deref());
            let inside = vec![&it.accu_init, &it.loop_cond, &it.loop_step, &it.result];
            (inside, vec![&it.iter_range])
        }
    };
    let own = usize::from(!inside.is_empty());
    let (mut deepest, mut most) = (0, own);
    for (part, more) in
        inside.into_iter().map(|it| (it, own)).chain(outside.into_iter().map(|it| (it, 0)))
    {
        let (depth, loops) = shape(part, names);
        deepest = deepest.max(depth);
        most = most.max(loops + more);
    }
    (deepest + 1, most)
}

/// What an expression has given, as an attribute's value.
fn given(value: &dyn Val, depth: usize) -> Result<Value, ExecutionError> {
    if let Some(text) = value.downcast_ref::<CelString>() {
        return Ok(Value::from(text.inner()));
    }
    if let Some(truth) = value.downcast_ref::<CelBool>() {
        return Ok(Value::Bool(*truth.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelInt>() {
        return Ok(Value::Int(*number.inner()));
    }
    if let Some(number) = value.downcast_ref::<CelDouble>() {
        return Ok(Value::Double(*number.inner()));
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Value::Empty);
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        return Ok(Value::Bytes(bytes.inner().to_vec().into()));
    }
    if let Some(list) = value.downcast_ref::<CelList>().filter(|_| depth < DEPTH_MAX) {
        let values = list.inner().iter().map(|value| given(&**value, depth + 1));
        return Ok(Value::Array(values.collect::<Result<_, _>>()?));
    }
    let (keys, values) = (value.as_iterable(), value.as_indexer());
    if let (Some(keys), Some(values)) = (keys, values)
        && value.get_type() == &MAP_TYPE
        && depth < DEPTH_MAX
    {
        let mut map = Attributes::default();
        let mut keys = keys.iter();
        while let Some(key) = keys.next() {
            let found = values.get(key)?;
            map.0.push((key_of(key)?.into(), given(&*found, depth + 1)?));
        }
        if value.downcast_ref::<CelMap>().is_some() {
            // CEL's own have no order.
            map.0.sort_by(|one, other| one.0.cmp(&other.0));
        }
        return Ok(Value::Map(map));
    }
    Err(ExecutionError::UnexpectedType {
        got: value.get_type().name().to_owned(),
        want: "a value that an attribute can have".to_owned(),
    })
}

/// An attribute's value, for an expression; nothing of it is copied.
fn shown<'v>(value: &'v Value) -> Box<dyn Val + 'v> {
    match value {
        Value::Empty => Box::new(CelNull),
        Value::Text(text) => Box::new(CelString::from(&**text)),
        Value::Bool(truth) => Box::new(CelBool::from(*truth)),
        Value::Int(number) => Box::new(CelInt::from(*number)),
        Value::Double(number) => Box::new(CelDouble::from(*number)),
        Value::Bytes(bytes) => Box::new(CelBytes::from(&bytes[..])),
        Value::Array(values) => {
            Box::new(CelList::from(values.iter().map(shown).collect::<Vec<_>>()))
        }
        Value::Map(map) => Box::new(Fields::Attributes(map, OnceLock::new())),
    }
}

/// A map whose values are made when they are asked for.
enum Fields<'v> {
    /// Attributes, and their keys once these are walked over. One that is not there is null.
    Attributes(&'v Attributes, OnceLock<Vec<CelString<'v>>>),
    /// A resource.
    Resource(&'v Resource),
    /// An instrumentation scope.
    Scope(&'v Scope),
    /// The status of a span.
    Status(&'v Span),
    /// The span of an event.
    Span(&'v Span),
    /// An event of a span.
    Event(&'v Event),
}

impl<'v> Fields<'v> {
    fn find(&self, key: &str) -> Option<Box<dyn Val + 'v>> {
        Some(match (self, key) {
            (Self::Attributes(attributes, _), _) => shown(attributes.get(key)?),
            (Self::Resource(resource), "attributes") => of(&resource.attributes),
            (Self::Scope(scope), "attributes") => of(&scope.attributes),
            (Self::Scope(scope), "name") => text(&scope.name),
            (Self::Scope(scope), "version") => text(&scope.version),
            (Self::Status(span), "code") => text(name_of(&CODES, span.status)),
            (Self::Status(span), "message") => text(&span.status_message),
            (Self::Span(span), _) if Span::VARIABLES.contains(&key) => span.variable(key),
            (Self::Event(event), "name") => text(&event.name),
            (Self::Event(event), "time_ns") => number(event.time_ns),
            (Self::Event(event), "attributes") => of(&event.attributes),
            _ => return None,
        })
    }

    fn missing(&self, key: &str) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        match self {
            Self::Attributes(..) => Ok(Box::new(CelNull)),
            _ => Err(ExecutionError::no_such_key(key)),
        }
    }

    fn at(&self, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        let key = key_of(key)?;
        self.find(key).map_or_else(|| self.missing(key), Ok)
    }
}

fn key_of(key: &dyn Val) -> Result<&str, ExecutionError> {
    key.downcast_ref::<CelString>().map(CelString::inner).ok_or_else(|| {
        ExecutionError::UnexpectedType {
            got: key.get_type().name().to_owned(),
            want: "string".to_owned(),
        }
    })
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }
}

impl<'v> Val for Fields<'v> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn into_indexer<'w>(self: Box<Self>) -> Option<Box<dyn Indexer + 'w>>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        matches!(self, Self::Attributes(..)).then_some(self as _)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        matches!(self, Self::Attributes(..)).then_some(self as _)
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(match self {
            Self::Attributes(attributes, _) => Fields::Attributes(attributes, OnceLock::new()),
            Self::Resource(resource) => Fields::Resource(resource),
            Self::Scope(scope) => Fields::Scope(scope),
            Self::Status(span) => Fields::Status(span),
            Self::Span(span) => Fields::Span(span),
            Self::Event(event) => Fields::Event(event),
        })
    }
}

impl Container for Fields<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(key_of(key)?).is_some())
    }
}

impl Indexer for Fields<'_> {
    fn get<'b, 'w>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        self.at(key).map(CowVal::Owned)
    }

    fn steal<'w>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        self.at(key).map(|value| value as Box<dyn Val + 'w>)
    }
}

impl Iterable for Fields<'_> {
    fn iter<'b, 'w>(&'b self) -> Box<dyn Keys<'b, 'w> + 'b>
    where
        Self: 'w,
    {
        let keys: &[CelString<'_>] = match self {
            Self::Attributes(attributes, keys) => keys.get_or_init(|| {
                attributes.iter().map(|(key, _)| CelString::from(&**key)).collect()
            }),
            _ => &[],
        };
        Box::new(Walk(keys.iter()))
    }
}

struct Walk<'b, 'v>(std::slice::Iter<'b, CelString<'v>>);

impl<'b, 'v: 'w, 'w> Keys<'b, 'w> for Walk<'b, 'v> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'w)> {
        self.0.next().map(|key| key as &(dyn Val + 'w))
    }
}

impl Sizer for Fields<'_> {
    fn size(&self) -> CelInt {
        let size = match self {
            Self::Attributes(attributes, _) => attributes.len(),
            _ => 0,
        };
        CelInt::from(i64::try_from(size).unwrap_or(i64::MAX))
    }
}

fn of<'v>(attributes: &'v Attributes) -> Box<dyn Val + 'v> {
    Box::new(Fields::Attributes(attributes, OnceLock::new()))
}

fn text<'v>(text: &'v str) -> Box<dyn Val + 'v> {
    Box::new(CelString::from(text))
}

fn number<'v>(number: u64) -> Box<dyn Val + 'v> {
    Box::new(CelInt::from(number.cast_signed()))
}

/// An id in hex; empty where there is none.
pub fn hex(id: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * id.len());
    if id.iter().any(|&byte| byte != 0) {
        for byte in id {
            // Writing to a text cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
        }
    }
    text
}

fn id<'v>(id: &[u8]) -> Box<dyn Val + 'v> {
    Box::new(CelString::from(hex(id)))
}

/// `StatusCode`'s names.
pub const CODES: [&str; 3] = ["UNSET", "OK", "ERROR"];
/// `SpanKind`'s names.
pub const KINDS: [&str; 6] =
    ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];

fn name_of(names: &[&'static str], number: u32) -> &'static str {
    names.get(number as usize).copied().unwrap_or("UNKNOWN")
}

/// What all items have.
fn common<'v>(name: &str, attributes: &'v Attributes, source: &'v Source) -> Box<dyn Val + 'v> {
    match name {
        "attributes" => of(attributes),
        "resource" => Box::new(Fields::Resource(&source.resource)),
        "scope" => Box::new(Fields::Scope(&source.scope)),
        _ => Box::new(CelNull),
    }
}

impl Subject for Span {
    const VARIABLES: &'static [&'static str] = &[
        "attributes",
        "resource",
        "scope",
        "name",
        "kind",
        "status",
        "trace_id",
        "span_id",
        "parent_span_id",
        "trace_state",
        "start_ns",
        "end_ns",
        "duration_ms",
        "events",
    ];

    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v> {
        match name {
            "name" => text(&self.name),
            "kind" => text(name_of(&KINDS, self.kind)),
            "status" => Box::new(Fields::Status(self)),
            "trace_id" => id(&self.trace_id),
            "span_id" => id(&self.span_id),
            "parent_span_id" => id(&self.parent_span_id),
            "trace_state" => text(&self.trace_state),
            "start_ns" => number(self.start_ns),
            "end_ns" => number(self.end_ns),
            "duration_ms" => Box::new(CelDouble::from(self.duration_ns() as f64 / 1e6)),
            "events" => {
                let events = self.events.iter().map(|event| Box::new(Fields::Event(event)) as _);
                Box::new(CelList::from(events.collect::<Vec<Box<dyn Val + 'v>>>()))
            }
            _ => common(name, &self.attributes, &self.source),
        }
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        tried(&Self::default())
    }
}

/// An event and its span.
#[derive(Clone, Copy, Debug)]
pub struct EventOf<'a>(pub &'a Event, pub &'a Span);

impl Subject for EventOf<'_> {
    const VARIABLES: &'static [&'static str] =
        &["attributes", "resource", "scope", "name", "time_ns", "span"];

    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v> {
        match name {
            "name" => text(&self.0.name),
            "time_ns" => number(self.0.time_ns),
            "span" => Box::new(Fields::Span(self.1)),
            _ => common(name, &self.0.attributes, &self.1.source),
        }
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        static EMPTY: OnceLock<(Event, Span)> = OnceLock::new();
        let (event, span) = EMPTY.get_or_init(Default::default);
        tried(&EventOf(event, span))
    }
}

impl Subject for LogRecord {
    const VARIABLES: &'static [&'static str] = &[
        "attributes",
        "resource",
        "scope",
        "body",
        "severity_number",
        "severity_text",
        "time_ns",
        "observed_ns",
        "event_name",
        "trace_id",
        "span_id",
    ];

    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v> {
        match name {
            "body" => shown(&self.body),
            "severity_number" => number(self.severity.into()),
            "severity_text" => text(&self.severity_text),
            "time_ns" => number(self.time_ns),
            "observed_ns" => number(self.observed_ns),
            "event_name" => text(&self.event_name),
            "trace_id" => id(&self.trace_id),
            "span_id" => id(&self.span_id),
            _ => common(name, &self.attributes, &self.source),
        }
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        tried(&Self::default())
    }
}

#[cfg(test)]
#[path = "expression_tests.rs"]
mod tests;
