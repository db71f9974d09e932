//! Creates the network namespace of a subhost and its cables.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use ob_cable::TOOL;
use ob_cable::unwire::unwire;
use ob_cable::wire::{describe, wire};
use ob_document::{Document, Tool, Usage, log};
use std::cell::Cell;
use std::process::ExitCode;

fn main() -> ExitCode {
    TOOL.main(run)
}

fn run(tool: &Tool, mut arguments: lexopt::Parser) -> Result<ExitCode> {
    let (mut undo, mut dry) = (false, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('u') | Long("undo") => undo = true,
            Short('n') | Long("dry-run") => dry = true,
            other => return Err(tool.common(&other)),
        }
    }
    if undo && dry {
        bail!(Usage("--dry-run goes alone".to_owned()));
    }
    if dry {
        return ob_document::steps::plan(describe);
    }
    if undo {
        return ob_document::undo_together(tool, unwire);
    }
    let wiring = Cell::new(None);
    ob_document::filter(
        tool,
        |document| {
            wiring.set(Some(wire(document)?));
            log_network(tool, document);
            Ok(())
        },
        |document| {
            let mut wiring = wiring.take().context("there is nothing to undo")?;
            wiring.undo(document)
        },
    )
}

/// Logs the network namespace and the cables.
fn log_network(tool: &Tool, document: &Document) {
    let cables = document.list("cables").unwrap_or_default().join(" ");
    let cables = match cables.as_str() {
        "" => String::new(),
        links => format!(" with {links} on the host"),
    };
    let net = document.text("net").unwrap_or_default();
    log::append(tool, document, &format!("{net} is the network{cables}"));
}
