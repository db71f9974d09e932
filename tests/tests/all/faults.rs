//! Faults: full and read-only filesystems, logs that cannot be written, and interrupted boots and
//! stops.

use end_to_end::{NO_LOOP, NOT_ROOT, World, is_root, not_done, until};

/// Makes a small filesystem in `$W/small`: ext4 on a loop device, or a tmpfs without loop devices.
fn small_filesystem(world: &World, ext4: &str, tmpfs: &str) {
    world.ok("mkdir small");
    let made = is_root()
        && world
            .run(&format!(
                "truncate -s 8M image && mkfs.ext4 -q -F {ext4} image && mount -o loop image small"
            ))
            .status
            == 0;
    if !made {
        not_done(
            "an ext4 on a loop device, a tmpfs instead",
            if is_root() { NO_LOOP } else { NOT_ROOT },
        );
        world.ok(&format!("mount -t tmpfs -o size=8M,{tmpfs} small small"));
    }
    world.ok("mkdir -p small/live small/root/var small/work");
}

const ON_SMALL: &str = "UPPER=../small/root\nWORK=../small/work\nLIVE=../small/live\nCABLES==";

/// Boots, and stops the subhost if the boot succeeds; a failure prints one line. Nothing is left.
/// Returns whether the boot succeeded.
fn boot_and_stop(world: &World, conf: &str) -> bool {
    let before = world.snapshot();
    let boot = world.run(&format!("overlay-boot {conf}"));
    if boot.status == 0 {
        world.ok("overlay-go mta true");
        world.ok("overlay-stop mta");
    } else {
        boot.fails(1, &["mta"]);
    }
    world.assert_same(&before);
    boot.status == 0
}

#[test]
fn full_disk_below_upper_does_not_prevent_cleanup() {
    let world = World::new();
    small_filesystem(&world, "", "nr_inodes=500");
    let conf = world.subhost("mta", ON_SMALL);
    world.run("dd if=/dev/zero of=small/fill bs=64k; dd if=/dev/zero of=small/rest bs=512");
    assert_ne!(world.run("echo x >small/more").status, 0);
    boot_and_stop(&world, &conf);
    // A disk that fills up while a subhost runs.
    world.ok("rm small/fill small/rest small/more");
    let before = world.snapshot();
    world.boot(&conf);
    world.run("dd if=/dev/zero of=small/fill bs=64k; dd if=/dev/zero of=small/rest bs=512");
    assert_ne!(
        world.run("overlay-go mta sh -c 'echo x >/var/more'").status,
        0
    );
    world.ok("overlay-stop mta");
    world.assert_same(&before);
}

#[test]
fn no_inodes_below_upper_does_not_prevent_cleanup() {
    let world = World::new();
    small_filesystem(&world, "-N 64", "nr_inodes=64");
    let conf = world.subhost("mta", ON_SMALL);
    world.run("for n in $(seq 200); do : >small/$n || break; done");
    world.run("mkdir small/more").fails(1, &["No space"]);
    boot_and_stop(&world, &conf);
}

#[test]
fn read_only_upper_leaves_nothing() {
    let world = World::new();
    small_filesystem(&world, "", "nr_inodes=500");
    let conf = world.subhost("mta", ON_SMALL);
    world.ok("mount -o remount,ro small || mount -o remount,bind,ro small");
    boot_and_stop(&world, &conf);
    // A read-only root boots if UPPER and LOWER are the same directory.
    world.make_busybox("whole");
    world.ok("mount --bind whole whole && mount -o remount,ro,bind whole");
    let conf = world.subhost("mta", "UPPER=../whole\nLOWER=../whole\nCABLES==");
    boot_and_stop(&world, &conf);
}

