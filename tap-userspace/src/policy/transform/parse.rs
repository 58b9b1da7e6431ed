//! The form of a statement. Comes in: its text; goes out: its parts, or where it is wrong and what was due there.
//!
//! ```text
//! statement = name "(" [ argument { "," argument } ] ")" [ "where" condition ]
//! argument  = [ name "=" ] expression
//! path      = name { "." name } { "[" text-or-number "]" }
//! ```
//!
//! An expression ends at a comma, or at the closing bracket, that stands in no quotes and no brackets.

use super::words::quoted;

/// Longest statement, in bytes.
pub const STATEMENT_MAX: usize = 4096;
/// Most arguments.
const ARGUMENTS_MAX: usize = 8;

/// What is wrong with a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something else was due.
    #[error("`{statement}`: {due} is due at character {at}, {found}")]
    Due {
        /// The statement.
        statement: String,
        /// What was due.
        due: String,
        /// Where, from 1 on.
        at: usize,
        /// What stands there.
        found: String,
    },
    /// It is too long.
    #[error("a statement has at most {STATEMENT_MAX} bytes")]
    Long,
    /// It has too many arguments.
    #[error("`{0}`: a function has at most {ARGUMENTS_MAX} arguments")]
    Arguments(String),
}

/// The parts of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The function.
    pub name: &'a str,
    /// Names, where they have one, and texts of its arguments.
    pub arguments: Vec<(Option<&'a str>, &'a str)>,
    /// What is behind `where`.
    pub condition: Option<&'a str>,
}

/// One walk over a statement.
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn due<T>(&self, due: &str) -> Result<T, Error> {
        let statement = self.text.to_owned();
        let at = self.text.get(..self.at).unwrap_or_default().chars().count() + 1;
        let found = match self.rest().chars().next() {
            Some(character) => format!("not `{character}`"),
            None => "but it ends there".to_owned(),
        };
        Err(Error::Due { statement, due: due.to_owned(), at, found })
    }

    /// A name: letters, digits and `_`.
    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let len = rest
            .find(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
            .unwrap_or(rest.len());
        let name = rest.get(..len).filter(|name| !name.is_empty())?;
        self.at += len;
        Some(name)
    }

    fn takes(&mut self, character: char) -> bool {
        let takes = self.rest().starts_with(character);
        self.at += if takes { character.len_utf8() } else { 0 };
        takes
    }

    /// Up to a comma or a closing bracket that belongs to nothing before it.
    fn expression(&mut self) -> Result<&'a str, Error> {
        let begin = self.at;
        let mut open = Vec::new();
        while let Some(character) = self.rest().chars().next() {
            match character {
                '"' | '\'' => {
                    let len = quoted(self.rest());
                    let quotes = self.rest().get(..len).unwrap_or_default();
                    self.at += len;
                    if len < 2 || !quotes.ends_with(character) {
                        return self.due("a closing quote");
                    }
                    continue;
                }
                '(' => open.push(')'),
                '[' => open.push(']'),
                '{' => open.push('}'),
                ',' | ')' if open.is_empty() => break,
                ')' | ']' | '}' => match open.pop() {
                    Some(due) if due == character => {}
                    Some(due) => return self.due(&format!("`{due}`")),
                    None => return self.due("`,` or `)`"),
                },
                _ => {}
            }
            self.at += character.len_utf8();
        }
        if let Some(due) = open.pop() {
            return self.due(&format!("`{due}`"));
        }
        let found = self.text.get(begin..self.at).unwrap_or_default().trim();
        if found.is_empty() { self.due("an argument") } else { Ok(found) }
    }
}

/// Reads a statement.
pub fn statement(text: &str) -> Result<Parts<'_>, Error> {
    if text.len() > STATEMENT_MAX {
        return Err(Error::Long);
    }
    let mut walk = Walk { text, at: 0 };
    walk.blanks();
    let Some(name) = walk.name() else { return walk.due("the name of a function") };
    walk.blanks();
    if !walk.takes('(') {
        return walk.due("`(`");
    }
    let mut arguments = Vec::new();
    walk.blanks();
    if !walk.takes(')') {
        loop {
            walk.blanks();
            arguments.push((argument_name(&mut walk), walk.expression()?));
            if arguments.len() > ARGUMENTS_MAX {
                return Err(Error::Arguments(name.to_owned()));
            }
            if walk.takes(')') {
                break;
            }
            if !walk.takes(',') {
                return walk.due("`,` or `)`");
            }
        }
    }
    walk.blanks();
    if walk.rest().is_empty() {
        return Ok(Parts { name, arguments, condition: None });
    }
    let at = walk.at;
    if walk.name() != Some("where") {
        walk.at = at;
        return walk.due("`where`, or nothing,");
    }
    walk.blanks();
    let condition = walk.rest().trim_end();
    if condition.is_empty() {
        return walk.due("a condition");
    }
    Ok(Parts { name, arguments, condition: Some(condition) })
}

