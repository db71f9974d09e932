//! Removes the cables and the network namespaces of subhosts, all at the same time.

use crate::ifupdown;
use crate::links::{Links, Watch};
use crate::namespace::{self, Namespace};
use crate::netlink::Link;
use crate::{FACTS, trace, trace_unpinned};
use anyhow::{Context, Result, anyhow};
use ob_document::state::StateDir;
use ob_document::{Document, netns};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

/// How long the kernel may take to remove an unused namespace; then its links are deleted one by
/// one.
const REMOVAL_TIMEOUT: Duration = Duration::from_millis(300);
/// The largest number of threads that unmount names.
const THREADS: usize = 16;

/// The links and the namespace that a subhost has.
#[derive(Default)]
struct Found {
    /// Whether to remove the name of the namespace: not if the namespace existed before the boot.
    unpin: bool,
    /// The cables: pairs whose other end is in the namespace.
    cables: Vec<Link>,
    /// Other pairs that were noted as cables. The kernel will remove them with a namespace: one
    /// whose name is gone, or one inside the subhost that their other end was moved to.
    ending: Vec<Link>,
}

/// Removes the namespaces and the cables of the subhosts; returns one result for each.
///
/// Needs only NAME. An object that does not exist is no error. The kernel removes a namespace with
/// all its links much faster than a process can delete them one by one, so the function removes the
/// names and waits.
pub fn unwire(documents: &mut [Document]) -> Vec<Result<()>> {
    // Subscribed before the first look, so that no removal of a link is missed.
    let (watch, mut host) = match Watch::begin().and_then(|watch| Ok((watch, Links::here()?))) {
        Ok(opened) => opened,
        Err(refusal) => {
            let error =
                |_: &Document| Err(anyhow!(refusal.clone()).context("open a netlink socket"));
            return documents.iter().map(error).collect();
        }
    };
    let look = |document: &Document| look(document, &mut host);
    let mut outcomes: Vec<Result<Found>> = documents.iter().map(look).collect();
    let mut found: Vec<(&Document, &[Link])> = Vec::new();
    for (document, outcome) in documents.iter().zip(&outcomes) {
        let outcome = outcome.as_ref().ok();
        found.extend(outcome.map(|found| (document, found.cables.as_slice())));
    }
    ifupdown::bring_down(&found);
    unpin_all(documents, &mut outcomes);
    let left = wait_for_removal(&watch, &mut host, outcomes.iter().flatten());
    let both = documents.iter_mut().zip(outcomes);
    both.map(|(document, outcome)| {
        delete_cables(document, outcome?, &left, &mut host)?;
        document.forget(FACTS);
        Ok(())
    })
    .collect()
}

/// Waits until the kernel has removed the links that go with their namespaces, for at most
/// [`REMOVAL_TIMEOUT`]. Returns the indexes of the links that may still exist.
fn wait_for_removal<'a>(
    watch: &Watch,
    host: &mut Links,
    subhosts: impl Iterator<Item = &'a Found>,
) -> Vec<i32> {
    let mut awaited = Vec::new();
    for found in subhosts {
        // The kernel does not remove the links of a namespace that stays.
        let cables = found.cables.iter().filter(|_| found.unpin);
        awaited.extend(cables.chain(&found.ending).map(|link| link.index));
    }
    // After an error, `awaited` still has the links that may exist.
    let _ = watch.wait(host, &mut awaited, REMOVAL_TIMEOUT);
    awaited
}

/// Deletes the cables that the kernel has not removed with their namespace.
fn delete_cables(document: &Document, found: Found, left: &[i32], host: &mut Links) -> Result<()> {
    for link in found.cables {
        let name = link.name;
        // A process or a descriptor outside of the subhost can keep the namespace.
        if !found.unpin || left.contains(&link.index) {
            host.delete(link.index)
                .with_context(|| format!("delete the link {name}"))?;
            trace(document, &format!("deleted {name}"));
        } else {
            trace(document, &format!("{name} is gone with it"));
        }
    }
    Ok(())
}

/// Removes the names of the namespaces that do not stay. A failure becomes the outcome of the
/// subhost.
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

/// Removes the names, and returns one result for each. Threads do it at the same time: each
/// umount(2) waits for an RCU grace period (`namespace_unlock`), and the kernel can wait for many
/// at once.
fn unpin(names: &[&str]) -> Vec<Result<()>> {
    let unpin = |names: &[&str]| names.iter().map(|name| namespace::unpin(name)).collect();
    let share = names.len().div_ceil(THREADS).max(THREADS / 2);
    if names.len() <= share {
        return unpin(names);
    }
    // The kernel removes all unused namespaces in one batch (`cleanup_net`), and a batch takes
    // long, for one namespace or for all: descriptors keep them in use until the last name is gone.
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
/// The facts of the document are hints: a link with any name is a cable of the subhost if its other
/// end is in the namespace of that name.
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

/// Whether the namespace was created for the subhost: after the guard looked, or with the mark of
/// [`netns::is_made`].
fn is_ours(noted: &Document, is_state: bool) -> Result<bool> {
    let since_guard = is_state && noted.has("guard");
    Ok(!noted.has("netfound") && (since_guard || netns::is_made(noted.name())?))
}

/// Returns the names of the cables in the document; none if the fact is invalid.
fn cables(noted: &Document) -> Vec<&str> {
    noted.list("cables").unwrap_or_default()
}

/// Finds the pairs that the document notes. If the namespace `stays`, other links can have such
/// names: then a cable must have the noted index. A state file without indexes has the names of
/// links that did not exist before the boot.
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

/// Whether `link` is `name` and a number, as the name of a cable is.
fn is_numbered(link: &str, name: &str) -> bool {
    let number = link.strip_prefix(name).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Finds the pairs NAME0, NAME1, …: up to the first that is missing, but at least `noted` names.
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
