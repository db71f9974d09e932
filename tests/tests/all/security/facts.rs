//! Documents with forged, missing or foreign facts.

use end_to_end::{Done, NO_CGROUP, Snapshot, World, is_root_or_tell, not_done, until};

/// Returns a world; `None` without root.
fn world() -> Option<World> {
    is_root_or_tell("facts").then(World::new)
}

/// Creates a subhost whose BASE has mode 700, as a user namespace requires.
fn subhost(world: &World, name: &str, more: &str) -> String {
    let conf = world.subhost(name, more);
    world.ok(&format!("chmod 700 {name}"));
    conf
}

/// Runs a line that must be refused with status 125, for a reason with these words, and must leave
/// the host as it was.
#[track_caller]
fn refused(world: &World, line: &str, words: &[&str]) -> Done {
    let before = world.snapshot();
    let done = world.run(line);
    done.fails(125, words);
    world.assert_same(&before);
    done
}

/// Ends the processes that boot and supervise the subhost, as a crash would.
fn crash(world: &World, name: &str) {
    let document = world.document(name);
    let (guard, pid) = (&document["guard"], &document["pid"]);
    // A guard that still runs when the supervisor ends would clean up.
    world.ok(&format!(
        "s=$(cut -d' ' -f4 /proc/{pid}/stat); kill -STOP {guard}; kill -9 $s {guard}"
    ));
    until("a dead subhost", || {
        world
            .ok(&format!("ob-list --json {name} || :"))
            .contains("\"dead\"")
    });
}

mod closed {
    //! Protections that the last stage verifies, because any program can be an earlier stage.

    use super::*;

    #[test]
    fn a01_strict_without_a_userns_fact_is_refused() {
        let Some(world) = world() else { return };
        let strict = subhost(&world, "a", "PROTECT=strict\nCABLES==");
        let run = |change: &str| {
            format!("ob-conf {strict} {change} | ob-conf - root=$W/busybox | ob-unshare -- true")
        };
        for change in ["", "PROTECT=yes USERNS=auto", "PROTECT=no USERNS=auto"] {
            refused(&world, &run(change), &["ob-unshare: a: ", "userns"]);
        }
        refused(&world, &run("USERNS=300000"), &["USERNS=300000", "userns"]);
        // Also where it is the default INIT that would run.
        let stage = format!("ob-conf {strict} | ob-conf - root=$W/busybox | ob-unshare");
        world.run(&stage).fails(1, &["userns"]);
    }

    #[test]
    fn a01_userns_fact_must_be_the_range_of_the_plan() {
        let Some(world) = world() else { return };
        let conf = subhost(&world, "a", "PROTECT=strict\nUSERNS=300000:70000");
        let run = |range: &str| {
            format!(
                "ob-conf {conf} | ob-conf - root=$W/busybox userns={range} net=/proc/self/ns/net | ob-unshare -- true"
            )
        };
        world.ok("chown 300000:300000 busybox");
        for range in ["400000:70000", "300000:65536", "300001:70000", "0:70000"] {
            refused(&world, &run(range), &["ob-unshare: a: ", "userns"]);
        }
        refused(
            &world,
            &format!(
                "ob-conf {conf} USERNS=no | ob-conf - root=$W/busybox userns=300000:70000 net=/proc/self/ns/net | ob-unshare -- true"
            ),
            &["USERNS=no"],
        );
        assert_eq!(world.run(&run("300000:70000")).status, 0);
    }

    #[test]
    fn a01_root_without_the_mapping_is_refused() {
        let Some(world) = world() else { return };
        let conf = subhost(&world, "a", "PROTECT=strict");
        refused(
            &world,
            &format!(
                "ob-conf {conf} | ob-conf - root=$W/busybox userns=300000:65536 net=/proc/self/ns/net | ob-unshare -- true"
            ),
            &["root", "busybox", "300000:65536"],
        );
        // What ob-mount makes is accepted, of each kind.
        world.make_busybox("b/root");
        world.conf("b", "BASE=.\nLOWER=root\nSTART=none\nPROTECT=strict\n");
        world.ok("chmod 700 b; chown 33:33 b/root");
        for conf in [&conf, "b/b.conf LIVE=$W/b/live", "b/b.conf LIVE=$W/b/root"] {
            for change in ["", "READONLY=yes", "READONLY=volatile"] {
                let before = world.snapshot();
                let map = world.ok(&format!(
                    "ob-conf {conf} {change} | ob-mount | tee made | ob-conf - net=/proc/self/ns/net | ob-unshare -- cat /proc/self/uid_map"
                ));
                assert_eq!(
                    map.split_whitespace().nth(2),
                    Some("65536"),
                    "{conf} {change}"
                );
                world.ok("ob-mount --undo <made; rm made");
                world.until_same(&before);
            }
        }
    }

