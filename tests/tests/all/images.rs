//! Roots from disk images.

use end_to_end::{World, until};

/// Makes `image` with two partitions; the second one is an ext4 with the files of `from`.
fn partition(world: &World, image: &str, label: &str, from: &str) {
    // Sectors of 512 bytes: a gap of 1 MiB, partitions of 4 MiB and 24 MiB.
    world.ok(&format!(
        "truncate -s 32M {image}; printf 'label: {label}\nstart=2048, size=8192\nstart=10240, size=49152\n' | sfdisk -q {image} >&2; \
         truncate -s 24M part; mke2fs -q -t ext4 -d {from} part; dd if=part of={image} bs=512 seek=10240 conv=notrunc status=none; rm part"
    ));
}

#[test]
fn hazard_25_overlay_diskfile_mounts_images_and_partitions() {
    let world = World::new();
    if !world.mounts_images("overlay-diskfile") {
        return;
    }
    world.ok("cp -a busybox tree; mkdir deep; cp -a busybox deep/rootfs; mkdir -p writable/upper writable/work; mksquashfs busybox root.squashfs -quiet -no-progress >&2");
    world.ok("truncate -s 24M root.ext4; mke2fs -q -t ext4 -d busybox root.ext4");
    partition(&world, "mbr.img", "dos", "writable");
    partition(&world, "gpt.img", "gpt", "deep");
    let before = world.snapshot();
    for (name, lines) in [
        ("squash", "LOWER=!overlay-diskfile mnt/ ../root.squashfs"),
        ("ext4", "LOWER=!overlay-diskfile mnt/ ../root.ext4"),
        ("subtree", "LOWER=!overlay-diskfile mnt/rootfs ../gpt.img 2"),
        (
            "upper",
            "UPPER=!overlay-diskfile mnt/upper ../mbr.img 2\nWORK=mnt/work",
        ),
    ] {
        let conf = world.subhost(name, lines);
        world.ok(&format!("mkdir {name}/mnt"));
        world.boot(&conf);
        assert_eq!(
            world.inside(name, "echo x >/var/written; tail -n 1 /etc/group"),
            "tty:x:5:"
        );
        assert_eq!(
            world.ok("losetup -l -n -O BACK-FILE | grep -cE '/(root.squashfs|root.ext4|gpt.img|mbr.img)$' || :"),
            "1",
            "{name}"
        );
        assert_eq!(
            world.ok("ls -A */mnt | grep -v : | grep -c . || :"),
            "0",
            "no image is mounted on the host"
        );
        world.ok(&format!("overlay-stop {name}"));
        world.until_same(&before);
        until("the removal of the loop device", || {
            world.ok("losetup -l -n -O BACK-FILE | grep -cE '/(root.squashfs|root.ext4|gpt.img|mbr.img)$' || :") == "0"
        });
    }
    // A file written inside is in the image. Outside of a boot, overlay-diskfile mounts nothing.
    assert_eq!(
        world
            .ok("debugfs -R 'ls upper/var' 'mbr.img?offset=5242880' 2>/dev/null | grep -o written"),
        "written"
    );
    assert_eq!(world.ok("overlay-diskfile /mnt/x ../mbr.img 2"), "mnt/x");
    // A missing partition is an error, and does not boot with an empty value.
    let conf = world.subhost("none", "LOWER=!overlay-diskfile mnt/ ../gpt.img 3");
    let done = world.run(&format!("mkdir none/mnt; overlay-boot {conf}"));
    assert_eq!(done.status, 1, "{done:#?}");
    world.assert_same(&before);
}
