//! The dry run: the commands that do the same as the stage.

use crate::FACTS;
use crate::ifupdown;
use crate::links::Links;
use crate::wire::Plan;
use anyhow::{Context, Result};
use ob_confine::protect::network_owner;
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::steps::{command, leave_to, word};
use ob_document::{Cable, Document, netns};

/// Checks the plan, and lists the commands. Sets the facts as the stage would.
///
/// # Errors
/// The plan is invalid, or a bridge does not exist.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    document.forget(FACTS);
    if UsernsSetting::of(document)? == UsernsSetting::No {
        return list(document, steps);
    }
    let mut own = Vec::new();
    list(document, &mut own)?;
    leave_to("ob-cable", document, &own, steps)
}

fn list(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    let mut host = Links::here().context("open a netlink socket")?;
    let plan = Plan::of(document, &mut host).context("CABLES")?;
    let name = document.name();
    let path = netns::path(name);
    if !path.exists() {
        namespace(name, network_owner(document)?, steps);
    }
    steps.push(command(["ip", "-n", name, "link", "set", "lo", "up"]));
    let has_ifup = ifupdown::ifup().is_some();
    let mut pairs = 0;
    let mut parent = "";
    for (cable, link) in plan.cables.iter().zip(&plan.links) {
        match cable {
            Cable::Pair { bridge, mac } => {
                let inside = format!("eth{pairs}");
                steps.push(add_pair(link, &inside, name, *mac));
                match bridge {
                    None if has_ifup => steps.push(command(["ifup", link])),
                    bridge => steps.push(set_up(link, bridge.as_deref())),
                }
                pairs += 1;
                parent = link;
            }
            Cable::Vlan { bridge, tag } => {
                if has_ifup {
                    // ifup can create the VLAN; otherwise the next command does.
                    steps.push(command(["ifup", link]));
                }
                let (tag, add) = (tag.to_string(), ["ip", "link", "add", "link", parent]);
                let vlan = ["name", link, "type", "vlan", "id", &tag];
                steps.push(command(add.into_iter().chain(vlan)));
                steps.push(set_up(link, bridge.as_deref()));
            }
        }
    }
    document.set("net", path.to_string_lossy().as_ref());
    document.set("cables", plan.links);
    Ok(())
}

/// Lists the commands that create the namespace.
fn namespace(name: &str, owner: Option<IdRange>, steps: &mut Vec<String>) {
    steps.push(command(["ip", "netns", "add", name]));
    if owner == Some(IdRange::IDENTITY) {
        // Replaces it by a namespace that a user namespace owns. Only a process outside of that
        // user namespace can mount it.
        let path = netns::path(name);
        let path = path.to_string_lossy();
        steps.push(command(["umount", &path]));
        steps.push("unshare --map-root-user --net sleep 60 &".to_owned());
        steps.push("while [ /proc/$$/ns/net -ef /proc/$!/ns/net ] || ! read -r map </proc/$!/uid_map; do sleep 0.1; done".to_owned());
        steps.push(format!("mount --bind /proc/$!/ns/net {}", word(&path)));
        steps.push("kill $!".to_owned());
    }
}

/// Returns the command that creates a pair, with the end `inside` in the namespace `name`.
fn add_pair(link: &str, inside: &str, name: &str, mac: Option<[u8; 6]>) -> String {
    let mut words = vec!["ip", "link", "add", link, "type", "veth", "peer", "name"];
    words.extend([inside, "netns", name]);
    let address = mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    if let Some(address) = &address {
        words.extend(["address", address]);
    }
    command(words)
}

/// Returns the command that sets a link up, and puts it into a bridge.
fn set_up(link: &str, bridge: Option<&str>) -> String {
    let mut words = vec!["ip", "link", "set", link];
    if let Some(bridge) = bridge {
        words.extend(["master", bridge]);
    }
    words.push("up");
    command(words)
}
