//! Taking the cables and the namespaces of subhosts back, of all of them at once.

use crate::TOOL;
use crate::ifupdown;
use crate::links::{Links, Watch};
use crate::namespace::{self, Namespace};
use crate::netlink::Link;
use crate::wire::{FACTS, trace, trace_unpinned};
use anyhow::{Context, Result, anyhow};
use ob_document::state::StateDir;
use ob_document::{Document, log, netns};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a namespace that nobody needs any more, before its links are deleted one by one.
const PATIENCE: Duration = Duration::from_millis(300);
/// How many names are taken back at the same time.
const AT_ONCE: usize = 16;
/// How long the `down` commands may take.
const IFDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// What is there of a subhost.
#[derive(Default)]
struct Found {
    /// Whether the name of the namespace is to be removed. One that was there before the boot stays.
    unpin: bool,
    /// The cables: pairs whose other end is in the namespace.
    cables: Vec<Link>,
    /// Other pairs that were cables when they were noted. The kernel is about to end them, with a
    /// namespace whose name is gone already, or with one inside that their other end was moved to.
    ending: Vec<Link>,
}

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
    let mut outcomes: Vec<Result<Found>> = Vec::new();
    for document in documents.iter() {
        outcomes.push(look(document, &mut host));
    }
    let mut found: Vec<(&Document, &[Link])> = Vec::new();
    for (document, outcome) in documents.iter().zip(&outcomes) {
        let outcome = outcome.as_ref().ok();
        found.extend(outcome.map(|found| (document, found.cables.as_slice())));
    }
    bring_down(&found);
    unpin_all(documents, &mut outcomes);
    let mut awaited = Vec::new();
    for found in outcomes.iter().flatten() {
        // In a namespace that stays they do not end by themselves.
        let cables = found.cables.iter().filter(|_| found.unpin);
        awaited.extend(cables.chain(&found.ending).map(|link| link.index));
    }
    // What is left, or if listening fails, may still be there.
    let _ = watch.wait(&mut host, &mut awaited, PATIENCE);
    let mut finish = |document: &Document, outcome: Result<Found>| -> Result<()> {
        let found = outcome?;
        for link in found.cables {
            let name = link.name;
            if !found.unpin || awaited.contains(&link.index) {
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
            document.forget(FACTS);
            Ok(())
        });
    outcomes.collect()
}

/// Removes the names that are to be removed; where that fails, this is the outcome.
fn unpin_all(documents: &[Document], outcomes: &mut [Result<Found>]) {
    let both = documents.iter().zip(outcomes);
    let mut unpinned: Vec<_> = both
        .filter(|(_, outcome)| outcome.as_ref().is_ok_and(|found| found.unpin))
        .collect();
    let names: Vec<&str> = unpinned
        .iter()
        .map(|(document, _)| document.name())
        .collect();
    for ((document, outcome), done) in unpinned.iter_mut().zip(unpin(&names)) {
        match done {
            Ok(()) => trace_unpinned(document),
            Err(error) => **outcome = Err(error),
        }
    }
}

/// Takes all the names back; an outcome for each. For each the kernel waits until all processors have seen it go, but it can wait
/// for many at once.
fn unpin(names: &[&str]) -> Vec<Result<()>> {
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

/// Looks for the namespace of a subhost and its cables.
///
/// The facts of the document are hints: a link is a cable of the subhost if its other end is in the
/// namespace of that name, whatever it is called.
fn look(document: &Document, host: &mut Links) -> Result<Found> {
    let name = document.name();
    let state = StateDir::of(name).document().ok().flatten();
    let noted = state.as_ref().unwrap_or(document);
    let mut found = Found {
        unpin: is_ours(noted, state.is_some())?,
        ..Found::default()
    };
    let namespace = Namespace::open(name)?;
    let stays = namespace.is_some() && !found.unpin;
    let mut links = noted_links(noted, stays, state.is_some(), host)?;
    let Some(namespace) = namespace else {
        found.ending = links;
        return Ok(found);
    };
    if found.unpin {
        links.extend(numbered_links(name, cables(noted).len(), host)?);
        links.sort_by_key(|link| link.index);
        links.dedup_by_key(|link| link.index);
    }
    if !links.is_empty() {
        let id = host
            .namespace_id(namespace.as_fd())
            .context("look for the cables")?;
        let is_inside = |link: &Link| id.is_some() && link.below_in == id;
        (found.cables, found.ending) = links.into_iter().partition(is_inside);
    }
    Ok(found)
}

/// Whether the namespace was made for the subhost: since its guard has looked, or as its mark shows.
fn is_ours(noted: &Document, is_state: bool) -> Result<bool> {
    let since_guard = is_state && noted.has("guard");
    Ok(!noted.has("netfound") && (since_guard || netns::is_made(noted.name())?))
}

/// The names of the cables that are noted. If they are no names, NAME must do.
fn cables(noted: &Document) -> Vec<&str> {
    noted.list("cables").unwrap_or_default()
}

/// The pairs that are noted. In a namespace that `stays` there may be others of such names: there a
/// cable must have the index that is noted with it. A state file without indexes has the names of links
/// that were not there before the boot.
fn noted_links(
    noted: &Document,
    stays: bool,
    is_state: bool,
    host: &mut Links,
) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    let mut indexes = noted.numbers("ifindex");
    for cable in cables(noted) {
        let link = find_pair(host, cable)?;
        let index = indexes.next().and_then(|index| i32::try_from(index).ok());
        let is_new = is_state && !noted.has("ifindex") && is_numbered(cable, noted.name());
        links.extend(link.filter(|link| !stays || is_new || index == Some(link.index)));
    }
    Ok(links)
}

/// Whether a link is called as a cable of `name` is.
fn is_numbered(link: &str, name: &str) -> bool {
    let number = link.strip_prefix(name).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The pairs that are called as the cables of a subhost are: as many as are noted, or as there are.
fn numbered_links(name: &str, noted: usize, host: &mut Links) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for number in 0.. {
        match find_pair(host, &format!("{name}{number}"))? {
            Some(link) => links.push(link),
            None if number < noted => {}
            None => break,
        }
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
            Ok(status) => log::append(&TOOL, document, &format!("ifdown {link}: {status}")),
            Err(error) => log::append(&TOOL, document, &format!("ifdown {link}: {error}")),
        }
    }
}
