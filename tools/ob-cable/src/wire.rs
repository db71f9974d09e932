//! Creates the network namespace and the cables of one subhost, all of them or none.

use crate::found::Found;
use crate::ifupdown;
use crate::links::{Links, Pair, Watch};
use crate::namespace::{self, Namespace};
use crate::netlink::Refusal;
use crate::plan::{Operation, Plan};
use crate::{FACTS, trace, trace_unpinned};
use anyhow::{Context, Error, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::libc;
use ob_confine::userns::UsernsSetting;
use ob_document::state::{self, StateDir};
use ob_document::steps::leave_to;
use ob_document::{Cable, Document, netns};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long the kernel may take to remove a link of the last subhost of this name after its stop.
const STALE_LINK_TIMEOUT: Duration = Duration::from_secs(2);

/// The namespace and the cables of a subhost.
pub struct Wiring {
    plan: Plan,
    host: Links,
    inside: Links,
    namespace: Namespace,
    /// Set if the namespace existed before the boot.
    found: Option<Found>,
    /// The pairs that were created, for an undo.
    made: Vec<String>,
}

/// Creates the namespace and the cables of a subhost, and sets the facts of the document.
///
/// # Errors
/// CABLES is invalid, or a step fails; the function has then undone the steps before it.
pub fn wire(document: &mut Document) -> Result<Wiring> {
    document.forget(FACTS);
    let mut host = Links::here().context("open a netlink socket")?;
    let plan = Plan::of(document, &mut host)?;
    let mut wiring = Wiring::begin(plan, host)?;
    if let Err(error) = wiring.perform_all(document) {
        return Err(match wiring.undo(document) {
            Ok(()) => error,
            Err(again) => error.context(format!("undo: {again:#}; before that")),
        });
    }
    set_facts(document, &wiring.plan);
    if wiring.found.is_some() {
        document.set("netfound", true);
    }
    Ok(wiring)
}

/// Checks the plan, and lists the commands of a dry run. Sets the facts as [`wire`] would.
///
/// # Errors
/// The plan is invalid, or a bridge does not exist.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    document.forget(FACTS);
    let mut host = Links::here().context("open a netlink socket")?;
    let plan = Plan::of(document, &mut host)?;
    set_facts(document, &plan);
    if UsernsSetting::of(document)? == UsernsSetting::No {
        steps.extend(plan.commands());
        return Ok(());
    }
    leave_to("ob-cable", document, &plan.commands(), steps)
}

fn set_facts(document: &mut Document, plan: &Plan) {
    let path = netns::path(&plan.name);
    document.set("net", path.to_string_lossy().as_ref());
    document.set("cables", plan.links.as_slice());
}

