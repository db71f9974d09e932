//! At the prompt: help, mistakes, dry runs, what is new, what is different, completion.

use end_to_end::{World, bin, is_root_or_tell, not_done, scripts, until};
use std::path::Path;

/// All that can be typed; the hooks, overlay-init and the like, are for configurations.
const COMMANDS: &[&str] = &[
    "overlay-boot",
    "overlay-diff",
    "overlay-diskfile",
    "overlay-go",
    "overlay-list",
    "overlay-log",
    "overlay-new",
    "overlay-share",
    "overlay-stop",
    "overlay-subhosts",
];
const TOOLS: &[&str] = &[
    "ob-cable",
    "ob-conf",
    "ob-diff",
    "ob-enter",
    "ob-list",
    "ob-mount",
    "ob-reaper",
    "ob-unshare",
];

fn names(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(prefix) && !name.contains('.'))
        .collect();
    names.sort();
    names
}

#[test]
fn every_command_helps_on_one_screen_and_knows_what_was_meant() {
    let hooks = ["overlay-init", "overlay-postmount", "overlay-premount"];
    let found = names(scripts(), "overlay-");
    let typed: Vec<&String> = found
        .iter()
        .filter(|name| !hooks.contains(&name.as_str()))
        .collect();
    assert_eq!(typed, COMMANDS, "the table is complete");
    assert_eq!(names(bin(), "ob-"), TOOLS, "the table is complete");
    let world = World::new();
    for command in COMMANDS.iter().chain(TOOLS) {
        let help = world.ok(&format!("{command} --help"));
        assert!(help.lines().count() <= 24, "{command}: more than a screen");
        assert!(
            help.lines().all(|line| line.chars().count() <= 80),
            "{command}: too wide"
        );
        assert!(help.starts_with("Usage: "), "{command}");
        assert!(
            help.contains("--help") && help.contains("--version"),
            "{command}"
        );
        let (_, examples) = help.split_once("\nExamples:\n").expect(command);
        assert!(examples.lines().count() >= 2, "{command}: two examples");
        assert_eq!(world.ok(&format!("{command} -h")), help);
        let version = world.ok(&format!("{command} --version"));
        assert_eq!(
            version,
            format!("{command} {}", env!("CARGO_PKG_VERSION")),
            "the package has one version"
        );
        assert_eq!(world.ok(&format!("{command} -V")), version);
        // ob-reaper is pid 1: whatever it is called with, it goes on.
        if *command != "ob-reaper" {
            let mistyped = world.run(&format!("{command} --hlep </dev/null"));
            let status = mistyped.status;
            assert!(status == 2 || status == 125, "{mistyped:?}");
            mistyped.fails(
                status,
                &[&format!("{command}: "), "--hlep", "did you mean --help?"],
            );
        }
    }
}

#[test]
fn a_new_subhost_boots_by_the_command_that_is_told() {
    let world = World::new();
    let w = world.directory();
    let said = world.ok("umask 077; overlay-new --lower busybox mta");
    assert!(said.ends_with("\noverlay-boot mta/mta.conf"), "{said}");
    assert_eq!(
        world.ok("stat -c %a mta mta/root mta/live"),
        "700\n755\n755"
    );
    assert_eq!(world.ok("ob-conf --check mta/mta.conf"), "");
    assert_eq!(
        world.ok("ob-conf mta/mta.conf | jq -r .LOWER"),
        format!("{w}/busybox")
    );
    world.ok(said.lines().last().unwrap_or_default());
    assert_eq!(world.ok("overlay-go mta hostname; overlay-stop mta"), "mta");
    // Nothing that is there is changed, and nothing half-made stays.
    let before = world.ok("find . | sort; cat mta/mta.conf");
    world
        .run("overlay-new mta")
        .fails(1, &["mta", "is there already"]);
    world
        .run("overlay-new mta/mta.conf")
        .fails(1, &["is there already"]);
    world
        .run("overlay-new --lower nowhere web")
        .fails(1, &["nowhere"]);
    world
        .run("overlay-new .web")
        .fails(1, &["cannot be a name"]);
    world
        .run("overlay-new web --lower")
        .fails(2, &["--lower wants"]);
    world.run("overlay-new web news").fails(2, &["news"]);
    assert_eq!(world.ok("find . | sort; cat mta/mta.conf"), before);
}

