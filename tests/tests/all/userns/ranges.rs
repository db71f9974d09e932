//! The ranges of ids that subhosts get.

use super::{subhost, world};
use std::collections::BTreeSet;

#[test]
fn ranges_do_not_overlap_and_are_kept() {
    let Some(world) = world() else { return };
    let confs = [
        subhost(&world, "one", "USERNS=auto"),
        subhost(&world, "two", "USERNS=auto"),
    ];
    let boot_both = || {
        world.ok(&format!(
            "overlay-boot {} && overlay-boot {}",
            confs[0], confs[1]
        ));
        let ranges = ["one", "two"].map(|name| {
            world.document(name)["userns"]
                .as_str()
                .expect("a range")
                .to_owned()
        });
        world.ok("overlay-stop one two");
        ranges
    };
    let first = boot_both();
    assert_eq!(first, ["2013265920:65536", "2013331456:65536"]);
    // If the ranges were not kept, this order of boots would exchange them.
    world.ok(&format!("overlay-boot {} && overlay-stop two", confs[1]));
    assert_eq!(boot_both(), first);
    let third = subhost(&world, "three", "USERNS=2013331500");
    world
        .run(&format!("overlay-boot {third}"))
        .fails(1, &["it overlaps the range of the subhost two", &confs[1]]);
    // The range of a removed subhost is free.
    world.ok("rm -r two");
    world.ok(&format!("overlay-boot {third} && overlay-stop three"));
    // Ranges of users in /etc/subuid are avoided; a range of the name overlay-boot there is used.
    world.ok("mount -t tmpfs tmpfs /etc; for f in subuid subgid; do echo 'alice:2013265920:65536' >/etc/$f; done");
    world.ok(&format!("overlay-boot {}", confs[0]));
    assert_eq!(world.document("one")["userns"], "2013462528:65536");
    world.ok("overlay-stop one; for f in subuid subgid; do echo 'overlay-boot:700000:65536' >>/etc/$f; done");
    world.ok(&format!("overlay-boot {}", confs[0]));
    assert_eq!(world.document("one")["userns"], "700000:65536");
    world.ok("overlay-stop one; sed -i s/=.*/=2013265900/ one/one.conf; sed -i '/^USERNS/!d' one/one.conf; printf 'BASE=.\\nLOWER=../busybox\\n' >>one/one.conf");
    world
        .run(&format!("overlay-boot {}", confs[0]))
        .fails(1, &["belongs to alice"]);
}

#[test]
fn concurrent_boots_get_distinct_ranges() {
    let Some(world) = world() else { return };
    let names = ["a", "b", "c", "d", "e", "f"];
    let boots: Vec<_> = names
        .iter()
        .map(|name| subhost(&world, name, "USERNS=auto"))
        .map(|conf| world.line(&format!("overlay-boot {conf}")).start())
        .collect();
    for boot in boots {
        boot.wait().ok();
    }
    let ranges: BTreeSet<String> = names
        .iter()
        .map(|name| world.document(name)["userns"].to_string())
        .collect();
    assert_eq!(ranges.len(), names.len(), "{ranges:?}");
    assert_eq!(
        world.read("lib/subhosts/userns").lines().count(),
        names.len()
    );
    world.ok("overlay-stop a b c d e f");
}

#[test]
fn impossible_ranges_are_refused() {
    let Some(world) = world() else { return };
    let conf = world.subhost("mta", "USERNS=auto");
    let before = world.snapshot();
    let boot = format!("overlay-boot {conf}");
    world.run(&boot).fails(
        1,
        &[
            "ob-mount: mta: USERNS",
            "a setuid file made inside is real on the host",
            "chmod 700",
        ],
    );
    let check = world.run(&format!("ob-conf --check {conf}"));
    assert_eq!(
        (check.status, check.out.contains("chmod 700")),
        (1, true),
        "{check:#?}"
    );
    world.ok("chmod 700 mta; mkdir -p o/u o/w o/m && mount -t overlay -o lowerdir=busybox,upperdir=o/u,workdir=o/w overlay o/m");
    world.ok("sed -i s,../busybox,../o/m, mta/mta.conf");
    world
        .run(&boot)
        .fails(1, &["LOWER=", "o/m", "cannot map ids"]);
    world.ok("umount o/m; sed -i s,../o/m,../busybox, mta/mta.conf; ip netns add mta");
    world.ok(&format!("ob-conf {conf} | ob-mount >document"));
    world.run("ob-cable <document").fails(
        1,
        &[
            "ob-cable: mta: USERNS: /run/netns/mta",
            "belongs to the host; ip netns del mta",
        ],
    );
    world.ok("ob-mount --undo <document >/dev/null; ip netns del mta; rm document");
    for (value, why) in [
        ("yes", "neither auto"),
        ("1000", "belong to the host"),
        ("100000:0", "the range is empty"),
    ] {
        world.ok(&format!("sed -i s/^USERNS=.*/USERNS={value}/ mta/mta.conf"));
        world
            .run(&boot)
            .fails(1, &[&format!("USERNS={value}"), why]);
    }
    world.ok("rm -rf o; umount /var/lib; rm -rf lib; mkdir lib; mount --bind lib /var/lib");
    world.assert_same(&before);
}
