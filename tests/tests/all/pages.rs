//! Examples of documents work as printed: the tests type the commands and compare the output.

use end_to_end::{NO_LOOP, NO_MACVLAN, Running, World, is_root_or_tell, not_done, until};
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

/// A shell into which the commands of a page are typed one by one, as a person would.
pub struct Typist<'a> {
    world: &'a World,
    _shell: Running,
    input: File,
    typed: usize,
    read: usize,
}

impl<'a> Typist<'a> {
    pub fn new(world: &'a World) -> Self {
        // bash reads one line at a time, so that a program that it starts can read the next line.
        world.script("shell/sh", "exec bash \"$@\"");
        world.ok("rm -f keys; mkfifo keys; : >screen");
        let shell = world
            .line("export PATH=$W/shell:$PATH SHELL=/bin/bash; exec bash <keys >screen 2>&1")
            .start();
        let input = File::options().write(true).open(world.at("keys"));
        Typist {
            world,
            _shell: shell,
            input: input.expect("open the input of the shell"),
            typed: 0,
            read: 0,
        }
    }

    /// Returns the world of the shell.
    pub fn world(&self) -> &'a World {
        self.world
    }

    /// Types a command that does not end by itself, waits for its first output, and kills it;
    /// returns the output.
    pub fn enter_for_a_while(&mut self, command: &str) -> String {
        self.enter(&format!("{command} &"));
        let read = self.read;
        until(&format!("output of {command}"), || {
            self.world.read("screen").len() > read
        });
        self.enter("kill $!; wait $!").0
    }

    /// Types a command; returns its output and its exit status.
    pub fn enter(&mut self, command: &str) -> (String, String) {
        self.typed += 1;
        let mark = format!("@@{} ", self.typed);
        let line = format!("{command}\nprintf '@@%s %s\\n' {} $?\n", self.typed);
        self.input
            .write_all(line.as_bytes())
            .expect("write to the shell");
        let mut new = String::new();
        until(&format!("the end of the command {command}"), || {
            new = self.world.read("screen")[self.read..].to_owned();
            new.split_once(&mark)
                .is_some_and(|(_, rest)| rest.contains('\n'))
        });
        let (output, rest) = new.split_once(&mark).expect("the mark");
        let (status, _) = rest.split_once('\n').expect("a line");
        self.read += output.len() + mark.len() + status.len() + 1;
        (output.to_owned(), status.to_owned())
    }
}

/// A command of a page, and its printed output.
#[derive(Debug)]
pub struct Step {
    pub command: String,
    pub output: Vec<String>,
}

/// Returns the steps in the `console` blocks: `$ ` begins a command, `> ` continues it.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            let command = command.to_owned();
            let output = Vec::new();
            steps.push(Step { command, output });
        } else if inside {
            let step = steps.last_mut().expect("a command first");
            match line.strip_prefix("> ").filter(|_| step.output.is_empty()) {
                Some(more) => step.command = format!("{}\n{more}", step.command),
                None => step.output.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Returns whether `line` matches a line of the page, in which `[...]` stands for any text.
fn is_like(page: &str, line: &str) -> bool {
    match page.split_once("[...]") {
        None => page == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            (0..=line.len())
                .filter(|index| line.is_char_boundary(*index))
                .any(|index| is_like(rest, &line[index..]))
        }),
    }
}

/// Like `is_like`, but for lines; a line that is only `[...]` stands for any number of lines.
pub fn are_like(page: &[String], lines: &[&str]) -> bool {
    match (page.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "[...]" => {
            (0..=lines.len()).any(|count| are_like(rest, &lines[count..]))
        }
        (Some((first, rest)), Some((line, lines))) => is_like(first, line) && are_like(rest, lines),
        _ => false,
    }
}

#[test]
fn wildcards_in_pages_match_any_text() {
    let page = ["a [...] b".to_owned(), "[...]".to_owned(), "z".to_owned()];

    assert!(are_like(&page, &["a 1 b", "z"]));
    assert!(are_like(&page, &["a 1 2 b", "c", "d", "z"]));
    assert!(!are_like(&page, &["a 1 b", "c"]));
    assert!(!are_like(&page, &["a 1", "z"]));
}

