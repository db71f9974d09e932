//! Isolation from the caller: its session, environment, descriptors and umask do not reach the
//! subhost.

use end_to_end::{World, until};

/// Returns a field of /proc/PID/stat, counted from 1.
fn stat(world: &World, pid: &serde_json::Value, field: u32) -> String {
    world.ok(&format!("cut -d' ' -f{field} /proc/{pid}/stat"))
}

#[test]
fn hazard_18_session_and_terminal_of_the_caller_stay_out() {
    let world = World::new();
    world.script("busybox/etc/one", "sleep 1000 &");
    let conf = world.subhost("mta", "START=/etc/one");
    // script(1) makes a terminal, whose session ends with the command.
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
fn boot_returns_when_the_subhost_can_be_entered() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    for _ in 0..5 {
        world.ok(&format!(
            "overlay-boot {conf} && overlay-go mta true && overlay-stop mta"
        ));
    }
}

#[test]
fn hazard_23_environment_and_files_of_the_caller_stay_out() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    let line = format!("umask 077; exec 7</etc; overlay-boot {conf}");
    world.line(&line).env("SECRET_TOKEN", "x").run().ok();
    let pid = &world.document("mta")["pid"];
    let environment = world.ok(&format!("tr '\\0' '\\n' </proc/{pid}/environ | sort"));
    let allowed = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "NAME=mta",
        "LANG=C.UTF-8",
        "container=overlay-boot",
    ];
    for variable in environment
        .lines()
        .filter(|variable| !matches!(*variable, "PWD=/" | "SHLVL=0" | "SHLVL=1" | "OLDPWD=/"))
    {
        assert!(allowed.contains(&variable), "{variable}");
    }
    for variable in allowed {
        assert!(
            environment.lines().any(|line| line == variable),
            "no {variable} in {environment}"
        );
    }
    let files = world.ok(&format!(
        "cd /proc/{pid}/fd; for n in *; do echo $n $(readlink $n); done"
    ));
    let files: Vec<&str> = files
        .lines()
        .filter(|file| !file.starts_with("9 /memfd:ob-reaper"))
        .collect();
    assert_eq!(files[0], "0 /dev/null");
    assert!(
        files[1].starts_with("1 pipe:") && files[2].starts_with("2 pipe:"),
        "{files:?}"
    );
    assert_eq!(files.len(), 3, "{files:?}");
    assert_eq!(
        world.inside(
            "mta",
            "readlink /proc/1/cwd; readlink /proc/1/root; grep Umask /proc/1/status"
        ),
        "/\n/\nUmask:\t0022"
    );
    assert_eq!(
        world.mounts("mta"),
        "/ /dev /dev/pts /dev/shm /proc /run /sys"
    );
    // No file of the host is mapped into pid 1.
    assert_eq!(
        world.ok(&format!(
            "grep ' /' /proc/{pid}/maps | grep -cv /memfd:ob-reaper || :"
        )),
        "0"
    );

    // A service gets no more than pid 1.
    world.script(
        "busybox/etc/one",
        "env >/var/env; ls -l /proc/self/fd >/var/fds; sleep 1000 &",
    );
    let conf = world.subhost("served", "START=/etc/one");
    let line = format!("exec 7</etc; overlay-boot {conf}");
    world.line(&line).env("SECRET_TOKEN", "x").run().ok();
    until("the service", || {
        world.inside("served", "ps").contains("sleep 1000")
    });
    let environment = world.read("served/root/var/env");
    for word in ["SECRET", "ACTION", "UNSHARED", "OLDPWD", "CONFIG", "OB_"] {
        assert!(!environment.contains(word), "{environment}");
    }
    let files = world.read("served/root/var/fds");
    assert!(
        !files.contains(" /etc") && !files.contains(" 7 ->"),
        "{files}"
    );
    assert_eq!(
        world.inside(
            "served",
            "tr '\\0' '\\n' </proc/1/environ | grep -c SECRET || :"
        ),
        "0"
    );
}

#[test]
fn hazard_30_umask_of_the_caller_closes_nothing_inside() {
    let world = World::new();
    world.script("busybox/etc/one", "touch /var/made");
    let conf = world.subhost("mta", "START=/etc/one");
    world.ok(&format!("umask 077; overlay-boot {conf}"));
    until("the service", || world.has("mta/root/var/made"));
    assert_eq!(
        world.ok("stat -c %a mta/root/etc mta/root/etc/network mta/root/etc/network/interfaces"),
        "755\n755\n644"
    );
    assert_eq!(
        world.inside(
            "mta",
            "stat -c %a / /etc /dev /run /etc/network/interfaces /var/made"
        ),
        "755\n755\n755\n755\n644\n644"
    );
}

#[test]
fn overlay_boot_keeps_no_pipe_or_terminal_of_its_caller() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    // cat(1) returns at EOF, so no remaining process may hold the pipe.
    assert_eq!(world.ok(&format!("overlay-boot {conf} 2>&1 | cat")), "");
    let document = world.document("mta");
    for fact in ["pid", "guard"] {
        let ids = world.ok(&format!("cut -d' ' -f5,6 /proc/{}/stat", document[fact]));
        assert_ne!(ids, world.ok("cut -d' ' -f5,6 /proc/1/stat"), "{fact}");
        assert_eq!(
            world.ok(&format!("readlink /proc/{}/cwd", document[fact])),
            "/"
        );
    }
    assert_eq!(world.ok("overlay-stop mta 2>&1 | cat"), "");
}

#[test]
fn foreground_boot_and_its_subhost_end_together() {
    let world = World::new();
    let conf = world.subhost("mta", "");
    let before = world.snapshot();
    let boot = world
        .line(&format!("exec overlay-boot --foreground {conf}"))
        .start();
    until("the subhost to run", || world.is_up("mta"));
    world.ok("overlay-stop mta");
    assert_eq!(boot.wait().status, 0);
    let boot = world.line(&format!("overlay-boot -f {conf} & boot=$!; until [ -e /run/go ]; do sleep 0.05; done; kill $boot; wait $boot")).start();
    until("the subhost to run", || world.is_up("mta"));
    world.ok("touch /run/go");
    boot.wait();
    world.ok("rm /run/go");
    world.assert_same(&before);
}
