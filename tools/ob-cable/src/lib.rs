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

Reads the document of a subhost, ob-document(5), makes the network namespace
/run/netns/NAME and the cables that CABLES asks for, and prints the document
with the facts net and cables.

  -u, --undo      take them back, for each of the documents on stdin; of these
                  only NAME is needed
  -n, --dry-run   make nothing: check, and tell the commands as the fact steps
  -h, --help      print this
  -V, --version   print the version

Examples:
  ob-conf mta.conf | ob-mount | ob-cable | ob-unshare
  echo '{\"NAME\":\"lab\",\"CABLES\":[\"br0=\"]}' | ob-cable
",
    failed: 1,
};
