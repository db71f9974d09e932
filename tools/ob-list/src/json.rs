//! The output of `--json`. Keys may be added, but are never renamed.

use crate::detail::Detail;
use crate::subhost::Subhost;
use serde_json::{Map, Value, json};

/// Returns a JSON array, with each object on one line.
pub fn array(subhosts: &[Subhost]) -> String {
    let objects: Vec<String> = subhosts
        .iter()
        .map(|subhost| object(subhost).to_string())
        .collect();
    format!("[{}]\n", objects.join(",\n"))
}

fn object(subhost: &Subhost) -> Value {
    let document = &subhost.document;
    let text = |key| document.optional(key);
    let list = |key| document.list(key).unwrap_or_default();
    let number = |key| document.number(key).ok();
    let mut object = json!({
        "name": document.name(),
        "state": subhost.state.word(),
        "pid": number("pid"),
        "pidns": number("pidns"),
        "uptime_seconds": subhost.uptime.map(|uptime| uptime.as_secs()),
        "netns": text("net"),
        "cables": list("CABLES"),
        "links": list("cables"),
        "conf": text("CONFIG"),
        "log": text("LOG"),
        "base": text("BASE"),
        "root": text("root"),
        "upper": text("UPPER"),
        "cgroup": text("cgroup"),
    });
    if let (Some(detail), Value::Object(object)) = (&subhost.detail, &mut object) {
        object.append(&mut details(detail));
    }
    object
}

fn details(detail: &Detail) -> Map<String, Value> {
    let addresses = detail.addresses.iter().map(|address| {
        json!({
            "interface": address.interface,
            "address": address.ip.to_string(),
            "prefix": address.prefix,
        })
    });
    let mut details = Map::new();
    let mut add = |key: &str, value: Value| details.insert(key.to_owned(), value);
    add("memory_bytes", detail.memory.into());
    add(
        "cpu_seconds",
        detail.cpu.map(|time| time.as_secs_f64()).into(),
    );
    add("tasks", detail.tasks.into());
    add("upper_bytes", detail.upper.map(|upper| upper.bytes).into());
    add("upper_files", detail.upper.map(|upper| upper.files).into());
    add("addresses", addresses.collect());
    details
}
