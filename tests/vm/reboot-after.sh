# What the machine of reboot-before finds when it comes back.
set -eu
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
    ! ob-list r >/dev/null 2>&1 || break
    sleep 5
done
ob-list r || { journalctl --no-pager -u 'subhosts@*'; echo 'not ok - it comes back with its host'; exit 1; }
echo 'ok - it comes back with its host'
[ "$(overlay-go r cat /etc/written)" = written ]
echo 'ok - with what it has written'
systemctl stop subhosts@r
[ ! -e /run/netns/r ] && [ ! -e /sys/class/net/r0 ] && [ ! -e /run/overlay-boot/r ]
echo 'ok - and stops'
