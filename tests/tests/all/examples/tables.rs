//! The examples of each page: the line to type before each block, the way to test it, and its
//! output.

use super::How::{Each, InRoom, Saved, Typed};
use super::Shown;

/// The pages of the tools. Each begins in the directory of the subhost mta, which does not run.
pub const TOOLS: &[(&str, &[Shown])] = &[
    (
        "ob-cable.1",
        &[("", InRoom, ""), ("", Typed, "eth1@"), ("", InRoom, "")],
    ),
    (
        "ob-conf.1",
        &[
            ("", InRoom, ""),
            ("", Typed, "\"NAME\":\"trial\""),
            ("", Typed, "ob-unshare: pid 1 has ended"),
            ("", Typed, "UPPER=/"),
            ("overlay-boot mta.conf", Typed, "pid='"),
            (
                "",
                Saved("note", "ob-conf mta.conf | sh -e ./note"),
                "\"net\":\"/run/netns/blue\"",
            ),
        ],
    ),
    (
        "ob-diff.1",
        &[
            ("mkdir root/srv", Typed, "A /srv\n"),
            ("overlay-boot mta.conf", Typed, "/srv\n"),
        ],
    ),
    (
        "ob-enter.1",
        &[
            (
                "printf '#!/bin/sh\\nsleep 1000\\n' >root/sshd; chmod +x root/sshd; mkdir root/etc
                 cat $W/busybox/etc/passwd - >root/etc/passwd <<<mail:x:8:8::/:/bin/sh
                 overlay-boot mta.conf; overlay-go mta sh -c '/sshd >/dev/null 2>&1 &'; until overlay-go mta ps -o comm | grep -qx sleep; do :; done",
                Typed,
                "",
            ),
            ("", Typed, "1\n"),
            ("printf 'b\\na\\nb\\n' >addresses", Typed, ""),
            ("mkdir saved; cmp sorted <(printf 'a\\nb\\n')", Typed, ""),
            ("echo anew >saved/motd", Typed, ""),
        ],
    ),
    (
        "ob-list.1",
        &[
            ("overlay-boot mta.conf", Typed, "yes\n"),
            ("", Typed, "\n"),
            ("", Typed, " mta\n"),
            ("", Typed, "\"NAME\":\"mta\""),
        ],
    ),
    (
        "ob-mount.1",
        &[
            ("", Typed, "fetched\n"),
            ("SHELL=/bin/sh", Typed, ""),
            (
                "mkdir -p /srv/www; echo hello >/srv/www/index.html; overlay-boot mta.conf",
                Saved(
                    "line",
                    "sh -e ./line; overlay-go mta cat /var/www/index.html",
                ),
                "hello\n",
            ),
        ],
    ),
    (
        "ob-reaper.1",
        &[
            (
                "echo 'sleep 1000 &' >init; echo 'INIT=cat init' >>mta.conf",
                Saved(
                    "last",
                    "cat last >>init; overlay-boot mta.conf; until overlay-go mta cat /proc/1/cmdline | tr '\\0' ' ' | grep ^/.reaper; do sleep 0.05; done; overlay-stop mta",
                ),
                "/.reaper mta 30 ",
            ),
            (
                "printf 'check:\\n\\techo checked\\n' >Makefile",
                Typed,
                "checked\n",
            ),
            ("", Typed, ""),
            ("", Typed, ""),
            (
                "sed -i /INIT/d mta.conf; overlay-boot mta.conf",
                Saved(
                    "end",
                    "overlay-go mta sh <end; while overlay-list mta >/dev/null 2>&1; do sleep 0.05; done; overlay-log mta",
                ),
                "pid 1 has ended with status 0",
            ),
        ],
    ),
    (
        "ob-unshare.1",
        &[
            ("", InRoom, "var\n"),
            ("overlay-boot mta.conf", Typed, "\"NAME\":\"mta\""),
        ],
    ),
    (
        "ob-room.1",
        &[
            ("", Typed, "42 inside\n"),
            ("", Typed, ""),
            ("overlay-list mta", Typed, "\"NAME\":\"mta\""),
        ],
    ),
];

