//! Layers that are used twice, bad words in a configuration that would grant more, and the file
//! that records ranges of ids.

use end_to_end::{Done, Running, World, is_root_or_tell, until};

/// A world in which the subhost `a` runs, with LOWER=../busybox and the default layers.
fn world_with_a() -> World {
    let world = World::new();
    let conf = world.subhost("a", "");
    world.ok(&format!("overlay-boot {conf}"));
    world
}

#[test]
fn r03_layer_of_a_running_subhost_is_refused() {
    let world = world_with_a();
    world.ok("mkdir -p a/root/x/root a/root/x/work a/root/x/live a/work/x a/live/x other b/in");
    world.ok("ln -s a/root link; mkdir alias; mount --bind a/root alias");
    let running = world.snapshot_of_idle("a");
    for (plan, words) in [
        // The same directory.
        ("UPPER=../a/root", &["UPPER=", "as UPPER="][..]),
        ("UPPER=../a/work", &["UPPER=", "as WORK="]),
        ("UPPER=../a/live", &["UPPER=", "as LIVE="]),
        ("WORK=../a/root", &["WORK=", "as UPPER="]),
        ("WORK=../a/work", &["WORK=", "as WORK="]),
        ("LIVE=../a/root", &["LIVE=", "as UPPER="]),
        ("LIVE=../a/work", &["LIVE=", "as WORK="]),
        ("LOWER=../a/root", &["LOWER=", "as UPPER="]),
        ("LOWER=../a/work", &["LOWER=", "as WORK="]),
        ("LOWER=../a/live", &["LOWER=", "as LIVE="]),
        ("LOWER=../other\nUPPER=../busybox", &["UPPER=", "as LOWER="]),
        ("LOWER=../other\nWORK=../busybox", &["WORK=", "as LOWER="]),
        ("LOWER=../link", &["LOWER=", "as UPPER="]),
        ("LOWER=../alias", &["LOWER=", "as UPPER="]),
        // Bound.
        ("LOWER=../a/root\nUPPER=../a/root", &["UPPER=", "as UPPER="]),
        // One in the other.
        (
            "UPPER=../a/root/x/root\nWORK=../a/root/x/work",
            &["UPPER=", "it lies in UPPER="],
        ),
        ("UPPER=../a/work/x", &["UPPER=", "it lies in WORK="]),
        ("UPPER=../a/live/x", &["UPPER=", "it lies in LIVE="]),
        ("WORK=../link/x/work", &["WORK=", "it lies in UPPER="]),
        ("LIVE=../a/root/x/live", &["LIVE=", "it lies in UPPER="]),
        ("LOWER=../a/root/x", &["LOWER=", "it lies in UPPER="]),
        ("LOWER=../a/live/x", &["LOWER=", "it lies in LIVE="]),
        (
            "LOWER=../a/root/x\nUPPER=../a/root/x",
            &["UPPER=", "it lies in UPPER="],
        ),
        ("UPPER=../a", &["UPPER=", "root lies in it"]),
        ("LIVE=../a", &["LIVE=", "root lies in it"]),
    ] {
        let conf = world.subhost("b", plan);
        let done = world.run(&format!("overlay-boot {conf}"));
        done.fails(1, &["ob-mount: b: ", "is in use by the subhost a"]);
        done.fails(1, words);
        world
            .run(&format!("overlay-boot -n {conf}"))
            .fails(1, words);
        world.assert_same(&running);
    }
    world.ok("umount alias; overlay-go a true; overlay-stop a");
}

