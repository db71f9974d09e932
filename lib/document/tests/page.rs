//! The table of variables in subhost.conf(5) lists every variable with its default.

use ob_document::{Kind, VARIABLES};

/// The rows of the table: name, type, default.
fn rows() -> Vec<[String; 3]> {
    let page = include_str!("../../../man/subhost.conf.5");
    let rows = page.lines().filter_map(|line| line.strip_prefix(".It Va "));
    let cells = rows.map(|row| row.split(" Ta ").collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() == 4)
        .map(|cells| [0, 1, 2].map(|cell: usize| cells[cell].trim_matches('"').to_owned()))
        .collect()
}

#[test]
fn table_of_variables_is_complete() {
    let mut listed: Vec<_> = rows().into_iter().map(|[name, ..]| name).collect();
    let mut known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    listed.sort();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[test]
fn table_of_variables_has_types_and_defaults() {
    for [name, kind, default] in rows() {
        let variable = VARIABLES.iter().find(|variable| variable.name == name);
        let variable = variable.expect("a variable");
        assert_eq!(kind == "words", variable.kind == Kind::Words, "{name}");
        assert_eq!(kind == "lines", variable.kind == Kind::Lines, "{name}");
        if let Some(value) = variable.default.filter(|value| !value.is_empty()) {
            assert_eq!(default, value, "{name}");
        }
    }
}