    #[test]
    fn a01_network_of_another_owner_is_refused() {
        let Some(world) = world() else { return };
        let one = subhost(&world, "one", "PROTECT=strict\nCABLES==");
        let two = subhost(&world, "two", "PROTECT=strict\nCABLES==");
        world.ok(&format!("overlay-boot {one}; ip netns add hand"));
        let before = world.snapshot_of_idle("one");
        let run = |net: &str| {
            format!(
                "ob-room sh -c 'ob-conf {two} | ob-mount | ob-conf - net={net} | ob-unshare -- true'"
            )
        };
        for net in ["/run/netns/hand", "/run/netns/one", "/etc/passwd"] {
            world
                .run(&run(net))
                .fails(125, &["ob-unshare: two: ", "net"]);
            world.assert_same(&before);
        }
        // In another order ob-cable does not know the range yet.
        let order = format!(
            "ob-room sh -c 'ob-conf {two} | ob-cable | ob-mount | ob-unshare -- true'; echo '{{\"NAME\":\"two\"}}' | ob-cable --undo >/dev/null"
        );
        let done = world.run(&order);
        assert!(done.err.contains("net"), "{done:#?}");
        world.until_same(&before);
    }

    #[test]
    fn f09_root_that_is_not_read_only_is_refused() {
        let Some(world) = world() else { return };
        let conf = world.subhost("a", "READONLY=yes");
        let root = "ob-conf - root=$W/busybox";
        let yes = format!("ob-conf {conf} | {root} | ob-unshare -- true");
        refused(&world, &yes, &["READONLY=yes", "busybox"]);
        let volatile = format!("ob-conf {conf} READONLY=volatile | {root} | ob-unshare -- true");
        refused(&world, &volatile, &["READONLY=volatile", "busybox"]);
        world.ok(
            "mkdir -p u w m; mount -t overlay o -o lowerdir=busybox,upperdir=$W/u,workdir=$W/w m",
        );
        let volatile = volatile.replace("$W/busybox", "$W/m");
        refused(&world, &volatile, &["READONLY=volatile"]);
        world.ok("umount m; mount --bind busybox m; mount -o remount,bind,ro m");
        world.ok(&yes.replace("$W/busybox", "$W/m"));
        world.ok("umount m; mount -t tmpfs tmpfs m; cp -a busybox/. m");
        world.ok(&volatile);
        world.ok("umount m");
    }

    #[test]
    fn f10_protected_subhost_without_a_network_is_refused() {
        let Some(world) = world() else { return };
        for level in ["yes", "strict"] {
            for cables in ["CABLES==", ""] {
                let conf = subhost(&world, "a", &format!("PROTECT={level}\n{cables}"));
                let run = |stage: &str| {
                    format!(
                        "ob-room sh -c 'ob-conf {conf} | ob-mount {stage} | ob-unshare -- readlink /proc/self/ns/net'"
                    )
                };
                refused(&world, &run(""), &["ob-unshare: a: ", "net", "ob-cable"]);
                let host = world.ok("readlink /proc/self/ns/net");
                // Unless the document says so.
                let said = world.ok(&run("| ob-conf - net=/proc/self/ns/net"));
                assert_eq!(said, host);
                assert_ne!(world.ok(&run("| ob-cable")), host);
                world.ok(&format!("ob-conf {conf} | ob-cable --undo >/dev/null"));
            }
        }
    }

    #[test]
    fn f20_incomplete_filter_file_refuses_every_entry() {
        let Some(world) = world() else { return };
        let conf = subhost(&world, "a", "PROTECT=yes");
        world.ok(&format!("overlay-boot {conf}"));
        let path = "/run/overlay-boot/a/seccomp";
        let filters = world.ok(&format!(
            "cp -p {path} kept; od -An -tu8 -v -w8 {path} | tr -d ' '"
        ));
        let length: usize = filters
            .lines()
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap();
        // As many bytes as the first filter has, which is not the only one.
        let first = 8 * (length + 1);
        assert!(first + 8 < 8 * filters.lines().count());
        for damage in [
            ": >$F",
            "rm $F",
            "truncate -s -1 $F",
            "truncate -s -8 $F",
            &format!("truncate -s {first} $F"),
            "printf '\\0\\0\\0\\0\\0\\0\\0\\0' >$F",
            "chown 1000 $F",
            "chmod 666 $F",
            "rm $F; ln -s $W/kept $F",
            "rm $F; mkfifo $F",
        ] {
            world.ok(&damage.replace("$F", path));
            let done = world.run("timeout 20 ob-enter a grep Seccomp: /proc/self/status");
            assert!(
                done.status == 125 && done.err.contains("seccomp"),
                "{damage}: {done:#?}"
            );
            world.ok(&format!("rm -f {path}; cp -p kept {path}"));
        }
        assert_eq!(
            world.ok("ob-enter a grep Seccomp: /proc/self/status"),
            "Seccomp:\t2"
        );
        world.ok("overlay-stop a");
    }

