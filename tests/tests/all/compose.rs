//! Composition: each stage works alone, and can be replaced by a few lines of sh, left out or
//! reordered.

use end_to_end::World;

/// The stages in plain sh, as functions: each reads the document, does its work and adds its facts.
const STAGES: &str = r#"
set -e
get() { read -r document; vars=$(printf '%s\n' "$document" | ob-conf --env - "$@"); eval "$vars"; }
put() { printf '%s\n' "$document" | ob-conf - "$@"; }

my_conf() {
    printf '{"NAME":"mta","LOWER":"%s/busybox","UPPER":"%s/root","WORK":"%s/work","LIVE":"%s/live","LOG":"/tmp/overlay-mta.log",' \
        "$W" "$W/mta" "$W/mta" "$W/mta"
    printf '"START":["none"],"CABLES":["="]}\n'
}
my_mount() {
    get
    mount -t overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" "$NAME" "$LIVE"
    mount --rbind /dev "$LIVE/dev"
    put root="$LIVE" mounts='["'"$LIVE"'","'"$LIVE"'/dev"]'
}
# With nothing but --env: the facts are put before the closing brace.
my_cable() {
    get
    ip netns add "$NAME"
    ip -n "$NAME" link set lo up
    ip link add "${NAME}0" type veth peer name eth0 netns "$NAME"
    ip link set "${NAME}0" up
    printf '%s,"net":"/run/netns/%s","cables":["%s0"]}\n' "${document%\}}" "$NAME" "$NAME"
}
# A pid 1 that prints its environment and exits.
my_unshare() {
    get net root
    nsenter --net="$net" unshare --fork --pid --ipc --uts --mount --kill-child --root="$root" \
        /bin/sh -c 'mount -t proc proc /proc; echo pid $$ of $(ls /proc | grep -c "^[0-9]"); tail -n +3 /proc/net/dev | cut -d: -f1 | sort'
}
"#;

/// The pipeline in reverse, which undoes a subhost that was booted without overlay-boot.
const UNDO: &str = "read -r document </run/overlay-boot/mta/subhost; printf '%s\\n' \"$document\" | ob-unshare --undo | ob-cable --undo | ob-mount --undo";

fn world() -> (World, String) {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    (world, conf)
}

/// Boots with the pipeline, without a room and in a room, checks the subhost, and undoes it. A room
/// is the private mount namespace of `ob-room`, which shares /run/netns with the host.
fn boots(pipeline: &str) {
    let (world, conf) = world();
    let before = world.snapshot();
    for room in ["sh -c", "ob-room sh -c"] {
        let script = format!("{STAGES}\nCONF={conf}\n{pipeline} &");
        // The pipeline stays in the background; its output means that the subhost is up.
        let line = format!("document=$({room} \"$SCRIPT\"); printf '%s\\n' \"$document\"");
        let done = world.line(&line).env("SCRIPT", &script).run();
        assert!(done.err.is_empty(), "{done:#?}");
        let document: serde_json::Value =
            serde_json::from_str(&done.clone().ok()).unwrap_or_else(|_| panic!("{done:#?}"));
        assert_eq!(document["net"], "/run/netns/mta");
        assert_eq!(document["cables"][0], "mta0");
        assert_eq!(document["pid"], world.document("mta")["pid"]);
        assert_eq!(
            world.inside("mta", "ls /sys/class/net; touch /root/written"),
            "eth0\nlo"
        );
        let on_host = world.ok("grep -c /mta/live /proc/self/mountinfo || :");
        assert_eq!(
            on_host == "0",
            room.contains("ob-room"),
            "{on_host} mounts on the host with {room}"
        );
        let undone = world.ok(UNDO);
        assert!(
            !undone.contains("\"pid\"")
                && !undone.contains("\"net\"")
                && undone.contains("\"NAME\":\"mta\""),
            "{undone}"
        );
        world.until_same(&before);
        assert!(world.has("mta/root/root/written"));
    }
}

#[test]
fn pipeline_boots_a_subhost() {
    boots("ob-conf $CONF | ob-mount | ob-cable | ob-unshare");
}

#[test]
fn ob_conf_can_be_plain_sh() {
    boots("my_conf | ob-mount | ob-cable | ob-unshare");
}

#[test]
fn ob_mount_can_be_plain_sh() {
    boots("ob-conf $CONF | my_mount | ob-cable | ob-unshare");
}

