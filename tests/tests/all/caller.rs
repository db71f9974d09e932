//! What the caller of overlay-boot has stays outside of the subhost.

use end_to_end::{World, until};

/// The value of an octal field of /proc/PID/stat that awk counts as `field`.
fn stat(world: &World, pid: &serde_json::Value, field: u32) -> String {
    world.ok(&format!("cut -d' ' -f{field} /proc/{pid}/stat"))
}

#[test]
fn hazard_18_the_callers_session_and_terminal_are_not_the_subhosts() {
    let world = World::new();
    world.script("busybox/etc/one", "sleep 1000 &");
    let conf = world.subhost("mta", "START=/etc/one");
    // A terminal of its own, whose session ends with the command.
    world.ok(&format!(
        "script -qec 'overlay-boot {conf}' /dev/null </dev/null >&2"
    ));
    until("the service", || {
        world.inside("mta", "ps").contains("sleep 1000")
    });
    let document = world.document("mta");
    for process in ["pid", "guard"] {
        assert_eq!(
            stat(&world, &document[process], 7),
            "0",
            "{process} has a terminal"
        );
    }
    assert_eq!(
        world.inside(
            "mta",
            "for s in /proc/[0-9]*/stat; do cut -d' ' -f7 $s; done | sort -u"
        ),
        "0"
    );
    world.ok("overlay-stop mta");
}

#[test]
fn hazard_23_the_callers_environment_and_files_stay_outside() {
    let world = World::new();
    world.script(
        "busybox/etc/one",
        "env >/var/env; ls -l /proc/self/fd >/var/fds; sleep 1000 &",
    );
    let conf = world.subhost("mta", "START=/etc/one");
    let line = format!("exec 7</etc; overlay-boot {conf}");
    world.line(&line).env("SECRET_TOKEN", "x").run().ok();
    until("the service", || {
        world.inside("mta", "ps").contains("sleep 1000")
    });
    let environment = world.read("mta/root/var/env");
    for word in ["SECRET", "ACTION", "UNSHARED", "OLDPWD", "CONFIG", "OB_"] {
        assert!(!environment.contains(word), "{environment}");
    }
    let files = world.read("mta/root/var/fds");
    assert!(
        !files.contains(" /etc") && !files.contains(" 7 ->"),
        "{files}"
    );
    assert_eq!(
        world.inside(
            "mta",
            "tr '\\0' '\\n' </proc/1/environ | grep -c SECRET || :"
        ),
        "0"
    );
}

#[test]
fn hazard_30_the_callers_umask_closes_nothing_inside() {
    let world = World::new();
    world.script("busybox/etc/one", "touch /var/made");
    let conf = world.subhost("mta", "START=/etc/one");
    world.ok(&format!("umask 077; overlay-boot {conf}"));
    until("the service", || world.has("mta/root/var/made"));
    assert_eq!(
        world.inside("mta", "stat -c %a / /etc /etc/network/interfaces /var/made"),
        "755\n755\n644\n644"
    );
}

#[test]
fn hazard_boot_returns_when_the_subhost_is_there() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    for _ in 0..5 {
        world.ok(&format!(
            "overlay-boot {conf} && overlay-go mta true && overlay-stop mta"
        ));
    }
}