    #[test]
    fn a01_entering_heeds_the_plan_and_not_the_fact_alone() {
        let Some(world) = world() else { return };
        let conf = subhost(&world, "a", "PROTECT=strict\nCABLES==");
        world.ok(&format!(
            "overlay-boot {conf}; cp /run/overlay-boot/a/subhost kept"
        ));
        for (change, word) in [
            ("del(.userns)", "userns"),
            (".userns = \"500000:65536\"", "userns"),
            (".cgroup = \"/sys/fs/cgroup\"", "control group"),
            (".PIDS_MAX = \"100\" | del(.cgroup)", "PIDS_MAX"),
        ] {
            if word == "control group" && !world.has_cgroup() {
                not_done("the control group of a subhost", NO_CGROUP);
                continue;
            }
            world.ok(&format!(
                "jq -c '{change}' <kept >/run/overlay-boot/a/subhost"
            ));
            world.run("ob-enter a true").fails(125, &[word]);
        }
        world.ok("cp kept /run/overlay-boot/a/subhost; ob-enter a true; overlay-stop a");
    }
}

mod forged {
    //! Facts of other subhosts, on which no stage and no undo may act.

    use super::*;

    /// Prints the document of a running subhost under another name.
    const CLONE: &str = "ob-list -d web | ob-conf - NAME=b LOG=$W/b.log";

    /// Gives the document another root, so that the last stage can start it.
    const OWN_ROOT: &str = "| ob-conf - root=$W/busybox";

    #[test]
    fn f04_clone_of_a_running_subhost_ends_alone() {
        let Some(world) = world() else { return };
        let conf = world.subhost("web", "CABLES==");
        world.ok(&format!("overlay-boot {conf}"));
        let before = world.snapshot_of_idle("web");
        let document = world.document("web");
        let (clone, own) = (CLONE, OWN_ROOT);
        for end in [
            "| ob-unshare -- true".to_owned(),
            "| ob-unshare".to_owned(),
            format!("{own} | ob-unshare -- true"),
            format!("{own} | ob-unshare -- no-such"),
            "| ob-unshare --undo".to_owned(),
            "| ob-room --undo --cleanup 'ob-cable --undo'".to_owned(),
            "| ob-cable --undo".to_owned(),
            "| ob-mount --undo".to_owned(),
        ] {
            world.run(&format!("{clone} {end}"));
            world.assert_same(&before);
            assert_eq!(world.document("web"), document, "{end}");
        }
        world.ok("overlay-go web true; overlay-stop web");
    }

    #[test]
    fn f05_stopped_clone_of_a_subhost_ends_alone() {
        let Some(world) = world() else { return };
        let conf = world.subhost("web", "CABLES==");
        world.ok(&format!("overlay-boot {conf}"));
        let before = world.snapshot_of_idle("web");
        let document = world.document("web");
        world.ok(&format!("d=$({CLONE} {OWN_ROOT} | ob-unshare &)"));
        assert_ne!(world.document("b")["pid"], document["pid"]);
        for fact in ["guard", "guardstart"] {
            assert!(world.document("b")[fact].is_null(), "{fact} is that of web");
        }
        world.ok("overlay-stop b");
        world.until_same(&before);
        world.ok("overlay-go web true; overlay-stop web");
    }

    #[test]
    fn f12_link_that_is_another_subhosts_stays() {
        let Some(world) = world() else { return };
        let web = world.subhost("web", &format!("CABLES={}", "= ".repeat(11)));
        let web1 = world.subhost("web1", "CABLES==");
        // web1 has the link web10, which is the name of the eleventh of web.
        let taken = format!(
            "overlay-boot {web1}; sed -i 's/^CABLES.*/CABLES== =/' {web}; overlay-boot {web}"
        );
        world.ok(&taken);
        let links = || world.ok("ip -br link | grep -o '^web[0-9]*' | sort");
        assert_eq!(links(), "web0\nweb1\nweb10");
        for cables in ["[\"web0\",\"web1\",\"web10\"]", "[\"web10\"]", "[\"lo\"]"] {
            let index = world.ok("cat /sys/class/net/web10/ifindex");
            let change = format!(".cables = {cables} | .ifindex = [.cables[] | {index}]");
            world.ok(&format!(
                "cp /run/overlay-boot/web/subhost forged; jq -c '{change}' <forged >/run/overlay-boot/web/subhost"
            ));
            world.ok("overlay-stop web");
            assert_eq!(links(), "web10");
            world.ok("overlay-go web1 ls /sys/class/net/eth0");
            world.ok(&format!("overlay-boot {web}"));
        }
        // By name alone, and after web is gone.
        world.ok("overlay-stop web; jq -c '.cables = [\"web10\"]' <forged | ob-cable --undo; echo '{\"NAME\":\"web\"}' | ob-cable --undo");
        assert_eq!(links(), "web10");
        world.ok("overlay-stop web1");
        assert_eq!(links(), "");
    }

    /// A host with things that forged documents name: processes, groups, mounts, links.
    const HOST: &str = r#"
        mkdir -p mnt other/live lab/root lab/work lab/live; mount -t tmpfs outside mnt; mount -t tmpfs other other/live
        ln -s $W/mnt lab/live/link
        ip link add v0 type veth peer name v1; ip link add lab0 type veth peer name lab1; ip netns add other
        ip link add other0 type veth peer name eth0 netns other
        sleep 100000 >/dev/null 2>&1 </dev/null & echo $! >victim
        if [ -e /sys/fs/cgroup/the-host ]; then
            mkdir -p /sys/fs/cgroup/victim/below /sys/fs/cgroup/foreign/lab/below /sys/fs/cgroup/lab/below; cat victim >/sys/fs/cgroup/victim/cgroup.procs
            ln -s /sys/fs/cgroup/victim $W/lab/group; mkdir $W/lab/lab; ln -s /sys/fs/cgroup/victim $W/lab/lab/lab
        fi"#;

