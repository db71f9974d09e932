//! Taking the cables and the namespaces of subhosts back, of all of them at once.

use crate::TOOL;
use crate::ifupdown;
use crate::links::{Links, Watch};
use crate::namespace::{self, Namespace};
use crate::netlink::Link;
use crate::wire::{trace, trace_unpinned};
use anyhow::{Context, Result, anyhow};
use ob_document::{Document, log};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a namespace that nobody needs any more, before its links are deleted one by one.
const PATIENCE: Duration = Duration::from_millis(300);
/// How many names are taken back at the same time.
const AT_ONCE: usize = 16;
/// How long the `down` commands may take.
const IFDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Takes the names of the subhosts' namespaces back and waits until the cables are gone; an outcome for each. What is not
/// there is no error.
///
/// Needs only NAME. The kernel ends a namespace with all its links much faster than we could delete them, so we let it.
pub fn unwire(documents: &mut [Document]) -> Vec<Result<()>> {
    // Listen before anything is looked for: then no end of a link is missed.
    let (watch, mut host) = match Watch::begin().and_then(|watch| Ok((watch, Links::here()?))) {
        Ok(opened) => opened,
        Err(refusal) => {
            let error =
                |_: &Document| Err(anyhow!(refusal.clone()).context("open a netlink socket"));
            return documents.iter().map(error).collect();
        }
    };
    let mut outcomes: Vec<Result<Vec<Link>>> = Vec::new();
    for document in documents.iter() {
        outcomes.push(links_of(document, &mut host));
    }
    let mut found: Vec<(&Document, &[Link])> = Vec::new();
    for (document, outcome) in documents.iter().zip(&outcomes) {
        found.extend(
            outcome
                .as_ref()
                .ok()
                .map(|links| (document, links.as_slice())),
        );
    }
    bring_down(&found);
    let mut awaited = Vec::new();
    let names: Vec<&str> = documents.iter().map(Document::name).collect();
    let unpinned = unpin_all(&names).into_iter().zip(&mut outcomes);
    for (document, (unpinned, outcome)) in documents.iter().zip(unpinned) {
        if let Err(error) = unpinned {
            *outcome = Err(error);
        } else if let Ok(links) = outcome {
            awaited.extend(links.iter().map(|link| link.index));
            trace_unpinned(document);
        }
    }
    // What is left, or if listening fails, may still be there.
    let _ = watch.wait(&mut host, &mut awaited, PATIENCE);
    let mut finish = |document: &Document, outcome: Result<Vec<Link>>| -> Result<()> {
        for link in outcome? {
            let name = link.name;
            if awaited.contains(&link.index) {
                // Somebody else keeps the namespace alive.
                host.delete(link.index)
                    .with_context(|| format!("delete the link {name}"))?;
                trace(document, &format!("deleted {name}"));
            } else {
                trace(document, &format!("{name} is gone with it"));
            }
        }
        Ok(())
    };
    let outcomes = documents
        .iter_mut()
        .zip(outcomes)
        .map(|(document, outcome)| {
            finish(document, outcome)?;
            document.remove("net");
            document.remove("cables");
            Ok(())
        });
    outcomes.collect()
}

/// Takes all the names back; an outcome for each. For each the kernel waits until all processors have seen it go, but it can wait
/// for many at once.
fn unpin_all(names: &[&str]) -> Vec<Result<()>> {
    let unpin = |names: &[&str]| names.iter().map(|name| namespace::unpin(name)).collect();
    let share = names.len().div_ceil(AT_ONCE).max(AT_ONCE / 2);
    if names.len() <= share {
        return unpin(names);
    }
    // The kernel ends the namespaces that it finds unused in one go, and a go takes long, be it for one or for all: until
    // the last name is gone they are all still in use, by us.
    let _held: Vec<_> = names.iter().map(|name| Namespace::open(name)).collect();
    thread::scope(|scope| {
        let start = |names| scope.spawn(move || -> Vec<Result<()>> { unpin(names) });
        let threads: Vec<_> = names.chunks(share).map(start).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .flat_map(|outcomes| outcomes.expect("a panic aborts"))
            .collect()
    })
}

/// The host's ends of a subhost's cables that are there.
///
/// They are those that ob-cable noted. Without its notes they are found by their names, and are cables of the subhost only
/// if the other end is in its namespace; a link that only happens to be called so is somebody else's.
fn links_of(document: &Document, host: &mut Links) -> Result<Vec<Link>> {
    let name = document.name();
    let mut links = Vec::new();
    if document.has("cables") {
        for cable in document.list("cables")? {
            links.extend(find_pair(host, cable)?);
        }
        return Ok(links);
    }
    let Some(namespace) = Namespace::open(name)? else {
        return Ok(links);
    };
    for number in 0.. {
        match find_pair(host, &format!("{name}{number}"))? {
            Some(link) => links.push(link),
            None => break,
        }
    }
    if !links.is_empty() {
        let id = host
            .namespace_id(namespace.as_fd())
            .context("look for the cables")?;
        links.retain(|link| id.is_some() && link.below_in == id);
    }
    Ok(links)
}

fn find_pair(host: &mut Links, name: &str) -> Result<Option<Link>> {
    let link = host
        .find(name)
        .with_context(|| format!("look for the link {name}"))?;
    Ok(link.filter(|link| link.kind == "veth"))
}

/// Has ifupdown take down what it holds to be up of these links and their VLANs, of all subhosts at once. A failure is told in
/// the log.
pub(crate) fn bring_down(subhosts: &[(&Document, &[Link])]) {
    if subhosts.iter().all(|(_, links)| links.is_empty()) {
        return;
    }
    let state = ifupdown::State::read();
    let up = subhosts.iter().flat_map(|(document, links)| {
        let names = links.iter().flat_map(|link| state.of(&link.name));
        names.map(move |name| (*document, name))
    });
    let is_pair = |name: &str| {
        let mut all = subhosts.iter().flat_map(|(_, links)| *links);
        all.any(|link| link.name == name)
    };
    let (pairs, vlans): (Vec<_>, Vec<_>) = up.partition(|(_, name)| is_pair(name));
    let end = Instant::now() + IFDOWN_PATIENCE;
    for batch in [vlans, pairs] {
        run_ifdown(&batch, end);
    }
}

fn run_ifdown(batch: &[(&Document, &str)], end: Instant) {
    if batch.is_empty() {
        return;
    }
    let Some(ifdown) = ifupdown::ifdown() else {
        return;
    };
    let start = |(document, link): &(&Document, &str)| ifupdown::start(&ifdown, &[link], document);
    // All are started before the first is waited for.
    let children: Vec<_> = batch.iter().map(start).collect();
    for ((document, link), child) in batch.iter().zip(children) {
        match child.and_then(|mut child| ifupdown::wait(&mut child, end)) {
            Ok(status) if status.success() => {
                trace(document, &format!("ran {} {link}", ifdown.display()));
            }
            Ok(status) => log::tell(&TOOL, document, &format!("ifdown {link}: {status}")),
            Err(error) => log::tell(&TOOL, document, &format!("ifdown {link}: {error}")),
        }
    }
}
