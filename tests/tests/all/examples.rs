//! The examples of all manual pages except ob(7), which `pages.rs` tests.

mod tables;

use crate::pages::{Block, Typist, blocks, commands};
use end_to_end::{World, is_root_or_tell, scripts, until};

/// The way to test a block of a page.
enum How {
    /// Type the commands one by one.
    Typed,
    /// Like `Typed`, but in a room, whose mounts disappear with it.
    InRoom,
    /// Type each command in a fresh state, after the preparation of the block.
    Each,
    /// Save the block under this name, then type this line.
    Saved(&'static str, &'static str),
}

use How::{Each, InRoom, Saved, Typed};
use tables::{COMMANDS, FILES, TOOLS};

/// The line to type before a block, the way to test the block, and its output.
type Shown = (&'static str, How, &'static str);

/// Prepares the directory of the subhost mta.
const PLACE: &str = r#"
set -e
for directory in /opt /srv /media /var/log; do [ "$(stat -f -c %T $directory)" = tmpfs ]; done
rm -rf place; mkdir -p place/mta/root place/mta/work place/mta/live
printf '%s\n' BASE=. LOWER=$W/busybox START=none >place/mta/mta.conf
find /opt /srv /media /var/log -xdev -mindepth 1 -delete
ln -s $W/place /opt/subhost
"#;

/// Installs stubs of programs that not every machine has, or that would change the machine.
fn install_stubs(world: &World) {
    world.script("busybox/bin/apt-get", "echo fetched");
    world.script("stubs/init", "echo init as pid $$; exec sleep 1000");
    world.script("stubs/java", "exit 143");
    world.script(
        "stubs/systemd-escape",
        "echo \"$2\" | sed 's,^/,,; s,/,-,g'",
    );
    // Like systemd with the unit, for the given instance.
    let unit = scripts().join("../etc/systemd/subhosts@.service");
    let unit = std::fs::read_to_string(unit).expect("read the unit");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/sbin/"));
    let start = start
        .expect("a line ExecStart=")
        .replace("%I", "\"$instance\"");
    world.script(
        "stubs/systemctl",
        &format!("for last; do :; done; instance=$(echo ${{last##*@}} | tr - /)\n{start} >/dev/null 2>&1 &\nuntil ob-list mta >/dev/null 2>&1; do sleep 0.05; done"),
    );
    // Private mounts, so that the directories of the machine do not change.
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

/// Types the examples of pages and compares the output.
fn try_pages(pages: &[(&str, &[Shown])]) {
    if !is_root_or_tell("typed examples") {
        return;
    }
    let world = World::new();
    install_stubs(&world);
    world.ok(PLACE);
    let snapshot = world.snapshot();
    for (name, shown) in pages {
        let blocks = blocks(&page(name));
        assert_eq!(
            blocks.len(),
            shown.len(),
            "{name}: the table lists every block"
        );
        world.ok(PLACE);
        let mut typist = Typist::new(&world);
        typist.enter("PATH=$W/stubs:$PATH; cd $W/place/mta");
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
            typist.enter("ob-room sh");
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

/// Types a command as a person would: also into a shell that the command starts. Ends a command
/// that does not end by itself.
fn enter(typist: &mut Typist, command: &str) -> String {
    if command.contains("log -f ") || command.contains("tail -f ") {
        return typist.enter_for_a_while(command);
    }
    let is_shell = ["-go mta", "ob-enter mta", " sh", "/live'"];
    let is_shell = !command.contains("ob-room sh\n")
        && command != "ob-room sh"
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
    for page in FILES {
        if page.0 != "overlay-diskfile.8" || World::new().mounts_images(page.0) {
            try_pages(&[*page]);
        }
    }
}

#[test]
fn examples_of_every_page_are_tested() {
    let tables = [TOOLS, COMMANDS, FILES].concat();
    let entries =
        std::fs::read_dir(scripts().join("../man")).expect("read the directory of the pages");
    for entry in entries {
        let name = entry
            .expect("read an entry")
            .file_name()
            .into_string()
            .expect("a name in UTF-8");
        assert!(!blocks(&page(&name)).is_empty(), "{name}: no examples");
        let known = tables.iter().any(|(page, _)| *page == name);
        assert!(
            known || name == "ob.7",
            "{name}: no test types its examples"
        );
    }
}
