//! overlay-new: the directory and the configuration of a new subhost.

use end_to_end::{World, is_root_or_tell, not_done};

#[test]
fn new_subhost_boots_by_the_printed_command() {
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
    // Existing files stay unchanged, and a failure leaves no partial directory.
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
fn new_subhost_has_other_keys_than_its_host() {
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
        "a host key without a replacement is hidden"
    );
    world.ok("overlay-stop mta");
    // Without ssh-keygen the host keys are hidden, and overlay-new prints a warning.
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
