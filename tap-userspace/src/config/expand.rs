//! `${env:NAME}`, `${env:NAME:-default}`, `${NAME}`, `${file:PATH}` and `$$` in values of the file, as
//! the Collector's confmap has them (its `expand.go` and providers). Comes in: a tree; goes out: the
//! same with all of them replaced, and warnings of variables that are not set.
//!
//! A value that is nothing but one `${…}` becomes what that holds: a number, true or false, a list, a
//! map; where text is wanted, the very text. Among other text it is text. What comes in is looked at
//! again, innermost first. An unset variable is nothing, so its key is as if it were not there.
//! Files are not trimmed: a header's value with a line end is refused as it would be there.

use std::{path::PathBuf, rc::Rc};

use super::{
    load,
    place::{Mistake, Step},
    tree::{self, Content, DEPTH_MAX, NODES_MAX, Node, Place, Scalar},
};

/// Most `${…}` of a file, those in what they hold counted too. The Collector's limit is as high.
const EXPANSIONS_MAX: usize = 1000;
/// Most bytes that come in altogether.
const BYTES_MAX: usize = 4 << 20;
/// Longest text that has a `${…}` in it.
const TEXT_MAX: usize = 64 << 10;

/// Where values come from.
pub trait Values {
    /// A variable of the environment; what is no UTF-8 is an error.
    fn variable(&self, name: &str) -> Result<Option<String>, String>;
    /// The text of a file.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// The environment and the files of this process.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Values for Process {
    fn variable(&self, name: &str) -> Result<Option<String>, String> {
        let value = std::env::var_os(name).map(|value| value.into_string());
        value.transpose().map_err(|_| format!("the variable {name} is no UTF-8"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        load::read_text(path.as_ref()).map_err(|error| format!("{path}: {error}"))
    }
}

/// What was found on the way.
#[derive(Debug, Default)]
pub struct Found {
    /// Variables that are not set.
    pub warnings: Vec<Mistake>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
}

/// Replaces every `${…}` of a tree.
pub fn expand(root: &mut Node, values: &dyn Values) -> Result<Found, Mistake> {
    let mut expander = Expander {
        values,
        expansions: EXPANSIONS_MAX,
        bytes: BYTES_MAX,
        nodes: NODES_MAX,
        path: Vec::new(),
        found: Found::default(),
    };
    expander.node(root, 1)?;
    Ok(expander.found)
}

struct Expander<'a> {
    values: &'a dyn Values,
    /// How many there may still be.
    expansions: usize,
    /// How much may still come in.
    bytes: usize,
    /// How many values may still come in.
    nodes: usize,
    path: Vec<Step>,
    found: Found,
}

impl Expander<'_> {
    fn node(&mut self, node: &mut Node, depth: usize) -> Result<(), Mistake> {
        if depth > DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} lists and maps within one another");
            return Err(self.wrong(node.place, why));
        }
        match &mut node.content {
            Content::Scalar { text, .. } if !text.contains('$') => Ok(()),
            Content::Scalar { .. } => self.scalar(node, depth),
            Content::List(list) => {
                for (index, value) in list.iter_mut().enumerate() {
                    self.path.push(index.into());
                    self.node(value, depth + 1)?;
                    self.path.pop();
                }
                Ok(())
            }
            Content::Map(pairs) => {
                for (key, value) in pairs {
                    self.path.push(key.text().unwrap_or_default().into());
                    self.node(value, depth + 1)?;
                    self.path.pop();
                }
                Ok(())
            }
        }
    }

    /// A scalar with a dollar sign.
    fn scalar(&mut self, node: &mut Node, depth: usize) -> Result<(), Mistake> {
        let Content::Scalar { text, plain } = &mut node.content else { return Ok(()) };
        let place = node.place;
        let (mut value, mut is_plain) = (std::mem::take(text), *plain);
        let mut written = None;
        while let Some((from, to)) = find(&value) {
            if value.len() > TEXT_MAX {
                let why = format!("a text with `${{…}}` of more than {} KiB", TEXT_MAX >> 10);
                return Err(self.wrong(place, why));
            }
            let written = written.get_or_insert_with(|| value.clone());
            let came = self.value_of(&value[from + 2..to - 1], place)?;
            if (from, to) != (0, value.len()) {
                let came = came.unwrap_or_default();
                value.replace_range(from..to, &came);
                is_plain = false;
                continue;
            }
            let Some(came) = came else {
                node.content = Content::Scalar { text: String::new(), plain: true };
                node.expanded = expanded(written, None);
                return Ok(());
            };
            // A default of nothing is a text of no letters.
            let text = came.is_empty() && value.ends_with(":-}");
            let other = if text { None } else { self.parse(&came, place)? };
            let Some(other) = other else {
                (value, is_plain) = (came, false);
                continue;
            };
            let within = expanded(written, None);
            let written = written.clone();
            let mut other = placed(other, place, &within);
            self.node(&mut other, depth)?;
            let original = self.original(came, place)?;
            other.expanded = expanded(&written, original);
            *node = other;
            return Ok(());
        }
        let value = value.replace("$$", "$");
        node.content = Content::Scalar { text: value, plain: is_plain };
        node.expanded = written.and_then(|written| expanded(&written, None));
        Ok(())
    }

    /// What came in, where it is other than text.
    fn parse(&mut self, text: &str, place: Place) -> Result<Option<Node>, Mistake> {
        let Ok(node) = tree::parse(text) else { return Ok(None) };
        match node.scalar() {
            Some(Scalar::Text(_)) => return Ok(None),
            None if text.trim().is_empty() => {
                let nothing = Content::Scalar { text: String::new(), plain: true };
                return Ok(Some(Node { content: nothing, ..node }));
            }
            _ => {}
        }
        let size = count(&node);
        match self.nodes.checked_sub(size) {
            Some(left) => self.nodes = left,
            None => return Err(self.wrong(place, format!("more than {NODES_MAX} values come in"))),
        }
        Ok(Some(node))
    }

    /// A value as text, what is in it replaced; nothing if that cannot be.
    fn original(&mut self, mut text: String, place: Place) -> Result<Option<String>, Mistake> {
        while let Some((from, to)) = find(&text) {
            if text.len() > TEXT_MAX {
                return Ok(None);
            }
            let before = self.found.warnings.len();
            let came = match self.value_of(&text[from + 2..to - 1], place) {
                Ok(came) => came,
                Err(_) if self.expansions > 0 => return Ok(None),
                Err(mistake) => return Err(mistake),
            };
            // They have been told.
            self.found.warnings.truncate(before);
            text.replace_range(from..to, &came.unwrap_or_default());
        }
        Ok(Some(text.replace("$$", "$")))
    }

    /// What the inside of a `${…}` stands for; nothing for a variable that is not set.
    fn value_of(&mut self, inside: &str, place: Place) -> Result<Option<String>, Mistake> {
        self.expansions = match self.expansions.checked_sub(1) {
            Some(left) => left,
            None => {
                let why =
                    format!("more than {EXPANSIONS_MAX} `${{…}}`; does one of them hold itself?");
                return Err(self.wrong(place, why));
            }
        };
        let (scheme, rest) = inside.split_once(':').unwrap_or(("env", inside));
        if rest.contains('$') {
            let why = format!("`${{{inside}}}`: there can be no `$` in it");
            return Err(self.wrong(place, why));
        }
        let came = match scheme {
            "env" => self.variable(rest, place)?,
            "file" => {
                self.found.files.push(rest.into());
                let text = self.values.file(rest);
                Some(text.map_err(|why| self.wrong(place, format!("`${{{inside}}}`: {why}")))?)
            }
            other => {
                let why = format!(
                    "`${{{inside}}}`: tap knows no `{other}`: write ${{env:NAME}}, \
                     ${{env:NAME:-default}} or ${{file:/path}}; a dollar sign itself is `$$`"
                );
                return Err(self.wrong(place, why));
            }
        };
        let length = came.as_ref().map_or(0, String::len);
        self.bytes = match self.bytes.checked_sub(length) {
            Some(left) => left,
            None => {
                let why = format!("`${{…}}` bring in more than {} MiB", BYTES_MAX >> 20);
                return Err(self.wrong(place, why));
            }
        };
        Ok(came)
    }

    fn variable(&mut self, rest: &str, place: Place) -> Result<Option<String>, Mistake> {
        let (name, default) = match rest.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (rest, None),
        };
        let mut letters = name.bytes();
        let first = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !first || !letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let why = format!(
                "`{name}` is no name of a variable: it has letters, digits and `_`; a dollar sign \
                 itself is `$$`"
            );
            return Err(self.wrong(place, why));
        }
        let value = self.values.variable(name).map_err(|why| self.wrong(place, why))?;
        if value.is_none() && default.is_none() {
            let why = format!("the variable {name} is not set: the value is empty");
            let warning = self.wrong(place, why);
            self.found.warnings.push(warning);
        }
        Ok(value.or_else(|| default.map(str::to_owned)))
    }

    fn wrong(&self, place: Place, why: impl Into<String>) -> Mistake {
        Mistake::at(&self.path, [] as [Step; 0], why).placed(place)
    }
}

