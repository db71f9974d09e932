//! PREMOUNT and POSTMOUNT hooks, and INIT scripts.

use end_to_end::{World, until};

#[test]
fn hazard_08_hook_reads_a_configuration_given_by_relative_path() {
    let world = World::new();
    world.script("mta/pre", "grep MINE \"$CONFIG\" >seen");
    world.subhost("mta", "PREMOUNT=./pre\nMINE=yes");
    world.ok("mkdir -p a/b; cd a/b; overlay-boot ../../mta/mta.conf");
    assert_eq!(world.read("mta/seen"), "MINE=yes\n");
}

#[test]
fn hazard_26_first_argument_of_postmount_is_live() {
    let world = World::new();
    world.script("mta/post", "echo \"$*\" >args; ob-mount --furnish \"$1\"");
    let conf = world.subhost("mta", "POSTMOUNT=./post word");
    world.boot(&conf);
    let w = world.directory();
    assert_eq!(
        world.read("mta/args"),
        format!("word {w}/mta/live {w}/mta/root\n")
    );
}

#[test]
fn custom_init_chooses_pid_1() {
    let world = World::new();
    world.script(
        "mta/init",
        "echo 'exec sleep 1000'; env >$BASE/env; pwd >$BASE/pwd; echo $*>$BASE/args",
    );
    let conf = world.subhost("mta", "INIT=./init a *.conf");
    world.boot(&conf);
    assert_eq!(
        world.inside(
            "mta",
            "tr '\\0' ' ' </proc/1/cmdline; ls -l /.reaper | cut -c1-10"
        ),
        "sleep 1000 -rwxr-xr-x"
    );
    let w = world.directory();
    assert_eq!(world.read("mta/pwd"), format!("{w}/mta\n"));
    assert_eq!(world.read("mta/args"), "a mta.conf\n");
    let environment = world.read("mta/env");
    for variable in [
        "ACTION=overlay-boot",
        "UNSHARED=yes",
        "NAME=mta",
        "START=none",
        "RAM_SIZE=50M",
        &format!("CONFIG={conf}"),
        &format!("LIVE={w}/mta/live"),
        &format!("LOWER={w}/mta/../busybox"),
    ] {
        assert!(
            environment.lines().any(|line| line == variable),
            "no {variable} in {environment}"
        );
    }
    let before = world.ok("date +%s");
    // As pid 1, sleep ignores TERM; since it is alone, overlay-stop kills it at once.
    world.ok("overlay-stop mta");
    assert!(world.ok("date +%s").parse::<u64>().unwrap() - before.parse::<u64>().unwrap() < 9);
}

#[test]
fn hazard_16_output_of_init_reaches_pid_1_unchanged() {
    let world = World::new();
    let text = "printf '%s\\n' 'a\\b\\\\c' \"\\$x $(echo d)\" `echo e; echo $$` '\\\\' '`' '\\$f' >/root/printed\nexec /.reaper mta";
    world.init("mta", &format!("sleep 1000 &\n{text}"));
    let conf = world.subhost("mta", "INIT=./init");
    world.boot(&conf);
    until("pid 1 to become the reaper", || {
        world.inside("mta", "tr '\\0' ' ' </proc/1/cmdline") == "/.reaper mta "
    });
    assert_eq!(
        world.inside("mta", "cat /root/printed"),
        "a\\b\\\\c\n$x d\ne\n1\n\\\\\n`\n\\$f"
    );
    world.ok("overlay-stop mta");
}

#[test]
fn hooks_get_arguments_plan_and_log() {
    let world = World::new();
    let hook = "{ echo \"$0 $*\"; pwd; readlink /proc/self/fd/0; env; } >$BASE/$1; echo said by $1; echo loud >&2
        [ $1 = pre ] || { mount -t tmpfs tmpfs $LIVE/dev; : >$LIVE/dev/null; }; exit 3";
    world.script("mta/hook", hook);
    let conf = world.subhost("mta", "PREMOUNT=./hook pre x?.y \"q\nPOSTMOUNT=./hook post $HOME\nRAM_SIZE=7M\nSHARE=/x:/y\nSHARE=/z\nMINE=no");
    world.ok("touch mta/x1.y mta/x2.y");
    world.boot(&conf);
    let w = world.directory();
    let (pre, post) = (world.read("mta/pre"), world.read("mta/post"));
    assert!(
        pre.starts_with(&format!(
            "./hook pre x1.y x2.y \"q {w}/mta/root\n{w}/mta\n/dev/null\n"
        )),
        "{pre}"
    );
    assert!(
        post.starts_with(&format!("./hook post $HOME {w}/mta/live {w}/mta/root\n")),
        "{post}"
    );
    for variable in [
        "ACTION=overlay-boot",
        "UNSHARED=yes",
        &format!("CONFIG={conf}"),
        &format!("BASE={w}/mta"),
        "RAM_SIZE=7M",
        "SHARE=/x:/y",
        "/z",
    ] {
        assert!(
            pre.lines().any(|line| line == variable),
            "no {variable} in {pre}"
        );
    }
    assert!(!pre.contains("MINE="));
    let log = world.read("/tmp/overlay-mta.log");
    assert!(
        log.contains("said by pre\nloud\n")
            && log.contains("said by post\nloud\n")
            && log.contains("PREMOUNT ended with exit status: 3"),
        "{log}"
    );
    // POSTMOUNT replaces all of the default work.
    assert_eq!(world.mounts("mta"), "/ /dev /proc /sys");
}

#[test]
fn mount_by_a_hook_is_visible_inside_but_not_on_the_host() {
    let world = World::new();
    world.script("mta/post", "ob-mount --furnish $1; mkdir -p $1/extra /run/aside; mount -t tmpfs tmpfs $1/extra; mount -t tmpfs tmpfs /run/aside");
    let conf = world.subhost("mta", "POSTMOUNT=./post");
    let before = world.snapshot();
    world.boot(&conf);
    assert_eq!(
        world.mounts("mta"),
        "/ /dev /dev/pts /dev/shm /extra /proc /run /sys"
    );
    assert_eq!(
        world.ok("grep -c -e /extra -e /run/aside /proc/self/mountinfo || :"),
        "0"
    );
    world.ok("overlay-stop mta; rmdir /run/aside");
    world.assert_same(&before);
}