#[test]
fn a_new_subhost_is_not_taken_for_its_host() {
    let world = World::new();
    if !is_root_or_tell("whiteouts") {
        return;
    }
    if world.run("command -v ssh-keygen").status != 0 {
        return not_done("host keys", "needs ssh-keygen");
    }
    world.ok("mkdir -p busybox/etc/ssh; echo 0123456789abcdef0123456789abcdef >busybox/etc/machine-id; ssh-keygen -q -A -f busybox; \
              echo old >busybox/etc/ssh/ssh_host_dsa_key");
    world.ok("overlay-new --lower busybox /$W/mta && overlay-boot mta/mta.conf");
    let own = world.ok("overlay-go mta sh -c 'cat /etc/machine-id /etc/ssh/*_key'");
    let hosts = world.ok("cat busybox/etc/machine-id busybox/etc/ssh/*_key");
    assert!(
        own.len() > 1000 && own.lines().next().is_some_and(|id| id.len() == 32),
        "{own}"
    );
    for line in own
        .lines()
        .filter(|line| line.len() > 31 && !line.starts_with("b3BlbnNzaC1"))
    {
        assert!(line.starts_with("-----") || !hosts.contains(line), "{line}");
    }
    assert!(
        !own.contains("old"),
        "a key that it has none of its own in place of is hidden"
    );
    world.ok("overlay-stop mta");
    // Without ssh-keygen it has none, rather than the host's, and is told so.
    let said = world.run("mkdir few; for c in sh cat sed mkdir rm mknod chmod tr ls dirname; do ln -s $(command -v $c) few; done; \
        ln -s $(command -v ob-conf) few; sed s,^PATH=.*,PATH=$W/few, $(command -v overlay-new) >new; sh new --lower busybox web");
    said.fails(0, &["ssh-keygen is missing"]);
    assert_eq!(
        world.ok(
            "cat web/root/etc/ssh/* 2>/dev/null || stat -c %t%T web/root/etc/ssh/ssh_host_rsa_key"
        ),
        "00"
    );
}

#[test]
fn a_dry_run_changes_nothing_and_tells_all() {
    let world = World::new();
    world.ok("ip link add br0 type bridge; mkdir shared");
    world.script("mta/pre", "echo it ran >$BASE/ran");
    world.script("mta/name", "echo $ACTION >>asked; echo none");
    let conf = world.subhost("mta", "CABLES=br0= =02:00:5e:10:00:01\nPREMOUNT=./pre a*\nSHARE=../shared:/mnt/a b:ro\nINIT=overlay-init\nSTART=!./name");
    let before = (
        world.snapshot(),
        world.ok("find . ! -name asked | sort; ls -A /tmp /run"),
    );
    let text = world.ok(&format!("overlay-boot -n {conf}"));
    let document = world.ok(&format!("overlay-boot --dry-run --json {conf}"));
    world.assert_same(&before.0);
    assert_eq!(
        world.ok("find . ! -name asked | sort; ls -A /tmp /run"),
        before.1
    );
    assert_eq!(world.read("mta/asked"), "dry-run\ndry-run\n");
    let w = world.directory();
    for step in [
        format!(
            "(cd {w}/mta && ob-conf {conf} -- env ACTION=overlay-boot UNSHARED=yes ./pre a* {w}/mta/root)"
        ),
        format!(
            "mount -t overlay mta -o lowerdir={w}/mta/../busybox,upperdir={w}/mta/root,workdir={w}/mta/work {w}/mta/live"
        ),
        format!("mount --bind -o ro {w}/mta/../shared '{w}/mta/live/mnt/a b'"),
        "ip link add mta0 type veth peer name eth0 netns mta".to_owned(),
        "ip link set mta0 master br0 up".to_owned(),
        "ip link add mta1 type veth peer name eth1 netns mta address 02:00:5e:10:00:01".to_owned(),
    ] {
        assert!(text.lines().any(|line| line == step), "no {step} in {text}");
        let document: serde_json::Value = serde_json::from_str(&document).expect("a document");
        let steps = document["steps"].as_array().expect("steps");
        assert!(
            steps.iter().any(|found| *found == step),
            "no {step} in {steps:?}"
        );
    }
    assert!(
        text.contains("| ob-mount | ob-cable | ob-unshare"),
        "{text}"
    );
    // What is wrong is told, as it would be.
    world.run(&format!("sed s/br0=/br7=/ {conf} >other.conf; sed -i s,BASE=.*,BASE=mta, other.conf; overlay-boot -n other.conf"))
        .fails(1, &["ob-cable: other: ", "br7"]);
    world.ok("rm other.conf");
    // And what is not there is not built on.
    world
        .run(&format!("ob-conf {conf} | ob-mount -n | ob-cable"))
        .fails(1, &["ob-cable: mta: ", "dry run"]);
    world
        .run(&format!("ob-conf {conf} | ob-mount -n | ob-unshare"))
        .fails(1, &["ob-unshare: mta: ", "dry run"]);
    // One that runs would not be started again.
    world.ok(&format!("overlay-boot {conf}"));
    world
        .run(&format!("overlay-boot -n {conf}"))
        .fails(1, &["in use by the subhost mta"]);
    world.ok("overlay-stop mta");
}

