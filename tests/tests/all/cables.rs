//! The forms of CABLES.

use end_to_end::{World, booted, until};

/// A world with a bridge br0, up, with an address.
fn world() -> World {
    let world = World::new();
    world
        .ok("ip link add br0 type bridge && ip link set br0 up && ip addr add 10.0.0.1/24 dev br0");
    world
}

#[test]
fn every_form_of_a_cable() {
    let world = world();
    let conf = world.subhost(
        "mta",
        "CABLES== br0= =02:00:5e:10:00:01\tbr0=02:00:5E:10:0:2",
    );
    world.boot(&conf);
    assert_eq!(
        world.inside("mta", "ls /sys/class/net"),
        "eth0\neth1\neth2\neth3\nlo"
    );
    assert_eq!(
        world.inside(
            "mta",
            "cat /sys/class/net/eth2/address /sys/class/net/eth3/address"
        ),
        "02:00:5e:10:00:01\n02:00:5e:10:00:02"
    );
    for link in 0..4 {
        // Up outside; inside it is the subhost's own affair.
        let outside = world.ok(&format!("ip -o link show mta{link}"));
        assert!(
            outside.contains(",UP") || outside.contains("<UP"),
            "{outside}"
        );
        assert_eq!(outside.contains("master br0"), link % 2 == 1, "{outside}");
        assert_eq!(
            world.inside(
                "mta",
                &format!("ip -o addr show eth{link} | grep -c inet || :")
            ),
            "0"
        );
        assert_eq!(
            world.inside(
                "mta",
                &format!("ip -o link show eth{link} | grep -c '[<,]UP' || :")
            ),
            "0"
        );
    }
    assert_eq!(world.inside("mta", "ip -o link show lo | grep -c '[<,]UP'; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo reached"), "1\nreached");
    world.ok("overlay-stop mta");
    assert_eq!(world.ok("ip -o link | grep -c mta || :"), "0");
}

#[test]
fn two_subhosts_on_a_bridge_reach_each_other_and_the_host() {
    let world = world();
    for (name, address) in [("one", 2), ("two", 3)] {
        let conf = world.subhost(name, "CABLES=br0=");
        world.boot(&conf);
        world.inside(
            name,
            &format!("ip addr add 10.0.0.{address}/24 dev eth0 && ip link set eth0 up"),
        );
    }
    let server = world.line("pid=$(ob-conf - pid </run/overlay-boot/two/subhost | tr -dc 0-9); exec nsenter -t $pid -n -m busybox nc -l -p 7 -e /bin/cat").start();
    until("a byte there and back", || {
        world.inside("one", "echo byte | nc -w 5 10.0.0.3 7 2>/dev/null || :") == "byte"
    });
    drop(server);
    assert_eq!(
        world.inside("one", "ping -c 1 -W 20 10.0.0.1 >/dev/null && echo reached"),
        "reached"
    );
}

#[test]
fn a_cable_without_a_bridge_is_a_wire_to_the_host() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    world.ok(&format!(
        "overlay-boot {conf}; ip addr add 10.1.0.1/24 dev mta0"
    ));
    world.inside(
        "mta",
        "ip addr add 10.1.0.2/24 dev eth0; ip link set eth0 up",
    );
    assert_eq!(
        world.inside("mta", "ping -c 1 -W 20 10.1.0.1 >/dev/null && echo reached"),
        "reached"
    );
}

#[test]
fn without_cables_there_is_lo_alone() {
    let (world, _) = booted("");
    assert_eq!(
        world.inside(
            "mta",
            "ls /sys/class/net; ip -o link show lo | grep -c '[<,]UP'"
        ),
        "lo\n1"
    );
    assert_eq!(world.document("mta")["cables"], serde_json::json!([]));
}

#[test]
fn hazard_19_sys_shows_the_links_of_the_subhost_alone() {
    let world = world();
    let other = world.subhost("other", "CABLES=br0= br0=");
    let conf = world.subhost("mta", "CABLES=br0=");
    world.ok(&format!("overlay-boot {other}; overlay-boot {conf}"));
    assert_eq!(
        world.inside("mta", "ls /sys/class/net /sys/devices/virtual/net"),
        "/sys/class/net:\neth0\nlo\n\n/sys/devices/virtual/net:\neth0\nlo"
    );
}

#[test]
fn a_name_of_fourteen_characters_has_room_for_a_cable() {
    let world = World::new();
    let conf = world.subhost("fourteen-chars", "CABLES==");
    world.boot(&conf);
    world.ok("ip link show fourteen-chars0");
    assert_eq!(
        world.inside("fourteen-chars", "ls /sys/class/net"),
        "eth0\nlo"
    );
}

#[test]
fn hazard_15_what_a_failed_boot_would_have_left_is_not_taken_over() {
    let world = world();
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:01 nobridge=");
    let before = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["no bridge nobridge"]);
    world.assert_same(&before);
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:02");
    world.boot(&conf);
    assert_eq!(
        world.inside("mta", "cat /sys/class/net/eth0/address; ls /sys/class/net"),
        "02:00:5e:10:00:02\neth0\nlo"
    );
}

