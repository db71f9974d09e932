//! The document of a subhost, ob-document(5): one line of JSON with the plan (keys in capitals) and
//! the facts that the stages have added so far (keys in lower case).

use crate::{FREE, Kind, VARIABLES, Variable};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The fact that marks the document of a dry run: the commands of the steps. No stage has created
/// anything that such a document describes.
pub const STEPS: &str = "steps";

/// Returns the fact `confid` of a configuration file with the given status: `DEV:INO`.
#[must_use]
pub fn confid(status: &Metadata) -> String {
    format!("{}:{}", status.dev(), status.ino())
}

/// The plan and the facts of one subhost, passed from stage to stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Document(Map<String, Value>);

impl Document {
    /// Creates a document with only a NAME. Fails if `name` is invalid, see [`Document::name`].
    pub fn new(name: &str) -> Result<Self> {
        let mut document = Document(Map::new());
        document.set("NAME", name);
        document.check_name()?;
        Ok(document)
    }

    /// Parses one line with one JSON object.
    ///
    /// Fails with the reason if the input is not JSON, is truncated, has more than one line, has a
    /// plan value that is neither a text nor a list of texts, or lacks a valid NAME.
    pub fn parse(input: &str) -> Result<Self> {
        let line = input.strip_suffix('\n').unwrap_or(input);
        ensure!(
            !line.contains('\n'),
            "the input has more than one line; a document is one line"
        );
        let value: Value = serde_json::from_str(line).context("the input is no document")?;
        let Value::Object(map) = value else {
            bail!("the input is no document: it is not a JSON object");
        };
        for (key, value) in &map {
            let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.contains('\0'));
            let plain = match value {
                Value::Array(list) => list.iter().all(is_text),
                value => is_text(value),
            };
            ensure!(
                plain || !is_plan(key),
                "in the document, {key} is {value}; it must be a text or a list of texts"
            );
        }
        let document = Document(map);
        for variable in VARIABLES {
            let Some(value) = document.0.get(variable.name) else {
                continue;
            };
            ensure!(
                value.is_array() == matches!(variable.kind, Kind::Words | Kind::Lines),
                "in the document, {} is {value}; it must be a {}",
                variable.name,
                if value.is_array() {
                    "text"
                } else {
                    "list of texts"
                }
            );
        }
        document.check_name()?;
        Ok(document)
    }

    fn check_name(&self) -> Result<()> {
        let name = self.text("NAME")?;
        ensure!(!name.is_empty(), "NAME is empty");
        ensure!(
            !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
                && !name.starts_with(['.', '-'])
                && name.len() <= 64,
            "NAME={name} cannot be a name: it must have no blank and no '/', begin with neither \
                 '.' nor '-', and be no longer than 64"
        );
        Ok(())
    }

    /// Returns the name of the subhost, which is a valid file name.
    ///
    /// A name has 1 to 64 bytes, no `/`, no white space and no control character, and begins with
    /// neither `.` nor `-`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0
            .get("NAME")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Returns the text `key`. Fails if the key is missing or its value is not a text.
    pub fn text(&self, key: &str) -> Result<&str> {
        match self.0.get(key) {
            Some(Value::String(text)) => Ok(text),
            None => bail!("the document has no {key}"),
            Some(other) => bail!("in the document, {key} is {other}; it must be a text"),
        }
    }

    /// Returns the text `key`; `None` if it is missing or empty.
    #[must_use]
    pub fn optional(&self, key: &str) -> Option<&str> {
        self.text(key).ok().filter(|text| !text.is_empty())
    }

    /// Returns the text `key`; its default from [`VARIABLES`] if it is missing or empty.
    ///
    /// The result is empty for a variable without a default. Only a [`Kind::Text`] has one that is
    /// valid in a document: ob-conf prepends BASE to the default of a [`Kind::Path`].
    #[must_use]
    pub fn value_or_default(&self, key: &str) -> &str {
        let default = || {
            VARIABLES
                .iter()
                .find(|variable| variable.name == key)?
                .default
        };
        self.optional(key).or_else(default).unwrap_or_default()
    }

    /// Returns the path `key`. Fails if it is missing or relative: ob-conf prepends BASE to a
    /// relative path, so a stage never needs a directory to resolve one.
    pub fn path(&self, key: &str) -> Result<&Path> {
        let path = Path::new(self.text(key)?);
        ensure!(
            path.is_absolute(),
            "{key}={} is not an absolute path",
            path.display()
        );
        Ok(path)
    }

    /// Returns the list `key`; an empty one if the key is missing. Fails for another type.
    pub fn list(&self, key: &str) -> Result<Vec<&str>> {
        match self.0.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .map(|element| {
                    element.as_str().with_context(|| {
                        format!("in the document, {key} holds {element}, which is no text")
                    })
                })
                .collect(),
            Some(other) => bail!("in the document, {key} is {other}; it must be a list of texts"),
        }
    }

    /// Returns the number `key`. Fails if it is missing, negative or not a whole number.
    pub fn number(&self, key: &str) -> Result<u64> {
        self.0
            .get(key)
            .and_then(Value::as_u64)
            .with_context(|| format!("the document has no number {key}"))
    }

    /// Returns the numbers of the list `key`, up to the first element of another type.
    pub fn numbers(&self, key: &str) -> impl Iterator<Item = u64> {
        let list = self.0.get(key).and_then(Value::as_array);
        list.into_iter().flatten().map_while(Value::as_u64)
    }

    /// Returns whether the document has the key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Adds or replaces the value of `key`.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Removes `key`, if the document has it.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Removes each of `keys`.
    pub fn forget(&mut self, keys: &[&str]) {
        for key in keys {
            self.0.remove(*key);
        }
    }

    /// Copies the values of `keys` from `other`, and removes the keys that `other` lacks.
    pub fn take_over(&mut self, other: &Document, keys: &[&str]) {
        self.forget(keys);
        for key in keys {
            if let Some(value) = other.0.get(*key) {
                self.0.insert((*key).to_owned(), value.clone());
            }
        }
    }

    /// Removes all keys but these.
    pub fn retain(&mut self, keys: &[String]) {
        self.0.retain(|key, _| keys.contains(key));
    }

    /// Returns each key with its value as a shell or a hook gets it: words joined by blanks, lines
    /// by newlines.
    pub fn variables(&self) -> impl Iterator<Item = (&str, String)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), plain(key, value)))
    }

    /// Like [`Document::variables`], for the plan alone: the environment of a hook.
    pub fn environment(&self) -> impl Iterator<Item = (&str, String)> {
        self.variables().filter(|(key, _)| is_plan(key))
    }

    /// Returns the document as one line of JSON that ends with a newline.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = Value::Object(self.0.clone()).to_string();
        line.push('\n');
        line
    }
}

