//! Configurations and words of the command line that are meant to run something, to hide a protection or to write to a terminal.

use end_to_end::World;

/// What a line prints on a terminal.
fn on_terminal(world: &World, line: &str) -> String {
    let script = format!("script -qec \"$LINE\" /dev/null </dev/null | tr -d '\\r'");
    let done = world.line(&script).env("LINE", line).env("TERM", "xterm");
    done.run().ok()
}

/// A way down that is deeper than the limit of open files and than `PATH_MAX`.
const DEEP: &str = "import os
for i in range(5000):
    os.mkdir('d'); os.chdir('d')
open('end', 'w')";

#[test]
fn f17_deep_tree_is_compared_measured_and_left() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}; mkdir mta/root/deep"));
    let made = world.line("cd mta/root/deep; exec python3 -c \"$DEEP\"");
    made.env("DEEP", DEEP).run().ok();
    let diff = world.ok("overlay-diff mta | grep -c '^A /deep'; overlay-diff mta | grep '^A /deep' | tail -n 1 | tr -d '\n' | tail -c 8; overlay-diff --json mta | jq length");
    let json = diff.lines().last().expect("a number").parse::<usize>();
    assert!(diff.starts_with("5002\n/d/d/end"), "{diff}");
    assert!(json.expect("a number") >= 5002, "{diff}");
    let list = world.ok("ob-list -l --json mta | jq '.[0].upper_files'");
    assert!(list.parse::<u64>().expect("a number") > 0, "{list}");
    world.ok("overlay-stop mta; rm -rf mta/root/deep");
}

#[test]
fn f17_deep_control_groups_are_removed() {
    let world = World::new();
    if !world.has_cgroup() {
        return end_to_end::not_done("control groups", end_to_end::NO_CGROUP);
    }
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    let group = world.document("mta")["cgroup"].to_string();
    let deep = DEEP.replace("5000", "3000").replace("open('end', 'w')", "");
    let made = world.line(&format!("cd {group} && exec python3 -c \"$DEEP\""));
    made.env("DEEP", &deep).run().ok();
    world.ok("overlay-stop mta");
    world.ok(&format!("[ ! -e {group} ]"));
}

#[test]
fn f13_terminal_shows_no_control_character() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==\nBAD=\u{1b}[31m\u{9b}31m\u{202e}");
    world.ok(&format!("overlay-boot {conf}"));
    world.inside("mta", "ip link set eth0 name \"$(printf 'a\\033[2J')\"; ip addr add 10.9.0.2/24 dev \"$(printf 'a\\033[2J')\"; ip link set lo up; touch /root/$(printf '\\302\\2332J\\342\\200\\256x') /root/$(printf '\\2332J')");
    world.ok(
        "printf 'x\\033[31m\\302\\23331m\\2332J\\342\\200\\256y\\tz\\n' >>/tmp/overlay-mta.log",
    );
    let clean = |line: &str| {
        let shown = on_terminal(&world, line);
        let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
        let bad = |c: char| bad(c) || c == '\u{202e}' || c == '\u{fffd}';
        assert!(!shown.contains(bad), "{line}: {shown:?}");
        shown
    };
    assert!(clean("overlay-list -l mta | cat").contains("a?[2J 10.9.0.2/24"));
    clean(&format!("ob-conf --check {conf} || :"));
    clean(&format!("ob-conf --check {conf} | cat || :"));
    assert!(clean("overlay-log mta").contains("x?[31m?31m?2J?y\tz"));
    let diff = clean("overlay-diff mta");
    assert!(
        diff.contains("/root/\\302\\2332J\\342\\200\\256x"),
        "{diff}"
    );
    assert!(diff.contains("/root/\\2332J"), "{diff}");
    let json = clean("overlay-diff --json mta");
    assert!(json.contains("\\u009b2J\\u202ex"), "{json}");
    // A pipe gets every byte.
    let log = world.ok("overlay-log mta | tail -n 1 | od -An -tx1 | tr -d ' \n'");
    assert_eq!(log, "781b5b33316dc29b33316d9b324ae280ae79097a0a");
    world.ok("overlay-stop mta");
    // Names, paths and words of the command line in messages.
    let name = "n\u{9b}\u{202e}";
    world.ok(&format!(
        "mkdir -p '{name}' && touch '{name}/a\u{1b}[2J.conf'"
    ));
    for line in [
        format!("overlay-boot '{name}/a\u{1b}[2J.conf' 2>&1 || :"),
        format!("overlay-stop '{name}/a\u{1b}[2J.conf' 2>&1 || :"),
        format!("ob-list '{name}' 2>&1 || :"),
        format!("ob-conf '--{name}' 2>&1 || :"),
        format!("overlay-boot '--{name}' 2>&1 || :"),
    ] {
        clean(&line);
    }
    assert_eq!(
        world.ok("printf 'a\\033b\\nc' | ob-conf --printable 'web: '"),
        "web: a?b\nweb: c"
    );
}