#[test]
fn the_steps_of_a_dry_run_boot_a_subhost_when_they_are_typed() {
    if !is_root_or_tell("what is typed") {
        return;
    }
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    for more in ["CABLES=br0=", "READONLY=volatile\nCABLES=br0="] {
        let conf = world.subhost("mta", more);
        let line =
            format!("overlay-boot -n {conf} >steps && exec unshare --mount sh -e steps </dev/null");
        let mut typed = world.line(&line).start();
        let stand_in = "for d in /proc/[0-9]*; do read -r c <$d/comm && [ $c = dummy_service ] && echo ${d#/proc/} && break; done 2>/dev/null";
        let mut pid = String::new();
        until("the stand-in to run", || {
            assert!(typed.is_running(), "the steps have failed");
            pid = world.run(stand_in).out.trim().to_owned();
            !pid.is_empty()
        });
        let inside =
            |line: &str| world.ok(&format!("nsenter -t {pid} -m -n -u -i -p sh -c '{line}'"));
        assert_eq!(
            inside("cut -d\" \" -f1-3 /proc/mounts | head -n 1"),
            "mta / overlay"
        );
        assert_eq!(inside("ls /sys/class/net"), "eth0\nlo");
        assert_eq!(inside("cat /proc/1/comm"), "ob-reaper");
        world.ok(&format!("kill -9 {pid}"));
        typed.wait().ok();
        world.ok("for i in 0 1 2 3 4 5 6 7 8 9; do [ ! -e /sys/class/net/mta0 ] || sleep 0.2; done; rmdir /sys/fs/cgroup/mta /sys/fs/cgroup/unified/mta 2>/dev/null; rm -f /run/netns/mta");
    }
}

/// What a subhost is, as its pid 1 has it.
const LOOK: &str = r#"
pid=$(ob-list --json mta | jq '.[0].pid')
grep -E '^(Uid|Cap|Seccomp|NoNewPrivs|Groups)' /proc/$pid/status
cat /proc/$pid/uid_map /proc/$pid/limits
nsenter -t $pid -m -n -u sh -c 'hostname; cut -d" " -f1-3 /proc/self/mounts | sort; ls /sys/class/net'
stat -Lc %u /proc/$pid/root/
"#;

#[test]
fn the_steps_of_a_dry_run_make_the_same_subhost() {
    if !is_root_or_tell("what is typed") {
        return;
    }
    let world = World::new();
    world.ok("ip link add br0 type bridge; mkdir lib shared; mount --bind lib /var/lib");
    for more in [
        "PROTECT=yes",
        "PROTECT=strict\nSHARE_RO=../shared:/mnt",
        "USERNS=200000\nREADONLY=volatile",
        "CAPS=CHOWN KILL NET_ADMIN\nSECCOMP=default",
        "HOSTNAME=elsewhere\nRLIMITS=nofile=500",
    ] {
        let conf = world.subhost("mta", &format!("{more}\nCABLES=br0="));
        world.ok("chmod 700 mta");
        world.ok(&format!("overlay-boot {conf}"));
        let booted = world.ok(LOOK);
        world.ok("overlay-stop mta");
        world.ok(&format!("overlay-boot -n {conf} >steps"));
        let typed = world
            .line("exec unshare --mount sh -e steps >said 2>&1")
            .start();
        until("what was typed to run", || world.is_up("mta"));
        assert_eq!(world.ok(LOOK), booted, "{more}: {}", world.read("steps"));
        world.ok("overlay-stop mta");
        assert_eq!(typed.wait().status, 0, "{}", world.read("said"));
    }
}

