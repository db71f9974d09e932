//! The value of PIPELINE: stages, each a program and its arguments, separated by `|`.

use crate::conf::normal;
use anyhow::{Error, Result};
use ob_document::Hook;
use std::path::{Path, PathBuf};

/// The word that separates two stages.
const BAR: &str = "|";

/// A problem of the value.
pub(crate) struct Fault {
    /// The number of the word, from 0; the number of words if a text is missing after the last.
    pub(crate) word: usize,
    pub(crate) text: String,
}

/// Returns the words of `value`, the paths of programs made absolute against `directory`, that of
/// the configuration. Fails at the first problem.
pub(crate) fn resolve(value: &str, directory: &Path) -> Result<Vec<String>> {
    let words: Vec<&str> = value.split_whitespace().collect();
    if let Some(fault) = fault(&words, directory) {
        return Err(Error::msg(fault.text).context("PIPELINE"));
    }
    let resolved = words.iter().enumerate().map(|(index, word)| {
        let is_path = is_program(&words, index) && word.contains('/');
        is_path
            .then(|| normal(directory, word).to_str().map(str::to_owned))
            .flatten()
            .unwrap_or_else(|| (*word).to_owned())
    });
    Ok(resolved.collect())
}

/// Returns the first problem: an empty stage, or a program that does not exist.
pub(crate) fn fault(words: &[&str], directory: &Path) -> Option<Fault> {
    let fault = |word, text| Some(Fault { word, text });
    for (index, word) in words.iter().enumerate() {
        let is_first = is_program(words, index);
        if *word == BAR && is_first {
            return fault(
                index,
                "a stage is empty; write PROGRAM | PROGRAM".to_owned(),
            );
        }
        if *word != BAR && word.contains(BAR) {
            return fault(index, format!("write blanks around the | of '{word}'"));
        }
        if is_first && Hook::new(word, directory).program().is_none() {
            return fault(index, missing(word, directory));
        }
    }
    let is_open = words.last().is_none_or(|word| *word == BAR);
    is_open.then(|| Fault {
        word: words.len(),
        text: "the last stage is empty; write ob-unshare".to_owned(),
    })
}

/// Returns the files of the programs that exist.
pub(crate) fn programs(value: &str, directory: &Path) -> Vec<PathBuf> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let first = (0..words.len()).filter(|index| is_program(&words, *index));
    first
        .filter_map(|index| Hook::new(words[index], directory).program())
        .collect()
}

/// Returns whether the word with this number is the first of a stage.
fn is_program(words: &[&str], index: usize) -> bool {
    index == 0 || words[index - 1] == BAR
}

fn missing(word: &str, directory: &Path) -> String {
    if word.contains('/') {
        let path = normal(directory, word);
        return format!("'{}' is not an executable file", path.display());
    }
    if directory.join(word).is_file() {
        return format!(
            "'{word}' is not on PATH; write ./{word} for the file beside the configuration"
        );
    }
    format!("'{word}' is not on PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipeline_is_resolved_or_refused() {
        let bin = Path::new("/bin");
        let resolved = resolve(" sh -c ./x |  ../bin/./sh 'a  b'\t| /bin/sh", bin).unwrap();
        let words = [
            "sh",
            "-c",
            "./x",
            "|",
            "/bin/../bin/sh",
            "'a",
            "b'",
            "|",
            "/bin/sh",
        ];
        assert_eq!(resolved, words);
        for (value, word, text) in [
            ("", 0, "last stage is empty"),
            ("| sh", 0, "a stage is empty"),
            ("sh | | sh", 2, "a stage is empty"),
            ("sh x |", 3, "last stage is empty"),
            ("sh|sh", 0, "blanks around the |"),
            ("sh || sh", 1, "blanks around the |"),
            ("sh | no-such x", 2, "'no-such' is not on PATH"),
            (
                "sh | ./no-such",
                2,
                "'/bin/no-such' is not an executable file",
            ),
            ("s*", 0, "'s*' is not on PATH"),
        ] {
            let words: Vec<&str> = value.split_whitespace().collect();
            let fault = fault(&words, bin).unwrap();
            assert_eq!(fault.word, word, "{value}");
            assert!(fault.text.contains(text), "{value}: {}", fault.text);
            assert!(resolve(value, bin).is_err());
        }
    }
}
