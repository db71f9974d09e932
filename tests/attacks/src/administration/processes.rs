//! Processes: daemons, tracing, signals and namespaces.

use super::shell::sh;
use crate::Ends::{self, Works};
use crate::system::child;
use crate::{Entry, Refused, Try, refused};
use nix::libc::c_long;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, pause, pipe, read, setgid, setgroups, setuid, write};

/// Entries about processes.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::work("daemon", "start a daemon in a new session, as cron does; end it with TERM", [Works; 3], || sh(&["setsid"], DAEMON)),
    Entry::work("start-stop-daemon", "start a daemon as another user, find it by its pidfile, stop it", [Works; 3], || sh(&["start-stop-daemon"], &[DAEMON_OF_A_USER, "by --name sleep"].concat())),
    Entry::work("daemon-by-program", "start and stop a daemon that is found by its program (`start-stop-daemon --exec`)", [Works, Ends::Refused, Works], || sh(&["start-stop-daemon"], &[DAEMON_OF_A_USER, "by --exec \"$sleep\""].concat())),
    Entry::work("renice", "lower the priority of a process", [Works; 3], || sh(&["renice", "nice"], RENICE)),
    Entry::work("strace", "trace the system calls of a program", [Works; 3], || sh(&["strace"], STRACE)),
    Entry::work("ptrace", "attach to a running process, as `gdb -p` does", [Works; 3], || trace(0)),
    Entry::work("ptrace-other", "attach to a running process of another user", [Works, Ends::Refused, Works], || trace(33)),
    Entry::work("kill-other", "signal a process of another user", [Works; 3], end_other),
    Entry::work("ps", "list the processes of the subhost with their users", [Works; 3], || sh(&["ps"], PS)),
    Entry::work("cgroup", "read the control group of a process", [Works; 3], || sh(&[], CGROUP)),
    Entry::work("sysv-ipc", "make shared memory, semaphores and message queues of System V", [Works; 3], || sh(&["ipcmk", "ipcrm"], IPC)),
    Entry::work("terminal", "run a program on a new terminal", [Works; 3], || sh(&["script", "tty"], TERMINAL)),
    Entry::work("hostname", "change the host name", [Works, Ends::Refused, Works], || sh(&["hostname"], HOSTNAME)),
    Entry::work("unshare", "start a program in new namespaces", [Works, Ends::Refused, Works], || sh(&["unshare"], UNSHARE)),
    Entry::work("nested-user-namespace", "start a program in new namespaces as a user, in a user namespace", [Works, Ends::Refused, Works], || sh(&["unshare", "su"], NESTED)),
    Entry::work("chroot-into", "run a program in a chroot", [Works; 3], || sh(&["chroot", "ldd"], CHROOT)),
];

const DAEMON: &str = r#"
end() { kill "$(cat pid)"; }
setsid -f sh -c 'echo $$ >pid.new; mv pid.new pid; exec sleep 100' </dev/null >/dev/null 2>&1
until_done test -e pid
pid=$(cat pid)
same "$(cut -d' ' -f6 "/proc/$pid/stat")" "$pid"
kill "$pid"; until_done refuses kill -0 "$pid"
"#;

/// Starts a daemon; `by` finds it by more than the pidfile and stops it.
const DAEMON_OF_A_USER: &str = r#"
daemon() { start-stop-daemon --quiet --pidfile /run/a-daemon.pid "$@"; }
end() { daemon --stop; rm -f /run/a-daemon.pid; }
sleep=$(command -v sleep)
daemon --start --background --make-pidfile --chuid www-data --exec "$sleep" -- 100
until_done test -s /run/a-daemon.pid
owned() { same "$(stat -c %U "/proc/$(cat /run/a-daemon.pid)")" www-data; }
until_done owned
until_done daemon --status --name sleep
by() {
    daemon --status "$@" || { echo 'start-stop-daemon does not find the daemon' >&2; return 1; }
    daemon --stop --retry 5 "$@"
    # A zombie counts as running until pid 1 has reaped the process.
    until_done refuses daemon --status
}
"#;

