//! A typist: types commands into a shell and returns their output.

use end_to_end::{Running, World, until};
use std::fs::File;
use std::io::Write;

/// A shell into which the commands of a page are typed one by one, as a person would.
pub struct Typist<'a> {
    world: &'a World,
    _shell: Running,
    /// The standard input of the shell.
    pub input: File,
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
