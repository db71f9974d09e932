# Starts a subhost that systemd also starts at boot; then the machine loses power.
set -eu
dpkg -i --force-depends ./*.deb >/dev/null
mkdir -p /srv/r/live /srv/r/root /srv/r/work
printf 'BASE=.\nSTART=none\nCABLES==\nLOG=/var/log/r.log\n' >/srv/r/r.conf
echo /srv/r/r.conf >/etc/subhosts.conf
update-rc.d subhosts disable # the unit starts the subhost
systemctl -q enable subhosts@r
systemctl start subhosts@r
overlay-go r sh -c 'echo written >/etc/written'
ob-list r
sync
