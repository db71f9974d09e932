//! A person at a shell: types the commands of a page and reads what they print.

use end_to_end::{Running, World, until};
use std::fs::File;
use std::io::Write;

/// A shell that a page is typed into, a command at a time, as a person would.
pub struct Typist<'a> {
    world: &'a World,
    _shell: Running,
    /// What the shell reads.
    pub input: File,
    typed: usize,
    read: usize,
}

impl<'a> Typist<'a> {
    pub fn new(world: &'a World) -> Self {
        // bash reads no further than the line, so that the rest is left for a shell that this one starts.
        world.script("shell/sh", "exec bash \"$@\"");
        world.ok("rm -f keys; mkfifo keys; : >screen");
        let shell = world
            .line("export PATH=$W/shell:$PATH SHELL=/bin/bash; exec bash <keys >screen 2>&1")
            .start();
        let input = File::options().write(true).open(world.at("keys"));
        Typist {
            world,
            _shell: shell,
            input: input.expect("the shell's input"),
            typed: 0,
            read: 0,
        }
    }

    /// The world that it is typed in.
    pub fn world(&self) -> &'a World {
        self.world
    }

    /// Types a command that goes on until it is ended, waits until it has printed something, and ends it. Returns that.
    pub fn enter_for_a_while(&mut self, command: &str) -> String {
        self.enter(&format!("{command} &"));
        let read = self.read;
        until(&format!("a word of {command}"), || {
            self.world.read("screen").len() > read
        });
        self.enter("kill $!; wait $!").0
    }

    /// Types a command, and returns what it printed until the shell took the next one, with its status.
    pub fn enter(&mut self, command: &str) -> (String, String) {
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
