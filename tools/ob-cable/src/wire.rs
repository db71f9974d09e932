//! Creates the network namespace and the cables of one subhost, all of them or none.

use crate::found::Found;
use crate::ifupdown;
use crate::links::{Links, Pair, Watch};
use crate::namespace::{self, Namespace};
use crate::netlink::Refusal;
use crate::{FACTS, trace, trace_unpinned};
use anyhow::{Context, Error, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use ob_confine::protect::network_owner;
use ob_confine::userns::IdRange;
use ob_document::{Cable, Document, netns};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the kernel may take to remove a link of the last subhost of this name after its stop.
const STALE_LINK_TIMEOUT: Duration = Duration::from_secs(2);

/// The cables of CABLES, checked against the host as far as possible without a change.
pub(crate) struct Plan {
    pub(crate) cables: Vec<Cable>,
    /// The name of the link on the host, for each cable.
    pub(crate) links: Vec<String>,
    /// The index of the bridge, for each cable.
    bridges: Vec<Option<i32>>,
}

/// A bridge of the host that a cable is put into.
#[derive(Clone, Copy)]
struct Bridge<'a> {
    name: &'a str,
    index: i32,
}

/// The namespace and the cables of a subhost.
pub struct Wiring {
    name: String,
    host: Links,
    inside: Links,
    namespace: Namespace,
    /// Set if the namespace existed before the boot.
    found: Option<Found>,
    ifup: Option<PathBuf>,
    /// The names of the pairs that were created, for an undo.
    created: Vec<String>,
}

/// Creates the namespace and the cables of a subhost, and sets the facts of the document.
///
/// # Errors
/// CABLES is invalid, or a step fails; the function has then undone the steps before it.
pub fn wire(document: &mut Document) -> Result<Wiring> {
    document.forget(FACTS);
    let mut host = Links::here().context("open a netlink socket")?;
    let plan = Plan::of(document, &mut host).context("CABLES")?;
    let mut wiring = Wiring::begin(document.name(), host, &plan, network_owner(document)?)?;
    if let Err(error) = wiring.create(&plan, document) {
        return Err(match wiring.undo(document) {
            Ok(()) => error,
            Err(again) => error.context(format!("undo: {again:#}; before that")),
        });
    }
    let path = netns::path(document.name());
    document.set("net", path.to_string_lossy().as_ref());
    document.set("cables", plan.links);
    if wiring.found.is_some() {
        document.set("netfound", true);
    }
    Ok(wiring)
}

impl Plan {
    /// Parses CABLES, and finds the bridges.
    ///
    /// # Errors
    /// A word is invalid, or a bridge does not exist.
    pub(crate) fn of(document: &Document, host: &mut Links) -> Result<Self> {
        let words = document.list("CABLES")?;
        let cables = words.iter().map(|word| Cable::parse(word));
        let cables: Vec<Cable> = cables.collect::<Result<_>>()?;
        let links = Cable::links(document.name(), &cables)?;
        let mut known: Vec<(&str, i32)> = Vec::new();
        let mut bridges = Vec::new();
        for cable in &cables {
            let (Cable::Pair { bridge, .. } | Cable::Vlan { bridge, .. }) = cable;
            let Some(bridge) = bridge.as_deref() else {
                bridges.push(None);
                continue;
            };
            let index = match known.iter().find(|(name, _)| *name == bridge) {
                Some((_, index)) => *index,
                None => find_bridge(host, bridge)?,
            };
            known.push((bridge, index));
            bridges.push(Some(index));
        }
        Ok(Plan {
            cables,
            links,
            bridges,
        })
    }

    /// Whether ifup has a part: in pairs without a bridge and in VLANs.
    fn asks_for_ifup(&self) -> bool {
        self.cables.iter().any(|cable| match cable {
            Cable::Pair { bridge, .. } => bridge.is_none(),
            Cable::Vlan { .. } => true,
        })
    }
}

fn find_bridge(host: &mut Links, name: &str) -> Result<i32> {
    let link = host
        .find(name)
        .with_context(|| format!("look for the bridge {name}"))?;
    let link = link.with_context(|| format!("there is no bridge {name}"))?;
    ensure!(link.kind == "bridge", "{name} is a link, but not a bridge");
    Ok(link.index)
}

