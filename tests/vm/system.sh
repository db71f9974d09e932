# Tests the package on a real host: installation, upgrade and removal, the unit, the init script,
# VLAN cables with traffic. Runs as root on a disposable machine, in the directory of the package.
# Each line that begins with "ok" or "not ok" is a result.
# shellcheck disable=SC2016 # single quotes are for an inner shell
set -u
failures=0
check() { # WHAT COMMAND...
    what=$1
    shift
    if "$@" >/tmp/check.out 2>&1; then
        echo "ok - $what"
    else
        echo "not ok - $what ($*)"
        sed 's/^/    /' /tmp/check.out
        failures=$((failures + 1))
    fi
}
refuse() { # WHAT COMMAND...: the command must fail
    what=$1
    shift
    # shellcheck disable=SC2016 # the inner shell expands the text
    check "$what" sh -c '! "$@"' sh "$@"
}
mounts() { cut -d ' ' -f 2,3 /proc/mounts | grep -Ev ' (nsfs|9p)$|^/(run/netns|proc/sys/fs/binfmt_misc|sys/|dev/|run/user)' | sort; }

echo "# $(uname -r), $(systemctl --version | head -n 1)"
package=$(ls ./*.deb)
check 'the package is installed' dpkg -i --force-depends "$package"
check 'the old directory is a link to the new one' test -e /var/lib/overlay-boot/overlay-postmount
check 'the init script is enabled' sh -c 'ls /etc/rc2.d/S*subhosts'

mkdir -p /srv/a/live /srv/a/root /srv/a/work "/srv/b c/live" "/srv/b c/root" "/srv/b c/work"
printf 'BASE=.\nSTART=none\nCABLES=br0=\nLOG=/var/log/a.log\n' >/srv/a/a.conf
printf 'BASE=.\nNAME=b\nSTART=none\nCABLES=br0=\nLOG=/var/log/b.log\n' >'/srv/b c/b.conf'
ip link add br0 type bridge
ip addr add 10.9.0.1/24 dev br0
ip link set br0 up
before=$(mounts)

# The unit.
echo '/srv/a/a.conf   # the first' >/etc/subhosts.conf
check 'systemd starts a subhost by name' systemctl start subhosts@a
check 'systemd sees the subhost as active' systemctl is-active subhosts@a
check 'the subhost runs' ob-list a
check 'the processes are in a control group below the unit, or in a scope' sh -c 'grep -E "subhosts|overlay" /proc/$(ob-list --json a | jq .[0].pid)/cgroup'
check 'systemd restarts the subhost' systemctl restart subhosts@a
check 'the subhost runs again' ob-list a
check 'daemon-reload does not stop the subhost' sh -c 'systemctl daemon-reload && ob-list a'
check 'systemd stops the subhost' systemctl stop subhosts@a
refuse 'the subhost is gone' ob-list a
check 'the stop leaves nothing' sh -c 'test ! -e /run/netns/a && test ! -e /sys/class/net/a0 && test ! -e /run/overlay-boot/a'
instance=$(systemd-escape --path '/srv/b c/b.conf')
check 'systemd starts a subhost by an escaped path' systemctl start "subhosts@$instance"
check 'the subhost with that path runs' ob-list b
check 'overlay-stop stops the subhost of the unit' overlay-stop b
check 'the unit becomes inactive' sh -c "for i in 1 2 3 4 5 6 7 8 9 10; do systemctl is-active 'subhosts@$instance' || exit 0; sleep 1; done; exit 1"
echo 'BASE=/nowhere' >/srv/bad.conf
refuse 'a unit that cannot boot fails' systemctl start "subhosts@$(systemd-escape --path /srv/bad.conf)"
check 'the reason is in the journal' sh -c 'journalctl -u "subhosts@*" | grep -F "BASE=/nowhere"'

# The init script.
check 'the init script starts the subhosts of subhosts.conf' /etc/init.d/subhosts start
check 'a second start succeeds' /etc/init.d/subhosts start
check 'the status of running subhosts is 0' /etc/init.d/subhosts status
overlay-boot '/srv/b c/b.conf'
check 'the init script stops them' /etc/init.d/subhosts stop
check 'a subhost that the file does not name still runs' ob-list b
/etc/init.d/subhosts status >/dev/null 2>&1
check 'the status of stopped subhosts is 3' test $? = 3
/etc/init.d/subhosts restart >/dev/null 2>&1
check 'restart is refused with 3' test $? = 3
overlay-stop b

# A VLAN cable with traffic, with and without a stanza of ifupdown.
for stanza in with without; do
    printf 'BASE=.\nSTART=none\nCABLES== =.302\nLOG=/var/log/a.log\n' >/srv/a/a.conf
    : >/etc/network/interfaces
    [ "$stanza" = without ] || printf 'iface a0 inet manual\n\tup ip link set $IFACE up\n\tdown echo down >/tmp/down\niface a0.302 inet static\n\taddress 10.30.2.1/24\n' >/etc/network/interfaces
    rm -f /tmp/down
    check "a VLAN cable $stanza a stanza" overlay-boot /srv/a/a.conf
    [ "$stanza" = with ] || ip addr add 10.30.2.1/24 dev a0.302
    overlay-go a sh -c 'ip link set eth0 up; ip link add link eth0 name eth0.302 type vlan id 302; ip addr add 10.30.2.2/24 dev eth0.302; ip link set eth0.302 up'
    check "traffic through it $stanza a stanza" sh -c 'for i in 1 2 3 4 5; do busybox ping -c 1 -W 5 10.30.2.2 && exit 0; done; exit 1'
    check "the stop $stanza a stanza" overlay-stop a
    [ "$stanza" = without ] || check 'the down commands ran at stop' test -e /tmp/down
done

# Upgrade and removal.
printf 'BASE=.\nSTART=none\nLOG=/var/log/a.log\n' >/srv/a/a.conf
overlay-boot /srv/a/a.conf
echo '# mine' >>/etc/subhosts.conf
check 'the package is upgraded' dpkg -i --force-depends --force-confold "$package"
check 'the subhost runs through the upgrade' ob-list a
check 'the configuration file is kept' grep -q mine /etc/subhosts.conf
check 'the new tools stop the subhost of the old ones' overlay-stop a
check 'the package is removed' dpkg -r overlay-boot-rs
check 'only the configuration file is left' sh -c '! ls /usr/bin/ob-* /usr/lib/overlay-boot /var/lib/overlay-boot 2>/dev/null'
check 'the package is purged' dpkg -P overlay-boot-rs
check 'the mounts are as before' test "$before" = "$(mounts)"

echo "$failures failed"
[ "$failures" = 0 ]