#[test]
fn what_an_image_holds_is_mounted_by_the_steps_of_a_dry_run() {
    let world = World::new();
    if !world.mounts_images("overlay-diskfile") {
        return;
    }
    world.ok("mkdir -p disk/upper disk/work; truncate -s 10M data.img; mke2fs -q -d disk data.img; mkdir -p mta/data");
    let conf = world.subhost(
        "mta",
        "UPPER=!overlay-diskfile data/upper ../data.img\nWORK=data/work\nHOSTNAME=mta",
    );
    let before = world.ok("find mta; cat /proc/mounts");
    world.ok(&format!("overlay-boot -n {conf} >steps"));
    assert_eq!(world.ok("find mta; cat /proc/mounts"), before);
    let typed = world
        .line("exec unshare --mount sh -e steps >said 2>&1")
        .start();
    until("what was typed to run", || world.is_up("mta"));
    world.ok("overlay-go mta touch /kept; overlay-stop mta");
    assert_eq!(typed.wait().status, 0, "{}", world.read("said"));
    assert_eq!(
        world.ok("mount -o loop data.img mta/data; ls mta/data/upper; umount mta/data"),
        "etc\nkept"
    );
}

#[test]
fn the_log_tells_what_was_done_and_by_which_stage() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    let conf = world.subhost("mta", "CABLES=br0=");
    let w = world.directory();
    for (command, traced) in [
        ("overlay-boot", false),
        ("overlay-boot -v", true),
        ("TRACE=1 overlay-boot", true),
        ("TRACE=0 overlay-boot", false),
    ] {
        world.ok(&format!("{command} {conf}; overlay-stop mta"));
        let log = world.ok("overlay-log mta");
        let mut texts = Vec::new();
        for line in log.lines() {
            let (date, text) = line.split_once(' ').expect("a date");
            assert!(date.len() == 20 && date.ends_with('Z'), "{line}");
            texts.push(text);
        }
        let mounted = format!("ob-mount: mounted {w}/mta/live/dev/pts");
        assert_eq!(
            texts.contains(&mounted.as_str()),
            traced,
            "{command}: {log}"
        );
        let linked = "ob-cable: made mta0 in br0, and eth0 in /run/netns/mta";
        assert_eq!(texts.contains(&linked), traced, "{command}: {log}");
        texts.retain(|text| {
            !text.starts_with("ob-mount: mounted ") && !text.starts_with("ob-cable: made ")
        });
        assert_eq!(
            texts[0],
            format!("ob-mount: an overlay of {w}/mta/root on {w}/mta/../busybox is the root")
        );
        assert_eq!(
            texts[1],
            "ob-cable: /run/netns/mta is the network with mta0 on the host"
        );
        assert!(
            texts[2].starts_with("ob-unshare: pid 1 has started, as "),
            "{log}"
        );
        assert!(
            texts[3..]
                .iter()
                .all(|text| text.starts_with("ob-unshare: pid 1 ")),
            "{log}"
        );
    }
}