#[test]
fn tutorial_works_as_printed() {
    if !is_root_or_tell("LOWER=/") {
        return;
    }
    let world = World::new();
    let before = world.snapshot();
    world.ok("mkdir here");
    let mut typist = Typist::new(&world);
    typist.enter("cd here");
    let steps = steps(include_str!("../../../docs/tutorial.md"));
    assert!(steps.len() > 30, "{steps:?}");
    for step in &steps {
        let (output, _) = typist.enter(&step.command);
        let lines: Vec<&str> = output.lines().collect();
        assert!(
            are_like(&step.output, &lines),
            "{step:#?} printed {lines:#?}"
        );
    }
    assert_eq!(world.ok("ls here"), "");
    typist
        .input
        .write_all(b"exit\n")
        .expect("a shell that reads");
    drop(typist);
    world.until_same(&before);
}

/// A block of a manual page, with its heading.
#[derive(Debug)]
pub struct Block {
    heading: String,
    pub lines: Vec<String>,
}

/// Returns the literal blocks and lines in the EXAMPLES section of an mdoc(7) page.
pub fn blocks(page: &str) -> Vec<Block> {
    let (_, examples) = page
        .split_once(".Sh EXAMPLES\n")
        .expect("a section EXAMPLES");
    let (examples, _) = examples
        .split_once("\n.Sh ")
        .expect("a section after EXAMPLES");
    let mut blocks: Vec<Block> = Vec::new();
    let (mut heading, mut inside) = (String::new(), false);
    for line in examples.lines() {
        if let Some(title) = line.strip_prefix(".Ss ") {
            title.clone_into(&mut heading);
        } else if line.starts_with(".Bd ") {
            inside = true;
            let (heading, lines) = (heading.clone(), Vec::new());
            blocks.push(Block { heading, lines });
        } else if line == ".Ed" {
            inside = false;
        } else if inside {
            let last = blocks.last_mut().expect("a block");
            last.lines.push(unescaped(line));
        } else if let Some(line) = line.strip_prefix(".Dl ") {
            let (heading, lines) = (heading.clone(), vec![unescaped(line)]);
            blocks.push(Block { heading, lines });
        }
    }
    blocks
}

/// Returns the visible text of a literal line.
pub fn unescaped(line: &str) -> String {
    let line = line.replace("\\&", "").replace("\\-", "-");
    line.replace("\\e", "\\")
}

/// Splits lines into commands: a command continues until sh accepts it.
pub fn commands(lines: &[String]) -> Vec<String> {
    let mut commands = Vec::new();
    let mut command = String::new();
    for line in lines {
        command += line;
        let is_open = line.ends_with('\\') || command.contains("<<'END'") && line != "END";
        let check = Command::new("sh")
            .args(["-n", "-c", &command])
            .stderr(Stdio::null())
            .status();
        if !is_open && check.expect("sh").success() {
            commands.push(std::mem::take(&mut command));
        } else {
            command.push('\n');
        }
    }
    assert_eq!(command, "", "the last command is incomplete");
    commands
}

/// Types a block and waits where a person would; returns the output.
fn enter_block(typist: &mut Typist, block: &Block) -> String {
    if block.lines[0] == "#!/bin/sh" {
        let name = block.lines[1].split_whitespace().nth(1).expect("a name");
        let text = block.lines[1..].join("\n");
        typist.world.script(format!("place/mta/{name}"), &text);
        return String::new();
    }
    let world = typist.world;
    let mut printed = String::new();
    let mut enter = |command: &str| {
        let (output, status) = typist.enter(command);
        assert_eq!(status, "0", "{}: {command}: {output}", block.heading);
        printed += &output;
    };
    for command in commands(&block.lines) {
        let stays = command.ends_with("| ob-unshare");
        enter(&if stays {
            format!("{command} &")
        } else {
            command.clone()
        });
        if stays || command.ends_with('&') {
            until(&format!("the subhost of {command}"), || world.is_up("mta"));
        }
        if stays {
            enter("overlay-stop mta");
            enter("wait");
        }
    }
    printed
}

