//! Errors name the true cause: limits of the kernel, a missing interpreter, read-only control
//! groups.

use end_to_end::{NO_CONTROLLER, World, not_done};

#[test]
fn d_missing_interpreter_of_pid_1_is_named() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.script("mta/root/bin/script", "");
    world.ok("sed -i '1s,.*,#!/no/such,' mta/root/bin/script");
    world.ok(&format!("ob-conf {conf} | ob-mount >made"));
    let refused = world.run("ob-unshare -- script <made");
    refused.fails(127, &["mta: run script: there is no interpreter for it"]);
    let refused = world.run("ob-unshare -- /bin/no-such <made");
    refused.fails(127, &["mta: there is no /bin/no-such in its root"]);
    world.ok("ob-mount --undo <made; mv mta/root/bin/script mta/root/bin/sh");
    let before = world.snapshot();
    let refused = world.run(&format!("overlay-boot {conf}"));
    refused.fails(1, &["run /bin/sh: there is no interpreter for it"]);
    world.assert_same(&before);
}

/// A script that runs the stages `$2` in a user namespace in which the sysctl `$1` is 0.
const WITHOUT: &str = "echo 0 >/proc/sys/user/$1 && mount -t tmpfs run /run && \
    echo '{\"NAME\":\"mta\",\"root\":\"/\",\"LOG\":\"/run/log\"}' | $2";

#[test]
fn d_limit_of_namespaces_is_named() {
    let world = World::new();
    world.write("without", WITHOUT);
    for (kind, stage) in [
        ("pid", "ob-unshare"),
        ("uts", "ob-unshare"),
        ("time", "ob-unshare"),
        ("net", "ob-cable"),
        ("mnt", "ob-room true"),
    ] {
        let limit = format!("max_{kind}_namespaces");
        let tmpfs = "unshare --user --map-root-user --mount sh without";
        let refused = world.run(&format!("{tmpfs} {limit} '{stage}'"));
        refused.fails(refused.status, &[&format!("raise sysctl user.{limit}")]);
        assert_ne!(refused.status, 0);
    }
}

#[test]
fn d_limit_of_tasks_is_named() {
    let world = World::new();
    let controllers = world.run("cat /sys/fs/cgroup/cgroup.controllers").out;
    if !world.has_cgroup() || !controllers.contains("pids") {
        return not_done("the limit of tasks", NO_CONTROLLER);
    }
    let conf = world.subhost("mta", "");
    world.ok(
        "mkdir tree && mount --bind /sys/fs/cgroup tree && echo +pids >tree/cgroup.subtree_control",
    );
    world.ok(&format!(
        "mkdir tree/few && ob-conf {conf} | ob-mount >made"
    ));
    // In a read-only tree, the subhost has no group, so it stays in that of the caller.
    world.ok("mount -o remount,bind,ro /sys/fs/cgroup");
    world.write(
        "start",
        "echo 0 >tree/few/cgroup.procs; echo 1 >tree/few/pids.max; exec ob-unshare <made",
    );
    let refused = world.run("sh start");
    refused.fails(
        1,
        &["start pid 1 in new namespaces: the limit", "/few/pids.max"],
    );
    world.ok("ob-mount --undo <made");
}

#[test]
fn d_unexecutable_memfds_are_named() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    // The sysctl is that of the pid namespace, and cannot become lower.
    let boot = format!(
        "unshare --pid --fork --mount-proc sh -c 'echo 2 >/proc/sys/vm/memfd_noexec && overlay-boot {conf}'"
    );
    let refused = world.run(&boot);
    refused.fails(1, &["vm.memfd_noexec"]);
}

#[test]
fn d_few_descriptors_suffice_for_a_boot() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.ok(&format!("ulimit -n 24; overlay-boot {conf}"));
    assert_eq!(world.inside("mta", "echo up"), "up");
    world.ok("overlay-stop mta");
}

#[test]
fn d_script_of_pid_1_on_a_full_device_is_an_error() {
    let world = World::new();
    let refused = world.run("ob-unshare --init >/dev/full");
    refused.fails(1, &["ob-unshare: ", "No space left on device"]);
}

#[test]
fn d_read_only_control_groups_delay_no_failure() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    world.script("mta/root/bin/sh", "");
    world.ok("sed -i '1s,.*,#!/no/such,' mta/root/bin/sh");
    if world.has_cgroup() {
        world.ok("mount -o remount,bind,ro /sys/fs/cgroup");
    }
    let now = "date +%s%N";
    let boot = format!("s=$({now}); overlay-boot {conf}; e=$?; echo $(($({now}) - s)); exit $e");
    let refused = world.run(&boot);
    refused.fails(1, &["run /bin/sh"]);
    assert!(!refused.err.contains("control group"), "{refused:#?}");
    let took: u64 = refused.out.trim().parse().expect("a number");
    assert!(took < 2_000_000_000, "{took} ns");
}