impl Wiring {
    /// Opens or creates the namespace, and sets its loopback link up.
    fn begin(name: &str, host: Links, plan: &Plan, ids: Option<IdRange>) -> Result<Self> {
        let ifup = plan.asks_for_ifup().then(ifupdown::ifup).flatten();
        // A process that is root of its user namespace only may not return to the namespace of the
        // host: setns(2) needs CAP_SYS_ADMIN there. Without cables there is no need to.
        let host_namespace = match plan.cables.is_empty() {
            true => None,
            false => Some(Namespace::own()?),
        };
        let namespace = Namespace::enter(name, ids)?;
        let found = match namespace.is_new {
            true => None,
            false => Found::of(name)?,
        };
        match prepare(host_namespace.as_ref()) {
            Ok(inside) => Ok(Wiring {
                name: name.to_owned(),
                host,
                inside,
                found,
                namespace,
                ifup,
                created: Vec::new(),
            }),
            Err(error) if namespace.is_new => {
                namespace::unpin(name)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn create(&mut self, plan: &Plan, document: &mut Document) -> Result<()> {
        let verb = match self.namespace.is_new {
            true => "made",
            false => "found and entered",
        };
        let path = netns::path(&self.name);
        trace(
            document,
            &format!("{verb} {}, and set lo up", path.display()),
        );
        if let Some(found) = &self.found {
            found.note_names(&plan.links, &mut self.host)?;
        }
        for (cable, (link, index)) in plan.cables.iter().zip(plan.links.iter().zip(&plan.bridges)) {
            let (Cable::Pair { bridge, .. } | Cable::Vlan { bridge, .. }) = cable;
            let bridge = bridge.as_deref().zip(*index);
            let bridge = bridge.map(|(name, index)| Bridge { name, index });
            match cable {
                Cable::Pair { mac, .. } => self.create_pair(link, bridge, *mac, document)?,
                Cable::Vlan { tag, .. } => self.create_vlan(link, bridge, *tag, document)?,
            }
        }
        if let Some(found) = &self.found {
            found.note_indexes(&plan.links, &mut self.host, document)?;
        }
        Ok(())
    }

    /// Creates a pair. Without a bridge, ifup configures it; if that fails, sets it up.
    fn create_pair(
        &mut self,
        link: &str,
        bridge: Option<Bridge>,
        mac: Option<[u8; 6]>,
        document: &Document,
    ) -> Result<()> {
        // The pre-up commands of interfaces(5) expect a link that is down.
        let to_ifup = bridge.is_none() && self.ifup.is_some();
        if to_ifup {
            ifupdown::forget_stale(link, &mut self.host, document)?;
        }
        let pair = Pair {
            outside: link,
            inside: &format!("eth{}", self.created.len()),
            mac,
            bridge: bridge.map(|bridge| bridge.index),
            up: !to_ifup,
        };
        self.make_pair(&pair)?;
        let net = netns::path(&self.name);
        let text = format!("made {link}{}, and {}", into(bridge), pair.inside);
        trace(document, &format!("{text} in {}", net.display()));
        self.created.push(link.to_owned());
        if to_ifup && !self.run_ifup(link, document) {
            let made = self.host.find(link)?;
            let made = made.with_context(|| format!("{link} is gone after ifup"))?;
            self.host
                .set_up(made.index, None)
                .with_context(|| format!("set {link} up"))?;
            trace(document, &format!("set {link} up"));
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
                ensure!(
                    left.is_empty(),
                    "{}: there is one of that name already; if nothing needs it, ip link del {outside}",
                    context()
                );
            } else if self.inside.find(inside).with_context(context)?.is_some() {
                let name = &self.name;
                bail!(
                    "make the link {inside} in /run/netns/{name}: there is one of that name already; if nothing needs it, ip -n {name} link del {inside}"
                );
            } else if Instant::now() >= end {
                return Err(refusal).with_context(context);
            }
        }
    }

    /// Creates a VLAN on the last pair, unless ifup has created it.
    fn create_vlan(
        &mut self,
        link: &str,
        bridge: Option<Bridge>,
        tag: u16,
        document: &Document,
    ) -> Result<()> {
        let context = || format!("make the VLAN {link}");
        if self.host.find(link).with_context(context)?.is_some() {
            bail!(
                "{}: there is a link of that name already; if nothing needs it, ip link del {link}",
                context()
            );
        }
        ifupdown::forget_stale(link, &mut self.host, document)?;
        let is_up = self.run_ifup(link, document);
        if let Some(found) = self.host.find(link).with_context(context)? {
            if bridge.is_some() || !is_up {
                self.host
                    .set_up(found.index, bridge.map(|bridge| bridge.index))
                    .with_context(|| format!("set {link} up"))?;
                trace(document, &format!("set {link} up{}", into(bridge)));
            }
            return Ok(());
        }
        let parent = self.created.last().context("there is no cable before it")?;
        let parent = self.host.find(parent).with_context(context)?;
        let parent = parent.context("the cable before it is gone")?;
        // The kernel refuses to set a VLAN up before its parent (`ENETDOWN`), and ifup can have
        // left that down.
        if parent.flags & libc::IFF_UP == 0 {
            let up = self.host.set_up(parent.index, None);
            up.with_context(|| format!("set {} up", parent.name))?;
            trace(document, &format!("set {} up", parent.name));
        }
        self.host
            .make_vlan(link, parent.index, tag, bridge.map(|bridge| bridge.index))
            .map_err(without_vlans)
            .with_context(context)?;
        let parent = parent.name;
        trace(
            document,
            &format!("made {link}{} on {parent}", into(bridge)),
        );
        Ok(())
    }

    /// Runs ifup on `link` if it is installed; returns whether it succeeded.
    fn run_ifup(&self, link: &str, document: &Document) -> bool {
        let ifup = self.ifup.as_ref();
        ifup.is_some_and(|ifup| ifupdown::run(ifup, &[link], document))
    }

    /// Removes the pairs, the namespace and the facts. A namespace that existed before the boot
    /// stays.
    ///
    /// # Errors
    /// A link or the namespace cannot be removed.
    pub fn undo(&mut self, document: &mut Document) -> Result<()> {
        let mut found = Vec::new();
        for link in &self.created {
            found.extend(self.host.find(link)?);
        }
        ifupdown::bring_down(&[(document, &found)]);
        for link in found {
            self.host
                .delete(link.index)
                .with_context(|| format!("delete the link {}", link.name))?;
            trace(document, &format!("deleted {}", link.name));
        }
        if self.namespace.is_new {
            namespace::unpin(&self.name)?;
            trace_unpinned(document);
        }
        document.forget(FACTS);
        Ok(())
    }
}

/// Returns ` in BRIDGE` for a message, or nothing.
fn into(bridge: Option<Bridge>) -> String {
    bridge.map_or(String::new(), |bridge| format!(" in {}", bridge.name))
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
