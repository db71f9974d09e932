//! The examples of every manual page are typed, out of the page. Those of ob(7) are in `pages.rs`, for they want more.

use crate::pages::{Block, Typist, blocks, commands};
use end_to_end::{World, is_root_or_tell, scripts, until};

/// How a block of a page is tried.
enum How {
    /// A command after the other.
    Typed,
    /// The same, in a room, which takes the mounts away again.
    InRoom,
    /// Each command by itself, as if there was no other: what is needed for it is typed before each.
    Each,
    /// It is the text of a file, of this name; then this is typed.
    Saved(&'static str, &'static str),
}

use How::{Each, InRoom, Saved, Typed};

/// What is typed before a block, how it is tried, and what is printed then.
type Shown = (&'static str, How, &'static str);

/// The tools' pages. Each begins in the directory of the subhost mta, which does not run.
const TOOLS: &[(&str, &[Shown])] = &[
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
            ("", Typed, "42 inside\n"),
            ("", Typed, ""),
            ("overlay-list mta", Typed, "\"NAME\":\"mta\""),
        ],
    ),
];

/// Those of the commands.
const COMMANDS: &[(&str, &[Shown])] = &[
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
                "mkdir root/sbin; cp $W/stand-ins/init root/sbin",
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

/// Those of what is written by hand. What they show of a configuration is checked as it stands, and booted on a small root.
const FILES: &[(&str, &[Shown])] = &[
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
                    "ob-unshare --room sh -c 'ob-conf mta.conf | ob-mount | ./stage | ob-unshare -- ls /sys/class/net'; ip netns del mta",
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
                "mkdir root/sbin; cp $W/stand-ins/init root/sbin",
                Saved(
                    "mta.conf",
                    "ob-conf --check mta.conf; echo LOWER=$W/busybox >>mta.conf; overlay-boot mta.conf && until overlay-log mta | grep 'as pid'; do sleep 0.05; done; overlay-stop mta",
                ),
                "init as pid 1\n",
            ),
        ],
    ),
];

/// The directory of the subhost, and what its host has.
const PLACE: &str = r#"
set -e
for directory in /opt /srv /media /var/log; do [ "$(stat -f -c %T $directory)" = tmpfs ]; done
rm -rf place; mkdir -p place/mta/root place/mta/work place/mta/live
printf '%s\n' BASE=. LOWER=$W/busybox START=none >place/mta/mta.conf
find /opt /srv /media /var/log -xdev -mindepth 1 -delete
ln -s $W/place /opt/subhost
"#;

/// What is in no place on every machine, or would change it.
fn stand_in(world: &World) {
    world.script("busybox/bin/apt-get", "echo fetched");
    world.script("stand-ins/init", "echo init as pid $$; exec sleep 1000");
    world.script("stand-ins/java", "exit 143");
    world.script(
        "stand-ins/systemd-escape",
        "echo \"$2\" | sed 's,^/,,; s,/,-,g'",
    );
    // As the unit does, for the instance that is named.
    let unit = scripts().join("../etc/systemd/subhosts@.service");
    let unit = std::fs::read_to_string(unit).expect("the unit");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/sbin/"));
    let start = start
        .expect("what it starts")
        .replace("%I", "\"$instance\"");
    world.script(
        "stand-ins/systemctl",
        &format!("for last; do :; done; instance=$(echo ${{last##*@}} | tr - /)\n{start} >/dev/null 2>&1 &\nuntil ob-list mta >/dev/null 2>&1; do sleep 0.05; done"),
    );
    // The machine's own stay as they are.
    world.ok("for directory in /opt /srv /media /var/log; do mount -t tmpfs tmpfs $directory || exit; done");
    world.ok(&format!(
        "ip link add br0 type bridge; ip link add br1 type bridge; mkdir lib; ln -s {} lib/overlay-boot; mount --bind lib /var/lib",
        scripts().display()
    ));
}

