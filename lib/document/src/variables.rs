//! The variables of a configuration, subhost.conf(5).

use std::path::Path;

/// The form of a value in the document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A text.
    Text,
    /// A path, made absolute against BASE when the configuration is read.
    Path,
    /// A list of words, divided by blanks.
    Words,
    /// A list with one element per assignment. Only this kind may be assigned more than once.
    Lines,
}

/// A configuration variable.
pub struct Variable {
    /// Its name, in capitals.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// Its value if the configuration does not assign it; `None` if it is absent then.
    pub default: Option<&'static str>,
}

/// Returns the remedy for a layer that does not exist: an empty LOWER would be no root.
#[must_use]
pub fn remedy_of_missing(variable: &str, path: &Path) -> String {
    match variable {
        "LOWER" => "set LOWER to a directory that contains a root".to_owned(),
        _ => format!("mkdir {}", path.display()),
    }
}

const fn variable(name: &'static str, kind: Kind, default: Option<&'static str>) -> Variable {
    Variable {
        name,
        kind,
        default,
    }
}

/// The prefix of variables that the project does not use. A configuration may assign any of them,
/// for its hooks and stages. Their values are [`Kind::Text`].
pub const FREE: &str = "X_";

/// All variables, in the order of their evaluation.
///
/// The defaults of NAME and LOG depend on the path of the configuration. BASE has no default.
pub const VARIABLES: &[Variable] = &[
    variable("NAME", Kind::Text, None),
    variable("LOG", Kind::Text, None),
    variable("BASE", Kind::Path, None),
    variable("CABLES", Kind::Words, Some("")),
    variable("LIVE", Kind::Path, Some("live")),
    variable("UPPER", Kind::Path, Some("root")),
    variable("WORK", Kind::Path, Some("work")),
    variable("LOWER", Kind::Path, Some("/")),
    variable("START", Kind::Words, Some("networking ssh")),
    variable("PREMOUNT", Kind::Text, None),
    variable("POSTMOUNT", Kind::Text, None),
    variable("INIT", Kind::Text, None),
    variable("RAM_SIZE", Kind::Text, Some("50M")),
    variable("SHARE", Kind::Lines, None),
    variable("STOP_TIMEOUT", Kind::Text, Some("10")),
    variable("STOP_SIGNAL", Kind::Text, None),
    variable("STOP_COMMAND", Kind::Words, None),
    variable("LOG_MAX", Kind::Text, Some("10M")),
    variable("PROTECT", Kind::Text, None),
    variable("CAPS", Kind::Words, None),
    variable("DROP_CAPS", Kind::Words, None),
    variable("SECCOMP", Kind::Text, None),
    variable("NO_NEW_PRIVS", Kind::Text, None),
    variable("READONLY", Kind::Text, None),
    variable("MASK", Kind::Words, None),
    variable("SHARE_RO", Kind::Lines, None),
    variable("RLIMITS", Kind::Words, None),
    variable("HOSTNAME", Kind::Text, None),
    variable("SETENV", Kind::Lines, None),
    variable("MEMORY_MAX", Kind::Text, None),
    variable("MEMORY_HIGH", Kind::Text, None),
    variable("SWAP_MAX", Kind::Text, None),
    variable("PIDS_MAX", Kind::Text, None),
    variable("CPU_MAX", Kind::Text, None),
    variable("CPU_WEIGHT", Kind::Text, None),
    variable("IO_WEIGHT", Kind::Text, None),
    variable("USERNS", Kind::Text, None),
    variable("PIPELINE", Kind::Words, None),
];
