//! The examples of every manual page are typed, out of the page. Those of ob(7) are in `pages.rs`, for they want more.

mod tables;

use crate::pages::{Block, blocks, commands};
use crate::typist::Typist;
use end_to_end::{NO_LOOP, World, is_root_or_tell, not_done, scripts, until};

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
use tables::{COMMANDS, FILES, TOOLS};

/// What is typed before a block, how it is tried, and what is printed then.
type Shown = (&'static str, How, &'static str);

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
fn examples_of_the_tools_work_as_printed() {
    try_pages(TOOLS);
}

#[test]
fn examples_of_the_commands_work_as_printed() {
    try_pages(COMMANDS);
}

#[test]
fn examples_of_the_formats_work_as_printed() {
    let has_loop = World::new().run("losetup -f").status == 0;
    for page in FILES {
        if has_loop || page.0 != "overlay-diskfile.8" {
            try_pages(&[*page]);
        } else {
            not_done(page.0, NO_LOOP);
        }
    }
}

#[test]
fn examples_of_every_page_are_tested() {
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
