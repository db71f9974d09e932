//! The network of a subhost.

use super::shell::sh;
use crate::Ends::{self, Works};
use crate::{Entry, Failed, Refused, Try, not_here, refused};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Entries about the network.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::work("ip-address", "set an address on a cable, set the link down and up", [Works; 3], || sh(&["ip"], ADDRESS)),
    Entry::work("ip-link", "make a pair of links and a bridge", [Works; 3], || sh(&["ip"], LINK)),
    Entry::work("ip-route", "set routes and a rule", [Works; 3], || sh(&["ip"], ROUTE)),
    Entry::work("ip-netns", "make network namespaces with a cable between them", [Works, Ends::Refused, Works], || sh(&["ip"], NETNS)),
    Entry::work("ifup", "configure a cable by `ifup` and `/etc/network/interfaces`", [Works; 3], || sh(&["ifup", "ip"], IFUP)),
    Entry::work("dhcp", "get an address by DHCP, from a server inside", [Works; 3], || sh(&["busybox", "ip"], DHCP)),
    Entry::work("ping", "ping, as root and as a user", [Works; 3], || sh(&["ping", "ip", "su"], PING)),
    Entry::work("low-port", "listen on port 80", [Works; 3], serve),
    Entry::work("sysctl-net", "forward packets (`sysctl net.ipv4.ip_forward`)", [Works, Ends::Refused, Works], || sh(&["sysctl"], FORWARD)),
    Entry::work("nft", "filter packets with `nft`", [Works; 3], || in_kernel(sh(&["nft"], NFT))),
    Entry::work("iptables", "filter packets with `iptables`", [Works; 3], || in_kernel(sh(&["iptables"], IPTABLES))),
];

const ADDRESS: &str = r#"
end() { ip addr flush dev eth0; ip link set eth0 down; }
ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up mtu 1400
case $(ip -o -4 addr show eth0) in *10.99.0.2/24*) ;; *) exit 1 ;; esac
ip link set eth0 down; ip addr del 10.99.0.2/24 dev eth0; ip link set eth0 up mtu 1500
"#;

/// Waits for the link, because the kernel sets operstate later, in linkwatch_event(); `NETNS` too.
const LINK: &str = r#"
end() { ip link del here; ip link del a-bridge; }
ip link add here type veth peer name there; ip link add a-bridge type bridge
ip link set here master a-bridge; ip link set here up; ip link set there up; ip link set a-bridge up
ip addr add 10.98.0.1/24 dev there
is_up() { same "$(cat /sys/class/net/here/operstate)" up; }
until_done is_up
ip link del here; ip link del a-bridge
refuses ip link show there
"#;

const ROUTE: &str = r#"
end() { ip rule del table 100; ip route flush table 100; ip link del here; }
ip link add here type veth peer name there; ip addr add 10.98.0.1/24 dev here; ip link set here up; ip link set there up
ip route add 10.97.0.0/16 via 10.98.0.2
ip route add default via 10.98.0.2 table 100; ip rule add from 10.98.0.0/24 table 100
same "$(ip -o route get 10.97.1.1 | cut -d' ' -f 3)" 10.98.0.2
"#;

const NETNS: &str = r#"
end() { ip netns del one; ip netns del two; umount /run/netns; }
ip netns add one; ip netns add two
ip link add one0 netns one type veth peer name two0 netns two
ip -n one addr add 10.96.0.1/24 dev one0; ip -n one link set one0 up
ip -n two addr add 10.96.0.2/24 dev two0; ip -n two link set two0 up
is_up() { same "$(ip netns exec one cat /sys/class/net/one0/operstate)" up; }
until_done is_up
"#;

const IFUP: &str = r#"
end() { ifdown --force --state-dir "$W/state" -i "$W/interfaces" eth0; }
mkdir state
printf 'iface eth0 inet static\n address 10.94.0.2/24\n gateway 10.94.0.1\n up echo up >>%s/called\n' "$W" >interfaces
ifup --state-dir "$W/state" -i "$W/interfaces" eth0
same "$(ip -o route show default)" 'default via 10.94.0.1 dev eth0 onlink '
ifdown --state-dir "$W/state" -i "$W/interfaces" eth0
same "$(ip -o -4 addr show eth0; cat called)" up
"#;

const DHCP: &str = r#"
end() { kill "$server"; ip link del here; }
ip link add here type veth peer name there; ip addr add 10.95.0.1/24 dev there; ip link set here up; ip link set there up
: >leases
printf 'start 10.95.0.10\nend 10.95.0.10\ninterface there\nlease_file %s/leases\npidfile %s/pid\n' "$W" "$W" >conf
printf '#!/bin/sh\n[ "$1" != bound ] || ip addr add "$ip/24" dev here\n' >script; chmod 755 script
busybox udhcpd -f -I 10.95.0.1 conf 2>/dev/null & server=$!
busybox udhcpc -f -q -n -i here -s "$W/script" -t 10 -T 1 -p "$W/client" >/dev/null 2>&1
case $(ip -o -4 addr show here) in *10.95.0.10/24*) ;; *) echo 'no address' >&2; exit 1 ;; esac
"#;

const PING: &str = r#"
ip link set lo up
ping -c 1 -w 10 127.0.0.1 >/dev/null
su -s /bin/sh nobody -c 'ping -c 1 -w 10 127.0.0.1' >/dev/null
"#;

const FORWARD: &str = r#"
old=$(sysctl -n net.ipv4.ip_forward); end() { sysctl -q -w net.ipv4.ip_forward=$old; }
sysctl -q -w net.ipv4.ip_forward=1; same "$(sysctl -n net.ipv4.ip_forward)" 1
sysctl -q -w net.ipv4.ip_local_port_range='20000 30000'
"#;

const NFT: &str = r#"
end() { nft delete table inet one; }
nft add table inet one
nft add chain inet one input '{ type filter hook input priority 0; policy accept; }'
nft add rule inet one input tcp dport 23 drop
nft list table inet one | grep -q 'tcp dport 23 drop'
"#;

const IPTABLES: &str = r#"
end() { iptables -F INPUT; }
iptables -A INPUT -p tcp --dport 23 -j DROP
iptables -S INPUT | grep -q -- '--dport 23 -j DROP'
"#;

/// A module that this kernel lacks makes an entry not available.
fn in_kernel(tried: Try) -> Try {
    let lacks = [
        "Unknown device",
        "not supported",
        "No such file",
        "Could not fetch rule set generation id: Invalid argument",
    ];
    match tried {
        Err(Failed::Refused(why)) if lacks.iter().any(|words| why.contains(words)) => not_here(why),
        tried => tried,
    }
}

fn serve() -> Try {
    let listener = TcpListener::bind("0.0.0.0:80").refused("bind")?;
    let mut client = TcpStream::connect(("127.0.0.1", 80)).refused("connect")?;
    let (mut server, _) = listener.accept().refused("accept")?;
    server.write_all(b"hello").refused("write")?;
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text).refused("read")?;
    if text == "hello" {
        Ok(())
    } else {
        refused("the client has read another text")
    }
}