/// Returns whether `key` belongs to the plan: a capital, then capitals, digits and underscores;
/// after [`FREE`] small letters too.
pub fn is_plan(key: &str) -> bool {
    let is_free = key.starts_with(FREE);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    key.starts_with(|c: char| c.is_ascii_uppercase())
        && key
            .chars()
            .all(|c| is_word(c) && (is_free || !c.is_ascii_lowercase()))
}

/// Returns a value as a shell or a hook gets it.
fn plain(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            let is_lines =
                |variable: &Variable| variable.name == key && variable.kind == Kind::Lines;
            let lines = key == STEPS || VARIABLES.iter().any(is_lines);
            words.join(if lines { "\n" } else { " " })
        }
        other => other.to_string(),
    }
}

/// Quotes `text` as one word for a POSIX shell.
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_document_is_refused_with_the_reason() {
        for (input, reason) in [
            ("{", "EOF while parsing"),
            ("[1]\n", "not a JSON object"),
            ("{\"NAME\":\"a\"}\n{\"NAME\":\"b\"}\n", "more than one line"),
            ("{\"NAME\":\"a\",\"LIVE\":7}", "must be a text"),
            ("{\"NAME\":\"a\",\"X\":\"\\u0000\"}", "must be a text"),
            ("{\"NAME\":\"a\",\"X\":[\"\\u0000\"]}", "must be a text"),
            ("{\"NAME\":\"a\",\"CABLES\":\"=\"}", "must be a list"),
            ("{\"NAME\":\"a\",\"LIVE\":[\"x\"]}", "must be a text"),
            ("{\"LIVE\":\"/x\"}", "has no NAME"),
            ("{\"NAME\":\"a/b\"}", "cannot be a name"),
            ("{\"NAME\":\"a b\"}", "cannot be a name"),
            ("{\"NAME\":\"\"}", "NAME is empty"),
        ] {
            let error = format!("{:#}", Document::parse(input).unwrap_err());
            assert!(error.contains(reason), "{input}: {error}");
        }
    }

    #[test]
    fn unknown_keys_are_kept_and_plan_comes_first() {
        let line = "{\"NAME\":\"a\",\"X_NEW\":\"1\",\"zz\":{\"k\":[1]}}\n";
        let mut document = Document::parse(line).unwrap();
        document.set("net", "/run/netns/a");
        assert_eq!(
            document.line(),
            "{\"NAME\":\"a\",\"X_NEW\":\"1\",\"net\":\"/run/netns/a\",\"zz\":{\"k\":[1]}}\n"
        );
    }

    #[test]
    fn numbers_keep_every_digit() {
        let line = "{\"NAME\":\"a\",\"big\":123456789012345678901234567890,\
                    \"far\":9.999999999999999e+129,\"pid\":7}\n";
        let document = Document::parse(line).unwrap();
        assert_eq!(document.line(), line);
        assert_eq!(document.number("pid").unwrap(), 7);
        assert!(document.number("far").is_err());
    }

    #[test]
    fn missing_or_empty_value_is_the_default() {
        let mut document = Document::new("a").unwrap();
        assert_eq!(document.value_or_default("RAM_SIZE"), "50M");
        document.set("RAM_SIZE", "");
        assert_eq!(document.value_or_default("RAM_SIZE"), "50M");
        document.set("RAM_SIZE", "1G");
        assert_eq!(document.value_or_default("RAM_SIZE"), "1G");
        assert_eq!(document.value_or_default("INIT"), "");
        assert_eq!(document.value_or_default("X_OTHER"), "");
    }

    #[test]
    fn shell_text_keeps_every_byte() {
        assert_eq!(
            quote("a'b$(c)\n"),
            r"'a'\''b$(c)
'"
        );
    }
}