#[test]
fn ob_cable_can_be_plain_sh() {
    boots("ob-conf $CONF | ob-mount | my_cable | ob-unshare");
}

#[test]
fn all_stages_but_the_last_can_be_plain_sh() {
    boots("my_conf | my_mount | my_cable | ob-unshare");
}

#[test]
fn pipeline_with_tee_between_stages_boots() {
    boots("ob-conf $CONF | tee 1 | ob-mount | tee 2 | ob-cable | tee 3 | ob-unshare");
}

#[test]
fn pipeline_through_a_fifo_boots() {
    boots("mkfifo fifo.$$; ob-conf $CONF >fifo.$$ & ob-mount <fifo.$$ | ob-cable | ob-unshare");
}

#[test]
fn pipeline_with_cables_before_mounts_boots() {
    boots("ob-conf $CONF | ob-cable | ob-mount | ob-unshare");
}

#[test]
fn ob_unshare_can_be_plain_sh() {
    let (world, conf) = world();
    let before = world.snapshot();
    let script = format!("{STAGES}\nob-conf {conf} | ob-mount | ob-cable | tee made | my_unshare");
    for room in ["sh -c", "ob-room sh -c"] {
        let said = world
            .line(&format!("{room} \"$SCRIPT\""))
            .env("SCRIPT", &script)
            .run()
            .ok();
        assert!(
            said.starts_with("pid 1 of ") && said.contains("eth0") && said.contains("lo"),
            "{said}"
        );
        world.ok("ob-cable --undo <made | ob-mount --undo");
        world.assert_same(&before);
    }
}

#[test]
fn plan_can_be_changed_by_jq() {
    let (world, conf) = world();
    world.write("shared/file", "shared\n");
    let before = world.snapshot();
    world.ok(&format!("d=$(ob-conf {conf} | jq -c '.SHARE += [env.W + \"/shared:/mnt\"] | .CABLES += [\"=\"]' | ob-mount | ob-cable | ob-unshare &)"));
    assert_eq!(
        world.inside("mta", "cat /mnt/file; ls /sys/class/net"),
        "shared\neth0\neth1\nlo"
    );
    world.ok(UNDO);
    world.until_same(&before);
}

#[test]
fn plan_can_be_changed_by_assignments() {
    let (world, conf) = world();
    world.write("shared/file", "shared\n");
    let before = world.snapshot();
    world.ok(&format!("d=$(ob-conf {conf} CABLES='= =' | ob-conf - SHARE=$W/shared:/mnt RAM_SIZE=none | ob-mount | ob-cable | ob-unshare &)"));
    assert_eq!(
        world.inside(
            "mta",
            "cat /mnt/file; ls /sys/class/net; grep -c ' /run ' /proc/mounts || :"
        ),
        "shared\neth0\neth1\nlo\n0"
    );
    world.ok(UNDO);
    world.until_same(&before);
}

#[test]
fn foreign_program_can_be_a_stage() {
    let (world, conf) = world();
    world.script(
        "bin/my-macvlan",
        "set -e\nread -r document; vars=$(printf '%s\\n' \"$document\" | ob-conf --env -); eval \"$vars\"\n\
         ip netns add \"$NAME\"; ip -n \"$NAME\" link set lo up\n\
         ip link add uplink type veth peer name other; ip link set other netns \"$NAME\" name net7\n\
         printf '%s\\n' \"$document\" | ob-conf - net=/run/netns/\"$NAME\"",
    );
    let before = world.snapshot();
    world.ok(&format!(
        "PATH=$W/bin:$PATH; d=$(ob-conf {conf} | ob-mount | my-macvlan | ob-unshare &)"
    ));
    assert_eq!(world.inside("mta", "ls /sys/class/net"), "lo\nnet7");
    // ob-cable removes only links that it recorded.
    world.ok("ip link del uplink");
    world.ok(UNDO);
    world.until_same(&before);
}