    /// Facts of `lab` that are not true, as jq(1) writes them.
    const FORGED: &[&str] = &[
        r#"{cgroup: "/sys/fs/cgroup/victim"} + $pid"#,
        r#"{cgroup: "/sys/fs/cgroup/foreign/../victim"}"#,
        r#"{cgroup: "/sys/fs/cgroup/foreign/lab"} + $pid"#,
        r#"{cgroup: "/sys/fs/cgroup/lab"} + $pid"#,
        r#"{cgroup: "/sys/fs/cgroup/foreign/lab/../../lab"}"#,
        r#"{cgroup: ($w + "/lab/group")} + $pid"#,
        r#"{cgroup: ($w + "/lab/lab/lab")} + $pid"#,
        r#"{cgroup: "/sys/fs/cgroup"} + $pid"#,
        r#"{cgroup: "lab"} + $pid"#,
        r#"$guard"#,
        r#"$pid"#,
        r#"$pid + $guard"#,
        r#"{mounts: [$w + "/mnt"]}"#,
        r#"{mounts: [$w + "/other/live"], mountids: [1]}"#,
        r#"{mounts: [$w + "/lab/live/../../mnt"]}"#,
        r#"{mounts: [$w + "/lab/live/link"]}"#,
        r#"{mounts: [$w + "/lab/live/link/."]}"#,
        r#"{mounts: ["/proc", "/sys", "/run", "/tmp"], LIVE: "/"}"#,
        r#"{mounts: ["/run"], LIVE: "/run"}"#,
        r#"{mounts: [$w + "/mnt"], LIVE: ($w + "/lab/..")}"#,
        r#"{mounts: ["mnt"], LIVE: "."}"#,
        r#"{cables: ["v0", "v1", "lab0", "other0"], ifindex: $ifindex}"#,
        r#"{cables: ["v0", "v1", "lab0", "other0"]}"#,
        r#"{cables: ["lab0"], net: "/run/netns/other"}"#,
        r#"{net: "/run/netns/other", netfound: true}"#,
    ];

    const UNDOS: &[&str] = &[
        "ob-unshare --undo",
        "ob-room --undo --cleanup 'ob-cable --undo'",
        "ob-cable --undo",
        "ob-mount --undo",
    ];

    /// The document of lab with forged facts.
    fn forge(world: &World, facts: &str) -> String {
        let plan = r#"{NAME: "lab", LIVE: ($w + "/lab/live"), UPPER: ($w + "/lab/root"), LOG: ($w + "/lab/log"), STOP_TIMEOUT: "1"}"#;
        let line = format!(
            r#"read -r pid _ <victim; start=$(cut -d' ' -f22 /proc/$pid/stat); ns=$(stat -Lc %i /proc/$pid/ns/pid)
            index() {{ cat /sys/class/net/$1/ifindex; }}
            jq -nc --arg w $W --argjson ifindex "[$(index v0),$(index v1),$(index lab0),$(index other0)]" \
                --argjson pid "{{\"pid\":$pid,\"pidns\":$ns,\"start\":$start}}" \
                --argjson guard "{{\"guard\":$pid,\"guardstart\":$start}}" '{plan} + {facts}'"#
        );
        world.ok(&line)
    }

    #[test]
    fn f14_undo_of_a_forged_document_harms_nothing() {
        let Some(world) = world() else { return };
        world.ok(HOST);
        let before = world.snapshot();
        for facts in FORGED {
            let document = forge(&world, facts);
            for undo in UNDOS {
                world
                    .line(&format!("timeout 60 {undo}"))
                    .input(&document)
                    .run();
                assert_none(&before, &world, &format!("{undo}: {document}"));
            }
        }
        world.ok("kill $(cat victim); umount mnt other/live");
    }

    #[test]
    fn f14_planted_state_file_harms_nothing_and_goes() {
        let Some(world) = world() else { return };
        world.ok(HOST);
        world.ok("mkdir -p -m 700 /run/overlay-boot");
        let before = world.snapshot();
        for facts in FORGED {
            let document = forge(&world, facts);
            for cure in [
                "overlay-list",
                "overlay-stop lab",
                "ob-room --undo --cleanup 'ob-cable --undo' </run/overlay-boot/lab/subhost",
            ] {
                world.ok("mkdir -m 700 /run/overlay-boot/lab");
                world.write("/run/overlay-boot/lab/subhost", &document);
                let done = world.run(&format!("timeout 60 {cure}"));
                assert_ne!(done.status, 124, "{done:#?}");
                assert_none(&before, &world, &format!("{cure}: {document}: {done:#?}"));
            }
        }
        world.ok("kill $(cat victim); umount mnt other/live");
    }

