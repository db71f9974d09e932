//! The links that a boot creates, as one list. The boot creates them, and a dry run prints them.

use crate::ifupdown;
use crate::links::Links;
use crate::mac::{Mac, Macs};
use anyhow::{Context, Result, ensure};
use ob_confine::protect::network_owner;
use ob_confine::userns::IdRange;
use ob_document::steps::{command, word};
use ob_document::{Cable, Document, NamedCable, netns};
use std::path::PathBuf;

/// A link to create on the host, with its other end.
pub(crate) struct Operation {
    pub(crate) cable: NamedCable,
    /// The index of the bridge.
    pub(crate) bridge: Option<i32>,
    /// The address of the link on the host.
    pub(crate) mac: Mac,
    /// The address of the inner end, if CABLES gives none.
    pub(crate) inside_mac: Option<Mac>,
}

/// The network namespace and the links of a subhost, checked against the host as far as possible
/// without a change.
pub(crate) struct Plan {
    pub(crate) name: String,
    /// The ids of the user namespace that owns the network namespace.
    pub(crate) owner: Option<IdRange>,
    /// The operations after the creation of the network namespace, in order.
    pub(crate) operations: Vec<Operation>,
    /// The names of the links on the host, one for each word of CABLES.
    pub(crate) links: Vec<String>,
    /// The program ifup, if it is installed and a cable needs it.
    pub(crate) ifup: Option<PathBuf>,
}

impl Plan {
    /// Lists the operations for a document.
    ///
    /// # Errors
    /// A word of CABLES is invalid, or a bridge does not exist.
    pub(crate) fn of(document: &Document, host: &mut Links) -> Result<Self> {
        let (name, macs) = (document.name(), Macs::of_host());
        let mut operations = Vec::new();
        for cable in Cable::of(document).context("CABLES")? {
            let bridge = cable.cable.bridge();
            let index = bridge.map(|bridge| find_bridge(host, bridge));
            operations.push(Operation {
                bridge: index.transpose().context("CABLES")?,
                mac: macs.outside(&cable.outside, bridge),
                inside_mac: cable
                    .inside
                    .as_ref()
                    .and_then(|inside| macs.inside(name, inside)),
                cable,
            });
        }
        let outside = |operation: &Operation| operation.cable.outside.clone();
        Ok(Plan {
            name: name.to_owned(),
            owner: network_owner(document)?,
            links: operations.iter().map(outside).collect(),
            ifup: operations
                .iter()
                .any(Operation::is_for_ifup)
                .then(ifupdown::ifup)
                .flatten(),
            operations,
        })
    }

    /// Returns the commands of a dry run.
    pub(crate) fn commands(&self) -> Vec<String> {
        let name = &self.name;
        let mut commands = Vec::new();
        if !netns::path(name).exists() {
            commands = namespace(name, self.owner);
        }
        commands.push(command(["ip", "-n", name, "link", "set", "lo", "up"]));
        for operation in &self.operations {
            operation.print(self, &mut commands);
        }
        commands
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

impl Operation {
    /// Returns whether ifup configures the link: a pair without a bridge, or a VLAN.
    pub(crate) fn is_for_ifup(&self) -> bool {
        self.bridge.is_none() || self.cable.inside.is_none()
    }

    /// Returns ` in BRIDGE` for a message, or nothing.
    pub(crate) fn place(&self) -> String {
        let bridge = self.cable.cable.bridge();
        bridge.map_or(String::new(), |bridge| format!(" in {bridge}"))
    }

    /// Adds the commands that have the same effect.
    fn print(&self, plan: &Plan, commands: &mut Vec<String>) {
        let (link, name) = (self.cable.outside.as_str(), plan.name.as_str());
        let text = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
        let address = command(["ip", "link", "set", link, "address", &text(self.mac)]);
        let ifup = plan.ifup.as_ref().filter(|_| self.is_for_ifup());
        let ifup = ifup.map(|_| command(["ifup", link]));
        let master = self.cable.cable.bridge().into_iter();
        let master = master.flat_map(|bridge| ["master", bridge]);
        let up = ["ip", "link", "set", link].into_iter().chain(master);
        let up = command(up.chain(["up"]));
        match &self.cable.cable {
            Cable::Pair { mac, .. } => {
                let inside = self.cable.inside.as_deref().unwrap_or_default();
                let mut words = vec!["ip", "link", "add", link, "type", "veth", "peer", "name"];
                words.extend([inside, "netns", name]);
                let given = mac.map(text);
                words.extend(given.iter().flat_map(|mac| ["address", mac]));
                commands.extend([command(words), address]);
                let derived = self.inside_mac.filter(|_| mac.is_none()).map(text);
                let set = ["ip", "-n", name, "link", "set", inside, "address"];
                commands.extend(derived.map(|mac| command(set.into_iter().chain([&*mac]))));
                commands.push(ifup.unwrap_or(up));
            }
            Cable::Vlan { tag, .. } => {
                let (tag, add) = (tag.to_string(), ["ip", "link", "add", "link"]);
                let vlan = [self.parent(), "name", link, "type", "vlan", "id", &tag];
                // ifup can create the VLAN; otherwise the next command does.
                commands.extend(ifup);
                commands.push(command(add.into_iter().chain(vlan)));
                commands.extend(self.bridge.map(|_| address));
                commands.push(up);
            }
        }
    }

    /// Returns the name of the link that a VLAN is on: the tag follows the last dot.
    pub(crate) fn parent(&self) -> &str {
        let link = &self.cable.outside;
        link.rsplit_once('.').map_or(link, |(parent, _)| parent)
    }
}

/// Returns the commands that create the namespace.
fn namespace(name: &str, owner: Option<IdRange>) -> Vec<String> {
    let mut commands = vec![command(["ip", "netns", "add", name])];
    if owner == Some(IdRange::IDENTITY) {
        // Replaces it by a namespace that a user namespace owns. Only a process outside of that
        // user namespace can mount it.
        let path = netns::path(name);
        let path = path.to_string_lossy();
        commands.push(command(["umount", &path]));
        commands.push("unshare --map-root-user --net sleep 60 &".to_owned());
        commands.push("while [ /proc/$$/ns/net -ef /proc/$!/ns/net ] || ! read -r map </proc/$!/uid_map; do sleep 0.1; done".to_owned());
        commands.push(format!("mount --bind /proc/$!/ns/net {}", word(&path)));
        commands.push("kill $!".to_owned());
    }
    commands
}
