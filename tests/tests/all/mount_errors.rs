//! The reasons that ob-mount gives if the kernel refuses a mount.

use end_to_end::{World, is_root_or_tell};

#[test]
fn d01_refused_overlay_names_the_layer_at_fault() {
    let world = World::new();
    let w = world.directory();
    let stack = |lower: &str, name: &str| {
        world.ok(&format!("mkdir -p {name}/u {name}/w {name}/m; mount -t overlay {name} -o lowerdir={lower},upperdir={name}/u,workdir={name}/w {name}/m"));
    };
    stack("busybox", "one");
    stack("one/m", "two");
    world.ok("mkdir proc; mount -t proc proc proc");
    world.ok("mkdir -p pair/root pair/work ro/root ro/work other; mount -t tmpfs ro ro; mkdir ro/root ro/work; mount -o remount,bind,ro ro && mount --bind pair other");
    world.ok("mkdir -p bound/root/low bound/work seen; mount --bind bound/root seen");
    for (lines, reasons) in [
        (
            "LOWER=../two/m",
            &["LOWER=", "/two/m lies on an overlay of an overlay"][..],
        ),
        (
            "LOWER=../proc",
            &["LOWER=", "/proc: the kernel accepts no lower layer on proc"],
        ),
        (
            "UPPER=../pair/root\nWORK=../other/work",
            &["WORK=", "/other/work is not on the mount of UPPER="],
        ),
        ("UPPER=../ro/root\nWORK=../ro/work", &["read-only"]),
        (
            "UPPER=../one/m/u\nWORK=../one/m/w",
            &["as upperdir", "one/m/u"],
        ),
        (
            "LOWER=../seen/low\nUPPER=../bound/root\nWORK=../bound/work",
            &["LOWER=", "/seen/low overlaps UPPER or WORK by another path"],
        ),
        (
            "LOWER=../one/m\nREADONLY=volatile",
            &[
                "READONLY=volatile: the root on ",
                "/mta/live lies on an overlay of an overlay",
            ],
        ),
    ] {
        world.ok("mkdir -p one/m/u one/m/w");
        let conf = world.subhost("mta", lines);
        for start in ["overlay-boot", "ob-conf"] {
            let line = match start {
                "ob-conf" => format!("ob-conf {conf} | ob-mount"),
                _ => format!("overlay-boot {conf}"),
            };
            let done = world.run(&line);
            done.fails(1, &["ob-mount: mta: "]);
            done.fails(1, reasons);
            assert_eq!(done.err.lines().count(), 1, "{done:#?}");
        }
        assert!(
            world
                .run(&format!("grep -c {w}/mta/live /proc/mounts"))
                .out
                .starts_with('0')
        );
    }
}

#[test]
fn d01_refused_mapped_layer_keeps_its_name() {
    if !is_root_or_tell("USERNS") {
        return;
    }
    let world = World::new();
    world.ok("mkdir -p one/u one/w one/m pair/root pair/work other; chmod 700 pair; mount --bind pair other; mount -t overlay one -o lowerdir=busybox,upperdir=one/u,workdir=one/w one/m");
    for (lines, reasons) in [
        (
            "LOWER=../one/m",
            &["LOWER=", "/one/m: ", "cannot map ids"][..],
        ),
        (
            "UPPER=../pair/root\nWORK=../other/work",
            &["WORK=", "is not on the mount of UPPER="],
        ),
    ] {
        let conf = world.subhost("mta", &format!("USERNS=200000\n{lines}"));
        world.ok("chmod 700 mta");
        world.run(&format!("overlay-boot {conf}")).fails(1, reasons);
    }
}

#[test]
fn d02_ordinary_user_is_asked_to_be_root() {
    if !is_root_or_tell("another user") {
        return;
    }
    let world = World::new();
    world.ok("mkdir share");
    let conf = world.subhost("mta", "");
    world.ok("chmod -R go+rX .");
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all";
    world.ok(&format!("ob-conf {conf} >document"));
    for line in [
        "ob-mount <document",
        "ob-mount -n <document",
        "ob-mount --furnish mta/live",
        "ob-mount --share share <document",
    ] {
        let done = world.run(&format!("{user} sh -c '{line}'"));
        done.fails(1, &["ob-mount: ", "only root can mount"]);
        assert!(!done.err.contains("overlay filesystem"), "{done:#?}");
    }
}