    #[test]
    fn f14_planted_net_of_a_namespace_made_by_hand_harms_nothing() {
        let Some(world) = world() else { return };
        world.ok(HOST);
        let before = world.snapshot();
        let index = world.ok("cat /sys/class/net/other0/ifindex");
        for facts in [
            "",
            r#","net":"/run/netns/other""#,
            &format!(r#","net":"/run/netns/other","cables":["other0"],"ifindex":[{index}1]"#),
            r#","net":"/run/netns/other","cables":["other0"]"#,
            r#","net":"/run/netns/other","guard":1,"guardstart":1"#,
        ] {
            let document = format!("{{\"NAME\":\"other\"{facts}}}");
            for undo in UNDOS {
                world
                    .line(&format!("timeout 60 {undo}"))
                    .input(&document)
                    .run();
                assert_none(&before, &world, &format!("{undo}: {document}"));
            }
        }
        world.ok("kill $(cat victim); umount mnt other/live");
    }

    #[track_caller]
    fn assert_none(before: &Snapshot, world: &World, what: &str) {
        if let Some(difference) = before.difference(&world.snapshot()) {
            panic!("{what}: {difference}");
        }
    }

    #[test]
    fn f14_mounts_of_another_subhost_stay() {
        let Some(world) = world() else { return };
        let conf = world.subhost("web", "");
        // Without a room, the host has the mounts of the subhost.
        world.ok(&format!(
            "d=$(ob-conf {conf} | ob-mount | ob-cable | ob-unshare &)"
        ));
        let before = world.snapshot_of_idle("web");
        let done = world.run("ob-list -d web | ob-conf - NAME=b | ob-mount --undo");
        assert!(done.status == 1 && done.err.contains("web"), "{done:#?}");
        world.assert_same(&before);
        world.ok("read -r d </run/overlay-boot/web/subhost; printf '%s\\n' \"$d\" | ob-unshare --undo | ob-cable --undo | ob-mount --undo");
    }

    #[test]
    fn f15_foreign_control_group_keeps_its_children() {
        let Some(world) = world() else { return };
        if !world.has_cgroup() {
            return not_done("a foreign control group", NO_CGROUP);
        }
        let conf = world.subhost("web", "");
        let group = "/sys/fs/cgroup/web";
        for (make, undo) in [
            ("mkdir -p $G/a/b $G/c", "rmdir $G/a/b $G/a $G/c $G"),
            ("mkdir $G", "rmdir $G"),
            (
                "mkdir -p $G/a; sleep 100000 >/dev/null 2>&1 </dev/null & echo $! >pid; cat pid >$G/a/cgroup.procs",
                "kill $(cat pid); until rmdir $G/a; do sleep 0.01; done 2>/dev/null; rmdir $G",
            ),
        ] {
            world.ok(&make.replace("$G", group));
            let before = world.snapshot();
            world
                .run(&format!("overlay-boot {conf}"))
                .fails(1, &["control group", group, "in use"]);
            world.assert_same(&before);
            let line = format!("ob-conf {conf} | ob-mount | tee made | ob-unshare -- true");
            world.run(&line).fails(125, &["control group", "in use"]);
            world.ok("ob-mount --undo <made");
            world.assert_same(&before);
            world.ok(&undo.replace("$G", group));
        }
        // A group of a predecessor that was killed is not foreign.
        world.ok(&format!("overlay-boot {conf}; mkdir {group}/below"));
        crash(&world, "web");
        assert!(world.has(group));
        world.ok(&format!("overlay-boot {conf}; overlay-stop web"));
        assert!(!world.has(group));
    }
}

mod found {
    //! Things of the host that were there before the boot, and outlive the subhost.

    use super::*;

    /// A network namespace made by hand, with a link and with a pair that is not a cable.
    const HAND: &str = "ip netns add web; ip -n web link add d0 type bridge; ip link add hand0 type veth peer name h1 netns web";

    fn links(world: &World) -> String {
        world.ok("ip -n web -br link | grep -v '^lo' | grep -o '^[a-z0-9]*' | sort; ip -br link | grep -o '^[a-z]*[0-9]@' | sort")
    }

    #[test]
    fn f06_namespace_made_by_hand_outlives_a_failed_boot() {
        let Some(world) = world() else { return };
        let conf = world.subhost("web", "CABLES==");
        world.ok(HAND);
        let before = world.snapshot();
        for change in [
            "s/^CABLES.*/CABLES=nobridge=/",
            "s/^CABLES.*/CABLES== nobridge=/",
            "s,^LOWER.*,LOWER=gone,",
            "s,^LOWER.*,LOWER=../empty,",
            "s/^START.*/POSTMOUNT=.\\/no/",
            "1s/^/INIT=true\\n/",
        ] {
            world.ok(&format!(
                "mkdir -p empty; cp {conf} kept; sed -i '{change}' {conf}"
            ));
            let done = world.run(&format!("overlay-boot {conf}"));
            assert_eq!(done.status, 1, "{done:#?}");
            world.until_same(&before);
            assert_eq!(links(&world), "d0\nh1\nhand0@", "{change}");
            world.ok(&format!("cp kept {conf}"));
        }
        // A link of the name of the first cable, by hand as well.
        world.ok("ip link add web0 type veth peer name h2 netns web");
        let before = world.snapshot();
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["web0", "already"]);
        world.until_same(&before);
        assert_eq!(links(&world), "d0\nh1\nh2\nhand0@\nweb0@");
    }