fn page(name: &str) -> String {
    let page = scripts().join("../man").join(name);
    std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// Types the examples of pages, and compares.
fn try_pages(pages: &[(&str, &[Shown])]) {
    if !is_root_or_tell("what is typed") {
        return;
    }
    let world = World::new();
    stand_in(&world);
    world.ok(PLACE);
    let snapshot = world.snapshot();
    for (name, shown) in pages {
        let blocks = blocks(&page(name));
        assert_eq!(blocks.len(), shown.len(), "{name}: the table is complete");
        world.ok(PLACE);
        let mut typist = Typist::new(&world);
        typist.enter("PATH=$W/stand-ins:$PATH; cd $W/place/mta");
        for (block, (before, how, prints)) in blocks.iter().zip(*shown) {
            let printed = try_block(&mut typist, block, before, how);
            assert!(
                printed.contains(prints),
                "{name}: {block:?}: no {prints} in {printed}"
            );
        }
        typist.enter("[ \"$(ob-list --names)\" = '' ] || overlay-stop --all");
    }
    world.until_same(&snapshot);
}

fn try_block(typist: &mut Typist, block: &Block, before: &str, how: &How) -> String {
    let prepare = |typist: &mut Typist| {
        if !before.is_empty() {
            let (output, status) = typist.enter(before);
            assert_eq!(status, "0", "{before}: {output}");
        }
    };
    prepare(typist);
    match how {
        Saved(name, then) => {
            let text = block.lines.join("\n");
            typist.enter(&format!("cat >{name} <<'END-OF-FILE'\n{text}\nEND-OF-FILE\n[ {name} = mta.conf ] || chmod +x {name}"));
            let (output, status) = typist.enter(&format!("{{ {then}\n}} </dev/null"));
            assert_eq!(status, "0", "{block:?}: {then}: {output}");
            output
        }
        Typed => enter_all(typist, &commands(&block.lines)),
        InRoom => {
            typist.enter("ob-unshare --room sh");
            let printed = enter_all(typist, &commands(&block.lines));
            typist.enter("exit");
            printed
        }
        Each => {
            let each = commands(&block.lines);
            let mut printed = enter_all(typist, &each[..1]);
            for command in &each[1..] {
                prepare(typist);
                printed += &enter_all(typist, std::slice::from_ref(command));
            }
            printed
        }
    }
}

fn enter_all(typist: &mut Typist, commands: &[String]) -> String {
    commands
        .iter()
        .map(|command| enter(typist, command))
        .collect()
}

/// Types a command as a person would, who also types into the shell that it starts, and ends what does not end by itself.
fn enter(typist: &mut Typist, command: &str) -> String {
    if command.contains("log -f ") || command.contains("tail -f ") {
        return typist.enter_for_a_while(command);
    }
    let is_shell = ["-go mta", "ob-enter mta", " sh", "/live'"];
    let is_shell = !command.contains("--room sh\n")
        && command != "ob-unshare --room sh"
        && is_shell.iter().any(|end| command.ends_with(end))
        && !command.starts_with("echo ");
    let stays = command.ends_with("| ob-unshare") || command.ends_with("<3 &");
    let typed = match (is_shell, stays) {
        (true, _) => format!("{command} <<<'echo $((6*7)) inside'"),
        (_, true) if !command.ends_with('&') => format!("{command} &"),
        _ => command.to_owned(),
    };
    let (mut printed, status) = typist.enter(&typed);
    assert_eq!(status, "0", "{command}: {printed}");
    assert!(
        !is_shell || printed.contains("42 inside"),
        "{command}: {printed}"
    );
    if stays {
        until(&format!("the subhost of {command}"), || {
            typist.world().is_up("mta")
        });
        if !command.ends_with('&') {
            printed += &typist.enter("overlay-stop mta; wait").0;
        }
    }
    printed
}

#[test]
fn the_examples_of_the_tools_work_as_they_are_printed() {
    try_pages(TOOLS);
}

#[test]
fn the_examples_of_the_commands_work_as_they_are_printed() {
    try_pages(COMMANDS);
}

#[test]
fn the_examples_of_the_formats_work_as_they_are_printed() {
    for page in FILES {
        if page.0 != "overlay-diskfile.8" || World::new().mounts_images(page.0) {
            try_pages(&[*page]);
        }
    }
}

#[test]
fn every_page_has_examples_that_are_typed() {
    let tables = [TOOLS, COMMANDS, FILES].concat();
    let entries = std::fs::read_dir(scripts().join("../man")).expect("the pages");
    for entry in entries {
        let name = entry
            .expect("a page")
            .file_name()
            .into_string()
            .expect("a name");
        assert!(!blocks(&page(&name)).is_empty(), "{name}: no examples");
        let known = tables.iter().any(|(page, _)| *page == name);
        assert!(known || name == "ob.7", "{name}: nobody types them");
    }
}
