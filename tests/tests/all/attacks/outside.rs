//! Accomplices and attackers outside: an administrator who enters or boots, an unprivileged user of
//! the host, a process that listens there.

use super::Site;
use attacks::Ends;
use end_to_end::{Done, Running, until};
use std::sync::{Mutex, PoisonError};

/// Plays the entry `name`; returns `None` for an unknown entry.
pub fn play(site: &Site, name: &str) -> Option<(Ends, String)> {
    let played: fn(&Site) -> Found = match name {
        "posing-user" => posing_user,
        "entered-program" | "entered-descriptors" | "entered-traced" => {
            return Some(entered(site, name));
        }
        "ended" => ended,
        "typed-for-administrator" => typed,
        "setuid-file" => run_setuid,
        "linked-file" => linked_file,
        "linked-share" => linked_share,
        "signal-namesake" => |site| namesake(site, "kill -0 $1"),
        "look-at-namesake" => |site| namesake(site, "ls /proc/$1/root/ >/dev/null"),
        "linked-log" => |site| planted_log(site, &as_nobody("ln -s $W/victim /tmp/overlay-d.log")),
        "planted-log" => |site| {
            planted_log(
                site,
                &as_nobody("echo mine >/tmp/overlay-d.log; chmod 666 /tmp/overlay-d.log"),
            )
        },
        "planted-fifo" => |site| planted_log(site, &as_nobody("mkfifo -m 666 /tmp/overlay-d.log")),
        // As if fs.protected_hardlinks were off: root makes the hard link.
        "hard-linked-log" => |site| {
            planted_log(
                site,
                "rm -f /tmp/overlay-d.log; ln /tmp/victim /tmp/overlay-d.log",
            )
        },
        "posing-neighbour" => posing_neighbour,
        "setuid-log" => |site| changed_log(site, "setuid-log"),
        "capable-log" => |site| changed_log(site, "capable-log"),
        "swapped-directory" => swapped,
        "abstract-socket" => listened,
        "state" => state,
        "ipc" => queued,
        "other-processes" => others,
        "overlay-attributes" => attributes,
        "socket-in-lower" => socket_in_lower,
        "fifo-in-lower" => fifo_in_lower,
        _ => return None,
    };
    let found = played(site);
    let ends = if found.is_some() {
        Ends::Falls
    } else {
        Ends::Stands
    };
    Some((ends, found.unwrap_or_default()))
}

/// What the attacker has reached; `None` if the attack failed.
type Found = Option<String>;

fn found(what: &str, is: bool) -> Found {
    is.then(|| what.to_owned())
}

/// Returns a line that an unprivileged user of the host runs.
fn as_nobody(line: &str) -> String {
    format!("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{line}'")
}

/// Starts a process in the background and waits until its command line begins with `words`.
fn stay(site: &Site, line: &str, words: &str) -> Running {
    let running = site.world.line(line).start();
    until(&format!("the process {words}"), || {
        number(site, words).is_some()
    });
    running
}

/// Returns the pid on the host of the process whose command line begins with `words`.
fn number(site: &Site, words: &str) -> Option<String> {
    let look = "cd /proc; for p in [0-9]*; do case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in \"$WORDS\"*) echo $p; break ;; esac; done";
    let number = site.world.line(look).env("WORDS", words).run().out;
    Some(number.trim().to_owned()).filter(|number| !number.is_empty())
}

fn posing_user(site: &Site) -> Found {
    let world = &site.world;
    let conf = site.prepare("c", "");
    world.script("evil", "id >>$W/fell");
    world.write("pose", "exec -a \"overlay-boot $1\" sh -c 'unshare --user --map-root-user --mount sh -c \"mount --bind $0/evil /bin/bash; sleep 1001; :\" || sleep 1001; :' \"$W\"\n");
    let line = as_nobody(&format!("exec bash $W/pose {conf}"));
    let _posing = stay(site, &line, "sleep 1001");
    let entered = world.run("overlay-go c true");
    world.ok(&format!("overlay-boot {conf}"));
    let inside = world.run("overlay-go c -- hostname");
    let stopped = world.run("overlay-stop c");
    let kept_out = entered.status == 0 || inside.status != 0 || stopped.status != 0;
    found("entered", world.has("fell") || kept_out)
}

/// An administrator enters until the spy has seen a process, and some more times.
fn entered(site: &Site, name: &str) -> (Ends, String) {
    let enter = "overlay-go a </dev/null; overlay-go a -- true";
    let seen = "test -e /run/attack-seen || ! pidof attack";
    entered_by(site, name, enter, seen)
}