    #[test]
    fn f06_namespace_made_by_hand_outlives_the_subhost() {
        let Some(world) = world() else { return };
        let conf = world.subhost("web", "CABLES== =");
        world.ok(HAND);
        let before = world.snapshot();
        for end in [
            "overlay-stop web",
            "ob-list -d web | ob-room --undo --cleanup 'ob-cable --undo'",
            "kill -9 $PID",
        ] {
            world.ok(&format!("overlay-boot {conf}"));
            assert_eq!(links(&world), "d0\neth0\neth1\nh1\nhand0@\nweb0@\nweb1@");
            let pid = world.document("web")["pid"].to_string();
            world.ok(&end.replace("$PID", &pid));
            world.until_same(&before);
            assert_eq!(links(&world), "d0\nh1\nhand0@", "{end}");
        }
        for cure in [
            "overlay-list",
            "overlay-stop web",
            "overlay-boot $C; overlay-stop web",
        ] {
            world.ok(&format!("overlay-boot {conf}"));
            crash(&world, "web");
            world.ok(&cure.replace("$C", &conf));
            world.until_same(&before);
            assert_eq!(links(&world), "d0\nh1\nhand0@", "{cure}");
        }
        // Without a guard.
        for room in ["sh -c", "ob-room sh -c"] {
            let pipeline = "ob-conf $C | ob-mount | ob-cable | ob-unshare &".replace("$C", &conf);
            world.ok(&format!("d=$({room} '{pipeline}')"));
            world.ok("read -r d </run/overlay-boot/web/subhost; printf '%s\\n' \"$d\" | ob-unshare --undo | ob-cable --undo | ob-mount --undo");
            world.until_same(&before);
            assert_eq!(links(&world), "d0\nh1\nhand0@", "{room}");
        }
        world.ok(&format!("ob-conf {conf} | ob-cable >3; ob-cable --undo <3"));
        assert_eq!(links(&world), "d0\nh1\nhand0@");
        // A name alone says nothing of links; the namespace stays, since ob-cable has not made it.
        world.ok(&format!("ob-conf {conf} | ob-cable --undo"));
        assert_eq!(links(&world), "d0\nh1\nhand0@");
    }

    #[test]
    fn f06_foreign_stage_leaves_the_namespace_that_exists() {
        let Some(world) = world() else { return };
        let conf = world.subhost("web", "");
        world.ok(HAND);
        let before = world.snapshot();
        world.script("my-cable", "exec ob-conf - net=/run/netns/web");
        let boot = format!(
            "NAME=web ob-room --guard --cleanup 'ob-cable --undo' ob-conf {conf} '|' ob-mount '|' $W/my-cable '|' ob-unshare"
        );
        world.ok(&boot);
        assert!(world.inside("web", "ls /sys/class/net").contains("d0"));
        world.ok("overlay-stop web");
        world.until_same(&before);
        assert_eq!(links(&world), "d0\nh1\nhand0@");
    }

    #[test]
    fn f06_namespace_that_a_stage_or_hook_makes_goes() {
        let Some(world) = world() else { return };
        world.script(
            "my-cable",
            "read -r document; ip netns add web; printf '%s\\n' \"$document\" | ob-conf - net=/run/netns/web",
        );
        world.script("web/pre", "ip netns add web");
        let stage = world.subhost("web", "");
        let before = world.snapshot();
        let boot = "NAME=web ob-room --guard --cleanup 'ob-cable --undo' ob-conf $C '|' ob-mount '|' $W/my-cable '|' $S ob-unshare";
        let boot = boot.replace("$C", &stage);
        world.ok(&boot.replace("$S", ""));
        world.ok("overlay-stop web");
        world.until_same(&before);
        world.run(&boot.replace("$S", "false '|'"));
        world.until_same(&before);
        world.ok(&format!("sed -i '1s,^,PREMOUNT=./pre\\nCABLES==\\n,' {stage}; overlay-boot {stage}; overlay-stop web"));
        world.until_same(&before);
    }

    #[test]
    fn f06_mounts_that_were_there_outlive_two_undos() {
        let Some(world) = world() else { return };
        world.make_busybox("web/live");
        let conf = world.conf(
            "web",
            "BASE=.\nSTART=none\nLOWER=live\nUPPER=live\nLIVE=live\nREADONLY=yes\n",
        );
        world.ok("mount --bind web/live web/live; mount --make-private web/live; mount -t tmpfs found web/live/dev");
        let before = world.snapshot();
        world.ok(&format!(
            "ob-conf {conf} | ob-mount >made; ob-mount --undo <made; ob-mount --undo <made"
        ));
        world.assert_same(&before);
        world.ok("umount web/live/dev web/live");
    }
}

mod names {
    //! Names that the kernel or ifup would read as something else.

    use super::*;

