# Checks the machine of reboot-before after the power loss.
set -eu
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
    ! ob-list r >/dev/null 2>&1 || break
    sleep 5
done
ob-list r || { journalctl --no-pager -u 'subhosts@*'; echo 'not ok - the subhost boots with its host'; exit 1; }
echo 'ok - the subhost boots with its host'
[ "$(overlay-go r cat /etc/written)" = written ]
echo 'ok - its data is intact'
systemctl stop subhosts@r
[ ! -e /run/netns/r ] && [ ! -e /sys/class/net/r0 ] && [ ! -e /run/overlay-boot/r ]
echo 'ok - it stops'