/// For each recipe: its heading, a line to type before the directory of the subhost exists, a line
/// to type after, and its output.
const RECIPES: &[(&str, &str, &str, &str)] = &[
    ("Boot, look, stop", "", "", "ob-reaper"),
    ("Boot by hand", "", "", "eth0@"),
    ("Change the plan", "", "", ""),
    ("Dry run", "", "", "mount -t overlay mta -o lowerdir=/,"),
    (
        "Replace a stage",
        "ip link add eno1 type dummy; ip link set eno1 up",
        "",
        "",
    ),
    (
        "Add a stage",
        "mount -o loop $W/image .",
        "cd ..; mv mta old; btrfs subvolume create mta; cp -a old/. mta; cd mta",
        "snapshot of",
    ),
    ("Leave a stage out", "", "", "stdin"),
    ("A network laboratory", "", "", "1 received"),
    ("Discard all changes", "", "", ""),
    (
        "A test suite in a throw-away copy of this machine",
        "",
        "",
        "/usr/bin/installed",
    ),
    ("A root from debootstrap", "", "", "bin\n"),
    ("A root from a container image", "", "", "bin\n"),
    ("A service behind a bridge", "", "", "localhost"),
    (
        "Under a supervisor",
        "",
        "mkdir /opt/subhost; ln -s $PWD /opt/subhost/mta",
        "",
    ),
    ("Stop", "", "", ""),
];

/// Installs stubs that make a root of busybox instead of fetching one.
fn install_fetcher_stubs(world: &World) {
    world.script("fetchers/debootstrap", "cp -a $W/busybox \"$3\"");
    world.script("fetchers/skopeo", ":");
    world.script(
        "fetchers/umoci",
        "mkdir \"$4\" && cp -a $W/busybox \"$4/rootfs\"",
    );
}

#[test]
fn recipes_of_ob_7_work_as_printed() {
    if !is_root_or_tell("LOWER=/") {
        return;
    }
    let world = World::new();
    world.ok("mount -t tmpfs tmpfs /opt");
    install_fetcher_stubs(&world);
    let blocks = blocks(include_str!("../../../man/ob.7"));
    let mut headings: Vec<&str> = blocks[1..]
        .iter()
        .map(|block| block.heading.as_str())
        .collect();
    headings.dedup();
    let known: Vec<&str> = RECIPES.iter().map(|(heading, ..)| *heading).collect();
    assert_eq!(headings, known, "the table lists every recipe");
    for (heading, before, after, expected) in RECIPES {
        let snapshot = world.snapshot();
        world.ok("rm -rf place; mkdir place");
        let needed = match *heading {
            "Add a stage" => {
                let made = "truncate -s 200M image && mkfs.btrfs -q image && mount -o loop image place && umount place";
                (world.run(made).status != 0).then_some(NO_LOOP)
            }
            "Replace a stage" => {
                let made = "ip link add probe0 type dummy && ip link add probe1 link probe0 type macvlan; s=$?; ip link del probe0; exit $s";
                (world.run(made).status != 0).then_some(NO_MACVLAN)
            }
            _ => None,
        };
        if let Some(reason) = needed {
            not_done(heading, reason);
            continue;
        }
        let mut typist = Typist::new(&world);
        typist.enter("PATH=$W/fetchers:$PATH");
        if !before.is_empty() {
            assert_eq!(
                typist.enter(&format!("cd $W/place && {before}")).1,
                "0",
                "{heading}"
            );
        }
        typist.enter("cd $W/place");
        enter_block(&mut typist, &blocks[0]);
        assert_eq!(
            typist.enter(if after.is_empty() { ":" } else { after }).1,
            "0",
            "{heading}"
        );
        let mut printed = String::new();
        for block in blocks.iter().filter(|block| block.heading == *heading) {
            printed += &enter_block(&mut typist, block);
        }
        assert!(
            printed.contains(expected),
            "{heading}: no {expected} in {printed}"
        );
        typist.enter("cd /; umount $W/place 2>/dev/null; rm -f /opt/subhost/mta; ip link del eno1 2>/dev/null");
        drop(typist);
        world.until_same(&snapshot);
    }
    assert!(!std::path::Path::new("/etc/gone").exists());
    assert!(!std::path::Path::new("/usr/bin/installed").exists());
}