    #[test]
    fn f20_name_that_cannot_name_a_link_is_refused() {
        let world = World::new();
        let before = world.snapshot();
        for name in [
            "a=b", "a%d", "a%", "%d", "a:b", "a*", "a?b", "[ab]", "a$(b)", "a`b", "a;b", "a&b",
            "a|b", "a'b", "a\"b", "a\\\\b", "a<b", "a{b}", "a~b", "a!b", "a#b",
        ] {
            let conf = world.conf(
                "x",
                &format!("BASE=.\nNAME={name}\nLOWER=../busybox\nSTART=none\nCABLES==\n"),
            );
            let plain = name.replace("\\\\", "\\");
            world
                .run(&format!("overlay-boot {conf}"))
                .fails(1, &[&format!("{conf}:5: "), &plain]);
            let check = world.run(&format!("ob-conf --check {conf}"));
            assert!(
                check.status == 1 && check.out.contains(&format!("{conf}:5:")),
                "{name}: {check:#?}"
            );
            world.assert_same(&before);
            let document = serde_json::json!({"NAME": plain, "CABLES": ["="]});
            world
                .line("ob-cable")
                .input(&document.to_string())
                .run()
                .fails(1, &["ob-cable: ", "CABLES"]);
            world.assert_same(&before);
        }
        // Without a cable the name is valid. The other names are names of links.
        let conf = world.conf("x", "BASE=.\nNAME=a%d=b\nLOWER=../busybox\nSTART=none\n");
        world.ok(&format!("overlay-boot {conf}; overlay-stop a%d=b"));
        for name in ["a.b", "a_b", "a-b", "a+b", "a@b", "ä"] {
            let conf = world.conf(
                "x",
                &format!("BASE=.\nNAME={name}\nLOWER=../busybox\nSTART=none\nCABLES==\n"),
            );
            world.ok(&format!("ob-conf --check {conf} | grep CABLES || overlay-boot {conf}; test -e /sys/class/net/{name}0; overlay-stop {name}"));
        }
    }
}

mod stuck {
    //! Subhosts that do not let themselves be stopped.

    use super::*;

    /// Boots a subhost with two services.
    fn boot(world: &World) {
        world.script("busybox/etc/one", "exit 0");
        let conf = world.subhost("web", "START=/etc/one /etc/one\nSTOP_TIMEOUT=1");
        world.ok(&format!("overlay-boot {conf}"));
        until("the stand-in", || {
            world.inside("web", "ps").contains("dummy_service")
        });
    }

    #[test]
    fn f07_shell_that_ignores_term_does_not_hold_the_stop_up() {
        let world = World::new();
        let before = world.snapshot();
        boot(&world);
        // Its interpreter is not that shell.
        let shell = "#!/bin/busybox sh\ntrap '' TERM INT HUP\nwhile :; do busybox sleep 1; done\n";
        world
            .line("overlay-go web -- busybox sh -c 'rm /bin/sh; printf %s \"$1\" >/bin/sh; chmod 755 /bin/sh' x \"$SHELL_INSIDE\"")
            .env("SHELL_INSIDE", shell)
            .run()
            .ok();
        let stop = world.run("timeout 60 overlay-stop --all");
        assert_eq!(stop.status, 0, "{stop:#?}");
        assert!(stop.err.contains("web: "), "{stop:#?}");
        world.assert_same(&before);
    }

    #[test]
    fn f07_frozen_or_stopped_subhost_does_not_hold_the_stop_up() {
        let world = World::new();
        let before = world.snapshot();
        let mut ways = vec!["kill -STOP $PID"];
        if world.has_cgroup() {
            ways.push("echo 1 >/sys/fs/cgroup/web/cgroup.freeze");
        } else {
            not_done("a frozen subhost", NO_CGROUP);
        }
        for way in ways {
            boot(&world);
            let pid = world.document("web")["pid"].to_string();
            world.ok(&way.replace("$PID", &pid));
            let stop = world.run("timeout 60 overlay-stop web");
            assert_eq!(stop.status, 0, "{way}: {stop:#?}");
            world.assert_same(&before);
        }
    }
}

mod mixed {
    //! Documents for a third subhost: random mixtures of facts of other subhosts and of garbage.

    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
    use serde_json::{Map, Value, json};
    use std::time::{SystemTime, UNIX_EPOCH};

    /// How many documents are tried, unless OB_CASES says more.
    const CASES: u32 = 20;

    /// Feeds the document on stdin to every stage, undoes the stage, and feeds it to every undo.
    const FEED: &str = r#"
        document=$(cat)
        feed() { printf '%s\n' "$document" | timeout 60 "$@" 2>/dev/null; [ $? != 124 ] || echo "$*: no end"; }
        feed ob-mount >made; ob-mount --undo <made >/dev/null 2>&1
        feed ob-cable >made; ob-cable --undo <made >/dev/null 2>&1
        feed ob-unshare -- true
        feed ob-mount --share "$W/shared:/planted" >/dev/null
        for undo in 'ob-mount --undo' 'ob-cable --undo' 'ob-unshare --undo'; do feed $undo >/dev/null; done
        feed ob-room --undo --cleanup 'ob-cable --undo' >/dev/null
        rm made"#;

