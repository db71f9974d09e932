//! PIPELINE: the stages that a configuration names in place of the default stages.

use end_to_end::{World, until};

/// A stage that makes the network namespace, with a link named by its argument, and logs its calls.
/// It removes the namespace by NAME alone, so that it can undo a boot that failed after it.
const WIRE: &str = r#"set -e
read -r document || exit 1
vars=$(printf '%s\n' "$document" | ob-conf --env - NAME X_NOTE net); net=
eval "$vars"
echo "$* in $PWD with ${X_NOTE-}, $net" >>$W/calls
if [ "${1-}" = --undo ]; then
    [ ! -e /run/netns/$NAME ] || ip netns del $NAME
    printf '%s\n' "$document" | ob-conf --undo - net=
    exit
fi
ip netns add $NAME
ip -n $NAME link add $1 type veth peer name peer || { ip netns del $NAME; exit 1; }
printf '%s\n' "$document" | ob-conf - net=/run/netns/$NAME"#;

/// Returns a world with the stage `mta/wire` and the configuration `lines`.
fn world(lines: &str) -> (World, String) {
    let world = World::new();
    world.script("mta/wire", &WIRE.replace("$W", world.directory()));
    let conf = world.subhost("mta", lines);
    (world, conf)
}

const LINE: &str = "X_NOTE=a b\nPIPELINE=ob-mount | ./wire net7 | ob-conf - X_LATE=1 | ob-unshare";

#[test]
fn pipeline_replaces_the_default_stages() {
    let (world, conf) = world(LINE);
    world.ok(&format!(
        "overlay-boot {conf} && overlay-stop mta && rm calls"
    ));
    let before = world.snapshot();
    let w = world.directory();
    let made = format!("net7 in {w}/mta with a b, \n");
    let undone = format!("--undo net7 in {w}/mta with a b, /run/netns/mta\n");
    let inside = || assert_eq!(world.inside("mta", "ls /sys/class/net"), "lo\nnet7\npeer");
    let calls = || world.ok("cat calls; rm calls") + "\n";
    // By another directory, by the guard alone, after the death of the guard.
    world.ok(&format!("cd /; overlay-boot {conf}"));
    inside();
    let document = world.document("mta");
    let words = format!("ob-mount | {w}/mta/wire net7 | ob-conf - X_LATE=1 | ob-unshare");
    let words: Vec<&str> = words.split(' ').collect();
    assert_eq!(document["PIPELINE"], serde_json::json!(words));
    assert_eq!(document["X_LATE"], "1");
    world.ok("overlay-stop mta");
    assert_eq!(calls(), made.clone() + &undone);
    world.until_same(&before);
    world.boot(&conf);
    world.ok(&format!("kill -9 {}", document_pid(&world)));
    until("the undo", || !world.has("/run/overlay-boot/mta"));
    assert_eq!(calls(), made.clone() + &undone);
    world.until_same(&before);
    world.boot(&conf);
    let guard = &world.document("mta")["guard"];
    world.ok(&format!("kill -9 {guard} {}", document_pid(&world)));
    until("the cleanup", || {
        world.ok("overlay-list");
        !world.has("/run/overlay-boot/mta")
    });
    assert_eq!(calls(), made.clone() + &undone);
    world.until_same(&before);
    // In the foreground, and by the command of the unit.
    for command in ["overlay-boot -f", "overlay-subhosts run"] {
        let running = world.line(&format!("{command} {conf}")).start();
        until("the subhost", || world.is_up("mta"));
        inside();
        world.ok("overlay-stop mta");
        running.wait();
        assert_eq!(calls(), made.clone() + &undone);
        world.until_same(&before);
    }
}

fn document_pid(world: &World) -> String {
    world.document("mta")["pid"].to_string()
}

#[test]
fn pipeline_with_an_error_is_refused() {
    let (world, conf) = world("");
    world.boot_and_stop("mta", &format!("overlay-boot {conf}"), "overlay-stop mta");
    let before = world.snapshot();
    for (value, column, text) in [
        ("ob-mount | | ob-unshare", 21, "a stage is empty"),
        ("| ob-unshare", 10, "a stage is empty"),
        (
            " ob-mount |",
            21,
            "the last stage is empty; write ob-unshare",
        ),
        (
            "ob-mount | ./gone x | ob-unshare",
            21,
            "/gone' is not an executable file",
        ),
        (
            "ob-mount | wire | ob-unshare",
            21,
            "'wire' is not on PATH; write ./wire",
        ),
        ("ob-mount|ob-unshare", 10, "write blanks around the |"),
        ("!./gone", 10, "'./gone' is not an executable file"),
    ] {
        world.subhost("mta", &format!("PIPELINE={value}"));
        let check = world.run(&format!("ob-conf --check {conf}"));
        assert!(
            check.out.starts_with(&format!("{conf}:1:{column}: ")),
            "{check:#?}"
        );
        assert!(check.out.contains(text), "{check:#?}");
        world
            .run(&format!("overlay-boot {conf}"))
            .fails(1, &["ob-conf: ", &format!("{conf}:1"), text]);
        world.assert_same(&before);
    }
    world.subhost(
        "mta",
        "PIPELINE=ob-mount | ob-cable | ob-unshare\nPIPELINE=x",
    );
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    // The guard checks words that no ob-conf has checked.
    world.script("print", "cat bad.json");
    world.ok(&format!(
        "ob-conf {conf} | ob-conf - PIPELINE='a | | b' >bad.json"
    ));
    world.run("ob-room --guard ./print '|' ob-unshare").fails(
        1,
        &["ob-room: mta: PIPELINE: a stage of the pipeline is empty"],
    );
    world.until_same(&before);
}