/// The name of an argument, if it has one: `depth=2`.
fn argument_name<'a>(walk: &mut Walk<'a>) -> Option<&'a str> {
    let at = walk.at;
    let name = walk.name();
    walk.blanks();
    let rest = walk.rest();
    if name.is_some() && rest.starts_with('=') && !rest.starts_with("==") {
        walk.at += 1;
        walk.blanks();
        return name;
    }
    walk.at = at;
    None
}

/// A step of a path into values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Of a map.
    Key(String),
    /// Of a list.
    Index(usize),
}

/// Reads a path: its names, and the expressions in its square brackets.
pub fn path(text: &str) -> Result<(&str, Vec<&str>), Error> {
    let mut walk = Walk { text, at: 0 };
    loop {
        if walk.name().is_none() {
            return walk.due("a path, as attributes[\"key\"] or name,");
        }
        if !walk.takes('.') {
            break;
        }
    }
    let root = text.get(..walk.at).unwrap_or_default();
    let mut steps = Vec::new();
    loop {
        walk.blanks();
        if walk.rest().is_empty() {
            return Ok((root, steps));
        }
        if !walk.takes('[') {
            return walk.due("`[`, or the end of the path,");
        }
        let begin = walk.at;
        while !walk.rest().is_empty() && !walk.rest().starts_with(']') {
            match walk.rest().chars().next() {
                Some('"' | '\'') => walk.at += quoted(walk.rest()),
                Some(character) => walk.at += character.len_utf8(),
                None => {}
            }
        }
        let step = text.get(begin..walk.at).unwrap_or_default().trim();
        if !walk.takes(']') {
            return walk.due("`]`");
        }
        if step.is_empty() {
            walk.at = begin;
            return walk.due("a text or a number");
        }
        steps.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_parts() {
        for (text, name, arguments, condition) in [
            ("set(name, \"x\")", "set", &[(None, "name"), (None, "\"x\"")][..], None),
            (
                " set ( attributes[\"a,)\"] , f(1, [2, 3]) ) where  name == \"where\" ",
                "set",
                &[(None, "attributes[\"a,)\"]"), (None, "f(1, [2, 3])")],
                Some("name == \"where\""),
            ),
            (
                "flatten(attributes, depth = 2)",
                "flatten",
                &[(None, "attributes"), (Some("depth"), "2")],
                None,
            ),
            ("set(a, b == c)", "set", &[(None, "a"), (None, "b == c")], None),
            ("f()", "f", &[], None),
            ("f('it\\'s')", "f", &[(None, "'it\\'s'")], None),
        ] {
            let parts = statement(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                (parts.name, &*parts.arguments, parts.condition),
                (name, arguments, condition)
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            ("", "the name of a function is due at character 1, but it ends there"),
            ("set", "`(` is due at character 4, but it ends there"),
            ("set name", "`(` is due at character 5, not `n`"),
            ("set(", "an argument is due at character 5, but it ends there"),
            ("set(a,)", "an argument is due at character 7, not `)`"),
            ("set(a, \"x)", "a closing quote is due at character 11, but it ends there"),
            ("set(a[1, b)", "`]` is due at character 11, not `)`"),
            ("set(a, b]", "`,` or `)` is due at character 9, not `]`"),
            ("set(a, b", "`,` or `)` is due at character 9, but it ends there"),
            ("set(é, b) if x", "`where`, or nothing, is due at character 11, not `i`"),
            ("set(a, b) where", "a condition is due at character 16, but it ends there"),
            (&"x".repeat(5000), "at most 4096 bytes"),
            ("f(1,2,3,4,5,6,7,8,9)", "at most 8 arguments"),
        ] {
            let error = statement(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        for (text, told) in [
            ("[", "a path, as attributes[\"key\"] or name, is due at character 1"),
            ("a.", "a path, as attributes[\"key\"] or name, is due at character 3"),
            ("a[1", "`]` is due at character 4"),
            ("a[]", "a text or a number is due at character 3"),
            ("a + b", "`[`, or the end of the path, is due at character 3"),
        ] {
            let error = path(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!(path("a.b[\"]\"] [0]"), Ok(("a.b", vec!["\"]\"", "0"])));
    }
}
