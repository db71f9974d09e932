//! Values that are written to a configuration or a document are read back unchanged by the library,
//! the tool and a shell.

use ob_conf::conf::Conf;
use ob_conf::evaluation::Evaluation;
use ob_document::{Document, Kind, VARIABLES, steps};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..Default::default()
    }
}

/// Returns texts with any character but NUL, which an environment cannot hold, often with
/// characters that are special in a shell, in JSON or on a terminal.
fn text() -> impl Strategy<Value = String> {
    let special = "'\"\\$`!#~*?[]{}();&|<>=%- \t\r\n\u{1b}\u{7f}\u{81}é\u{2028}\u{feff}𝄞";
    let special: Vec<char> = special.chars().collect();
    let character =
        prop_oneof![3 => prop::sample::select(special), 1 => any::<char>(), 1 => Just('a')];
    prop::collection::vec(character, 0..12)
        .prop_map(|text| text.into_iter().filter(|c| *c != '\0').collect())
}

/// Returns valid values of an assignment: one line that does not begin with `!` or end with a
/// blank.
fn value() -> impl Strategy<Value = String> {
    text().prop_map(|text| {
        let line: String = text.chars().filter(|c| *c != '\n').collect();
        line.trim_start_matches('!').trim_end().to_owned()
    })
}

/// The style of an assignment: blanks around the value, and backslashes where they are necessary or
/// harmless.
#[derive(Clone, Debug)]
struct Style {
    before: &'static str,
    after: &'static str,
    escaped: Vec<bool>,
    remark: &'static str,
}

fn style() -> impl Strategy<Value = Style> {
    let before = prop::sample::select(vec!["", " ", "\t ", "  "]);
    let after = prop::sample::select(vec!["", " ", "\t", "\r", " \r"]);
    let remarks = [
        "",
        "# a remark\n",
        "\n",
        " INIT=indented\n",
        "export INIT=exported\n",
        "INIT =a blank\n",
        "OTHER=unknown\n",
    ];
    let remark = prop::sample::select(remarks.to_vec());
    let escaped = prop::collection::vec(prop::bool::weighted(0.2), 12);
    (before, after, escaped, remark).prop_map(|(before, after, escaped, remark)| Style {
        before,
        after,
        escaped,
        remark,
    })
}

fn assignment(name: &str, value: &str, style: &Style) -> String {
    let mut line = format!("{}{name}={}", style.remark, style.before);
    for (index, character) in value.chars().enumerate() {
        let is_first_blank = index == 0 && character.is_whitespace();
        if character == '\\' || is_first_blank || style.escaped.get(index) == Some(&true) {
            line.push('\\');
        }
        line.push(character);
    }
    line + style.after + "\n"
}

fn conf(text: &str) -> Conf {
    Conf::parse(Path::new("/mta.conf"), text.as_bytes()).unwrap()
}

proptest! {
    #![proptest_config(cases(300))]

    /// The first of two assignments takes effect; for a list, each of them.
    #[test]
    fn written_configuration_is_read_back_unchanged(
        hooks in prop::collection::vec((value(), style(), value()), 3),
        environment in prop::collection::vec((value(), style()), 0..3),
        start in value(),
        ends in any::<bool>(),
    ) {
        let mut text = "BASE=.\n".to_owned();
        let names = ["PREMOUNT", "POSTMOUNT", "INIT"];
        for (name, (value, style, later)) in names.iter().zip(&hooks) {
            text += &assignment(name, value, style);
            text += &format!("{name}={later}\n");
        }
        for (value, style) in &environment {
            text += &assignment("SETENV", &format!("X={value}"), style);
        }
        let start = start.trim_start_matches(|c: char| c == '!' || c.is_whitespace());
        text += &format!("START={}", start.replace('\\', r"\\"));
        if ends {
            text += "\n";
        }
        let document = Evaluation::new(&conf(&text), &[], &[]).document().unwrap();
        for (name, (value, ..)) in names.iter().zip(&hooks) {
            prop_assert_eq!(document.optional(name).unwrap_or_default(), value);
        }
        let values = environment.iter().map(|(value, _)| format!("X={value}"));
        let values: Vec<String> = values.collect();
        prop_assert_eq!(document.list("SETENV").unwrap(), values);
        // An empty value is the default.
        let mut words: Vec<&str> = start.split_whitespace().collect();
        if start.is_empty() {
            words = vec!["networking", "ssh"];
        }
        prop_assert_eq!(document.list("START").unwrap(), words);
    }
}

/// Returns JSON values of some depth.
fn fact() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns documents with values of known and unknown variables, and with facts.
fn document() -> impl Strategy<Value = Document> {
    let known = VARIABLES[1..].iter();
    let known: Vec<_> = known
        .map(|variable| (variable.name, variable.kind))
        .collect();
    let known = prop::sample::select(known).prop_flat_map(|(name, kind)| {
        let value = match kind {
            Kind::Text | Kind::Path => text().prop_map(Value::from).boxed(),
            Kind::Words | Kind::Lines => prop::collection::vec(text(), 0..4)
                .prop_map(Value::from)
                .boxed(),
        };
        (Just(name.to_owned()), value)
    });
    let unknown = ("X_[A-Z0-9_]{1,6}", text().prop_map(Value::from));
    let fact = ("[a-z][^A-Z]{0,6}", fact());
    let entry = prop_oneof![known, unknown, fact];
    prop::collection::vec(entry, 0..8).prop_map(|entries| {
        let mut document = Document::new("mta").unwrap();
        for (key, value) in entries {
            document.set(&key, value);
        }
        document
    })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn written_document_is_read_back_unchanged(document in document()) {
        let line = document.line();
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        let read = Document::parse(&line).unwrap();
        prop_assert_eq!(read.line(), line);
        prop_assert_eq!(read, document);
    }
}

