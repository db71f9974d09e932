//! Runs the tool in new mount, network and pid namespaces with a new /run, as root or as another
//! user.

use std::process::{Command, Output};

/// The first lines of each script. `mounts PATTERN` counts the mounts since then: the host can have
/// mounts in /run/netns, which mountinfo lists although the new /run hides them.
const PRELUDE: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
cat /proc/self/mountinfo >/run/before
mounts() { grep -vxFf /run/before /proc/self/mountinfo | grep -c "$1" || :; }
ip link add br0 type bridge
ip link set br0 up
"#;

/// Runs `script` in new namespaces with the tool on PATH and a bridge br0, and returns its output.
fn world(script: &str) -> String {
    let tool = std::path::Path::new(env!("CARGO_BIN_EXE_ob-cable"));
    let directory = tool.parent().unwrap().to_str().unwrap();
    let path = format!("PATH={directory}:$PATH:/usr/sbin:/sbin");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let output: Output = command
        .args(["sh", "-c", &(path + PRELUDE + script)])
        .output()
        .expect("unshare(1) of util-linux is needed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    said
}

#[test]
fn cable_has_bridge_mac_and_inner_end() {
    let said = world(
        r#"echo '{"NAME":"a","CABLES":["br0=","br0=02:00:5e:10:00:01"],"zz":{"k":1}}' | ob-cable
        ip -n a -o link show lo | grep -o LOOPBACK,UP
        ip -n a -o link show eth1 | grep -o 02:00:5e:10:00:01
        ip -n a -o link show eth1 | grep -c ,UP || :
        ip -o link show a1 | grep -o 'master br0'
        ip -o link show a1 | grep -o 'MULTICAST,UP'"#,
    );
    let expected = concat!(
        r#"{"CABLES":["br0=","br0=02:00:5e:10:00:01"],"NAME":"a","cables":["a0","a1"],"net":"/run/netns/a","zz":{"k":1}}"#,
        "\nLOOPBACK,UP\n02:00:5e:10:00:01\n0\nmaster br0\nMULTICAST,UP\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn undo_leaves_nothing_and_is_repeatable() {
    let said = world(
        r#"for name in a b c; do echo '{"NAME":"'$name'","CABLES":["br0=","br0="]}' | ob-cable; done > /run/made
        ob-cable --undo < /run/made > /run/undone
        ob-cable --undo < /run/made
        grep -c cables /run/undone || :
        ls /run/netns; ip -br link | grep -c @ || :; mounts nsfs"#,
    );
    let undone = |name| format!("{{\"CABLES\":[\"br0=\",\"br0=\"],\"NAME\":\"{name}\"}}\n");
    let expected = ["a", "b", "c"].map(undone).concat() + "0\n0\n0\n";
    assert_eq!(said, expected);
}

#[test]
fn undo_by_name_removes_only_cables_of_that_namespace() {
    let said = world(
        r#"echo '{"NAME":"a","CABLES":["br0="]}' | ob-cable > /run/made
        ip link add b0 type veth peer name other
        ip netns add b
        printf '{"NAME":"a"}\n{"NAME":"b"}\n' | ob-cable --undo
        ls /run/netns; ip -br link | grep -o '^[ab][0-9]'"#,
    );
    // A namespace of `ip netns add` stays, too.
    assert_eq!(said, "{\"NAME\":\"a\"}\n{\"NAME\":\"b\"}\nb\nb0\n");
}

#[test]
fn refusal_names_its_object_and_leaves_nothing() {
    let said = world(
        r#"ip link add e0 type veth peer name x
        ip link add b1 type bridge
        for document in '{"NAME":"a","CABLES":["br0=","nobr="]}' '{"NAME":"a","CABLES":["br0=","x="]}' \
            '{"NAME":"a","CABLES":["br0=","=zz"]}' '{"NAME":"b","CABLES":["br0=","br0="]}' \
            '{"NAME":"hazard-22-long-","CABLES":["br0="]}'
        do
            if echo "$document" | ob-cable 2>&1; then echo made; fi
        done
        ls /run/netns 2>/dev/null; ip -br link | grep -c '^[abh].*@' || :"#,
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert!(lines[0].ends_with("a: CABLES: there is no bridge nobr"));
    assert!(lines[1].ends_with("x is a link, but not a bridge"));
    assert!(lines[2].contains("'zz' is not a MAC address"));
    assert!(lines[3].contains("make the link b1: there is one of that name already"));
    assert!(lines[4].contains("longer than 15 characters"));
    assert_eq!(lines[5], "0");
}

#[test]
fn existing_namespace_is_used_with_lo_up_and_kept() {
    let said = world(
        r#"ip netns add a; ip -n a link add eth1 type bridge
        if echo '{"NAME":"a","CABLES":["br0=","br0="]}' | ob-cable 2>&1; then echo made; fi
        ls /run/netns; ip -n a -br link | cut -d' ' -f1; ip -br link | grep -c @ || :
        ip -n a -o link show lo | grep -o LOOPBACK,UP"#,
    );
    let refusal = "ob-cable: a: make the link eth1 in /run/netns/a: there is one of that name already; if nothing needs it, ip -n a link del eth1\n";
    assert_eq!(said, format!("{refusal}a\nlo\neth1\n0\nLOOPBACK,UP\n"));
}

#[test]
fn cables_are_undone_if_printing_fails() {
    let said = world(
        r#"if echo '{"NAME":"a","CABLES":["br0="]}' | ob-cable 2>&1 >/dev/full; then echo made; fi
        ls /run/netns; ip -br link | grep -c @ || :"#,
    );
    let refusal = "ob-cable: a: print the document: No space left on device\n";
    assert_eq!(said, format!("{refusal}0\n"));
}

#[test]
fn concurrent_stop_and_boot_do_not_interfere() {
    // The process keeps the old namespace, and with it the link whose name the boot needs.
    let said = world(
        r#"echo '{"NAME":"a","CABLES":["br0="]}' | ob-cable >/dev/null
        nsenter --net=/run/netns/a sleep 0.4 & sleep 0.1; ip netns del a
        echo '{"NAME":"a","CABLES":["br0="]}' | ob-cable | grep -o '"cables.*'
        wait; ip -n a -br link | grep -o eth0"#,
    );
    assert_eq!(
        said,
        "\"cables\":[\"a0\"],\"net\":\"/run/netns/a\"}\neth0\n"
    );
}

#[test]
fn pinned_namespace_loses_its_cables() {
    let said = world(
        r#"echo '{"NAME":"a","CABLES":["br0="]}' | ob-cable > /run/made
        nsenter --net=/run/netns/a sleep 60 & sleep 0.1
        ob-cable --undo < /run/made; ls /run/netns; ip -br link | grep -c @ || :; kill $!"#,
    );
    assert_eq!(said, "{\"CABLES\":[\"br0=\"],\"NAME\":\"a\"}\n0\n");
}

#[test]
fn concurrent_starts_mount_run_netns_once() {
    let said = world(
        r#"for n in 1 2 3 4 5 6 7 8; do echo '{"NAME":"a'$n'"}' | ob-cable >/dev/null & done; wait
        mounts ' /run/netns '; mounts nsfs; stat -c %a /run/netns"#,
    );
    assert_eq!(said, "1\n8\n755\n");
}

#[test]
fn stale_file_is_replaced_and_other_files_are_kept() {
    let said = world(
        r#"mkdir -p /run/netns/d; touch /run/netns/a
        echo '{"NAME":"a"}' | ob-cable; ip -n a -br link | cut -d' ' -f1
        if echo '{"NAME":"d"}' | ob-cable 2>&1; then echo made; fi"#,
    );
    let made = "{\"NAME\":\"a\",\"cables\":[],\"net\":\"/run/netns/a\"}\nlo\n";
    let refusal = "ob-cable: d: /run/netns/d is neither a namespace nor a plain file\n";
    assert_eq!(said, format!("{made}{refusal}"));
}

#[test]
fn namespace_mounted_elsewhere_is_not_a_stale_file() {
    let said = world(
        r#"ip netns add a
        unshare --mount sh -c 'mount --bind /run/netns /run/netns; stat -fc %T /run/netns/a
            if echo "{\"NAME\":\"a\"}" | ob-cable 2>&1; then echo made; fi'
        stat -fc %T /run/netns/a"#,
    );
    let refusal = "ob-cable: a: /run/netns/a is a namespace on the host, and not seen in this mount namespace\n";
    assert_eq!(said, format!("tmpfs\n{refusal}nsfs\n"));
}

/// An ifup and an ifdown that print their arguments and write a state file as ifupdown does.
const IFUPDOWN: &str = r#"mkdir /run/bin /run/network; PATH=/run/bin:$PATH
    cat > /run/bin/ifup <<'X'
#!/bin/sh
echo "ifup $*, $(ip -o link show "$1" | grep -o '<.*>')"
case $1 in (a0) ip link set a0 up; echo a0=a0 >> /run/network/ifstate;; (*) exit 1;; esac
X
    cat > /run/bin/ifdown <<'X'
#!/bin/sh
echo "ifdown $*"
for link; do :; done
sed -i "/^$link=/d" /run/network/ifstate
X
    chmod +x /run/bin/*
    "#;

#[test]
fn cable_without_bridge_is_managed_by_ifupdown() {
    let said = world(
        &(IFUPDOWN.to_owned()
            + r#"echo '{"NAME":"a","CABLES":["=","="],"LOG":"/run/log"}' | ob-cable > /run/made
        ip -o link show a1 | grep -o MULTICAST,UP
        ob-cable --undo < /run/made
        sed 's/^20[^ ]* //' /run/log; cat /run/network/ifstate"#),
    );
    let expected = "\
MULTICAST,UP
{\"CABLES\":[\"=\",\"=\"],\"LOG\":\"/run/log\",\"NAME\":\"a\"}
ifup a0, <BROADCAST,MULTICAST>
ifup a1, <BROADCAST,MULTICAST>
ob-cable: /run/bin/ifup a1: exit status: 1, as when interfaces(5) has no stanza for it; going on without
ob-cable: /run/netns/a is the network with a0 a1 on the host
ifdown a0
";
    assert_eq!(said, expected);
}

#[test]
fn stale_ifstate_is_fixed_before_ifup() {
    let said = world(
        &(IFUPDOWN.to_owned()
            + r#"echo a0=a0 > /run/network/ifstate
        echo '{"NAME":"a","CABLES":["="],"LOG":"/run/log"}' | ob-cable >/dev/null
        grep -v ob-cable: /run/log"#),
    );
    assert_eq!(said, "ifdown -f a0\nifup a0, <BROADCAST,MULTICAST>\n");
}
