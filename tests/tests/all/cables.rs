//! The network: cables, their names and addresses, and ifupdown.

use end_to_end::{World, booted, until};

/// Makes a world with a bridge br0 that is up and has an address.
fn world() -> World {
    let world = World::new();
    world
        .ok("ip link add br0 type bridge && ip link set br0 up && ip addr add 10.0.0.1/24 dev br0");
    world
}

#[test]
fn every_form_of_cable_makes_its_links() {
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
        // The outer end is up; the inner end is left to the subhost.
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
fn subhosts_on_a_bridge_reach_each_other_and_the_host() {
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
    until("a byte to return from the other subhost", || {
        world.inside("one", "echo byte | nc -w 5 10.0.0.3 7 2>/dev/null || :") == "byte"
    });
    drop(server);
    assert_eq!(
        world.inside("one", "ping -c 1 -W 20 10.0.0.1 >/dev/null && echo reached"),
        "reached"
    );
}

#[test]
fn cable_without_a_bridge_reaches_the_host() {
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
fn subhost_without_cables_has_only_lo() {
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
fn hazard_19_sys_shows_only_links_of_the_subhost() {
    let world = world();
    let other = world.subhost("other", "CABLES=br0= br0=");
    let conf = world.subhost("mta", "CABLES=br0= =");
    world.ok(&format!("overlay-boot {other}; overlay-boot {conf}"));
    world.ok("ip link add later0 type dummy 2>/dev/null || ip link add later0 type bridge");
    assert_eq!(
        world.inside("mta", "ls /sys/class/net /sys/devices/virtual/net"),
        "/sys/class/net:\neth0\neth1\nlo\n\n/sys/devices/virtual/net:\neth0\neth1\nlo"
    );
    world.inside("mta", "ip link set eth1 up");
    until("a carrier on eth1", || {
        world.inside("mta", "cat /sys/class/net/eth1/carrier") == "1"
    });
}

#[test]
fn hazard_22_name_too_long_for_its_links_is_refused() {
    let world = World::new();
    let conf = world.subhost("fifteen-letters", "CABLES==");
    let before = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["fifteen-letters", "15"]);
    world.assert_same(&before);
    let conf = world.subhost("fourteen-chars", "CABLES==");
    world.boot(&conf);
    world.ok("ip link show fourteen-chars0");
    assert_eq!(
        world.inside("fourteen-chars", "ls /sys/class/net"),
        "eth0\nlo"
    );
}

#[test]
fn hazard_15_leftovers_of_a_failed_boot_are_not_reused() {
    let world = world();
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:01 nobridge=");
    let before = world.snapshot();
    world
        .run(&format!("overlay-boot {conf}"))
        .fails(1, &["no bridge nobridge"]);
    world.assert_same(&before);
    let conf = world.subhost("mta", "CABLES=br0=02:00:5e:10:00:02");
    // A network namespace of `ip netns add` is used, and its lo is set up.
    for made in [":", "ip netns add mta"] {
        world.ok(made);
        world.boot(&conf);
        assert_eq!(
            world.inside("mta", "cat /sys/class/net/eth0/address; ls /sys/class/net; ip -o link show lo | grep -c LOOPBACK,UP"),
            "02:00:5e:10:00:02\neth0\nlo\n1",
            "{made}"
        );
        world.ok("overlay-stop mta");
    }
}

#[test]
fn hazard_36_default_interfaces_file_names_every_link() {
    let world = World::new();
    // The boot may fail if the kernel has no VLANs, but the file is written before.
    let conf = world.subhost("mta", "CABLES== =.7 =02:00:5e:10:00:01");
    world.run(&format!("overlay-boot {conf}"));
    let file = world.read("mta/root/etc/network/interfaces");
    for stanza in [
        "auto lo\niface lo inet loopback\n",
        "auto eth0\niface eth0 inet manual\n",
        "auto eth1\niface eth1 inet manual\n",
    ] {
        assert!(file.contains(stanza), "no {stanza} in {file}");
    }
    assert!(!file.contains("eth2"), "{file}");
    let conf = world.subhost("own", "");
    world.write("own/root/etc/network/interfaces", "# mine\n");
    world.boot(&conf);
    assert_eq!(world.read("own/root/etc/network/interfaces"), "# mine\n");
}

#[test]
fn hazard_21_down_commands_run_when_the_subhost_ends() {
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
    // From outside, because the kernel kills a process inside together with the subhost.
    let fifo = "/proc/$pid/root/run/dummy_service";
    for end in [
        "overlay-stop mta",
        "kill -9 $pid",
        &format!("until [ -p {fifo} ]; do sleep 0.05; done; echo >{fifo}"),
    ] {
        world.ok(&format!("PATH=$W/bin:$PATH overlay-boot {conf}"));
        expected.push_str("up mta0\n");
        assert_eq!(world.read("called"), expected);
        let pid = &world.document("mta")["pid"];
        world.ok(&format!("PATH=$W/bin:$PATH; pid={pid}; {end}"));
        world.until_same(&before);
        expected.push_str("down mta0 there\n");
        assert_eq!(world.read("called"), expected);
        assert_eq!(world.read(state), "");
    }
}
