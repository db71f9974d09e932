//! Parses the values of the variables that protect a subhost.

use anyhow::{Context, Result, bail, ensure};
use ob_document::Document;
use std::path::PathBuf;

/// The value of PROTECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    No,
    Yes,
    /// Like `Yes`, with a user namespace, see [`crate::userns::UsernsSetting::of`].
    Strict,
}

/// Whether PROTECT is set to another level than `no`.
///
/// # Errors
/// PROTECT is invalid.
pub fn is_protected(document: &Document) -> Result<bool> {
    let level = document.optional("PROTECT");
    Ok(level.map_or(Ok(Level::No), parse_level)? != Level::No)
}

pub(super) fn parse_level(value: &str) -> Result<Level> {
    match value {
        "no" => Ok(Level::No),
        "yes" => Ok(Level::Yes),
        "strict" => Ok(Level::Strict),
        other => bail!("PROTECT={other} is none of no, yes, strict"),
    }
}

/// The value of READONLY.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOnly {
    /// The root is writable.
    No,
    /// The root is read-only.
    Yes,
    /// The root is writable, and the changes are lost when the subhost ends.
    Volatile,
}

impl ReadOnly {
    /// Returns the setting of the document.
    ///
    /// # Errors
    /// READONLY is invalid.
    pub fn of(document: &Document) -> Result<Self> {
        let value = document.optional("READONLY");
        value.map_or(Ok(ReadOnly::No), ReadOnly::parse)
    }

    pub(super) fn parse(value: &str) -> Result<Self> {
        match value {
            "no" => Ok(ReadOnly::No),
            "yes" => Ok(ReadOnly::Yes),
            "volatile" => Ok(ReadOnly::Volatile),
            other => bail!("READONLY={other} is none of no, yes, volatile"),
        }
    }
}

pub(super) fn yes_or_no(value: &str) -> Result<bool> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => bail!("'{other}' is neither yes nor no"),
    }
}

pub(super) fn paths(document: &Document, key: &str) -> Result<Vec<PathBuf>> {
    let paths = document.list(key)?.into_iter().map(absolute);
    paths.collect::<Result<_>>().context(key.to_owned())
}

pub(super) fn absolute(path: &str) -> Result<PathBuf> {
    ensure!(
        path.starts_with('/'),
        "{path} is not an absolute path inside the subhost"
    );
    Ok(path.into())
}

pub(super) fn hostname(name: &str) -> Result<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    ensure!(
        name.len() <= 64 && name.chars().all(fits) && !name.starts_with(['-', '.']),
        "HOSTNAME={name} is not a valid host name"
    );
    Ok(name.to_owned())
}

/// Parses `VAR=value`.
pub(super) fn assignment(line: &str) -> Result<(String, String)> {
    let (name, value) = line
        .split_once('=')
        .with_context(|| format!("'{line}' is not of the form VAR=value"))?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    ensure!(
        !name.is_empty()
            && name.chars().all(word)
            && !name.starts_with(|c: char| c.is_ascii_digit()),
        "'{name}' is not a valid variable name"
    );
    Ok((name.to_owned(), value.to_owned()))
}
