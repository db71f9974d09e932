//! The network namespace of a subhost and its cables: the modules of the tool `ob-cable`.
//!
//! [`netlink`] makes no system calls, so that a test can pass it arbitrary bytes.
#![forbid(unsafe_code)]

pub mod found;
pub mod ifupdown;
pub mod links;
pub mod mac;
pub mod namespace;
pub mod netlink;
mod plan;
pub mod unwire;
pub mod wire;

use ob_document::{Document, Tool, log, netns};

/// The name and the help text.
pub const TOOL: Tool = Tool {
    name: "ob-cable",
    help: "\
Usage: ob-cable [--undo|--dry-run]

A stage: reads a document, ob-document(5), creates the network namespace
/run/netns/NAME and the cables of CABLES, and prints the document with the facts
net and cables.

  -u, --undo      remove them, for every document on stdin (only NAME is used)
  -n, --dry-run   create nothing; check, and add the commands as the fact steps
  -h, --help      print this
  -V, --version   print the version

Examples:
  ob-conf mta.conf | ob-mount | ob-cable | ob-unshare
  echo '{\"NAME\":\"lab\",\"CABLES\":[\"br0=\"]}' | ob-cable
",
    failed: 1,
};

/// The facts that this stage sets.
pub(crate) const FACTS: &[&str] = &["net", "netfound", "cables", "ifindex"];

/// Logs `text` if TRACE is set.
pub(crate) fn trace(document: &Document, text: &str) {
    log::trace(&TOOL, document, text);
}

/// Logs the removal of the namespace from /run/netns if TRACE is set.
pub(crate) fn trace_unpinned(document: &Document) {
    let path = netns::path(document.name());
    trace(document, &format!("removed {}", path.display()));
}