#[test]
fn r03_layers_that_are_only_read_are_shared() {
    let world = world_with_a();
    world.ok("mkdir -p busybox/srv/live");
    for (name, plan) in [
        ("b", ""),
        ("c", "LOWER=/"),
        ("d", "LOWER=/"),
        ("e", "LIVE=../busybox/srv/live"),
        ("bound", "UPPER=../busybox"),
        ("too", "UPPER=../busybox"),
    ] {
        let conf = world.subhost(name, plan);
        world.ok(&format!("overlay-boot {conf}"));
    }
    assert_eq!(world.ok("ob-list --confs | wc -l"), "7");
    world.ok("overlay-stop --all");
    // Nothing stays locked.
    for name in ["a", "b", "e"] {
        world.ok(&format!("overlay-boot {name}/{name}.conf"));
    }
    world.ok("overlay-stop --all");
}

#[test]
fn r03_layers_of_one_plan_must_stand_apart() {
    let world = World::new();
    world.ok("mkdir -p b/root/in b/work/in b/live/in lower; ln -s root b/link");
    world.ok("mkdir b/alias; mount --bind b/root b/alias");
    let before = world.snapshot();
    for (plan, words) in [
        (
            "WORK=root",
            &["WORK=", "and UPPER=", "must not contain one another"][..],
        ),
        (
            "WORK=root/in",
            &["WORK=", "and UPPER=", "must not contain one another"],
        ),
        (
            "UPPER=work/in",
            &["WORK=", "and UPPER=", "must not contain one another"],
        ),
        (
            "WORK=link/in",
            &["WORK=", "and UPPER=", "must not contain one another"],
        ),
        (
            "WORK=alias",
            &["WORK=", "and UPPER=", "must not contain one another"],
        ),
        (
            "LIVE=root",
            &["UPPER=", "and LIVE=", "must not contain one another"],
        ),
        (
            "LIVE=work",
            &["WORK=", "and LIVE=", "must not contain one another"],
        ),
        (
            "LIVE=root/in",
            &["UPPER=", "and LIVE=", "must not contain one another"],
        ),
        (
            "UPPER=live/in",
            &["UPPER=", "and LIVE=", "must not contain one another"],
        ),
        (
            "LIVE=.",
            &["UPPER=", "and LIVE=", "must not contain one another"],
        ),
        ("LOWER=root/in", &["LOWER=", "is UPPER=", "or lies in it"]),
        ("LOWER=link", &["LOWER=", "is UPPER=", "or lies in it"]),
        ("LOWER=alias", &["LOWER=", "is UPPER=", "or lies in it"]),
        ("LOWER=work", &["LOWER=", "is WORK=", "or lies in it"]),
        (
            "LOWER=root\nUPPER=root\nLIVE=link",
            &["UPPER=", "one directory"],
        ),
    ] {
        let conf = world.subhost("b", plan);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["ob-mount: b: "])
            .fails(1, words);
        world
            .run(&format!("overlay-boot -n {conf}"))
            .fails(1, words);
        // --check does not see a bind mount of a directory, nor its second path; the boot does.
        let check = world.run(&format!("ob-conf --check {conf}"));
        let word = words[words.len() - 1];
        let seen = check.out.contains(word);
        assert!(
            seen || plan.contains("alias") || plan.contains("UPPER=root"),
            "{check:#?}"
        );
        world.assert_same(&before);
    }
    // LIVE may be LOWER.
    let conf = world.subhost("b", "LIVE=../busybox");
    world.ok(&format!("overlay-boot {conf} && overlay-stop b"));
    world.ok("umount b/alias");
}

#[test]
fn r03_of_nested_boots_at_once_one_wins() {
    let world = World::new();
    let outer = world.subhost("outer", "");
    world.ok("mkdir -p outer/root/x/root outer/root/x/work");
    let inner = world.subhost(
        "inner",
        "UPPER=../outer/root/x/root\nWORK=../outer/root/x/work",
    );
    let before = world.snapshot();
    for _ in 0..10 {
        let boots =
            [&outer, &inner].map(|conf| world.line(&format!("overlay-boot {conf}")).start());
        let ends = boots.map(Running::wait);
        let failed: Vec<_> = ends.iter().filter(|end| end.status != 0).collect();
        assert_eq!(failed.len(), 1, "{ends:#?}");
        failed[0].fails(1, &["UPPER=", "is in use by"]);
        world.ok("overlay-stop --all");
        world.assert_same(&before);
    }
}

