//! The network namespace of a subhost and its cables: what the tool `ob-cable` is made of.
//!
//! [`netlink`] stands by itself, so that it can be tried with any bytes.
#![forbid(unsafe_code)]

pub mod found;
pub mod ifupdown;
pub mod links;
pub mod namespace;
pub mod netlink;
pub mod steps;
pub mod unwire;
pub mod wire;

use ob_document::Tool;

/// What it is called, and says of itself.
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