const RENICE: &str = r#"
old=$(nice)
renice -n $((old + 1)) $$ >/dev/null; same "$(nice)" $((old + 1))
same "$(nice -n 1 nice)" $((old + 2))
"#;

const STRACE: &str = r#"
strace -f -o log sh -c 'id >/dev/null; :'
grep -q 'exited with 0' log
"#;

const PS: &str = r#"
same "$(ps -o user= -p 1)" root
same "$(su -s /bin/sh nobody -c 'ps -o user= -p $$')" nobody
"#;

const CGROUP: &str = "grep -q '^0::/' /proc/self/cgroup";

const IPC: &str = r#"
end() { ipcrm --all; }
for kind in '-M 4096' -Q '-S 1'; do ipcmk $kind >/dev/null; done
same "$(ipcs | grep -c ^0x)" 3
echo text >/dev/shm/of-an-administrator; rm /dev/shm/of-an-administrator
"#;

const TERMINAL: &str = r#"
case $(script -qec tty /dev/null </dev/null) in /dev/pts/*) ;; *) echo 'no terminal' >&2; exit 1 ;; esac
"#;

const HOSTNAME: &str = r#"
old=$(hostname); end() { hostname "$old"; }
hostname another; same "$(hostname)" another
"#;

const UNSHARE: &str = r#"
same "$(unshare --mount --uts --ipc --net --pid --fork --mount-proc sh -c 'hostname nested; mount -t tmpfs tmpfs /mnt; echo $$; hostname; ls /sys/class/net >/dev/null')" "1
nested"
"#;

const NESTED: &str = r#"
same "$(su -s /bin/sh nobody -c 'unshare --user --map-root-user --net --pid --fork sh -c "id -u; echo \$\$"')" "0
1"
"#;

const CHROOT: &str = r#"
mkdir -p r/bin r/etc; cp /bin/sh r/bin
ldd /bin/sh | grep -o '/[^ ]*' | while read -r file; do mkdir -p "r${file%/*}"; cp "$file" "r$file"; done
echo inside >r/etc/where
same "$(chroot r /bin/sh -c 'read -r x </etc/where; echo "$x"; cd ..; pwd')" "inside
/"
"#;

/// Attaches to a process of the user `user`, reads a word of its memory, and detaches.
fn trace(user: u32) -> Try {
    let traced = sleeper(user)?;
    let outcome = look_into(traced);
    let _ = kill(traced, Signal::SIGKILL);
    let _ = waitpid(traced, None);
    outcome
}

fn look_into(traced: Pid) -> Try {
    // The child has the word at the same address.
    static WORD: c_long = 42;
    ptrace::attach(traced).refused("attach")?;
    match waitpid(traced, None).refused("wait for the process")? {
        WaitStatus::Stopped(..) => {}
        other => return refused(format!("the process is {other:?}")),
    }
    let address = (&raw const WORD).cast_mut().cast();
    if ptrace::read(traced, address).refused("read its memory")? != WORD {
        return refused("its memory differs");
    }
    ptrace::detach(traced, None).refused("detach")
}

fn end_other() -> Try {
    let process = sleeper(33)?;
    let killed = kill(process, Signal::SIGTERM);
    if killed.is_err() {
        let _ = kill(process, Signal::SIGKILL);
    }
    waitpid(process, None).refused("wait for the process")?;
    killed.refused("kill")
}

/// Starts a process that becomes the user `user` and waits for a signal.
fn sleeper(user: u32) -> Try<Pid> {
    let (ready, ready_tx) = pipe().refused("pipe")?;
    let process = child(|| {
        let become_user = || {
            setgroups(&[])?;
            setgid(Gid::from_raw(user))?;
            setuid(Uid::from_raw(user))
        };
        if become_user().is_ok() && write(&ready_tx, b".").is_ok() {
            pause();
        }
        false
    });
    let process = process.refused("fork")?;
    drop(ready_tx);
    match read(&ready, &mut [0]).refused("wait for the process")? {
        0 => refused("the process did not become another user"),
        _ => Ok(process),
    }
}