#[test]
fn r03_locks_of_a_room_without_guard_are_kept() {
    let world = World::new();
    let conf = world.subhost("a", "");
    world.ok("mkdir a/root/x");
    let holder = world
        .line(&format!(
            "ob-room sh -ec 'ob-conf {conf} | ob-mount >made; : >ready; exec sleep 1000'"
        ))
        .start();
    until("the mounts", || world.has("ready"));
    for plan in ["WORK=../a/work", "LOWER=../a/root", "UPPER=../a/root/x"] {
        let conf = world.subhost("b", plan);
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["is in use by another subhost"]);
    }
    drop(holder);
}

/// Holds `what` open on the host, stops `a`, and boots it again.
fn boot_while_held(world: &World, conf: &str, line: &str) -> Done {
    world.ok(&format!("overlay-boot {conf}"));
    let pid = world.document("a")["pid"].to_string();
    world.ok("rm -f ready");
    let holder = world.line(line).env("PID", &pid).start();
    until("the holder", || world.has("ready"));
    world.ok("overlay-stop a");
    let done = world.run(&format!("overlay-boot {conf}"));
    world.ok("kill $(cat ready) 2>/dev/null || :");
    drop(holder);
    done
}

#[test]
fn a02_upper_of_a_living_overlay_is_refused() {
    let world = World::new();
    let conf = world.subhost("a", "");
    world.ok("echo text >busybox/etc/below");
    let before = world.snapshot();
    for (line, word) in [
        (
            "exec 9</proc/$PID/root; echo $$ >ready; exec sleep 1000",
            "keeps it open",
        ),
        (
            "cd /proc/$PID/root/etc; echo $$ >$W/ready; exec sleep 1000",
            "keeps it open",
        ),
        (
            "exec 9</proc/$PID/root/etc/network/interfaces; echo $$ >ready; exec sleep 1000",
            "keeps it open",
        ),
        (
            "exec 9</proc/$PID/root/etc/below; echo $$ >ready; exec sleep 1000",
            "keeps it open",
        ),
        (
            "exec nsenter --mount=/proc/$PID/ns/mnt /bin/sh -c 'echo $$ >/ready; exec sleep 1000' & while [ ! -e /proc/$PID/root/ready ]; do sleep .1; done; mv a/root/ready .; wait",
            "keeps it open",
        ),
    ] {
        let done = boot_while_held(&world, &conf, line);
        let pid = world.read("ready");
        let holder = format!("process {} (sleep) {word}", pid.trim());
        done.fails(
            1,
            &["ob-mount: a: UPPER=", "still in use by an overlay", &holder],
        );
        world.until_same(&before);
        // And without the holder it boots.
        world.ok(&format!("overlay-boot {conf} && overlay-stop a"));
        world.assert_same(&before);
    }
}

#[test]
fn a02_upper_of_a_living_mapped_overlay_is_refused() {
    if !is_root_or_tell("USERNS") {
        return;
    }
    let world = World::new();
    let conf = world.subhost("a", "PROTECT=strict");
    world.ok("chmod 700 a");
    let line = "exec 9</proc/$PID/root; echo $$ >ready; exec sleep 1000";
    boot_while_held(&world, &conf, line).fails(
        1,
        &[
            "UPPER=",
            "still in use by an overlay",
            "(sleep) keeps it open",
        ],
    );
    world.ok(&format!("overlay-boot {conf} && overlay-stop a"));
}

