//! What the pages say is what happens: their examples are typed, and what is printed is compared.

use end_to_end::{Running, World, is_root_or_tell, until};
use std::fs::File;
use std::io::Write;

/// A shell that a page is typed into, a command at a time, as a person would.
struct Typist<'a> {
    world: &'a World,
    _shell: Running,
    input: File,
    typed: usize,
    read: usize,
}

impl<'a> Typist<'a> {
    fn new(world: &'a World) -> Self {
        world.ok("mkfifo keys; : >screen");
        let shell = world.line("exec sh <keys >screen 2>&1").start();
        let input = File::options().write(true).open(world.at("keys"));
        Typist {
            world,
            _shell: shell,
            input: input.expect("the shell's input"),
            typed: 0,
            read: 0,
        }
    }

    /// Types a command, and returns what it printed until the shell took the next one, with its status.
    fn enter(&mut self, command: &str) -> (String, String) {
        self.typed += 1;
        let mark = format!("@@{} ", self.typed);
        let line = format!("{command}\nprintf '@@%s %s\\n' {} $?\n", self.typed);
        self.input
            .write_all(line.as_bytes())
            .expect("a shell that reads");
        let mut new = String::new();
        until(&format!("the end of {command}"), || {
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

/// A command of a page, and the lines that it says are printed.
#[derive(Debug)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The steps in the blocks that are marked `console`: `$ ` before a command, `> ` before what it goes on with.
fn steps(page: &str) -> Vec<Step> {
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

/// Whether `line` is as the page has it, where `[...]` stands for anything.
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

/// The same for lines, where a line that is only `[...]` stands for any number of them.
fn are_like(page: &[String], lines: &[&str]) -> bool {
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
fn what_stands_for_anything() {
    let page = ["a [...] b".to_owned(), "[...]".to_owned(), "z".to_owned()];

    assert!(are_like(&page, &["a 1 b", "z"]));
    assert!(are_like(&page, &["a 1 2 b", "c", "d", "z"]));
    assert!(!are_like(&page, &["a 1 b", "c"]));
    assert!(!are_like(&page, &["a 1", "z"]));
}

#[test]
fn the_tutorial_is_what_happens() {
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