#[test]
fn every_link_is_told_where_that_is_wanted() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    // An ifup that knows one link and not the other, and notes it as ifupdown does.
    world.script(
        "bin/ifup",
        "[ $1 = mta1 ] && mkdir -p /run/network && echo $1=$1 >>/run/network/ifstate",
    );
    world.script("bin/ifdown", ":");
    let conf = world.subhost("mta", "CABLES=br0= = =02:00:5e:10:00:01");
    let w = world.directory();
    let life = "export TRACE=1 PATH=$W/bin:$PATH; overlay-boot {conf}; overlay-stop mta";
    world.ok(&life.replace("{conf}", &conf));
    let log = world.ok("overlay-log mta");
    let told: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once(" ob-cable: ")?.1.into())
        .collect();
    assert_eq!(
        told,
        [
            "made /run/netns/mta, and set lo up",
            "made mta0 in br0, and eth0 in /run/netns/mta",
            "made mta1, and eth1 in /run/netns/mta",
            &format!("ran {w}/bin/ifup mta1"),
            "made mta2, and eth2 in /run/netns/mta",
            &format!(
                "{w}/bin/ifup mta2: exit status: 1, as where interfaces(5) has no stanza for it; going on without"
            ),
            "set mta2 up",
            "/run/netns/mta is the network with mta0 mta1 mta2 on the host",
            &format!("ran {w}/bin/ifdown mta1"),
            "took away /run/netns/mta",
            "mta0 is gone with it",
            "mta1 is gone with it",
            "mta2 is gone with it",
        ]
    );
    // What a failure takes back, and what somebody else keeps alive.
    world.ok("ip link add mtb1 type bridge");
    let conf = world.subhost("mtb", "CABLES=br0= =");
    world.run(&format!("export TRACE=1; overlay-boot {conf}"));
    let log = world.ok(&format!("overlay-log {conf}"));
    for told in [
        "made mtb0 in br0",
        "deleted mtb0",
        "took away /run/netns/mtb",
    ] {
        assert!(
            log.contains(&format!(" ob-cable: {told}")),
            "no {told} in {log}"
        );
    }
    let conf = world.subhost("mtc", "CABLES=br0=");
    world.ok(&format!("overlay-boot {conf}; ip netns exec mtc sleep 1000 >/dev/null 2>&1 & until ip netns pids mtc | grep .; do sleep 0.1; done"));
    world.ok("TRACE=1 overlay-stop mtc");
    let log = world.ok(&format!("overlay-log {conf}"));
    assert!(log.contains(" ob-cable: deleted mtc0"), "{log}");
}