#[test]
fn a02_overlay_mounted_by_hand_is_refused() {
    let world = World::new();
    let conf = world.subhost("a", "");
    let other = world.subhost("b", "LOWER=../busybox\nUPPER=../a/work\nWORK=work");
    world.ok("mkdir by-hand; mount -t overlay x -o lowerdir=busybox,upperdir=a/root,workdir=a/work by-hand");
    let before = world.snapshot();
    for (line, words) in [
        (
            format!("overlay-boot {conf}"),
            &["UPPER=", "has it mounted on", "/by-hand"][..],
        ),
        (
            format!("overlay-boot -n {conf}"),
            &["UPPER=", "has it mounted on", "/by-hand"],
        ),
        (
            format!("overlay-boot {other}"),
            &["UPPER=", "still in use by an overlay"],
        ),
        (
            format!("overlay-boot -n {other}"),
            &["UPPER=", "still in use by an overlay"],
        ),
        (
            format!("ob-conf {conf} | ob-mount"),
            &["UPPER=", "has it mounted on", "/by-hand"],
        ),
        (
            format!("ob-conf {conf} LOWER=$W/a/root | ob-mount"),
            &["UPPER=", "has it mounted on", "/by-hand"],
        ),
    ] {
        world.run(&line).fails(1, words);
        world.assert_same(&before);
    }
    world.ok(&format!(
        "umount by-hand; overlay-boot {conf} && overlay-stop a"
    ));
}

#[test]
fn a02_restart_right_after_a_stop_boots() {
    let world = World::new();
    let conf = world.subhost("a", "");
    world.ok(&format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do overlay-boot {conf}; overlay-go a true; overlay-stop a; done"
    ));
    // The kernel, or a process that ends soon, may keep the overlay for a moment.
    let short = "exec 9</proc/$PID/root; echo $$ >ready; sleep 1.5; exec 9<&-; exec sleep 1000";
    assert_eq!(boot_while_held(&world, &conf, short).status, 0);
    world.ok("overlay-stop a");
}

#[test]
fn a02_check_changes_nothing_in_the_layers() {
    let world = World::new();
    let conf = world.subhost("a", "");
    world.ok("mkdir a/root/etc a/root/etc/network; : >a/root/etc/network/interfaces");
    let state =
        "find a/root a/work -printf '%p %i %m %T@ %C@\\n' | sort; getfattr -R -d -m - a 2>&1 || :";
    let before = world.ok(state);
    world.ok(&format!("overlay-boot -n {conf}"));
    assert_eq!(world.ok(state), before);
    world.ok(
        "mkdir busy; mount -t overlay x -o lowerdir=busybox,upperdir=a/root,workdir=a/work busy",
    );
    let before = world.ok(state);
    world.run(&format!("overlay-boot -n {conf}")).fails(1, &[]);
    world.run(&format!("overlay-boot {conf}")).fails(1, &[]);
    assert_eq!(world.ok(state), before);
    world.ok("umount busy");
}

