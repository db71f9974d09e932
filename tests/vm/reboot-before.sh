# Leaves a machine with a subhost that runs and is to start with it; the machine then dies without a word to anyone.
set -eu
dpkg -i --force-depends ./*.deb >/dev/null
mkdir -p /srv/r/live /srv/r/root /srv/r/work
printf 'BASE=.\nSTART=none\nCABLES==\nLOG=/var/log/r.log\n' >/srv/r/r.conf
echo /srv/r/r.conf >/etc/subhosts.conf
update-rc.d subhosts disable # the unit shall do it
systemctl -q enable subhosts@r
systemctl start subhosts@r
overlay-go r sh -c 'echo written >/etc/written'
ob-list r
sync