#[test]
fn pipeline_that_fails_is_undone() {
    let (world, conf) = world("PIPELINE=ob-mount | ./wire net7 | ./fail");
    world.script(
        "mta/fail",
        "[ \"${1-}\" != --undo ] || exit 0\ncat >/dev/null; echo fail: no >&2; exit 1",
    );
    world.ok("overlay-list");
    let before = world.snapshot();
    let boot = world.run(&format!("overlay-boot {conf}"));
    assert_eq!(
        (boot.status, boot.err.as_str()),
        (1, "fail: no\n"),
        "{boot:#?}"
    );
    assert!(world.read("calls").contains("--undo net7"));
    world.until_same(&before);
    // The last stage starts no pid 1.
    world.script(
        "mta/fail",
        "[ \"${1-}\" != --undo ] || exit 0\ncat; exec sleep 1000",
    );
    world.run(&format!("overlay-boot {conf}")).fails(
        1,
        &[
            "mta: the last stage of PIPELINE printed ",
            "no pid; end PIPELINE with ob-unshare",
        ],
    );
    world.until_same(&before);
    // A stage cannot be undone: the state stays, and the message has the remedy.
    world.script("mta/fail", "cat >/dev/null; echo fail: no >&2; exit 3");
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["fail: no"]);
    assert!(
        world
            .ok("overlay-log mta")
            .contains("ob-room: mta: undo the stage ")
    );
    assert!(world.has("/run/overlay-boot/mta"));
    let boot = world.run(&format!("overlay-boot {conf}"));
    let lines: Vec<&str> = boot.err.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "fail: no"), "{boot:#?}");
    let message = lines[1].split_once("undo the stage ").expect("a message").1;
    assert!(message.contains("/mta/fail: ") && message.contains("rm -r /run/overlay-boot/mta"));
    world.script("mta/fail", "exit 0");
    world.ok("overlay-list");
    world.until_same(&before);
    // A document on standard input names no programs to run.
    world.script("evil", "touch $W/evil-ran");
    let evil = format!("PIPELINE='{}/evil' | ob-room --undo", world.directory());
    world.ok(&format!("ob-conf {conf} | ob-conf - {evil}"));
    assert!(!world.has("evil-ran"));
}

#[test]
fn pipeline_is_shown_by_a_dry_run() {
    let (world, conf) = world(&format!("{LINE}\nPROTECT=yes"));
    let before = world.snapshot();
    let shown = world.ok(&format!("overlay-boot -n {conf}"));
    let w = world.directory();
    let stages = format!("ob-mount | {w}/mta/wire net7 | ob-conf - X_LATE=1 | ob-unshare");
    assert!(
        shown.contains(&format!("#   ob-conf {conf} | {stages}\n")),
        "{shown}"
    );
    let foreign = format!("\n# {w}/mta/wire net7: a dry run does not run this stage\n");
    let place = shown.find(&foreign).expect(&shown);
    assert!(shown[..place].contains("mount -t overlay"), "{shown}");
    assert!(shown[place..].contains("unshare"), "{shown}");
    assert!(!world.has("calls"));
    let json = world.ok(&format!("overlay-boot -n --json {conf}"));
    assert!(json.contains("a dry run does not run"), "{json}");
    world.assert_same(&before);
}

#[test]
fn pipeline_program_of_another_user_is_reported() {
    let (world, conf) = world(LINE);
    world.ok("chown 1000 mta/wire");
    let warning = ":2: ";
    let check = world.run(&format!("ob-conf --check {conf}"));
    assert!(
        check.out.contains(":2:1: ") && check.out.contains("/mta/wire"),
        "{check:#?}"
    );
    let boot = world.run(&format!("overlay-boot {conf}"));
    assert!(
        boot.err.contains("warning: ") && boot.err.contains("/mta/wire"),
        "{boot:#?}"
    );
    assert!(boot.err.contains(warning), "{boot:#?}");
    world.ok("overlay-stop mta");
}

#[test]
fn pipeline_value_can_be_printed_by_a_command() {
    let (world, conf) = world("PIPELINE=!./print\nPROTECT=yes");
    world.script("mta/print", "echo 'ob-mount | ./wire net9 | ob-unshare'");
    world.boot(&conf);
    assert_eq!(world.inside("mta", "ls /sys/class/net"), "lo\nnet9\npeer");
    world.ok("overlay-stop mta");
    let undo = "ob-conf --undo - net= userns= NAME=x";
    let document = "{\"NAME\":\"a\",\"net\":\"x\",\"pid\":1}\n{\"NAME\":\"b\",\"userns\":1}";
    world.write("documents", document);
    assert_eq!(
        world.ok(&format!(
            "{undo} <documents; ob-conf - SHARE+=/a SHARE+=/b <<'E'\n{{\"NAME\":\"a\"}}\nE"
        )),
        "{\"NAME\":\"a\",\"pid\":1}\n{\"NAME\":\"b\"}\n{\"NAME\":\"a\",\"SHARE\":[\"/a\",\"/b\"]}"
    );
}