#[test]
fn a03_share_with_an_unknown_option_is_refused() {
    let world = World::new();
    world.ok("mkdir d");
    let before = world.snapshot();
    for (share, words) in [
        (
            "SHARE=../d:/x:readonly",
            &["'readonly'", "did you mean ro?", ":rw after it"][..],
        ),
        ("SHARE=../d:/x:RO", &["'RO'", "did you mean ro?"]),
        ("SHARE=../d:/x:ro,z", &["'z'", "use ro, rw, rec or idmap"]),
        ("SHARE = ../d:/x:r0", &["'r0'"]),
        ("SHARE=../d:/x: ro", &["' ro'", "did you mean ro?"]),
        (
            "SHARE=../d::read-only",
            &["'read-only'", "did you mean ro?"],
        ),
        ("SHARE=../d:/x:a:b", &["'b'", ":rw after it"]),
        (
            "SHARE=../d:ro",
            &[
                "'ro' stands in the place of a path",
                "../d::ro",
                "/ro if as a path",
            ],
        ),
        ("SHARE=:/x", &["no path of the host"]),
        ("SHARE_RO=../d:/x:idmapped", &["'idmapped'"]),
        ("SHARE_RO=../d:/x:rwx", &["'rwx'", "did you mean rw?"]),
    ] {
        let conf = world.subhost("a", &format!("SHARE=../d:/first\n{share}"));
        let variable = share.split([' ', '=']).next().unwrap();
        let place = format!("ob-conf: {conf}:2: {variable}=");
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &[&place])
            .fails(1, words);
        world
            .run(&format!("overlay-boot -n {conf}"))
            .fails(1, &[&place]);
        let column = share.len() - share.split('=').next_back().unwrap().trim().len() + 1;
        let report = world.run(&format!("ob-conf --check {conf}"));
        let line = format!("{conf}:2:{column}: {variable}=");
        let found = report.out.lines().find(|found| found.starts_with(&line));
        let found = found.unwrap_or_else(|| panic!("no {line} in {report:#?}"));
        assert!(words.iter().all(|word| found.contains(word)), "{found}");
        assert_eq!(report.status, 1);
        world.assert_same(&before);
    }
    // One that was changed on its way is refused before anything is mounted.
    let conf = world.subhost("a", "");
    for key in ["SHARE", "SHARE_RO"] {
        let filter = format!("jq -c '.{key} = [\"/etc:/x:readonly\"]'");
        for mount in ["ob-mount", "ob-mount -n"] {
            world
                .run(&format!("ob-conf {conf} | {filter} | {mount}"))
                .fails(1, &["ob-mount: a: SHARE", "did you mean ro?"]);
            world.assert_same(&before);
        }
    }
}

#[test]
fn a03_share_into_a_running_subhost_refuses_unknown_options() {
    let world = world_with_a();
    world.ok("mkdir d");
    for (share, word) in [
        ("d:/x:readonly", "did you mean ro?"),
        ("d:/x:ro,z", "use ro, rw, rec or idmap"),
        ("d:ro", "stands in the place of a path"),
    ] {
        world
            .run(&format!("overlay-share {share} a"))
            .fails(1, &["overlay-share: a: ", word]);
    }
    assert_eq!(world.inside("a", "ls -d /x* /ro 2>/dev/null || :"), "");
    world.ok("overlay-share d:/x:ro a && overlay-stop a");
}

#[test]
fn a03_share_at_a_path_with_a_colon_is_mounted() {
    let world = World::new();
    world.ok("mkdir d; : >d/file");
    let conf = world.subhost(
        "a",
        "SHARE=../d:/x:y/z\nSHARE=../d:/ro:ro:rw\nSHARE=../d:/b:c/d:ro\nSHARE=../d:/last:c:rw",
    );
    world.ok(&format!("overlay-boot {conf}"));
    let inside =
        "for d in /x:y/z /ro:ro /b:c/d /last:c; do echo $d/*; touch $d/file || echo no; done";
    assert_eq!(
        world.inside("a", &format!("({inside}) 2>/dev/null")),
        "/x:y/z/file\n/ro:ro/file\n/b:c/d/file\nno\n/last:c/file"
    );
    world.ok("overlay-stop a");
}

#[test]
fn f11_mask_of_a_renamed_path_is_logged() {
    let world = World::new();
    let conf = world.subhost(
        "a",
        "PROTECT=yes\nMASK=/etc/ssl/private /etc/key /proc/absent /sys/absent",
    );
    world.ok("mkdir -p a/root/etc/ssl/private; echo secret >a/root/etc/ssl/private/key; : >a/root/etc/key");
    let warned = |path: &str| {
        let log = world.read("/tmp/overlay-a.log");
        log.lines()
            .any(|line| line.contains(&format!("ob-mount: MASK={path}: there is no such file")))
    };
    world.ok(&format!("overlay-boot {conf}"));
    assert!(!warned("/"));
    assert_eq!(world.inside("a", "ls /etc/ssl/private"), "");
    world.inside("a", "mv /etc/ssl /etc/tls");
    world.ok("overlay-stop a");
    world.ok(&format!("overlay-boot {conf}"));
    assert!(warned("/etc/ssl/private") && !warned("/etc/key"));
    assert!(!warned("/proc/absent") && !warned("/sys/absent"));
    world.ok("overlay-stop a");
}