#[test]
fn hazard_15_what_was_left_is_not_taken_over() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    // A cable of an earlier attempt, and a namespace that was made by hand, with lo down.
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:01 no=");
    world.run(&format!("overlay-boot {conf}")).fails(1, &["no"]);
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:02");
    world.ok("ip netns add mta");
    world.boot(&conf);
    assert_eq!(
        world.inside("mta", "cat /sys/class/net/eth0/address; ls /sys/class/net; ip -o link show lo | grep -c LOOPBACK,UP"),
        "02:00:5e:10:00:02\neth0\nlo\n1"
    );
}

#[test]
fn hazard_19_sys_shows_the_links_of_the_subhost() {
    let (world, _) = booted("CABLES==");
    world.ok("ip link add other0 type dummy 2>/dev/null || ip link add other0 type bridge");
    assert_eq!(world.inside("mta", "ls /sys/class/net"), "eth0\nlo");
    world.inside("mta", "ip link set eth0 up");
    until("a carrier", || {
        world.inside("mta", "cat /sys/class/net/eth0/carrier") == "1"
    });
}

#[test]
fn hazard_21_the_down_commands_run_at_stop() {
    let world = World::new();
    world.script("fake/ifup", "mkdir -p /run/network; ip link set $1 up; echo \"$1=$1\" >>/run/network/ifstate; echo up $1 >>$W/told");
    world.script("fake/ifdown", "for link; do :; done; sed -i \"/^$link=/d\" /run/network/ifstate; echo down $link >>$W/told; [ -e /sys/class/net/$link ] && echo there >>$W/told");
    let conf = world.subhost("mta", "CABLES==");
    world.ok(&format!(
        "PATH=$W/fake:$PATH; overlay-boot {conf}; overlay-stop mta"
    ));
    assert_eq!(world.read("told"), "up mta0\ndown mta0\nthere\n");
    assert_eq!(world.read("/run/network/ifstate"), "");
    // Who ends by itself has them run too.
    world.ok(&format!("PATH=$W/fake:$PATH; overlay-boot {conf}; rm told"));
    until("the stand-in", || {
        world.inside("mta", "ls /run").contains("dummy_service")
    });
    // From outside: who is inside ends with it.
    let pid = world.document("mta")["pid"].clone();
    world.ok(&format!("echo >/proc/{pid}/root/run/dummy_service"));
    until("its end", || world.has("told"));
}

#[test]
fn hazard_22_a_name_that_leaves_no_room_for_a_cable_is_refused() {
    let world = World::new();
    let conf = world.subhost("fifteen-letters", "CABLES==");
    let before = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["fifteen-letters", "15"]);
    world.assert_same(&before);
}

#[test]
fn hazard_36_the_default_interfaces_file_has_a_stanza_for_each_link() {
    let (world, _) = booted("CABLES== =02:00:5e:10:00:01");
    let file = world.read("mta/root/etc/network/interfaces");
    for line in [
        "auto lo",
        "iface lo inet loopback",
        "auto eth0",
        "iface eth0 inet manual",
        "auto eth1",
        "iface eth1 inet manual",
    ] {
        assert!(
            file.lines().any(|there| there == line),
            "no {line} in {file}"
        );
    }
}

#[test]
fn hazard_36_the_default_interfaces_have_every_link_and_a_file_that_is_there_stays() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES== =.7 =");
    world.run(&format!("overlay-boot {conf}"));
    let file = world.read("mta/root/etc/network/interfaces");
    let words = [
        "auto lo\niface lo inet loopback\n",
        "auto eth0\niface eth0 inet manual\n",
        "auto eth1\n",
    ];
    assert!(
        words.iter().all(|words| file.contains(words)) && !file.contains("eth2"),
        "{file}"
    );
    let conf = world.subhost("own", "");
    world.write("own/root/etc/network/interfaces", "# mine\n");
    world.boot(&conf);
    assert_eq!(world.read("own/root/etc/network/interfaces"), "# mine\n");
}

#[test]
fn hazard_21_the_down_commands_of_a_bridgeless_cable_run_at_its_end() {
    let world = World::new();
    let state = "/run/network/ifstate";
    world.ok("mkdir -p /run/network; : >/run/network/ifstate; : >called");
    world.script(
        "bin/ifup",
        &format!("echo \"up $1\" >>$W/called; ip link set $1 up; echo $1=$1 >>{state}"),
    );
    world.script("bin/ifdown", &format!("echo \"down $1 $(cat /sys/class/net/$1/operstate >/dev/null && echo there)\" >>$W/called; sed -i \"/^$1=/d\" {state}"));
    world.script("bin/ifquery", "exit 0");
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();
    let mut expected = String::new();
    for way in [
        "overlay-stop mta",
        "kill -9 $(ob-list --json mta | grep -o '\"pid\":[0-9]*' | cut -d: -f2)",
    ] {
        world.ok(&format!("PATH=$W/bin:$PATH overlay-boot {conf}"));
        expected.push_str("up mta0\n");
        assert_eq!(world.read("called"), expected);
        world.ok(&format!("PATH=$W/bin:$PATH; {way}"));
        world.until_same(&before);
        expected.push_str("down mta0 there\n");
        assert_eq!(world.read("called"), expected);
    }
}