/// Enters the subhost a with the line `enter` until the line `end` succeeds inside, and some more
/// times.
pub fn entered_by(site: &Site, name: &str, enter: &str, end: &str) -> (Ends, String) {
    // A spy uses a whole processor, so only one runs at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _only = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = &site.world;
    // The shell of the administrator executes the program that enters.
    let lure = "mkdir -p /usr/local/bin; printf '#!/proc/self/exe\\n' >/usr/local/bin/bash; chmod 755 /usr/local/bin/bash";
    let clear = "rm -f /run/attack-seen /run/attack-stop";
    site.go(&format!("{clear}; {lure}")).run().ok();
    let mut spy = site.go(&format!("exec /attack {name}")).start();
    until("the spy to start", || {
        !spy.is_running() || site.go("pidof attack").run().status == 0
    });
    let enter = || -> Done {
        world.run(&format!(
            "for i in 1 2 3 4 5 6 7 8; do {enter}; done 2>/dev/null"
        ))
    };
    until("the spy to see a process", || {
        enter();
        site.go(end).run().status == 0
    });
    enter();
    let done = "touch /run/attack-stop; rm /usr/local/bin/bash";
    site.go(done).run().ok();
    site.judge_status(name, &spy.wait())
}

/// The spy leaves its result in UPPER. The stop ends the subhost.
fn ended(site: &Site) -> Found {
    let world = &site.world;
    site.go("rm -f /run/attack-seen /run/attack-stop /ended")
        .run()
        .ok();
    let spy = site.go("exec /attack ended").start();
    until("the spy to start", || {
        site.go("pidof attack").run().status == 0
    });
    world.ok("overlay-stop a");
    drop(spy);
    assert!(world.has("a/root/ended"), "no process was seen");
    found("caught", world.read("a/root/ended") == "caught")
}

/// On a terminal, the shell of the host reads input that arrives after the command has exited.
fn typed(site: &Site) -> Found {
    let read = "overlay-go a -- /attack typed-for-administrator; stty -icanon -echo min 0 time 3; line=; IFS= read -r line; echo \"read <$line>\"";
    site.world.script("typed", read);
    let done = site.world.run("script -qec $W/typed /dev/null </dev/null");
    assert!(done.out.contains("read <"), "{done:#?}");
    found("read", done.out.contains("read <typed-by"))
}

fn run_setuid(site: &Site) -> Found {
    let world = &site.world;
    site.go("/attack setuid-file").run().ok();
    let run = |path: &str| world.run(&as_nobody(&format!("{path} list"))).status == 0;
    world.ok(
        "cp a/root/setuid-of-an-attack open; chmod 755 open; chmod 4755 a/root/setuid-of-an-attack",
    );
    assert!(
        run("$W/open"),
        "a user of the host cannot run an accessible program"
    );
    found("run", run("$W/a/root/setuid-of-an-attack"))
}

/// Returns the state of the targets of planted links.
fn victim(site: &Site) -> String {
    site.world
        .ok("find victims -printf '%p %y %m %s\\n' | sort; cat victims/file")
}

fn plant(site: &Site, more: &str, lines: &[&str]) -> Found {
    let world = &site.world;
    world.ok("mkdir -p victims/network; echo kept >victims/file");
    for line in lines {
        let conf = site.prepare("e", more);
        world.ok(&format!("cd e/root; {line}"));
        let before = victim(site);
        let booted = world.run(&format!("overlay-boot {conf}")).status == 0;
        let changed = victim(site) != before;
        if booted {
            world.ok("overlay-stop e");
        }
        world.ok("rm -rf e");
        if changed {
            return Some((*line).to_owned());
        }
    }
    None
}

fn linked_file(site: &Site) -> Found {
    let lines = [
        "rm -rf etc; mkdir -p etc/network; ln -s $W/victims/new etc/network/interfaces",
        "rm -rf etc; mkdir etc; ln -s $W/victims/network etc/network",
        "rm -rf etc; ln -s $W/victims etc",
        "rm -rf etc; ln -s ../../victims etc",
    ];
    plant(site, "CABLES==", &lines)
}

fn linked_share(site: &Site) -> Found {
    let lines = [
        "ln -s $W/victims mnt",
        "ln -s ../../victims mnt",
        "mkdir mnt; ln -s $W/victims/new mnt/s",
    ];
    plant(site, "SHARE=../shared:/mnt/s", &lines)
}

fn swapped(site: &Site) -> Found {
    let world = &site.world;
    world.ok("mkdir -p victims/network; echo kept >victims/file");
    let conf = site.prepare("e", "SHARE=../shared:/mnt/d/deep/s\nREADONLY=no");
    world.ok("mkdir -p e/root/mnt/d");
    let before = victim(site);
    let swap = "import os\nos.chdir(os.environ['W'] + '/e/root/mnt')\nwhile True:\n  os.rename('d', 'x')\n  os.symlink('../../../victims', 'd')\n  os.unlink('d')\n  os.rename('x', 'd')\n";
    world.write("swap", swap);
    let swapping = stay(site, "exec python3 $W/swap", "python3");
    for _ in 0..8 {
        let booted = world.run(&format!("overlay-boot {conf}"));
        if booted.status == 0 {
            world.ok("overlay-stop e");
        }
    }
    drop(swapping);
    let pid = number(site, "python3");
    world.ok(&format!(
        "kill {} 2>/dev/null; rm -rf e",
        pid.unwrap_or_default()
    ));
    found("changed", victim(site) != before)
}