#[test]
fn b05_upper_that_users_cannot_search_is_reported() {
    let world = World::new();
    let conf = world.subhost("a", "");
    let text = "/a/root has mode 0700, and so has the root directory inside";
    let reported = |conf: &str| {
        world.ok(&format!("overlay-boot {conf} && overlay-stop a"));
        let log = world.read("/tmp/overlay-a.log").contains(text);
        let check = world.run(&format!("ob-conf --check {conf}"));
        assert_eq!(log, check.out.contains(text), "{check:#?}");
        log
    };
    assert!(!reported(&conf));
    world.ok("umask 077; rmdir a/root/* 2>/dev/null || rm -r a/root; mkdir a/root");
    assert!(reported(&conf));
    let steps = world.ok(&format!("overlay-boot -n {conf}"));
    assert!(
        steps
            .lines()
            .any(|step| step.starts_with('#') && step.contains(text)),
        "{steps}"
    );
    // With the line of UPPER.
    world.ok("echo UPPER=root >>a/a.conf");
    let check = world.run(&format!("ob-conf --check {conf}"));
    assert!(check.out.contains(&format!("{conf}:5:7: ")), "{check:#?}");
    world.ok("chmod 755 a/root");
    assert!(!reported(&conf));
    // What overlay-new makes is not closed.
    world.ok("umask 077; overlay-new new >/dev/null");
    assert_eq!(world.ok("stat -c %a new/root"), "755");
}

const RANGES: &str = "/var/lib/subhosts/userns";

/// Returns a world with a new /var/lib; `None` without root.
fn world_with_ranges() -> Option<World> {
    if !is_root_or_tell("USERNS") {
        return None;
    }
    let world = World::new();
    world.ok("mkdir lib && mount --bind lib /var/lib");
    Some(world)
}

/// Boots and stops a subhost with USERNS=auto; returns its range.
fn range_of(world: &World, conf: &str, name: &str) -> String {
    world.ok(&format!("overlay-boot '{conf}'"));
    let range = world.document(name)["userns"].as_str().unwrap().to_owned();
    world.ok(&format!("overlay-stop {name}"));
    range
}

#[test]
fn r11_configuration_with_a_newline_in_its_path_has_one_line() {
    let Some(world) = world_with_ranges() else {
        return;
    };
    let b = world.subhost("b", "USERNS=auto");
    world.subhost("a", "NAME=a\nUSERNS=auto");
    world.ok("chmod 700 a b; mv a/a.conf 'a/x\n2147000000:65536 a.conf'");
    let a = format!("{}/a/x\n2147000000:65536 a.conf", world.directory());
    let first = range_of(&world, &a, "a");
    let second = range_of(&world, &b, "b");
    assert_ne!(first, second);
    assert_eq!(world.ok(&format!("wc -l <{RANGES}")), "2");
    assert_eq!(range_of(&world, &a, "a"), first);
    assert_eq!(range_of(&world, &b, "b"), second);
}

#[test]
fn r11_damaged_line_is_logged_and_its_range_not_given() {
    let Some(world) = world_with_ranges() else {
        return;
    };
    let a = world.subhost("a", "USERNS=auto");
    let b = world.subhost("b", "USERNS=auto");
    world.ok("chmod 700 a b");
    let first = range_of(&world, &a, "a");
    for damaged in [
        "mta /opt/mta.conf\n",
        "\u{1b}[31m\n\n",
        "2013331456\n",
        "2013331456:65536 mta /opt/m",
    ] {
        world.ok(&format!("printf '%s' '{damaged}' >>{RANGES}"));
        assert_eq!(range_of(&world, &a, "a"), first);
        let log = world.read("/tmp/overlay-a.log");
        let is_cut = !damaged.ends_with('\n');
        assert!(
            is_cut || log.contains("is damaged; correct or remove it"),
            "{log}"
        );
        assert!(!log.contains('\u{1b}'), "{log}");
    }
    // The first two ranges are taken.
    assert_eq!(range_of(&world, &b, "b"), "2013396992:65536");
    assert_eq!(range_of(&world, &a, "a"), first);
}

