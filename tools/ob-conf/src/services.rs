//! `ob-conf --check`: services and inits that would not start, and the size of /run.

use crate::conf::normal;
use crate::findings::Findings;
use nix::libc::{S_IFCHR, S_IFMT};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The largest file that is searched for the name of an init.
const LARGEST_SCRIPT: u64 = 1 << 16;

impl Findings<'_> {
    /// Reports names in START that no service has.
    pub(crate) fn services(&mut self, base: &Path) {
        let Some(start) = self.conf.assigned("START") else {
            return;
        };
        if start.command().is_some() {
            return;
        }
        let value = start.value();
        if value.contains(',') {
            let words = value.replace(',', " ");
            let words: Vec<&str> = words.split_whitespace().collect();
            let text = format!(
                "START has blanks between its words; write START={}",
                words.join(" ")
            );
            return self.report_value(start, text);
        }
        let root = self.layers(base);
        // A custom INIT need not start these services.
        if self.conf.assigned("INIT").is_some() || !root.has("etc/init.d") {
            return;
        }
        let named = value
            .split_whitespace()
            .filter(|word| *word != "none" && !word.contains('/'));
        let missing = named.filter(|name| !root.has(&format!("etc/init.d/{name}")));
        for name in missing {
            let text = format!(
                "{name} has no script in /etc/init.d, so service(8) cannot start it; give the path \
                 of a script, or set INIT"
            );
            self.report_value(start, text);
        }
    }

    /// Reports systemd as pid 1 at a level where it cannot mount.
    pub(crate) fn init(&mut self, base: &Path) {
        let Some(init) = self.conf.assigned("INIT") else {
            return;
        };
        let is_yes = self.value("PROTECT").as_deref() == Some("yes");
        if !is_yes || self.value("USERNS").is_some_and(|users| users != "no") {
            return;
        }
        let (value, root) = (init.value(), self.layers(base));
        if runs_systemd(&value, base, &root) {
            let text = "systemd cannot mount at PROTECT=yes, and exits; set PROTECT=strict, or no";
            self.report_value(init, text);
        }
    }

    /// Reports a RAM_SIZE that tmpfs(5) does not accept.
    pub(crate) fn ram_size(&mut self) {
        let Some(assignment) = self.conf.assigned("RAM_SIZE") else {
            return;
        };
        let value = assignment.value();
        let number = value.trim_end_matches(|c: char| "kKmMgGtTpPeE%".contains(c));
        let is_size = !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && value.len() - number.len() <= 1;
        if assignment.command().is_none() && value != "none" && !is_size {
            let text = format!(
                "RAM_SIZE={value} is not a size; expected a size such as 50M, a share of the \
                 memory such as 10%, or none"
            );
            self.report_value(assignment, text);
        }
    }

    /// Returns the layers of the root. One that a command names is left out.
    fn layers(&self, base: &Path) -> Layers {
        let path = |name| {
            let assigned = self.conf.assigned(name);
            let is_command = assigned.is_some_and(|assigned| assigned.command().is_some());
            (!is_command).then(|| normal(base, &self.assigned_or_default(name)))
        };
        Layers([path("UPPER"), path("LOWER")])
    }
}

/// UPPER and LOWER.
struct Layers([Option<PathBuf>; 2]);

impl Layers {
    /// Returns the path of a file in the upper layer that has it.
    fn find(&self, file: &str) -> Option<PathBuf> {
        for layer in self.0.iter().flatten() {
            let path = layer.join(file);
            match path.symlink_metadata() {
                Ok(found) if is_whiteout(&found) => return None,
                Ok(_) => return Some(path),
                Err(_) => {}
            }
        }
        None
    }

    fn has(&self, file: &str) -> bool {
        self.find(file).is_some()
    }
}

fn is_whiteout(file: &Metadata) -> bool {
    file.mode() & S_IFMT == S_IFCHR && file.rdev() == 0
}

/// Returns whether the command of INIT, or a script in its words, executes systemd. Runs nothing.
fn runs_systemd(command: &str, base: &Path, root: &Layers) -> bool {
    let mut texts = vec![command.to_owned()];
    for word in command.split_whitespace() {
        let path = base.join(word);
        let is_small = |file: &Metadata| file.is_file() && file.len() <= LARGEST_SCRIPT;
        if path.metadata().is_ok_and(|file| is_small(&file)) {
            texts.extend(std::fs::read_to_string(path));
        }
    }
    let separators = |c: char| c.is_whitespace() || "\"';&|".contains(c);
    let mut words = texts.iter().flat_map(|text| text.split(separators));
    words.any(|word| {
        let target = root.find(word.trim_start_matches('/'));
        let target = target.and_then(|path| path.read_link().ok());
        let program = target.as_deref().unwrap_or(Path::new(word));
        word.starts_with('/') && program.file_name().is_some_and(|name| name == "systemd")
    })
}
