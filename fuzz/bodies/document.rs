//! Properties that hold for any bytes as a document.

use ob_confine::cgroup_limits;
use ob_confine::protect::{Protection, ReadOnly};
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::{Cable, Document, one_line, quote, steps};

/// Parses the bytes as a document, and reads all values that the stages read.
pub fn holds(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return assert!(!one_line(&error).contains('\n')),
    };
    let line = document.line();
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
    assert_eq!(Document::parse(&line).unwrap().line(), line);

    // Adding a fact keeps all other keys.
    let mut noted = document.clone();
    noted.set("net", "/run/netns/a");
    let mut taken_back = Document::parse(&noted.line()).unwrap();
    for (key, value) in document.variables().filter(|(key, _)| *key != "net") {
        assert!(noted.variables().any(|other| other == (key, value.clone())));
    }
    taken_back.remove("net");
    if !document.has("net") {
        assert_eq!(taken_back, document);
    }

    for (_, value) in document.environment() {
        assert!(!value.contains('\0'), "an environment cannot hold a NUL");
        assert_eq!(unquoted(&quote(&value)), value);
    }
    read_as_a_stage(&document);
}

/// Computes everything that depends on the document alone, and ignores errors.
fn read_as_a_stage(document: &Document) {
    let _ = (
        UsernsSetting::of(document),
        IdRange::of(document),
        cgroup_limits::of(document),
    );
    let _ = (IdRange::required(document).err(), ReadOnly::of(document));
    for mapped in [false, true] {
        let _ = Protection::of(document, mapped).err();
    }
    let _ = (document.path("LIVE"), document.number("pid"));
    let _ = Cable::of(document);
    for (_, value) in document.environment() {
        let _ = steps::word(&value);
    }
}

/// Returns the word that a shell reads from quoted text; panics unless the text is one word.
fn unquoted(word: &str) -> String {
    let mut text = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(r"\'") {
            text.push('\'');
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('\'').expect("an opening quote");
        let (inner, after) = inner.split_once('\'').expect("a closing quote");
        text.push_str(inner);
        rest = after;
    }
    text
}