#[test]
fn pipeline_without_ob_cable_keeps_the_network_of_the_host() {
    let (world, conf) = world();
    let before = world.snapshot();
    for room in ["", "ob-room"] {
        let line = format!(
            "{room} sh -c 'ob-conf {conf} | ob-mount | tee made | ob-unshare -- /bin/sh -c \"readlink /proc/self/ns/net; echo \\$\\$; exit 7\"'"
        );
        let done = world.run(&line);
        assert_eq!(done.status, 7, "{done:#?}");
        assert_eq!(
            done.out,
            format!("{}\n1\n", world.ok("readlink /proc/self/ns/net"))
        );
        world.ok("ob-mount --undo <made");
        world.until_same(&before);
    }
    let done = world.run(&format!(
        "ob-conf {conf} | ob-mount | tee made | ob-unshare -- /bin/sh"
    ));
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    world.ok("ob-mount --undo <made");
    world.until_same(&before);
}

#[test]
fn command_as_pid_1_exits_with_the_status_of_env() {
    let (world, conf) = world();
    world.write("busybox/plain", "");
    for (command, status) in [
        ("true", 0),
        ("false", 1),
        ("sh -c 'exit 42'", 42),
        ("no-such-command", 127),
        ("/plain", 126),
        ("/no/such", 127),
    ] {
        let done = world.run(&format!(
            "ob-room sh -c 'ob-conf {conf} | ob-mount | ob-unshare -- \"$@\"' sh {command}"
        ));
        assert_eq!(done.status, status, "{done:#?}");
        assert_eq!(
            done.err.lines().count(),
            usize::from(status > 100),
            "{done:#?}"
        );
    }
    // Pid 1 gets no signal from inside without a handler, but SIGKILL from outside works.
    let line = format!("ob-room sh -c 'ob-conf {conf} | ob-mount | ob-unshare -- sleep 1000'");
    let running = world.line(&line).start();
    end_to_end::until("pid 1 to run", || world.is_up("mta"));
    world.ok(&format!("kill -9 {}", world.document("mta")["pid"]));
    assert_eq!(running.wait().status, 128 + 9);
    assert_eq!(world.run("ob-room no-such").status, 127);
    assert_eq!(world.run("ob-room sh -c 'exit 9'").status, 9);
    assert_eq!(
        world.run("ob-unshare -- true </dev/null").status,
        1,
        "an empty input was reported by an earlier stage"
    );
    assert_eq!(
        world
            .run("echo '{\"NAME\":\"mta\"}' | ob-unshare -- true")
            .status,
        125
    );
}

#[test]
fn pipeline_can_pause_between_any_two_stages() {
    let (world, conf) = world();
    let empty = world.snapshot();
    world.ok(&format!("ob-conf {conf} >1"));
    world.assert_same(&empty);

    world.ok("ob-mount <1 >2");
    let mounted = world.snapshot();
    assert_eq!(
        world.ok("chroot mta/live /bin/sh -c 'echo looked >/root/at; stat -c %t:%T /dev/null'"),
        "1:3"
    );
    assert!(world.has("mta/root/root/at"));

    world.ok("ob-cable <2 >3");
    let wired = world.snapshot();
    assert_eq!(
        world.ok("ip -n mta -br link | cut -c1-4 | sort; ip -br link show mta0 | grep -c UP"),
        "eth0\nlo  \n1"
    );

    world.ok("d=$(ob-unshare <3 &) && printf '%s\\n' \"$d\" >4");
    assert_eq!(world.inside("mta", "cat /root/at"), "looked");

    // Undo in reverse order.
    world.ok("ob-unshare --undo <4 >5");
    world.until_same(&wired);
    world.ok("ob-cable --undo <5 >6");
    world.assert_same(&mounted);
    world.ok("ob-mount --undo <6 >7");
    world.assert_same(&empty);
    assert_eq!(world.read("7"), world.read("1"), "undo removes all facts");
    // Each undo is idempotent.
    for stage in ["ob-unshare", "ob-cable", "ob-mount"] {
        world.ok(&format!(
            "{stage} --undo <4 >/dev/null && {stage} --undo <1"
        ));
    }
    world.assert_same(&empty);
}

#[test]
fn stages_run_one_by_one_in_a_room() {
    let (world, conf) = world();
    let before = world.snapshot();
    let script = format!(
        "set -e; ob-conf {conf} >1; ob-mount <1 >2; chroot mta/live true; grep -c mta/live /proc/self/mountinfo >count
         ob-cable <2 >3; ip netns exec mta true; d=$(ob-unshare <3 &); printf '%s\\n' \"$d\""
    );
    let document = world
        .line("ob-room sh -c \"$SCRIPT\"")
        .env("SCRIPT", &script)
        .run()
        .ok();
    assert!(document.contains("\"pid\":"));
    assert_ne!(world.read("count"), "0\n");
    assert_eq!(world.ok("grep -c mta/live /proc/self/mountinfo || :"), "0");
    assert_eq!(
        world.ok("ls /run/netns"),
        "mta",
        "the room shares /run/netns with the host"
    );
    world.ok(UNDO);
    world.until_same(&before);
}

