//! overlay-new: the directory and the configuration of a new subhost.

use end_to_end::{World, is_root, is_root_or_tell, not_done};

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

#[test]
fn e05_name_of_a_new_subhost_resolves_inside() {
    let world = World::new();
    world.ok("printf '127.0.0.1 localhost\\n127.0.1.1 thehost\\n10.9.8.7 peer\\n::1 localhost\\n' >busybox/etc/hosts; echo thehost >busybox/etc/hostname");
    world.ok("overlay-new --lower busybox mta && overlay-boot mta/mta.conf");
    let inside = |line: &str| world.ok(&format!("overlay-go mta sh -c '{line}'"));
    assert_eq!(inside("hostname; cat /etc/hostname"), "mta\nmta");
    assert_eq!(
        inside("cat /etc/hosts; stat -c %a:%U /etc/hosts /etc/hostname"),
        "127.0.0.1\tlocalhost\n127.0.1.1\tmta\n10.9.8.7 peer\n::1 localhost\n644:root\n644:root"
    );
    world.ok("overlay-stop mta");
    // LOWER may have neither file, nor /etc.
    world
        .ok("rm -r busybox/etc; overlay-new --lower busybox web && grep -c web web/root/etc/hosts");
}

#[test]
fn e13_proposals_of_a_new_subhost_pass_the_check() {
    let world = World::new();
    world.ok("mkdir -p busybox/etc/init.d; : >busybox/etc/init.d/cron");
    for bridge in [false, true] {
        if bridge {
            world.ok("ip link add lan0 type bridge");
        }
        let name = if bridge { "mtb" } else { "mta" };
        world.ok(&format!("overlay-new --lower busybox {name} >&2"));
        let conf = format!("{name}/{name}.conf");
        let text = world.read(&conf);
        assert_eq!(text.contains("\n#CABLES=lan0=\n"), bridge, "{text}");
        let proposals = text.lines().filter(|line| {
            let assigned = line.strip_prefix('#').and_then(|line| line.split_once('='));
            assigned
                .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        });
        let proposals: Vec<&str> = proposals.collect();
        assert!(proposals.len() > 5, "{text}");
        for proposal in &proposals {
            let changed = text
                .replace("START=none\n", "")
                .replace(proposal, &proposal[1..]);
            world.write(&conf, &changed);
            let done = world.run(&format!("ob-conf --check {conf}"));
            assert_eq!((done.status, &*done.out), (0, ""), "{proposal} {done:#?}");
        }
    }
}

#[test]
fn e06_new_subhost_has_the_strongest_level_that_works() {
    let world = World::new();
    let level = |name: &str| {
        let files = world.ok(&format!(
            "cd {name}; find . ! -path './root/etc/*' | sort | tr '\\n' ' '"
        ));
        assert_eq!(
            files,
            format!(". ./live ./root ./root/etc ./{name}.conf ./work ")
        );
        world.ok(&format!("grep ^PROTECT= {name}/{name}.conf"))
    };
    world.ok("overlay-new --lower busybox mta && overlay-boot mta/mta.conf && overlay-go mta true && overlay-stop mta");
    let expected = if is_root() { "strict" } else { "yes" };
    let found = world.ok("grep ^PROTECT= mta/mta.conf");
    assert_eq!(found, format!("PROTECT={expected}"));
    // ramfs has no idmapped mounts.
    if is_root() {
        world.ok("mkdir ram; mount -t ramfs ramfs ram; cp -a busybox ram");
        world.ok("overlay-new --lower ram/busybox web");
        assert_eq!(level("web"), "PROTECT=yes");
    }
    world.ok("overlay-new --lower busybox wax");
    assert_eq!(level("wax"), format!("PROTECT={expected}"));
    assert!(!world.has("/tmp/overlay-wax.log"));
}

#[test]
fn new_subhost_with_an_odd_path_is_refused_or_reported() {
    let world = World::new();
    for (path, parts) in [
        ("nodir/x", ["nodir", "there is no such directory"]),
        (
            "busybox/bin/sh/x",
            ["busybox/bin/sh", "there is no such directory"],
        ),
        ("hzx.conf", ["hzx.conf", "omit .conf"]),
        ("busybox/hzx.conf/", ["busybox/hzx.conf", "omit .conf"]),
    ] {
        world
            .run(&format!("overlay-new --lower busybox {path}"))
            .fails(1, &parts);
    }
    let done = world.run("overlay-new --lower busybox abcdefghijklm");
    assert_eq!(done.status, 0);
    assert!(
        done.err.contains("'abcdefghijklm' has 13 characters"),
        "{done:#?}"
    );
}
