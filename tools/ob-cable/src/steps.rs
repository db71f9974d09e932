//! The dry run: what the stage would do, as commands.

use crate::ifupdown;
use crate::links::Links;
use crate::wire::{FACTS, Plan};
use anyhow::{Context, Result};
use ob_confine::protect::network_owner;
use ob_confine::userns::{IdRange, UsernsSetting};
use ob_document::steps::{command, leave_to, word};
use ob_document::{Cable, Document, netns};

/// Checks what can be checked, and tells of the namespace and each cable. Notes them as they would be.
pub fn describe(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    document.forget(FACTS);
    if UsernsSetting::of(document)? == UsernsSetting::No {
        return links(document, steps);
    }
    let mut told = Vec::new();
    links(document, &mut told)?;
    leave_to("ob-cable", document, &told, steps)
}

/// The namespace and the links, one by one.
fn links(document: &mut Document, steps: &mut Vec<String>) -> Result<()> {
    let mut host = Links::here().context("open a netlink socket")?;
    let plan = Plan::of(document, &mut host).context("CABLES")?;
    let name = document.name();
    let path = netns::path(name);
    if !path.exists() {
        steps.push(command(["ip", "netns", "add", name]));
        if network_owner(document)? == Some(IdRange::IDENTITY) {
            // In its place one that belongs to a user namespace; only from outside of that can it be named.
            let path = path.to_string_lossy();
            let quoted = word(&path);
            steps.push(command(["umount", &path]));
            steps.push("unshare --map-root-user --net sleep 60 &".to_owned());
            steps.push("while [ /proc/$$/ns/net -ef /proc/$!/ns/net ] || ! read -r map </proc/$!/uid_map; do sleep 0.1; done".to_owned());
            steps.push(format!("mount --bind /proc/$!/ns/net {quoted}"));
            steps.push("kill $!".to_owned());
        }
    }
    let mut step = |words: &[&str]| steps.push(command(words.iter().copied()));
    step(&["ip", "-n", name, "link", "set", "lo", "up"]);
    let has_ifup = ifupdown::ifup().is_some();
    let mut pairs = 0;
    let mut parent = "";
    for (cable, link) in plan.cables.iter().zip(&plan.links) {
        match cable {
            Cable::Pair { bridge, mac } => {
                let inside = format!("eth{pairs}");
                let address = mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
                let mut words = vec!["ip", "link", "add", link, "type", "veth", "peer", "name"];
                words.extend([&inside, "netns", name]);
                if let Some(address) = &address {
                    words.extend(["address", address]);
                }
                step(&words);
                match bridge {
                    Some(bridge) => step(&["ip", "link", "set", link, "master", bridge, "up"]),
                    None if has_ifup => step(&["ifup", link]),
                    None => step(&["ip", "link", "set", link, "up"]),
                }
                pairs += 1;
                parent = link;
            }
            Cable::Vlan { bridge, tag } => {
                if has_ifup {
                    step(&["ifup", link]); // which may make it; else what follows does
                }
                let tag = tag.to_string();
                let mut words = vec!["ip", "link", "add", "link", parent, "name", link];
                words.extend(["type", "vlan", "id", &tag]);
                step(&words);
                let master = bridge.as_ref().map(|bridge| ["master", bridge]);
                let mut words = vec!["ip", "link", "set", link];
                words.extend(master.iter().flatten());
                words.push("up");
                step(&words);
            }
        }
    }
    document.set("net", path.to_string_lossy().as_ref());
    document.set("cables", plan.links);
    Ok(())
}