#[test]
fn unknown_keys_pass_through_all_stages() {
    let (world, conf) = world();
    let extra = ",\"X_MINE\":\"a b\",\"zz\":{\"k\":[1,null]}";
    let document = world.ok(&format!("d=$(ob-conf {conf} | sed 's/}}$/{extra}}}/' | ob-mount | ob-cable | ob-unshare &) && printf '%s\\n' \"$d\""));
    assert!(
        document.contains("\"X_MINE\":\"a b\"") && document.contains("\"zz\":{\"k\":[1,null]}"),
        "{document}"
    );
    assert_eq!(
        world.ok("ob-conf --env - X_MINE zz </run/overlay-boot/mta/subhost"),
        "X_MINE='a b'\nzz='{\"k\":[1,null]}'"
    );
    let undone = world.ok(UNDO);
    assert!(undone.contains("\"X_MINE\":\"a b\""), "{undone}");
}

#[test]
fn fault_in_any_stage_prints_one_line() {
    let (world, conf) = world();
    let before = world.snapshot();
    let bad = world.subhost("bad", "CABLES=nobridge=");
    let unstartable = world.subhost("unstartable", "LOWER=../empty\nCABLES==");
    world.ok("mkdir empty");
    for (conf, words) in [
        ("missing.conf".to_owned(), ["ob-conf: ", "missing.conf"]),
        (
            conf.replace("mta.conf", ""),
            ["ob-conf: ", "is a directory"],
        ),
        (bad, ["ob-cable: bad: ", "there is no bridge nobridge"]),
        (unstartable, ["ob-unshare: unstartable: ", "/bin/sh"]),
    ] {
        // The mounts of earlier stages disappear with the room.
        let pipeline = format!(
            "ob-room sh -c 'ob-conf {conf} | ob-mount | tee made | ob-cable | tee -a made | ob-unshare'"
        );
        world.run(&pipeline).fails(1, &words);
        world.ok("tail -n 1 made | ob-cable --undo | cat");
        world.assert_same(&before);
    }
}

#[test]
fn guarded_room_starts_the_stages_of_its_pipeline() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    let before = world.snapshot();
    let run = |stages: &str| {
        let room = "NAME=mta ob-room --guard --cleanup 'ob-cable --undo'";
        world.run(&format!("{room} {stages}"))
    };
    // With a foreign stage; each stage gets its arguments unchanged.
    world.script("see", "cat >seen; echo \"$1\" >word; exec cat seen");
    let see = format!("{}/see", world.directory());
    run(&format!(
        "ob-conf {conf} '|' ob-mount '|' {see} 'a | b' '|' ob-cable '|' ob-unshare"
    ))
    .ok();
    assert_eq!(world.read("word"), "a | b\n");
    assert!(world.read("seen").contains("\"root\":"));
    world.ok("overlay-stop mta; rm seen word");
    let missing = format!("ob-conf {conf} '|' no-such-stage '|' ob-cable '|' ob-unshare");
    run(&missing).fails(1, &["ob-room: run no-such-stage: No such file"]);
    // The options of earlier versions.
    let old = format!("ob-unshare --room --then 'ob-cable --undo' {missing}");
    world
        .run(&old)
        .fails(1, &["ob-unshare: run no-such-stage: No such file"]);
    let old = old.replace("no-such-stage", "ob-mount");
    world.ok(&old);
    assert!(world.is_up("mta"));
    world.ok("ob-list -d mta | ob-unshare --undo --then 'exit 1; ob-cable --undo' >/dev/null || ob-unshare --undo --then 'ob-cable --undo' </run/overlay-boot/mta/subhost");
    world.ok("[ ! -e /run/overlay-boot/mta ] && ob-unshare --room sh -c 'ip netns add shared' && ip netns del shared");
    run(&format!("ob-conf {conf} '|'")).fails(2, &["a stage of the pipeline is empty"]);
    world.until_same(&before);
}