fn expanded(written: &str, original: Option<String>) -> Option<Rc<tree::Expanded>> {
    Some(Rc::new(tree::Expanded { written: written.to_owned(), original }))
}

/// A tree whose parts are all at one place.
fn placed(node: Node, place: Place, expanded: &Option<Rc<tree::Expanded>>) -> Node {
    let content = match node.content {
        Content::List(list) => {
            Content::List(list.into_iter().map(|node| placed(node, place, expanded)).collect())
        }
        Content::Map(pairs) => Content::Map(
            pairs
                .into_iter()
                .map(|(key, value)| (Node { place, ..key }, placed(value, place, expanded)))
                .collect(),
        ),
        scalar @ Content::Scalar { .. } => scalar,
    };
    Node { place, content, expanded: expanded.clone() }
}

/// Values of a tree.
fn count(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar { .. } => 0,
        Content::List(list) => list.iter().map(count).sum(),
        Content::Map(pairs) => pairs.iter().map(|(_, value)| 1 + count(value)).sum(),
    }
}

/// The first `${…}` whose inside holds no other and whose dollar sign is not one of a pair: from the
/// dollar sign to behind the bracket.
fn find(text: &str) -> Option<(usize, usize)> {
    let mut searched = 0;
    while let Some(end) = text[searched..].find('}') {
        let end = searched + end;
        if let Some(begin) = text[searched..end].rfind("${") {
            let begin = searched + begin;
            let before = text.as_bytes()[..begin].iter().rev();
            if before.take_while(|byte| **byte == b'$').count() % 2 == 0 {
                return Some((begin, end + 1));
            }
        }
        searched = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(Vec<(&'static str, &'static str)>);

    impl Values for Given {
        fn variable(&self, name: &str) -> Result<Option<String>, String> {
            let found = self.0.iter().find(|(known, _)| *known == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        }

        fn file(&self, path: &str) -> Result<String, String> {
            self.variable(path)?.ok_or_else(|| "not there".to_owned())
        }
    }

    /// As JSON, typed, with what a text would be behind a bar where that is other.
    fn shown(node: &Node) -> String {
        let value = match (&node.content, node.scalar()) {
            (_, Some(Scalar::Text(text))) => format!("{text:?}"),
            (_, Some(Scalar::Null)) => "null".to_owned(),
            (Content::Scalar { text, .. }, _) => text.clone(),
            (Content::List(list), _) => {
                format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(","))
            }
            (Content::Map(pairs), _) => {
                let pair = |(key, value): &(Node, Node)| {
                    format!("{}:{}", key.text().unwrap(), shown(value))
                };
                format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(","))
            }
        };
        match node.expanded.as_ref().and_then(|it| it.original.as_ref()) {
            Some(original) if *original != value => format!("{value}|{original}"),
            _ => value,
        }
    }

    fn of(value: &str, values: Vec<(&'static str, &'static str)>) -> Result<String, String> {
        let mut tree = tree::parse(&format!("k: {value}\n")).unwrap();
        expand(&mut tree, &Given(values)).map_err(|mistake| mistake.to_string())?;
        let Content::Map(pairs) = &tree.content else { panic!() };
        Ok(shown(&pairs[0].1))
    }

    /// The cases of the Collector's own test of a default scheme (confmap/internal/e2e,
    /// `expand-escaped-env.yaml`).
    #[test]
    fn the_collectors_cases_hold() {
        let values = || {
            vec![
                ("ENV_VALUE", "some expanded value"),
                ("ENV_LIST", "['$$ESCAPE_ME','$${ESCAPE_ME}','$${env:ESCAPE_ME}']"),
                ("ENV_MAP", "{'key1':'$$ESCAPE_ME','key2':'$${ESCAPE_ME}'}"),
                ("ENV_NESTED_DOLLARSIGN", "here is 1 $$"),
                ("ENV_NESTED_DOLLARSIGN_ESCAPED", "here are 2 $$$"),
                ("ENV_EXPAND_NESTED", "${env:ENV_VALUE} came from nested expansion"),
            ]
        };
        for (value, expected) in [
            ("$$ENV_VALUE", "$ENV_VALUE"),
            ("$$$$ENV_VALUE", "$$ENV_VALUE"),
            ("$$${ENV_VALUE}", "$some expanded value"),
            ("some${ENV_VALUE}text", "somesome expanded valuetext"),
            ("some$${ENV_VALUE}text", "some${ENV_VALUE}text"),
            ("$${ONE}$${TWO}", "${ONE}${TWO}"),
            ("text$$", "text$"),
            ("$$", "$"),
            ("$${1}$${env:2}", "${1}${env:2}"),
            ("some$${env:ENV_VALUE}text", "some${env:ENV_VALUE}text"),
            ("$${env:${ENV_VALUE}}", "${env:some expanded value}"),
            ("$${env:$${ENV_VALUE}}", "${env:${ENV_VALUE}}"),
            ("env:MAP_VALUE_2}$${ENV_VALUE}{", "env:MAP_VALUE_2}${ENV_VALUE}{"),
            ("$$${env:ENV_VALUE}", "$some expanded value"),
            ("$ENV_VALUE", "$ENV_VALUE"),
            ("${env:ENV_NESTED_DOLLARSIGN}", "here is 1 $"),
            ("${env:ENV_NESTED_DOLLARSIGN_ESCAPED}", "here are 2 $$"),
            ("${env:ENV_EXPAND_NESTED}", "some expanded value came from nested expansion"),
            ("${env:UNDEFINED_KEY:-default_value}", "default_value"),
            (
                "${env:UNDEFINED_KEY:-$${env:UNDEFINED_KEY}}",
                "${env:UNDEFINED_KEY:-${env:UNDEFINED_KEY}}",
            ),
        ] {
            let quoted = format!("'{value}'");
            assert_eq!(of(&quoted, values()), Ok(format!("{expected:?}")), "{value}");
        }
        let list = r#"["$ESCAPE_ME","${ESCAPE_ME}","${env:ESCAPE_ME}"]"#;
        assert!(of("${env:ENV_LIST}", values()).unwrap().starts_with(list));
        let map = r#"{key1:"$ESCAPE_ME",key2:"${ESCAPE_ME}"}"#;
        assert!(of("${env:ENV_MAP}", values()).unwrap().starts_with(map));
    }

    /// Of the Collector's `TestStrictTypeCasting`: value of the variable, what it is.
    #[test]
    fn types_are_those_of_the_value() {
        for (value, expected) in [
            ("123", "123"),
            ("0xdeadbeef", "0xdeadbeef"),
            ("\"0123\"", r#""\"0123\"""#),
            ("!!str 0123", r#""!!str 0123""#),
            ("t", "\"t\""),
            // A map to YAML, and text where text is wanted.
            (
                "1111:1111:1111:1111:1111::",
                "{1111:1111:1111:1111:1111::null}|1111:1111:1111:1111:1111::",
            ),
            ("[\"a\",", r#""[\"a\",""#),
            ("true", "true"),
            ("true # a comment", "true|true # a comment"),
            (
                "['filelog','${env:OTHER}']",
                r#"["filelog","testreceiver"]|['filelog','testreceiver']"#,
            ),
            // A bracket opens a map there, so it is no YAML, and text.
            ("[filelog,${env:OTHER}]", r#""[filelog,testreceiver]""#),
            (r#"["filelog","$${OTHER}"]"#, r#"["filelog","${OTHER}"]"#),
            ("abc\n", r#""abc\n""#),
            ("", "null|"),
        ] {
            let values = || vec![("ENV", value), ("OTHER", "testreceiver"), ("/f", value)];
            for written in ["${env:ENV}", "${ENV}", "\"${env:ENV}\"", "${file:/f}"] {
                assert_eq!(of(written, values()).as_deref(), Ok(expected), "{value} {written}");
            }
        }
        let values = || vec![("N", "8080"), ("M", "{a: 1}")];
        assert_eq!(of("'host:${env:N}'", values()).as_deref(), Ok("\"host:8080\""));
        assert_eq!(of("80${env:N}", values()).as_deref(), Ok("\"808080\""));
        assert_eq!(of("'x${env:M}'", values()).as_deref(), Ok("\"x{a: 1}\""));
        assert_eq!(of("'$${N} ${N}'", values()).as_deref(), Ok("\"${N} 8080\""));
    }

    #[test]
    fn what_is_not_there() {
        let none = Vec::new;
        assert_eq!(of("${env:NO}", none()).as_deref(), Ok("null"));
        assert_eq!(of("x${env:NO}y", none()).as_deref(), Ok("\"xy\""));
        assert_eq!(of("'${env:NO:-}'", none()).as_deref(), Ok("\"\""));
        assert_eq!(of("${env:NO:-7}", none()).as_deref(), Ok("7"));
        let mut tree = tree::parse("a:\n  b: ${env:NO}\n").unwrap();
        let found = expand(&mut tree, &Given(none())).unwrap();
        assert_eq!(found.warnings.len(), 1);
        let warning = found.warnings[0].to_string();
        assert!(warning.starts_with("2:6: a.b: the variable NO is not set"), "{warning}");
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_place() {
        for (value, values, words) in [
            ("${env:}", vec![], "no name of a variable"),
            ("${env:a.b}", vec![], "no name of a variable"),
            ("${http://x}", vec![], "tap knows no `http`"),
            ("${NAME:-x}", vec![], "tap knows no `NAME`"),
            ("${file:/none}", vec![], "`${file:/none}`: not there"),
            ("${env:A$B}", vec![], "no `$` in it"),
            ("${env:A}", vec![("A", "${env:A}")], "hold itself"),
            ("x${env:A}", vec![("A", "x${env:A}")], "more than"),
            ("x${env:A}", vec![("A", "${env:A}${env:A}")], "more than"),
            ("${env:A}", vec![("A", "[ '${env:A}' ]")], "within one another"),
        ] {
            let mistake = of(value, values).unwrap_err();
            assert!(mistake.starts_with("1:4: k") && mistake.contains(words), "{value} {mistake}");
        }
    }
}
