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

/// Prints the addresses of a bridge, of the host end and of the inner end of a cable.
const ADDRESSES: &str = "cat /sys/class/net/br0/address /sys/class/net/mta0/address; \
    ip -n mta -o link show eth0 | grep -o 'ether [^ ]*'";

#[test]
fn e01_stopped_subhosts_on_a_bridge_disturb_no_neighbour() {
    let world = world();
    let confs = ["one", "two", "three"].map(|name| world.subhost(name, "CABLES=br0="));
    for conf in &confs {
        world.boot(conf);
    }
    world.inside(
        "two",
        "ip addr add 10.0.0.3/24 dev eth0; ip link set eth0 up",
    );
    world.inside("two", "ping -c 1 -W 20 10.0.0.1 >/dev/null");
    let address = "cat /sys/class/net/br0/address";
    let before = world.ok(address);
    let ping = "exec nsenter -t $pid -n busybox ping -c 200 -i 0.1 -W 5 10.0.0.1";
    let pid = &world.document("two")["pid"];
    let pings = world.line(&format!("pid={pid}; {ping}")).start();
    let [one, _, three] = &confs;
    for round in 0..10 {
        let (name, conf) = [("one", one), ("three", three)][round % 2];
        world.ok(&format!("overlay-stop {name}"));
        assert_eq!(world.ok(address), before, "after the stop of {name}");
        world.boot(conf);
        assert_eq!(world.ok(address), before, "after the start of {name}");
    }
    let said = pings.wait().ok();
    assert!(
        said.contains("200 packets received, 0% packet loss"),
        "{said}"
    );
}

#[test]
fn e01_bridge_keeps_the_address_of_its_other_link() {
    let world = world();
    // An address as hardware has.
    world.ok("ip link add port address 90:00:00:00:00:01 type veth peer name other && ip link set port master br0");
    let conf = world.subhost("mta", "CABLES=br0= =");
    world.boot(&conf);
    let addresses = world.ok("cat /sys/class/net/br0/address /sys/class/net/mta[01]/address");
    let addresses: Vec<&str> = addresses.lines().collect();
    assert_eq!(addresses[0], "90:00:00:00:00:01");
    assert!(
        addresses[1..].iter().all(|mac| mac.starts_with("fe:")),
        "{addresses:?}"
    );
    assert_ne!(addresses[1], addresses[2]);
}

#[test]
fn e11_addresses_are_the_same_at_each_boot() {
    let world = world();
    let conf = world.subhost("mta", "CABLES=br0= br0= br0=02:00:5e:10:00:01");
    let inside = "cat /sys/class/net/eth[012]/address";
    world.ok("echo 0123456789abcdef0123456789abcdef >id && mount --bind id /etc/machine-id");
    world.boot(&conf);
    let (first, first_inside) = (world.ok(ADDRESSES), world.inside("mta", inside));
    world.ok("overlay-stop mta");
    // A dry run prints the same addresses.
    let steps = world.ok(&format!("overlay-boot -n {conf}"));
    let words = first_inside.lines().chain(first.lines().skip(1).take(1));
    for mac in words {
        assert!(
            steps.contains(&format!("address {mac}")),
            "no {mac} in {steps}"
        );
    }
    world.boot(&conf);
    assert_eq!(
        (world.ok(ADDRESSES), world.inside("mta", inside)),
        (first, first_inside.clone())
    );
    // Another subhost, and the same subhost on another host, have other addresses.
    let other = world.subhost("other", "CABLES=br0=");
    world.boot(&other);
    let mut all: Vec<String> = first_inside.lines().map(str::to_owned).collect();
    assert_eq!(all[2], "02:00:5e:10:00:01");
    all.push(world.inside("other", "cat /sys/class/net/eth0/address"));
    world.ok("overlay-stop mta; echo 0123456789abcdef0123456789abcdee >id");
    world.boot(&conf);
    let moved = world.inside("mta", "cat /sys/class/net/eth[01]/address");
    all.extend(moved.lines().map(str::to_owned));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6, "{all:?}");
}

#[test]
fn e11_address_without_a_machine_id_is_random() {
    let world = world();
    let conf = world.subhost("mta", "CABLES=br0=");
    world.ok(": >id && mount --bind id /etc/machine-id");
    let mut all = Vec::new();
    for content in ["", "uninitialized"] {
        world.ok(&format!("echo {content} >id"));
        world.boot(&conf);
        let addresses = world.ok(ADDRESSES);
        assert!(
            addresses
                .lines()
                .nth(1)
                .is_some_and(|mac| mac.starts_with("fe:")),
            "{addresses}"
        );
        all.push(addresses);
        world.ok("overlay-stop mta");
    }
    assert_ne!(all[0], all[1]);
    let steps = world.ok(&format!("overlay-boot -n {conf}"));
    assert!(steps.contains("eth0 netns mta\n"), "{steps}");
}

#[test]
fn d_link_of_a_running_subhost_is_not_to_be_deleted() {
    let world = world();
    let conf = world.subhost("mta", "CABLES=br0=");
    world.boot(&conf);
    for document in [
        r#"{"NAME":"mta","CABLES":["br0="]}"#,
        r#"{"NAME":"mta","CABLES":["br0=","br0=.7"]}"#,
    ] {
        let refused = world.line("ob-cable").input(document).run();
        refused.fails(1, &["make the link mta0", "overlay-stop mta"]);
        assert!(!refused.err.contains("link del"), "{refused:?}");
    }
    world.ok("ip link set mta0 name moved0");
    let refused = world
        .line("ob-cable")
        .input(r#"{"NAME":"mta","CABLES":["br0="]}"#)
        .run();
    refused.fails(1, &["make the link eth0", "overlay-stop mta"]);
    assert!(!refused.err.contains("link del"), "{refused:?}");
    world.ok("ip link show moved0 && ip -n mta link show eth0");
}