    const VICTIMS: [&str; 3] = ["web", "strict", "hand"];

    fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
        std::env::var(variable).ok()?.parse().ok()
    }

    /// Returns the state of the victims: their state files, and a view of their inside.
    fn victims(world: &World) -> Vec<(Value, String)> {
        let look = "cut -d' ' -f4,5 /proc/1/mountinfo; ls /sys/class/net; ps -o comm";
        let victim = |name: &&str| (world.document(name), world.inside(name, look));
        VICTIMS.iter().map(victim).collect()
    }

    /// Generates values that no fact has, but that have the form of one.
    fn garbage() -> impl Strategy<Value = Value> {
        let values = [
            json!(null),
            json!(true),
            json!(0),
            json!(1),
            json!(-1),
            json!(u64::MAX),
            json!(1.5),
            json!(""),
            json!("/"),
            json!(".."),
            json!("c"),
            json!("/sys/fs/cgroup/c"),
            json!("/proc/1/ns/net"),
            json!("0:65536"),
            json!([]),
            json!(["/", "/run", "/proc"]),
            json!(["lo", "web0"]),
            json!([1, 2, 3]),
            json!([null]),
            json!({"pid": 1}),
        ];
        prop::sample::select(values.to_vec())
    }

    /// A document: the plan of one, and facts of all.
    fn document(
        plans: Vec<Value>,
        facts: Vec<(String, Vec<Value>)>,
    ) -> impl Strategy<Value = Value> {
        let facts: Vec<_> = facts
            .into_iter()
            .map(|(key, values)| {
                let value = prop_oneof![3 => prop::sample::select(values), 1 => garbage()];
                (Just(key), prop::option::weighted(0.6, value))
            })
            .collect();
        (prop::sample::select(plans), facts).prop_map(|(mut plan, facts)| {
            for (key, value) in facts {
                plan[key] = value.unwrap_or_default();
            }
            plan.as_object_mut()
                .expect("an object")
                .retain(|_, value| !value.is_null());
            plan
        })
    }

    #[test]
    fn f04_mixed_documents_change_nothing_outside() {
        let Some(world) = world() else { return };
        let web = world.subhost("web", "CABLES==");
        let strict = subhost(&world, "strict", "PROTECT=strict\nCABLES==");
        let hand = world.subhost("hand", "CABLES==");
        let third = subhost(&world, "c", "CABLES==\nSTOP_TIMEOUT=1");
        world.ok(&format!(
            "mkdir shared; overlay-boot {web}; overlay-boot {strict}"
        ));
        // Without a room, the host has the mounts of the subhost.
        world.ok(&format!(
            "d=$(ob-conf {hand} | ob-mount | ob-cable | ob-unshare &)"
        ));
        for name in VICTIMS {
            let _ = world.snapshot_of_idle(name);
        }
        let states = VICTIMS.map(|name| world.document(name));
        let is_fact = |key: &str| key.starts_with(|c: char| c.is_ascii_lowercase());
        let mut facts: Map<String, Value> = json!({
            "netfound": [true], "ifindex": [[2, 3]], "steps": [["true"]], "cgroup": ["/sys/fs/cgroup/web"],
            "guard": [1], "guardstart": [1], "userns": ["100000:65536"], "mountids": [[1]],
        })
        .as_object()
        .cloned()
        .expect("an object");
        for (key, value) in states
            .iter()
            .flat_map(|state| state.as_object().into_iter().flatten())
        {
            if is_fact(key) {
                let values = facts.entry(key).or_insert_with(|| json!([]));
                values.as_array_mut().expect("a list").push(value.clone());
            }
        }
        let facts: Vec<(String, Vec<Value>)> = facts
            .into_iter()
            .map(|(key, values)| (key, values.as_array().cloned().unwrap_or_default()))
            .collect();
        let plans = [&web, &strict, &hand, &third].map(|conf| {
            let line = world.ok(&format!("ob-conf {conf} | ob-conf - NAME=c LOG=$W/c.log"));
            serde_json::from_str(&line).expect("a document")
        });

        world.ok("ip netns add other; ob-conf c/c.conf | ob-mount | ob-mount --undo");
        let before = (world.snapshot(), victims(&world));
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seed = number("OB_SEED").unwrap_or(u64::from(clock.subsec_nanos()));
        println!("OB_SEED={seed}");
        let config = ProptestConfig {
            cases: number("OB_CASES").unwrap_or(CASES),
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Default::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4));
        let mut runner = TestRunner::new_with_rng(config, rng);
        let outcome = runner.run(&document(plans.to_vec(), facts), |document| {
            let done = world.line(FEED).input(&document.to_string()).run();
            prop_assert_eq!(done.out, "");
            world.until_same(&before.0);
            prop_assert_eq!(&victims(&world), &before.1);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("OB_SEED={seed}: {error}"));
        world.ok("overlay-stop web strict; read -r d </run/overlay-boot/hand/subhost; printf '%s\n' \"$d\" | ob-unshare --undo | ob-cable --undo | ob-mount --undo");
    }
}