/// Attacks a process inside whose uid is that of the attacker outside.
fn namesake(site: &Site, line: &str) -> Found {
    let _sleeper = stay(site, "exec ob-enter -u nobody a sleep 1002", "sleep 1002");
    let number = number(site, "sleep 1002").expect("a running process");
    let line = as_nobody(&line.replace("$1", &number));
    found("reached", site.world.run(&line).status == 0)
}

fn planted_log(site: &Site, line: &str) -> Found {
    let world = &site.world;
    world.ok("echo kept >victim; echo kept >/tmp/victim; chmod 600 /tmp/victim");
    let conf = site.prepare("d", "");
    world.ok("rm -f /tmp/overlay-d.log");
    world.ok(line);
    let planted = world.ok("stat -c %i /tmp/overlay-d.log");
    world.ok(&format!("overlay-boot {conf} && overlay-stop d"));
    let kept = world.read("victim") == "kept\n" && world.read("/tmp/victim") == "kept\n";
    let log = world.ok("stat -c '%F %u %a %h' /tmp/overlay-d.log");
    let is_ours =
        log == "regular file 0 640 1" && world.ok("stat -c %i /tmp/overlay-d.log") != planted;
    world.ok("rm -rf d /tmp/overlay-d.log");
    found(&log, !kept || !is_ours)
}

fn posing_neighbour(site: &Site) -> Found {
    let world = &site.world;
    let conf = format!("{}/b/b.conf", world.directory());
    let pose = format!("exec bash -c 'exec -a \"overlay-boot {conf}\" sleep 1003'");
    let _posing = site.go(&pose).start();
    until("the fake boot", || {
        number(site, &format!("overlay-boot {conf} 1003")).is_some()
    });
    let entered = world.run("overlay-go b true");
    let stopped = world.run("overlay-stop b");
    world.run(&format!("overlay-boot {conf}"));
    found("locked out", entered.status != 0 || stopped.status != 0)
}

fn changed_log(site: &Site, name: &str) -> Found {
    let state = "stat -c '%a %u' /tmp/overlay-a.log; python3 -c 'import os; print(os.listxattr(\"/tmp/overlay-a.log\"))'";
    let before = site.world.ok(state);
    site.go(&format!("/attack {name}")).run();
    found("changed", site.world.ok(state) != before)
}

/// Listens on the host at an address in Python syntax; returns whether the attack connected.
fn listens(site: &Site, address: &str, attack: &str) -> Found {
    let listen = format!(
        "import os, socket\ns = socket.socket(socket.AF_UNIX)\ns.bind({address})\ns.listen()\nopen('listening', 'w')\ns.accept()\n"
    );
    site.world.write("listen", &listen);
    site.world.ok("rm -f listening socket");
    let _listener = site.world.line("exec python3 listen").start();
    until("the listener", || site.world.has("listening"));
    let done = site.go(attack).run();
    found("connected", done.status == 0)
}

fn listened(site: &Site) -> Found {
    listens(site, "'\\0canary-of-the-host'", "/attack abstract-socket")
}

/// LOWER is /, so it contains the directory of the world.
fn socket_in_lower(site: &Site) -> Found {
    let attack = format!("/attack socket-in-lower {}/socket", site.world.directory());
    listens(site, "os.environ['W'] + '/socket'", &attack)
}

fn fifo_in_lower(site: &Site) -> Found {
    let world = &site.world;
    world.ok("rm -f fifo fed; mkfifo fifo");
    let mut reader = world.line("cat fifo >fed").start();
    let attack = format!("/attack fifo-in-lower {}/fifo", world.directory());
    let done = site.go(&attack).run();
    // Unblocks the reader if it still waits.
    world.run("[ -s fed ] || timeout 5 sh -c ': >fifo'");
    until("the exit of the reader", || !reader.is_running());
    found("written", done.status == 0 && !world.read("fed").is_empty())
}

fn attributes(site: &Site) -> Found {
    site.go("/attack overlay-attributes").run();
    let list = "python3 -c 'import os; print(os.listxattr(\"a/root/redirected-by-an-attack\"))'";
    let there = site.world.ok(list);
    found(&there, there.contains("'trusted.overlay.redirect'"))
}

fn queued(site: &Site) -> Found {
    site.world.ok("ipcmk -Q");
    found("seen", site.go("/attack ipc").run().status == 0)
}

fn others(site: &Site) -> Found {
    let neighbour = "overlay-go b -- sh -c \"sleep 1004; :\" canary";
    let _neighbour = stay(site, neighbour, "sh -c sleep 1004");
    let _host = stay(site, "sh -c 'sleep 1005; :' canary", "sh -c sleep 1005");
    let done = site.go("/attack other-processes").run();
    found("seen", done.status == 0)
}

fn state(site: &Site) -> Found {
    let tries = [
        "cat /run/overlay-boot/a/subhost",
        "ls /run/overlay-boot/a",
        "ob-enter a true",
        "ob-list | grep -w a",
    ];
    let fell = tries
        .iter()
        .find(|line| site.world.run(&as_nobody(line)).status == 0);
    fell.map(|line| (*line).to_owned())
}