/// Runs a shell with `input` on stdin and the path of ob-conf in `$OB_CONF`. Returns its output.
fn shell(line: &str, arguments: &[&str], input: &str) -> String {
    let mut shell = Command::new("/bin/sh")
        .args(["-euc", line, "sh"])
        .args(arguments)
        .env("OB_CONF", env!("CARGO_BIN_EXE_ob-conf"))
        .env(
            "FUNCTIONS",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/functions"),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut stdin = shell.stdin.take().expect("it is a pipe");
    stdin.write_all(input.as_bytes()).expect("its input");
    drop(stdin);
    let output = shell.wait_with_output().expect("its output");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the words, each with a NUL appended.
fn ended(words: &[String]) -> String {
    words.iter().map(|word| format!("{word}\0")).collect()
}

/// Returns the document `mta` with `values` as X0, X1 and so on.
fn numbered(values: &[String]) -> Document {
    let mut document = Document::new("mta").unwrap();
    for (index, value) in values.iter().enumerate() {
        document.set(&format!("X{index}"), value.as_str());
    }
    document
}

proptest! {
    #![proptest_config(cases(30))]

    /// A shell must not execute a value, or a key that is not the name of a shell variable.
    #[test]
    fn shell_reads_every_value_of_option_env(values in prop::collection::vec(text(), 20)) {
        let mut document = numbered(&values);
        document.set("X; echo run; X", json!(["'; echo run; '"]));
        document.set("fact'", "'; echo run; '");
        let names: Vec<String> = (0..values.len()).map(|index| format!("\"$X{index}\"")).collect();
        let line = format!(
            r#"vars=$("$OB_CONF" --env -); eval "$vars"; printf '%s\0' {}"#,
            names.join(" ")
        );
        prop_assert_eq!(shell(&line, &[], &document.line()), ended(&values));
    }

    /// The command after `--` has the variables in its environment.
    #[test]
    fn command_gets_every_value_in_its_environment(values in prop::collection::vec(text(), 20)) {
        let names: Vec<String> = (0..values.len()).map(|index| format!("\"$X{index}\"")).collect();
        let print = format!(r"printf '%s\0' {}", names.join(" "));
        let line = r#"exec "$OB_CONF" - -- /bin/sh -c "$1""#;
        prop_assert_eq!(shell(line, &[&print], &numbered(&values).line()), ended(&values));
    }

    /// The printed steps of a dry run are valid shell commands.
    #[test]
    fn quoted_step_is_split_into_its_words(words in prop::collection::vec(text(), 1..20)) {
        let step = steps::command(words.iter().map(String::as_str));
        prop_assert_eq!(shell(&format!(r"printf '%s\0' {step}"), &[], ""), ended(&words));
    }

    /// A shell script can be a stage.
    #[test]
    fn new_fact_does_not_change_the_document(document in document(), note in text()) {
        let line = r#"exec "$OB_CONF" - X_NOTE="$1" noted="$1""#;
        let noted = shell(line, &[&note], &document.line());
        let mut expected = document.clone();
        expected.set("X_NOTE", note.as_str());
        // A fact that is valid JSON is added as JSON.
        let fact = serde_json::from_str(&note).unwrap_or(Value::from(note));
        expected.set("noted", fact);
        prop_assert_eq!(noted, expected.line());
    }

    /// The shell functions for hooks parse a configuration with sed(1).
    #[test]
    fn hook_with_functions_reads_the_same_values(
        values in prop::collection::vec((value(), style()), 8),
    ) {
        let numbered = values.iter().enumerate();
        let named: Vec<_> =
            numbered.map(|(index, entry)| (format!("X{index}"), entry)).collect();
        let lines = named.iter().map(|(name, (value, style))| assignment(name, value, style));
        let text: String = lines.collect();
        let conf = conf(&text);
        let read: Vec<String> = named
            .iter()
            .map(|(name, _)| conf.assigned(name).map(|assigned| assigned.value()))
            .map(Option::unwrap_or_default)
            .collect();
        let file = std::env::temp_dir().join(format!("ob-conf-properties-{}", std::process::id()));
        std::fs::write(&file, &text).unwrap();
        let line = r#"
            export CONFIG="$1"; shift; . "$FUNCTIONS"
            for name; do config "$name"; done | tr '\n' '\0'
        "#;
        let names = named.iter().map(|(name, _)| name.as_str());
        let arguments: Vec<&str> = [file.to_str().unwrap()].into_iter().chain(names).collect();
        let printed = shell(line, &arguments, "");
        std::fs::remove_file(&file).unwrap();
        prop_assert_eq!(printed, ended(&read));
    }
}