#[test]
fn full_log_disk_does_not_block_the_subhost() {
    let world = World::new();
    world.ok("mkdir log && mount -t tmpfs -o size=64k log log");
    let conf = world.subhost(
        "mta",
        &format!(
            "LOG={}/log/mta.log\nLOG_MAX=10M\nINIT=./init",
            world.directory()
        ),
    );
    world.script("mta/init", "cat <<'END'\nyes 'a line that is not so short' | head -n 100000\n: >/root/done\nuntil [ -e /root/go ]; do sleep 0.05; done; while :; do echo spoken again; sleep 0.05; done\nEND");
    let before = world.snapshot();
    world.boot(&conf);
    until("all output of pid 1", || world.has("mta/root/root/done"));
    // The disk is full: entering works, and after space is available again, the log counts the lost
    // lines.
    world.ok("overlay-go mta true");
    world.ok("overlay-go mta touch /root/go");
    until("the log to continue", || {
        // Output that was still in the pipe may have filled the disk again.
        world.ok(": >log/mta.log; sleep 0.3");
        let log = world.read("log/mta.log");
        log.contains("lines lost) ") && log.contains("spoken again")
    });
    world.ok("overlay-stop mta");
    world.assert_same(&before);
    // A disk that is full before the boot.
    world.ok("dd if=/dev/zero of=log/fill bs=1k 2>/dev/null || :; : >log/mta.log");
    world.ok(&format!("overlay-boot {conf}; overlay-stop mta"));
    world.assert_same(&before);
}

#[test]
fn fifo_as_log_is_refused() {
    let world = World::new();
    let conf = world.subhost(
        "mta",
        &format!("LOG={}/mta/pipe\nCABLES==", world.directory()),
    );
    world.ok("mkfifo mta/pipe");
    let before = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["pipe"]);
    let missing = world.subhost("missing", "LOG=/run/no/such/log");
    world
        .run(&format!("overlay-boot {missing}"))
        .fails(1, &["no/such"]);
    world.assert_same(&before);
}

#[test]
fn full_run_prevents_boot_but_not_stop() {
    let world = World::new();
    // In a user namespace, the size of the present tmpfs cannot be changed.
    world.ok("mount -t tmpfs -o size=256k,mode=755 small /run");
    let conf = world.subhost("mta", "CABLES==");
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    world.ok(": >/run/fill");
    let before = world.snapshot();
    let fill = "dd if=/dev/zero of=/run/fill bs=4k 2>/dev/null || :";
    world.ok(fill);
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["mta", "No space left"]);
    world.assert_same(&before);
    world.ok(": >/run/fill");
    world.ok(&format!("overlay-boot {conf}; {fill}"));
    world.ok("overlay-stop mta");
    world.assert_same(&before);
}

/// A part of the sweeps of `make sweep`: every 61st step.
#[cfg(target_arch = "x86_64")]
mod sweeps {
    use end_to_end::is_root_or_tell;
    use end_to_end::sweep::{Act, Summary, Sweep};
    use std::io::Write;

    const STRIDE: usize = 61;

    fn report(what: &str, summary: &Summary) {
        let _ = writeln!(std::io::stderr(), "{what}, every {STRIDE}th: {summary}");
        assert!(
            summary.faults > 0 && summary.broken.is_empty(),
            "{:#?}",
            summary.broken
        );
    }

    #[test]
    fn killed_boot_is_cleaned_up_by_the_next_command() {
        if is_root_or_tell("tracing a process that changes its uid") {
            report(
                "boots killed",
                &Sweep::new(Act::Boot, "", STRIDE).kill(|_| ()),
            );
        }
    }

    #[test]
    fn killed_stop_is_cleaned_up_by_the_next_command() {
        if is_root_or_tell("tracing a process that changes its uid") {
            report(
                "stops killed",
                &Sweep::new(Act::Stop, "", STRIDE).kill(|_| ()),
            );
        }
    }

    #[test]
    fn boot_with_failing_call_reports_and_leaves_nothing() {
        if is_root_or_tell("tracing a process that changes its uid") {
            report(
                "boots failing",
                &Sweep::new(Act::Boot, "", STRIDE / 4).fail(|_| ()),
            );
        }
    }

    #[test]
    fn stop_with_failing_call_is_completed_by_the_next_stop() {
        if is_root_or_tell("tracing a process that changes its uid") {
            report(
                "stops failing",
                &Sweep::new(Act::Stop, "", STRIDE / 8).fail(|_| ()),
            );
        }
    }
}
