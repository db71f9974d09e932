//! Laying the cables of one subhost, all of them or none.

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

/// How long a link of the last subhost of this name may take to end after its stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// What CABLES asks for, checked as far as can be without making anything.
pub(crate) struct Plan {
    pub(crate) cables: Vec<Cable>,
    /// The name of each cable's link on the host.
    pub(crate) links: Vec<String>,
    /// The index of each cable's bridge.
    bridges: Vec<Option<i32>>,
}

/// A bridge of the host that a cable goes into.
#[derive(Clone, Copy)]
struct Bridge<'a> {
    name: &'a str,
    index: i32,
}

/// What has been made for a subhost.
pub struct Wiring {
    name: String,
    host: Links,
    inside: Links,
    namespace: Namespace,
    /// The namespace as one that existed before the boot, if it did.
    found: Option<Found>,
    ifup: Option<PathBuf>,
    /// The pairs' names, as long as they may have to be taken back.
    made: Vec<String>,
}

/// Makes the namespace and the cables of a subhost, and notes them in its document. If it fails, nothing has been made.
pub fn wire(document: &mut Document) -> Result<Wiring> {
    document.forget(FACTS);
    let mut host = Links::here().context("open a netlink socket")?;
    let plan = Plan::of(document, &mut host).context("CABLES")?;
    let mut wiring = Wiring::begin(document.name(), host, &plan, network_owner(document)?)?;
    if let Err(error) = wiring.lay(&plan, document) {
        return Err(match wiring.take_back(document) {
            Ok(()) => error,
            Err(again) => error.context(format!("while taking back: {again:#}; before that")),
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
    fn begin(name: &str, host: Links, plan: &Plan, ids: Option<IdRange>) -> Result<Self> {
        let ifup = plan.asks_for_ifup().then(ifupdown::ifup).flatten();
        // Without cables there is nothing to do outside, where someone who is root here alone may not return to.
        let home = match plan.cables.is_empty() {
            true => None,
            false => Some(Namespace::own()?),
        };
        let namespace = Namespace::enter(name, ids)?;
        let found = match namespace.is_new {
            true => None,
            false => Found::of(name)?,
        };
        let begun = || -> Result<Links> {
            let mut inside = Links::here().context("open a netlink socket")?;
            inside.set_loopback_up().context("set lo up")?;
            // The links that are listened to, and that ifup brings up, are the host's.
            home.map_or(Ok(()), |home| home.join())?;
            Ok(inside)
        };
        match begun() {
            Ok(inside) => Ok(Wiring {
                name: name.to_owned(),
                host,
                inside,
                found,
                namespace,
                ifup,
                made: Vec::new(),
            }),
            Err(error) if namespace.is_new => {
                namespace::unpin(name)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn lay(&mut self, plan: &Plan, document: &mut Document) -> Result<()> {
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
                Cable::Pair { mac, .. } => self.lay_pair(link, bridge, *mac, document)?,
                Cable::Vlan { tag, .. } => self.lay_vlan(link, bridge, *tag, document)?,
            }
        }
        if let Some(found) = &self.found {
            found.note_indexes(&plan.links, &mut self.host, document)?;
        }
        Ok(())
    }

    fn lay_pair(
        &mut self,
        link: &str,
        bridge: Option<Bridge>,
        mac: Option<[u8; 6]>,
        document: &Document,
    ) -> Result<()> {
        // Without a bridge it is ifupdown's affair: its commands before `up` expect a link that is down.
        let to_ifup = bridge.is_none() && self.ifup.is_some();
        if to_ifup {
            ifupdown::forget_stale(link, &mut self.host, document)?;
        }
        let pair = Pair {
            outside: link,
            inside: &format!("eth{}", self.made.len()),
            mac,
            bridge: bridge.map(|bridge| bridge.index),
            up: !to_ifup,
        };
        self.make_pair(&pair)?;
        let net = netns::path(&self.name);
        let text = format!("made {link}{}, and {}", into(bridge), pair.inside);
        trace(document, &format!("{text} in {}", net.display()));
        self.made.push(link.to_owned());
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

    /// Makes a pair; if the link of a subhost of this name that has just been stopped is in the way, waits until it is gone.
    fn make_pair(&mut self, pair: &Pair) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let (outside, inside) = (pair.outside, pair.inside);
        let context = || format!("make the link {outside}");
        loop {
            let refusal = match self.host.make_pair(pair, self.namespace.as_fd()) {
                Err(refusal) if refusal.errno == Errno::EEXIST => refusal,
                done => return done.with_context(context),
            };
            // Listen first, then look: it cannot end between the two.
            let watch = Watch::begin().with_context(context)?;
            if let Some(old) = self.host.find(outside).with_context(context)? {
                let mut left = vec![old.index];
                if old.kind == "veth" {
                    let patience = end.saturating_duration_since(Instant::now());
                    watch
                        .wait(&mut self.host, &mut left, patience)
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

    /// Makes a VLAN on the last pair: ifup may do it, or we do.
    fn lay_vlan(
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
        let parent = self.made.last().context("there is no cable before it")?;
        let parent = self.host.find(parent).with_context(context)?;
        let parent = parent.context("the cable before it is gone")?;
        // A VLAN cannot go up before what it is of; ifup may have left that down.
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

    /// Whether there is an ifup and it succeeds on `link`.
    fn run_ifup(&self, link: &str, document: &Document) -> bool {
        let ifup = self.ifup.as_ref();
        ifup.is_some_and(|ifup| ifupdown::run(ifup, &[link], document))
    }

    /// Takes back what has been made, and the facts. A namespace that was there before stays.
    pub fn take_back(&mut self, document: &mut Document) -> Result<()> {
        let mut found = Vec::new();
        for link in &self.made {
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

/// The bridge that something goes into, in words.
fn into(bridge: Option<Bridge>) -> String {
    bridge.map_or(String::new(), |bridge| format!(" in {}", bridge.name))
}

fn without_vlans(refusal: Refusal) -> Error {
    if refusal.errno == Errno::EOPNOTSUPP {
        return Error::new(refusal).context("this kernel has no VLANs; modprobe 8021q");
    }
    refusal.into()
}
