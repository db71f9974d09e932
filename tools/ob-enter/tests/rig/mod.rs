//! Namespaces for one test, with two subhosts that were not booted: a busybox root, namespaces and
//! a document each.

use nix::fcntl::OFlag;
use nix::pty::posix_openpt;
use nix::sys::termios::{Termios, tcgetattr};
use ob_sys::terminal::{Size, open_peer, resize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longer than any step takes on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

const SET_UP: &str = r##"
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
root=/run/root
for d in bin dev/pts etc proc root tmp; do mkdir -p $root/$d; done
busybox=$(command -v busybox)
cp "$busybox" $root/bin/busybox
for applet in $(busybox --list); do [ $applet = busybox ] || ln -s busybox $root/bin/$applet; done
printf 'root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/tmp:/bin/sh\n' >$root/etc/passwd
printf 'root:x:0:\nadm:x:4:bob,ann\n' >$root/etc/group
>$root/dev/null; >$root/dev/tty; ln -s pts/ptmx $root/dev/ptmx
printf '#!/proc/self/exe\n' >$root/bin/itself
printf '#!/bin/none\n' >$root/bin/orphan
chmod 755 $root/bin/itself $root/bin/orphan

subhost() {
    unshare --pid --fork --ipc --mount --uts --time --net sh -euc "
        mount --bind $root $root
        cd $root
        mount -t proc proc proc
        mount --bind /dev/null dev/null
        mount --bind /dev/tty dev/tty
        [ $1 = bare ] || mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
        pivot_root . .
        umount -l .
        cd /
        exec /bin/sleep 100000" &
    supervisor=$!
    until pid=$(cat /proc/$supervisor/task/$supervisor/children) && [ "$pid" ] &&
        [ "$(cat /proc/${pid% }/comm)" = sleep ]; do sleep .01; done
    pid=${pid% }
    home=/run/overlay-boot/$1
    mkdir -p -m 700 $home
    : >$home/lock
    set -- $1 $(cat /proc/$pid/stat)
    echo "{\"NAME\":\"$1\",\"pid\":$pid,\"pidns\":$(stat -Lc %i /proc/$pid/ns/pid),\"start\":${23}}" >$home/subhost
}
subhost mta
subhost bare
echo $$
cat
"##;

/// Namespaces, held by a shell that exits at the end of its input.
pub struct World {
    holder: Child,
    pid: String,
}

impl World {
    pub fn new() -> Self {
        let mut unshare = Command::new("unshare");
        if !is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        let mut holder = unshare
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc"])
            .args([
                "sh",
                "-c",
                &format!("exec sh -c '{}'", SET_UP.replace('\'', r"'\''")),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1) is needed");
        let mut ready = String::new();
        let output = holder.stdout.as_mut().expect("it is a pipe");
        BufReader::new(output)
            .read_line(&mut ready)
            .expect("the world's first word");
        assert_eq!(ready, "1\n", "a world cannot be made");
        let id = holder.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let pid = children.expect("the world's pid 1").trim().to_owned();
        World { holder, pid }
    }

    /// Returns a command for `program` in the world.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("env");
        // The test may run with ignored signals: under nohup, or after `&` of a shell.
        command.args(["--default-signal", "nsenter"]);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args([
            "--mount", "--net", "--pid", "--target", &self.pid, "--wd=/", program,
        ]);
        // Signals to the process group of the test must not reach the program, nor the reverse.
        command.process_group(0);
        command
    }

    /// Returns a command for `ob-enter` with these arguments.
    pub fn enter(&self, words: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_ob-enter"));
        command.args(words);
        command
    }

    /// Runs a line of shell in the world, in which `$E` is `ob-enter`.
    pub fn sh(&self, line: &str) -> Done {
        let mut sh = self.command("sh");
        sh.args(["-c", line])
            .env("E", env!("CARGO_BIN_EXE_ob-enter"));
        run(sh)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// Runs a command without input.
pub fn run(mut command: Command) -> Done {
    let output = command.stdin(Stdio::null()).output().expect("run it");
    Done {
        status: code(output.status),
        out: String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned(),
        err: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    }
}

pub fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// Opens both sides of a terminal of 30 rows and 100 columns, with close-on-exec.
pub fn pair() -> (OwnedFd, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("a terminal");
    let slave = open_peer(&master).expect("a terminal");
    let size = Size {
        ws_row: 30,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    resize(&master, &size).expect("a size");
    (master.into(), slave)
}

/// A terminal with a program on it.
pub struct Screen {
    master: Option<File>,
    /// Kept open until the end of the program, to read the mode that it leaves.
    slave: Option<OwnedFd>,
    left: Option<Termios>,
    child: Child,
    output: Receiver<Vec<u8>>,
    pub seen: String,
}

impl Screen {
    /// Runs `command` with the standard descriptors `on_terminal` replaced by the terminal.
    pub fn new(mut command: Command, on_terminal: [bool; 3]) -> Self {
        let (master, slave) = pair();
        let slave_of = || Stdio::from(slave.try_clone().expect("a descriptor"));
        if on_terminal[0] {
            command.stdin(slave_of());
        }
        if on_terminal[1] {
            command.stdout(slave_of());
        }
        if on_terminal[2] {
            command.stderr(slave_of());
        }
        let child = command.spawn().expect("run it");
        drop(command);
        let (sender, output) = channel();
        let mut reader = File::from(master.try_clone().expect("a descriptor"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Screen {
            master: Some(master.into()),
            slave: Some(slave),
            left: None,
            child,
            output,
            seen: String::new(),
        }
    }

    pub fn master(&self) -> impl AsFd + '_ {
        self.master.as_ref().expect("the terminal is there")
    }

    pub fn slave(&self) -> &OwnedFd {
        self.slave.as_ref().expect("it has not ended")
    }

    /// Returns the mode of the terminal, after the end of the program the last.
    pub fn mode(&self) -> Termios {
        let left = || self.left.clone().expect("it has ended");
        let mode = |slave| tcgetattr(slave).expect("a terminal's mode");
        self.slave.as_ref().map_or_else(left, mode)
    }

    pub fn type_in(&mut self, keys: &str) {
        let mut master = self.master.as_ref().expect("the terminal is there");
        master.write_all(keys.as_bytes()).expect("type");
    }

    /// Waits until `text` is on the screen, after the text of the call before.
    pub fn expect(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let left = BOUND.saturating_sub(start.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("'{text}' does not come; seen: {:?}", self.seen),
            }
        }
    }

    /// Waits for the end of the program, and returns its status. `seen` then has its last output.
    pub fn end(&mut self) -> i32 {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(
                start.elapsed() < BOUND,
                "it does not end; seen: {:?}",
                self.seen
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        self.left = Some(self.mode());
        // After the last close, the master returns EIO when all output was read.
        self.slave = None;
        while let Ok(bytes) = self.output.recv_timeout(BOUND) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        code(status)
    }
}

/// Waits until `done`.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