#[test]
fn r11_range_of_a_running_subhost_outlives_the_file() {
    let Some(world) = world_with_ranges() else {
        return;
    };
    let a = world.subhost("a", "USERNS=auto");
    let b = world.subhost("b", "USERNS=auto");
    world.ok("chmod 700 a b");
    world.ok(&format!("overlay-boot {a}"));
    for lose in [format!(": >{RANGES}"), format!("rm {RANGES}")] {
        world.ok(&lose);
        assert_ne!(range_of(&world, &b, "b"), world.document("a")["userns"]);
    }
    let own = world.document("a")["userns"].as_str().unwrap().to_owned();
    let c = world.subhost("c", &format!("USERNS={own}"));
    world.ok(&format!("chmod 700 c; rm {RANGES}"));
    world
        .run(&format!("overlay-boot {c}"))
        .fails(1, &["it overlaps", &own]);
    world.ok("overlay-stop a");
}

#[test]
fn r11_file_that_cannot_be_kept_is_one_error() {
    let Some(world) = world_with_ranges() else {
        return;
    };
    let conf = world.subhost("a", "USERNS=auto");
    world.ok("chmod 700 a; mkdir -p lib/subhosts");
    let before = world.snapshot();
    for (damage, words, repair) in [
        (
            "mkdir lib/subhosts/userns",
            &["/var/lib/subhosts/userns", "directory"][..],
            "rmdir lib/subhosts/userns",
        ),
        (
            "mkdir lib/subhosts/userns.new",
            &["/var/lib/subhosts/userns.new", "directory"],
            "rmdir lib/subhosts/userns.new",
        ),
        (
            "rmdir lib/subhosts; : >lib/subhosts",
            &["/var/lib/subhosts", "directory"],
            "rm lib/subhosts; mkdir lib/subhosts",
        ),
        (
            "mount -t tmpfs -o size=4k,nr_inodes=3 full /var/lib/subhosts; head -c 4096 /dev/zero >/var/lib/subhosts/x",
            &["/var/lib/subhosts/userns", "No space left on device"],
            "umount /var/lib/subhosts",
        ),
        (
            "mount -t tmpfs -o nr_inodes=1 full /var/lib/subhosts",
            &["/var/lib/subhosts/userns", "No space left on device"],
            "umount /var/lib/subhosts",
        ),
        (
            "mount --bind lib/subhosts /var/lib/subhosts; mount -o remount,bind,ro /var/lib/subhosts",
            &["Read-only file system"],
            "umount /var/lib/subhosts",
        ),
    ] {
        world.ok(damage);
        let left = world.ok("find /var/lib | sort");
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["ob-mount: a: USERNS=auto: "])
            .fails(1, words);
        assert_eq!(world.ok("find /var/lib | sort"), left);
        world.ok(repair);
        world.assert_same(&before);
    }
    world.ok(&format!("overlay-boot {conf} && overlay-stop a"));
}

#[test]
fn r11_locked_file_of_ranges_is_not_waited_for_without_end() {
    let Some(world) = world_with_ranges() else {
        return;
    };
    let conf = world.subhost("a", "USERNS=auto");
    world.ok("chmod 700 a; mkdir -p lib/subhosts");
    let line = format!("flock /var/lib/subhosts timeout 60 overlay-boot {conf}");
    world
        .run(&line)
        .fails(1, &["another boot keeps /var/lib/subhosts locked"]);
}
