//! Makes the network namespace of a subhost and its cables.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use lexopt::prelude::*;
use ob_cable::unwire::unwire;
use ob_cable::wire::wire;
use ob_conf::Tool;
use std::cell::Cell;
use std::process::ExitCode;

const TOOL: Tool = Tool {
    name: "ob-cable",
    help: "\
Usage: ob-cable [--undo]

Reads the document of a subhost, ob-document(5), makes the network namespace
/run/netns/NAME and the cables that CABLES asks for, and prints the document
with the facts net and cables.

  -u, --undo      take them back, for each of the documents on stdin; of these
                  only NAME is needed
  -h, --help      print this
  -V, --version   print the version

Examples:
  ob-conf mta.conf | ob-mount | ob-cable | ob-unshare
  echo '{\"NAME\":\"lab\",\"CABLES\":[\"br0=\"]}' | ob-cable
",
    failed: 1,
};

fn main() -> ExitCode {
    TOOL.main(run)
}

fn run(tool: &Tool, mut arguments: lexopt::Parser) -> Result<ExitCode> {
    let mut undo = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('u') | Long("undo") => undo = true,
            other => return Err(tool.common(&other)),
        }
    }
    if undo {
        return ob_conf::undo_together(tool, unwire);
    }
    let wiring = Cell::new(None);
    ob_conf::filter(
        tool,
        |document| {
            wiring.set(Some(wire(document)?));
            Ok(())
        },
        |document| {
            let mut wiring = wiring.take().context("nothing has been made")?;
            wiring.take_back(document)
        },
    )
}