impl Wiring {
    /// Opens or creates the namespace, and sets its loopback link up.
    fn begin(plan: Plan, host: Links) -> Result<Self> {
        // A process that is root of its user namespace only may not return to the namespace of the
        // host: setns(2) needs CAP_SYS_ADMIN there. Without cables there is no need to.
        let host_namespace = match plan.operations.is_empty() {
            true => None,
            false => Some(Namespace::own()?),
        };
        let name = &plan.name;
        let namespace = Namespace::enter(name, plan.owner)?;
        let found = match namespace.is_new {
            true => None,
            false => Found::of(name)?,
        };
        match prepare(host_namespace.as_ref()) {
            Ok(inside) => Ok(Wiring {
                plan,
                host,
                inside,
                namespace,
                found,
                made: Vec::new(),
            }),
            Err(error) if namespace.is_new => {
                namespace::unpin(name)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn perform_all(&mut self, document: &mut Document) -> Result<()> {
        let verb = match self.namespace.is_new {
            true => "made",
            false => "found and entered",
        };
        let path = netns::path(&self.plan.name);
        let text = format!("{verb} {}, and set lo up", path.display());
        trace(document, &text);
        if let Some(found) = &self.found {
            found.note_names(&self.plan.links, &mut self.host)?;
        }
        for operation in std::mem::take(&mut self.plan.operations) {
            self.perform(&operation, document)?;
        }
        if let Some(found) = &self.found {
            found.note_indexes(&self.plan.links, &mut self.host, document)?;
        }
        Ok(())
    }

    /// Creates a link. If ifup does not configure the link, sets it up.
    fn perform(&mut self, operation: &Operation, document: &Document) -> Result<()> {
        let link = operation.cable.outside.as_str();
        let has_ifup = operation.is_for_ifup() && self.plan.ifup.is_some();
        let mac = match operation.cable.cable {
            Cable::Vlan { tag, .. } => return self.make_vlan(operation, link, tag, document),
            Cable::Pair { mac, .. } => mac,
        };
        if has_ifup {
            ifupdown::forget_stale(link, &mut self.host, document)?;
        }
        let pair = Pair {
            outside: link,
            inside: operation.cable.inside.as_deref().unwrap_or_default(),
            outside_mac: operation.mac,
            inside_mac: mac.or(operation.inside_mac),
            bridge: operation.bridge,
            // The pre-up commands of interfaces(5) expect a link that is down.
            up: !has_ifup,
        };
        self.make_pair(&pair)?;
        let (inside, net) = (pair.inside, netns::path(&self.plan.name));
        let text = format!("made {link}{}, and {inside}", operation.place());
        trace(document, &format!("{text} in {}", net.display()));
        self.made.push(link.to_owned());
        if has_ifup && !self.run_ifup(link, document) {
            self.set_up(link, None, document)?;
        }
        Ok(())
    }

    /// Creates a pair with netlink. If a subhost of this name was just stopped and its link still
    /// exists, waits until the kernel has removed the link.
    fn make_pair(&mut self, pair: &Pair) -> Result<()> {
        let end = Instant::now() + STALE_LINK_TIMEOUT;
        let (outside, inside) = (pair.outside, pair.inside);
        let context = || format!("make the link {outside}");
        loop {
            let refusal = match self.host.make_pair(pair, self.namespace.as_fd()) {
                Err(refusal) if refusal.errno == Errno::EEXIST => refusal,
                done => return done.with_context(context),
            };
            // Subscribed before the look, so that the removal between the two is not missed.
            let watch = Watch::begin().with_context(context)?;
            if let Some(old) = self.host.find(outside).with_context(context)? {
                let mut left = vec![old.index];
                if old.kind == "veth" {
                    let time_left = end.saturating_duration_since(Instant::now());
                    watch
                        .wait(&mut self.host, &mut left, time_left)
                        .with_context(context)?;
                }
                ensure!(left.is_empty(), exists(outside, None));
            } else if self.inside.find(inside).with_context(context)?.is_some() {
                return Err(exists(inside, Some(&self.plan.name)));
            } else if Instant::now() >= end {
                return Err(refusal).with_context(context);
            }
        }
    }

    /// Creates a VLAN, unless ifup has created it.
    fn make_vlan(
        &mut self,
        operation: &Operation,
        link: &str,
        tag: u16,
        document: &Document,
    ) -> Result<()> {
        let context = || format!("make the VLAN {link}");
        let is_new = self.host.find(link).with_context(context)?.is_none();
        ensure!(is_new, exists(link, None));
        ifupdown::forget_stale(link, &mut self.host, document)?;
        let is_up = self.run_ifup(link, document);
        if self.host.find(link).with_context(context)?.is_some() {
            if operation.bridge.is_some() || !is_up {
                self.set_up(link, Some(operation), document)?;
            }
            return Ok(());
        }
        let parent = self.host.find(operation.parent()).with_context(context)?;
        let parent = parent.context("the cable before it is gone")?;
        // The kernel refuses to set a VLAN up before its parent (`ENETDOWN`), and ifup can have
        // left that down.
        if parent.flags & libc::IFF_UP == 0 {
            self.set_up(&parent.name, None, document)?;
        }
        let bridge = operation.bridge.map(|bridge| (bridge, operation.mac));
        self.host
            .make_vlan(link, parent.index, tag, bridge)
            .map_err(without_vlans)
            .with_context(context)?;
        let text = format!("made {link}{} on {}", operation.place(), parent.name);
        trace(document, &text);
        Ok(())
    }

    /// Sets a link up, and puts the VLAN of an operation into its bridge.
    fn set_up(&mut self, link: &str, vlan: Option<&Operation>, document: &Document) -> Result<()> {
        let found = self.host.find(link)?;
        let index = found.with_context(|| format!("{link} is gone"))?.index;
        self.host
            .set_up(index, vlan.and_then(|vlan| vlan.bridge))
            .with_context(|| format!("set {link} up"))?;
        let place = vlan.map(Operation::place).unwrap_or_default();
        trace(document, &format!("set {link} up{place}"));
        Ok(())
    }

    /// Runs ifup on `link` if it is installed; returns whether it succeeded.
    fn run_ifup(&self, link: &str, document: &Document) -> bool {
        let ifup = self.plan.ifup.as_ref();
        ifup.is_some_and(|ifup| ifupdown::run(ifup, &[link], document))
    }

    /// Deletes the pairs in reverse, and removes the namespace and the facts. A namespace that
    /// existed before the boot stays.
    ///
    /// # Errors
    /// A link or the namespace cannot be removed.
    pub fn undo(&mut self, document: &mut Document) -> Result<()> {
        // The deletion of a pair deletes its VLANs.
        while let Some(link) = self.made.pop() {
            if let Some(found) = self.host.find(&link)? {
                ifupdown::bring_down(&[(document, std::slice::from_ref(&found))]);
                self.host
                    .delete(found.index)
                    .with_context(|| format!("delete the link {}", found.name))?;
                trace(document, &format!("deleted {}", found.name));
            }
        }
        if self.namespace.is_new {
            namespace::unpin(&self.plan.name)?;
            trace_unpinned(document);
        }
        document.forget(FACTS);
        Ok(())
    }
}

/// Returns the error for a `link` that exists, on the host or inside the subhost `name`. Advises to
/// delete the link only if it is not a link of a running subhost.
fn exists(link: &str, inside: Option<&str>) -> Error {
    let has_link = |name: &String| {
        let state = StateDir::of(name);
        let document = state.document().ok().flatten();
        let cables = |document: &Document| {
            let cables = document.list("cables").unwrap_or_default();
            document.has("pid") && (inside == Some(name) || cables.contains(&link))
        };
        document.is_some_and(|document| cables(&document)) && state.is_locked()
    };
    let place = inside.map_or(String::new(), |name| format!(" in /run/netns/{name}"));
    let remedy = match (state::names().into_iter().find(has_link), inside) {
        (Some(owner), _) => format!("it is a link of {owner}, which runs; overlay-stop {owner}"),
        (None, Some(name)) => format!("if nothing needs it, ip -n {name} link del {link}"),
        (None, None) => format!("if nothing needs it, ip link del {link}"),
    };
    anyhow!("make the link {link}{place}: there is one of that name already; {remedy}")
}

/// Sets the loopback link up in the namespace that the process has entered, and returns to `host`.
fn prepare(host: Option<&Namespace>) -> Result<Links> {
    let mut inside = Links::here().context("open a netlink socket")?;
    inside.set_loopback_up().context("set lo up")?;
    // The notifications and ifup concern the links of the host.
    host.map_or(Ok(()), Namespace::join)?;
    Ok(inside)
}

/// Adds the remedy to the error of a kernel without VLANs.
fn without_vlans(refusal: Refusal) -> Error {
    if refusal.errno == Errno::EOPNOTSUPP {
        return Error::new(refusal).context("this kernel has no VLANs; modprobe 8021q");
    }
    refusal.into()
}