#[test]
fn what_a_subhost_has_changed() {
    if !is_root_or_tell("opaque directories") {
        return;
    }
    let world = World::new();
    world.ok("mkdir -p busybox/srv/kept busybox/srv/emptied busybox/srv/moved busybox/srv/anew; cd busybox/srv; touch kept/file kept/other emptied/a emptied/b moved/x moved/y anew/old anew/both gone");
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    world.inside("mta", "cd /srv; echo >kept/new; chmod 600 kept/other; rm -r emptied gone; rm -r anew; mkdir anew; touch anew/both; ln -s nowhere link; mkdir -m 700 own; touch \"own/a\nb\"");
    // The first boot makes what a subhost needs.
    let expected = "C /srv\nC /srv/anew\nC /srv/anew/both\nD /srv/anew/old\nD /srv/emptied\nD /srv/gone\nC /srv/kept\nA /srv/kept/new\nC /srv/kept/other\nA /srv/link\nA /srv/own\nA /srv/own/a\\012b";
    let diff = |of: &str| world.ok(&format!("overlay-diff {of} | grep ' /srv'"));
    assert_eq!(diff("mta"), expected);
    assert_eq!(diff(&conf), expected);
    assert_eq!(
        world.ok(&format!("ob-conf {conf} | ob-diff | grep ' /srv'")),
        expected
    );
    let array = world.ok("overlay-diff --json mta");
    let array: serde_json::Value = serde_json::from_str(&array).expect("JSON");
    let deleted: Vec<_> = array
        .as_array()
        .expect("an array")
        .iter()
        .filter(|change| change["kind"] == "deleted")
        .map(|change| {
            (
                change["path"].as_str().unwrap(),
                change["type"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        deleted,
        [
            ("/srv/anew/old", "file"),
            ("/srv/emptied", "directory"),
            ("/srv/gone", "file")
        ]
    );
    assert_eq!(world.run("overlay-diff mta | head -n 1").status, 0);
    world.ok("overlay-stop mta");
    assert_eq!(diff(&conf), expected);
    world
        .run("overlay-diff mta")
        .fails(1, &["mta: not running; name its configuration"]);
    let bound = world.subhost("bound", "UPPER=../busybox");
    world
        .run(&format!("overlay-diff {bound}"))
        .fails(1, &["overlay-diff: bound: ", "UPPER is LOWER"]);
}

#[test]
fn a_directory_that_was_renamed_is_new_there_and_gone_here() {
    if !is_root_or_tell("redirects") {
        return;
    }
    let world = World::new();
    world.ok("mkdir -p l/a/b l/old/deep u w m; touch l/a/b/f l/old/g l/old/h l/old/deep/z");
    let mount =
        "mount -t overlay o -o redirect_dir=on,metacopy=on,lowerdir=l,upperdir=u,workdir=w m";
    if world.run(mount).status != 0 {
        return not_done("redirects", "this kernel has no redirect_dir");
    }
    world.ok(
        "cd m; mv old a/new; rm a/new/g; touch a/new/i; mkdir old; touch old/h; chmod 600 a/b/f",
    );
    let document = r#"echo "{\"NAME\":\"x\",\"LOWER\":\"$W/l\",\"UPPER\":\"$W/u\"}""#;
    assert_eq!(
        world.ok(&format!("{document} | ob-diff")),
        "C /a\nC /a/b/f\nA /a/new\nA /a/new/deep\nA /a/new/deep/z\nA /a/new/h\nA /a/new/i\nC /old\nD /old/deep\nD /old/g\nC /old/h"
    );
    assert_eq!(
        world.ok(&format!(
            "{document} | ob-diff -j | jq -r '.[] | select(.from) | .from + \" \" + .path'"
        )),
        "/old /a/new"
    );
    world.ok("umount m");
}

/// The words that bash offers after `line`, by running the function that `complete` has for its command.
const BASH: &str = r#"
. ./overlay.bash
line=$1
read -ra COMP_WORDS <<<"$line"
[[ $line != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p "${COMP_WORDS[0]}"); function=${function#*-F }; "${function%% *}"
printf '%s\n' "${COMPREPLY[@]}" | sort
"#;

/// The same for zsh, at the prompt of a shell in a terminal; `$2` is looked for completions first.
pub const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; unset zle_bracketed_paste; fpath=($2 \$fpath); autoload -U compinit; compinit -u -D"
zpty -w shell "LISTMAX=1000; setopt nobeep nolistambiguous; finish() { zle -I; print END-OF-'LIST' }; zle -N finish; bindkey '^X' finish; print READ'Y'"
zpty -r shell out '*READY*'
zpty -w -n shell "$1"$'\t\x18'
zpty -r shell out '*END-OF-LIST*'
print -r -- "$out"
zpty -d shell
"#;

#[test]
fn shells_complete_names_configurations_and_options() {
    let world = World::new();
    let completions = [
        (
            "overlay.bash",
            include_str!("../../../etc/completions/overlay.bash"),
        ),
        (
            "_overlay",
            include_str!("../../../etc/completions/_overlay"),
        ),
        (
            "overlay.fish",
            include_str!("../../../etc/completions/overlay.fish"),
        ),
    ];
    for (name, text) in completions {
        world.write(name, text);
    }
    world.write("bash-test", BASH);
    world.write("zsh-test", ZSH);
    let conf = world.subhost("mta", "");
    let other = world.subhost("mtb", "");
    world.ok(&format!(
        "cp {conf} mtx.conf; touch mty.txt; overlay-boot {conf}; overlay-boot {other}"
    ));
    // The line, what is offered, and what must not be.
    let table: &[(&str, &[&str], &[&str])] = &[
        ("overlay-stop mt", &["mta", "mtb", "mtx.conf"], &["mty.txt"]),
        ("overlay-go mt", &["mta", "mtb"], &["mtx.conf"]),
        ("overlay-log -f mt", &["mta", "mtb"], &["mty.txt"]),
        ("overlay-boot mt", &["mtx.conf"], &["mty.txt"]),
        ("overlay-share mty.txt m", &["mta", "mtb"], &["mtx.conf"]),
        (
            "overlay-boot --",
            &["--dry-run", "--foreground", "--help", "--json"],
            &["--lower"],
        ),
        ("overlay-new --l", &["--lower"], &["--help"]),
        (
            "ob-mount --",
            &["--dry-run", "--undo", "--share"],
            &["--lower"],
        ),
        (
            "overlay-list --state s",
            &["starting", "stopping"],
            &["running"],
        ),
        (
            "overlay-subhosts st",
            &["start", "status", "stop"],
            &["list"],
        ),
    ];
    let shells = [
        ("bash", "bash bash-test \"$LINE\""),
        (
            "fish",
            "fish --no-config -c 'source overlay.fish; complete -C \"$LINE\"' | cut -f1",
        ),
        ("zsh", "TERM=dumb zsh -f zsh-test \"$LINE\" \"$PWD\""),
    ];
    for (shell, command) in shells {
        if world.run(&format!("command -v {shell}")).status != 0 {
            not_done("completion", &format!("needs {shell}"));
            continue;
        }
        for (line, offered, others) in table {
            let command = world.line(command).env("LINE", line).env("TERM", "dumb");
            let words = command.run().ok();
            // In zsh the line itself is on the screen, too, and is cut at what all have in common.
            let words: Vec<&str> = words
                .split_whitespace()
                .map(|word| word.trim_start_matches("./"))
                .collect();
            for word in *offered {
                assert!(
                    words.contains(word),
                    "{shell}: no {word} after {line}: {words:?}"
                );
            }
            for word in *others {
                assert!(
                    line.contains(word) || !words.contains(word),
                    "{shell}: {word} after {line}: {words:?}"
                );
            }
        }
    }
    world.ok("overlay-stop --all");
}

#[test]
fn a_shell_inside_feels_like_one_in_any_terminal() {
    let world = World::new();
    if world.run("command -v tmux").status != 0 {
        return not_done("a real terminal", "needs tmux");
    }
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    // tmux reads the size of no terminal of ours.
    let tmux = |line: &str| {
        world
            .line(&format!("tmux -S $W/tmux -f /dev/null {line}"))
            .env("TERM", "xterm")
            .run()
            .ok()
    };
    tmux("new-session -d -x 80 -y 24 'overlay-go mta; echo \"it was $?\"; exec sleep 1000'");
    let see = |what: &str| {
        until(&format!("to see {what}"), || {
            tmux("capture-pane -p").contains(what)
        });
    };
    let enter = |keys: &str| tmux(&format!("send-keys '{keys}' Enter"));
    enter("echo prompt-$((6*7))");
    see("prompt-42");
    enter("stty size; echo has-${TERM:+term}");
    see("24 80");
    see("has-term");
    tmux("resize-window -x 100 -y 30");
    until("the new size", || {
        enter("clear; stty size");
        tmux("capture-pane -p").contains("30 100")
    });
    enter("vi /root/letter");
    see("/root/letter");
    tmux("send-keys i");
    tmux("send-keys -l 'dear friend'");
    tmux("send-keys Escape");
    see("- /root/letter"); // no more of what the key may begin
    enter(":wq");
    until("the letter", || world.has("mta/root/root/letter"));
    until("all of it", || {
        world.read("mta/root/root/letter").contains("dear friend")
    });
    enter("clear; sleep 1000");
    until("sleep", || {
        world
            .processes()
            .iter()
            .any(|process| process.starts_with("sleep: sleep 1000 "))
    });
    tmux("send-keys C-z");
    see("Stopped");
    enter("clear; echo again-$((6*8)); fg");
    see("again-48");
    see("sleep 1000");
    tmux("send-keys C-c");
    enter("exit 5");
    see("it was 5");
    tmux("kill-server");
    world.ok("overlay-stop mta");
}

#[test]
fn commands_inside_run_with_and_without_a_terminal() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!("overlay-boot {conf}"));
    // In a terminal that can do nothing: script(1) makes one, and has the status.
    let inside = "overlay-go mta sh -c \"tty; echo is \\$TERM; exit 3\"";
    let done = world
        .line(&format!("script -qec '{inside}' /dev/null </dev/null"))
        .env("TERM", "dumb")
        .run();
    assert!(
        done.status == 3 && done.out.contains("/dev/pts/") && done.out.contains("is dumb"),
        "{done:?}"
    );
    // As cron runs it: no terminal, next to no environment.
    let done = world.run(&format!(
        "env -i PATH=\"$PATH\" setsid -w {inside} </dev/null"
    ));
    assert_eq!(
        (done.status, done.out.as_str()),
        (3, "not a tty\nis\n"),
        "{done:?}"
    );
    // In a pipeline.
    assert_eq!(
        world.ok("echo hello | overlay-go mta cat | tr l r"),
        "herro"
    );
    assert_eq!(world.ok("overlay-go mta yes | head -n 2"), "y\ny");
    world.ok("overlay-stop mta");
}