/// The pages of the commands.
pub const COMMANDS: &[(&str, &[Shown])] = &[
    (
        "overlay-boot.8",
        &[
            ("cd ..; rm -r mta", Typed, "42 inside\n"),
            ("", InRoom, ""),
        ],
    ),
    (
        "overlay-diff.8",
        &[
            ("overlay-boot mta.conf; overlay-go mta rm /etc/group", Typed, "D /etc/group\n"),
            ("overlay-stop mta", Typed, "D /etc/group\n"),
        ],
    ),
    (
        "overlay-go.8",
        &[(
            "overlay-boot mta.conf; overlay-go mta sh -c 'mkdir -p /var/log; echo a letter >/var/log/mail.log'",
            Typed,
            "a letter\nfetched\nfetched\nfetched\n",
        )],
    ),
    (
        "overlay-hooks.8",
        &[
            (
                "",
                Saved(
                    "post",
                    "mkdir -p root/var/cache; echo POSTMOUNT=./post >>mta.conf; overlay-boot mta.conf; overlay-go mta grep /var/cache /proc/mounts; overlay-stop mta",
                ),
                "tmpfs /var/cache tmpfs",
            ),
            (
                "sed -i /POST/d mta.conf; echo INIT=./init >>mta.conf",
                Saved(
                    "init",
                    "overlay-boot mta.conf; until overlay-go mta hostname | grep mta; do sleep 0.05; done; overlay-stop mta",
                ),
                "mta\n",
            ),
            (
                "mkdir root/sbin; cp $W/stubs/init root/sbin",
                Saved(
                    "init",
                    "overlay-boot mta.conf; until overlay-log mta | grep 'as pid'; do sleep 0.05; done; overlay-stop mta",
                ),
                "init as pid 1\n",
            ),
        ],
    ),
    (
        "overlay-list.8",
        &[
            ("overlay-boot mta.conf", Typed, "mta "),
            ("overlay-stop mta", Typed, ""),
            (
                "overlay-stop mta; echo CABLES=br0= >>mta.conf; overlay-boot mta.conf
                 ip -n mta address add 10.9.0.9/24 dev eth0; ip -n mta link set eth0 up",
                Typed,
                "10.9.0.9 mta\n",
            ),
        ],
    ),
    (
        "overlay-log.8",
        &[
            (
                "overlay-boot mta.conf; overlay-go mta sh -c 'echo a word >/proc/1/fd/1'",
                Typed,
                "pid 1 has started",
            ),
            ("", Typed, "pid 1 has started"),
            ("", Typed, "Z a word\n"),
        ],
    ),
    (
        "overlay-new.8",
        &[
            ("cd ..; rm -r mta", Typed, "overlay-boot mta/mta.conf\n"),
            (
                "cp -a $W/busybox /srv/debian13",
                Typed,
                "overlay-boot /opt/subhost/web/web.conf\n",
            ),
        ],
    ),
    (
        "overlay-share.8",
        &[(
            "mkdir -p /srv/mail /srv/www /media/disk/below ../web/{root,work,live}; cp mta.conf ../web/web.conf
             overlay-boot mta.conf; overlay-boot ../web/web.conf",
            Typed,
            "",
        )],
    ),
    (
        "overlay-stop.8",
        &[
            (
                "mkdir -p ../www/{root,work,live}; cp -n mta.conf ../www/www.conf
                 for n in mta www; do overlay-list $n >/dev/null 2>&1 || overlay-boot ../$n/$n.conf; done",
                Each,
                "",
            ),
            ("overlay-boot mta.conf", Typed, "\"NAME\":\"mta\""),
        ],
    ),
    (
        "overlay-subhosts.8",
        &[(
            "[ -e /opt/mta ] || ln -s $PWD /opt/mta; echo $PWD/mta.conf >$W/place/subhosts.conf; export SUBHOSTS_CONF=$W/place/subhosts.conf
             ! overlay-list mta >/dev/null 2>&1 || overlay-stop mta",
            Each,
            "",
        )],
    ),
];

/// The pages of the file formats. Their configurations are checked unchanged, and booted on a small
/// root.
pub const FILES: &[(&str, &[Shown])] = &[
    (
        "ob-document.5",
        &[
            (
                "cp mta.conf kept; echo CABLES=br0= >>mta.conf; overlay-boot mta.conf",
                Saved(
                    "shown",
                    "of() { jq -c 'del(.cgroup) | map_values(type)'; }; tr -d '\\n' <shown | of; of </run/overlay-boot/mta/subhost;
                     [ \"$(tr -d '\\n' <shown | of)\" = \"$(of </run/overlay-boot/mta/subhost)\" ] && echo the same; overlay-stop mta; mv kept mta.conf",
                ),
                "the same\n",
            ),
            ("", InRoom, ""),
            (
                "",
                Saved(
                    "stage",
                    "ob-room sh -c 'ob-conf mta.conf | ob-mount | ./stage | ob-unshare -- ls /sys/class/net'; ip netns del mta",
                ),
                "lo\n",
            ),
        ],
    ),
    (
        "overlay-diskfile.8",
        &[
            (
                "mkdir mnt; mksquashfs $W/busybox root.squashfs >/dev/null",
                Saved(
                    "shown",
                    "printf 'BASE=.\\nSTART=none\\n' | cat shown - >mta.conf; ob-conf --check mta.conf && overlay-boot mta.conf && overlay-go mta ls /bin/busybox; overlay-stop mta",
                ),
                "/bin/busybox\n",
            ),
            (
                "mkdir -p data disk/upper disk/work; truncate -s 20M data.img; echo ',18M,L' | sfdisk -q data.img
                 mke2fs -q -d disk -E offset=1048576 data.img 16M",
                Saved(
                    "shown",
                    "printf 'BASE=.\\nSTART=none\\nLOWER='$W/busybox'\\n' | cat shown - >mta.conf; overlay-boot mta.conf && overlay-go mta touch /kept; overlay-stop mta
                     mount -o loop,offset=1048576 data.img data; ls data/upper; umount data",
                ),
                "kept\n",
            ),
        ],
    ),
    (
        "subhost.conf.5",
        &[
            (
                "mkdir -p /srv/mta/root/bin /srv/mta/work; printf '#!/bin/sh\\necho service $*\\n' >/srv/mta/root/bin/service; chmod +x /srv/mta/root/bin/service",
                Saved(
                    "mta.conf",
                    "ob-conf --check mta.conf; echo LOWER=$W/busybox >>mta.conf; overlay-boot mta.conf && until overlay-log mta | grep exim4; do sleep 0.05; done; overlay-go mta cat /sys/class/net/eth0/address; overlay-stop mta",
                ),
                "service exim4 start\n02:00:5e:10:00:01\n",
            ),
            (
                "cp -a $W/busybox debian13",
                Saved(
                    "mta.conf",
                    "ob-conf --check mta.conf && overlay-boot mta.conf && overlay-go mta touch /here; overlay-stop mta; ls debian13",
                ),
                "here\n",
            ),
            (
                "mkdir root/sbin; cp $W/stubs/init root/sbin",
                Saved(
                    "mta.conf",
                    "ob-conf --check mta.conf; echo LOWER=$W/busybox >>mta.conf; overlay-boot mta.conf && until overlay-log mta | grep 'as pid'; do sleep 0.05; done; overlay-stop mta",
                ),
                "init as pid 1\n",
            ),
        ],
    ),
];
