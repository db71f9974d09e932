//! Descriptors, terminals and files that cross the border when a process enters, logs or compares.

use end_to_end::{Done, World, is_root_or_tell, until};

/// Replaces the descriptors of the digits in `$2` by an object of the kind `$1`, notes its device
/// and inode, and execs the rest.
const HOLD: &str = r#"
import array, os, pty, select, socket, sys
kind, numbers, command = sys.argv[1], sys.argv[2], sys.argv[3:]
kept = []
def pair(type):
    ours, theirs = socket.socketpair(socket.AF_UNIX, type)
    theirs.send(b"sent\n")
    os.set_inheritable(theirs.fileno(), True)
    kept.append((ours, theirs))
    return ours.fileno()
def keep(thing):
    kept.append(thing)
    return thing.fileno()
def listening():
    server = socket.create_server(("127.0.0.1", 0))
    return keep(server)
def connected():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    kept.append(server.accept())
    return keep(client)
def pipe():
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.set_inheritable(writing, True)
    if numbers == "0":
        os.write(writing, b"sent\n")
        return reading
    return writing
def fifo(flags):
    if not os.path.exists("fifo"):
        os.mkfifo("fifo", 0o600)
    return os.open("fifo", flags)
def file(flags):
    open("file", "a").close()
    return os.open("file", flags)
kinds = {
    "stream-socket": lambda: pair(socket.SOCK_STREAM),
    "datagram-socket": lambda: pair(socket.SOCK_DGRAM),
    "packet-socket": lambda: pair(socket.SOCK_SEQPACKET),
    "listening-socket": listening,
    "tcp-socket": connected,
    "netlink-socket": lambda: keep(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
    "pipe": pipe,
    "fifo": lambda: fifo(os.O_RDWR),
    "fifo-path": lambda: fifo(os.O_PATH),
    "file": lambda: file(os.O_RDWR),
    "file-path": lambda: file(os.O_PATH),
    "directory": lambda: os.open(".", os.O_RDONLY),
    "directory-path": lambda: os.open("/", os.O_PATH),
    "null": lambda: os.open("/dev/null", os.O_RDWR),
    "null-path": lambda: os.open("/dev/null", os.O_PATH),
    "zero": lambda: os.open("/dev/zero", os.O_RDWR),
    "full": lambda: os.open("/dev/full", os.O_RDWR),
    "terminal": lambda: pty.openpty()[1],
    "master": lambda: pty.openpty()[0],
    "memfd": lambda: os.memfd_create("host"),
    "eventfd": lambda: os.eventfd(1),
    "epoll": lambda: keep(select.epoll()),
    "pidfd": lambda: os.pidfd_open(1),
    "namespace": lambda: os.open("/proc/self/ns/mnt", os.O_RDONLY),
    "process": lambda: os.open("/proc/self/status", os.O_RDONLY),
}
fd = kinds[kind]()
status = os.fstat(fd)
open("host", "w").write("%d:%d\n" % (status.st_dev, status.st_ino))
for number in numbers:
    os.dup2(fd, int(number))
os.execvp(command[0], command)
"#;

const KINDS: [&str; 25] = [
    "stream-socket",
    "datagram-socket",
    "packet-socket",
    "listening-socket",
    "tcp-socket",
    "netlink-socket",
    "pipe",
    "fifo",
    "fifo-path",
    "file",
    "file-path",
    "directory",
    "directory-path",
    "null",
    "null-path",
    "zero",
    "full",
    "terminal",
    "master",
    "memfd",
    "eventfd",
    "epoll",
    "pidfd",
    "namespace",
    "process",
];

const LEVELS: [&str; 3] = ["no", "yes", "strict"];

/// A world in which the subhost `mta` can boot at the level, and the program hold.py.
fn world(level: &str) -> (World, String) {
    let world = World::new();
    world.ok("mkdir lib && mount --bind lib /var/lib");
    let conf = world.subhost("mta", &format!("PROTECT={level}"));
    world.ok("chmod 700 mta");
    world.write("hold.py", HOLD);
    (world, conf)
}

/// The same with the subhost running.
fn booted(level: &str) -> World {
    let (world, conf) = world(level);
    world.ok(&format!("overlay-boot {conf}"));
    world
}

/// Notes in /root/seen the device, the inode and the name of each standard descriptor that a
/// process inside has.
const LOOK: &str = "exec 9>/root/seen; cd /proc/$$/fd; \
                    for fd in 0 1 2; do echo $(stat -L -c %d:%i $fd) $(readlink $fd) >&9; done";

/// Checks that the process which ran LOOK had three descriptors, and not the object that HOLD made.
#[track_caller]
fn assert_not_inside(world: &World, what: &str) {
    let (host, seen) = (world.read("host"), world.read("mta/root/root/seen"));
    assert_eq!(seen.lines().count(), 3, "{what}: {seen}");
    let is_host = |line: &str| line.split(' ').next() == Some(host.trim());
    assert!(!seen.lines().any(is_host), "{what}: {host} in {seen}");
    assert!(!seen.contains("socket:"), "{what}: {seen}");
}

#[test]
fn f16_no_descriptor_of_the_caller_is_inside() {
    if !is_root_or_tell("levels of protection") {
        return;
    }
    for level in LEVELS {
        let world = booted(level);
        for kind in KINDS {
            for numbers in ["0", "12"] {
                let line =
                    format!("exec python3 hold.py {kind} {numbers} ob-enter mta sh -c \"$LOOK\"");
                let done = world.line(&line).env("LOOK", LOOK).run();
                assert_eq!(done.status, 0, "{level} {kind} {numbers}: {done:#?}");
                assert_not_inside(&world, &format!("{level} {kind} {numbers}"));
            }
        }
    }
}

/// What cannot be read is an empty input, and ob-enter does not spin meanwhile.
#[test]
fn f16_unreadable_input_is_at_its_end() {
    let world = booted("no");
    for kind in [
        "directory",
        "file-path",
        "fifo-path",
        "listening-socket",
        "null-path",
    ] {
        let line = format!("exec python3 hold.py {kind} 0 ob-enter mta sh -c 'cat; echo end'");
        assert_eq!(world.ok(&line), "end", "{kind}");
    }
}

/// Runs Python on the host with a socket pair: `ours` is at descriptors 0 and 1 of ob-enter, which
/// runs `command`.
fn talk(world: &World, command: &str, talk: &str) -> Done {
    let text = format!(
        "import socket, subprocess, sys\n\
         here, there = socket.socketpair()\n\
         here.settimeout(60)\n\
         child = subprocess.Popen(['ob-enter', 'mta', 'sh', '-c', {command:?}], stdin=there, stdout=there)\n\
         {talk}\n\
         sys.exit(child.wait(60))\n"
    );
    world.write("talk.py", &text);
    world.run("python3 talk.py")
}

#[test]
fn f16_socket_is_copied_both_ways() {
    let world = booted("no");
    // The same socket for reading and writing, as inetd(8) has it; the end of what the peer sends
    // is passed on.
    let done = talk(
        &world,
        "read a; echo got $a; cat; echo end; exit 3",
        "there.close(); here.sendall(b'one\\n'); print(here.recv(99))\n\
         here.sendall(b'two\\n'); here.shutdown(socket.SHUT_WR); print(b''.join(iter(lambda: here.recv(99), b'')))",
    );
    assert_eq!(
        (done.status, done.out.as_str()),
        (3, "b'got one\\n'\nb'two\\nend\\n'\n"),
        "{done:#?}"
    );
    // A command that closes its output and goes on: the peer reads the end, and can go on sending.
    let done = talk(
        &world,
        "echo x; exec >&-; cat >/root/sent",
        "there.close(); print(b''.join(iter(lambda: here.recv(99), b''))); here.sendall(b'more'); here.close()",
    );
    assert_eq!(
        (done.status, done.out.as_str()),
        (0, "b'x\\n'\n"),
        "{done:#?}"
    );
    assert_eq!(world.read("mta/root/root/sent"), "more");
    // A socket that other processes share stays open after the end of the command.
    let done = talk(
        &world,
        "echo x",
        "child.wait(60); there.sendall(b'y\\n'); there.close(); print(b''.join(iter(lambda: here.recv(99), b'')))",
    );
    assert_eq!(
        (done.status, done.out.as_str()),
        (0, "b'x\\ny\\n'\n"),
        "{done:#?}"
    );
    // Much, in both directions at once.
    let done = talk(
        &world,
        "cat",
        "import threading; there.close(); sent = bytes(range(256)) * 20000\n\
         threading.Thread(target=lambda: (here.sendall(sent), here.shutdown(socket.SHUT_WR))).start()\n\
         print(b''.join(iter(lambda: here.recv(65536), b'')) == sent)",
    );
    assert_eq!((done.status, done.out.as_str()), (0, "True\n"), "{done:#?}");
}

/// A shell that reads its script from a pipe must not execute what a command inside writes into
/// that pipe.
#[test]
fn f16_pipe_on_stdin_cannot_be_written_inside() {
    if !is_root_or_tell("levels of protection") {
        return;
    }
    for level in LEVELS {
        let world = booted(level);
        let inject = "echo 'echo fell >fell' >/proc/self/fd/0; true";
        let script = format!("ob-enter mta sh -c \"{inject}\"\necho went on\n");
        world.write("script", &script);
        assert_eq!(world.ok("cat script | sh"), "went on", "{level}");
        assert!(!world.has("fell"), "{level}");
    }
}

/// A process that a command has left behind cannot read data from the pipe of the caller.
#[test]
fn f16_pipe_on_stdout_cannot_be_read_inside() {
    if !is_root_or_tell("levels of protection") {
        return;
    }
    for level in LEVELS {
        let world = booted(level);
        let steal =
            "exec 9<>/proc/self/fd/1; (timeout 2 cat <&9 >/root/stolen) 2>/dev/null & sleep .2";
        let line = format!(
            "{{ ob-enter mta sh -c '{steal}'; seq 1000; sleep .5; }} | {{ sleep 1; cat; }} | wc -l"
        );
        assert_eq!(world.ok(&line), "1000", "{level}");
        assert_eq!(
            world.ok("cat mta/root/root/stolen 2>/dev/null || :"),
            "",
            "{level}"
        );
    }
}

/// A FIFO of the host is a file of the host.
#[test]
fn f16_fifo_keeps_its_mode_and_owner() {
    if !is_root_or_tell("levels of protection") {
        return;
    }
    for level in LEVELS {
        let world = booted(level);
        world.ok("mkfifo -m 600 fifo");
        let change = "for fd in 0 1 2; do chmod 666 /proc/self/fd/$fd; chown 1000:1000 /proc/self/fd/$fd; done; true";
        world.ok(&format!("ob-enter mta sh -c '{change}' <>fifo >fifo 2>&1"));
        assert_eq!(world.ok("stat -c '%a %u:%g' fifo"), "600 0:0", "{level}");
    }
}

/// A loop over a pipe on the host gives each command inside what that reads, and no more.
#[test]
fn f16_pipe_is_read_no_further_than_the_command_does() {
    if !is_root_or_tell("levels of protection") {
        return;
    }
    for level in LEVELS {
        let world = booted(level);
        let line =
            "printf 'a\\nb\\nc\\n' | while read -r x; do ob-enter mta sh -c \"echo +$x\"; done";
        assert_eq!(world.ok(line), "+a\n+b\n+c", "{level}");
        let line = "seq 100000 | { ob-enter mta sh -c 'read a; read b; echo $a $b'; head -n 1; }";
        assert_eq!(world.ok(line), "1 2\n3", "{level}");
        let line = "seq 100000 >in; cat in | ob-enter mta cat | cmp - in && echo same";
        assert_eq!(world.ok(line), "same", "{level}");
    }
}

/// A reader that does not read delays ob-enter at most two seconds after TERM.
#[test]
fn r16_enter_ends_on_term_while_its_reader_waits() {
    let world = booted("no");
    let line = "{ ob-enter mta yes; echo $? >status; } | { sleep 60; exit; }";
    let _enter = world.line(line).start();
    until("the pipe to be full", || {
        world
            .run("grep -q State:.S /proc/$(pidof yes)/status")
            .status
            == 0
    });
    world.ok("kill -TERM $(pidof ob-enter)");
    until("its end", || world.run("test -s status").status == 0);
    assert_eq!(world.read("status"), "143\n");
}

/// The line that runs `$COMMAND` as pid 1; `before` starts the last stage.
fn as_pid_1(conf: &str, before: &str) -> String {
    format!(
        "ob-room sh -c 'ob-conf {conf} | ob-mount | ob-cable | {before} ob-unshare -- sh -c \"$COMMAND\"'"
    )
}

#[test]
fn f16_pid_1_has_no_output_of_the_caller() {
    if !is_root_or_tell("levels of protection") {
        return;
    }
    for level in LEVELS {
        let (world, conf) = world(level);
        for kind in KINDS {
            let before = format!("exec python3 hold.py {kind} 12");
            let line = world.line(&as_pid_1(&conf, &before));
            let done = line.env("COMMAND", LOOK).run();
            assert_eq!(done.status, 0, "{level} {kind}: {done:#?}");
            assert_not_inside(&world, &format!("{level} {kind}"));
        }
    }
}

#[test]
fn f16_output_of_pid_1_is_copied_whole() {
    let (world, conf) = world("no");
    let run = |line: &str, command: &str| {
        let line = line.replace("RUN", &as_pid_1(&conf, ""));
        world.line(&line).env("COMMAND", command).run()
    };
    let done = run("RUN", "echo out; echo error >&2; exit 3");
    assert_eq!(
        (done.status, done.out.as_str(), done.err.as_str()),
        (3, "out\n", "error\n")
    );
    let done = run(
        "RUN >both 2>&1; cat both",
        "for i in 1 2 3; do echo $i; echo +$i >&2; done",
    );
    assert_eq!(done.out, "1\n+1\n2\n+2\n3\n+3\n");
    let done = run("RUN >much; wc -l <much", "seq 300000");
    assert_eq!(done.out, "300000\n");
    // A reader that takes one line ends it.
    let done = run("RUN | head -n 1", "yes 2>/dev/null");
    assert_eq!(done.out, "y\n");
    // One that takes nothing keeps neither the subhost nor its supervisor when they must end.
    let line =
        "{ RUN; echo $? >status; } | { sleep 60; exit; }".replace("RUN", &as_pid_1(&conf, ""));
    let _running = world.line(&line).env("COMMAND", "exec /bin/yes").start();
    until("the pipe to be full", || {
        world
            .run("grep -q State:.S /proc/$(pidof yes)/status")
            .status
            == 0
    });
    world.ok("overlay-stop mta");
    world.ok("kill -TERM $(pidof ob-unshare)");
    until("its end", || world.has("status"));
    assert_eq!(world.ok("ls /run/overlay-boot"), "");
}

/// With `>/dev/null`, root inside must not get a descriptor of the node of the host.
#[test]
fn f21_null_of_the_caller_keeps_its_mode() {
    if !is_root_or_tell("device nodes") {
        return;
    }
    for level in LEVELS {
        let (world, conf) = world(level);
        world.ok("mount -t tmpfs tmpfs lib && mknod -m 666 lib/null c 1 3");
        let change = "for fd in 0 1 2; do chmod 444 /proc/self/fd/$fd; chown 1:1 /proc/self/fd/$fd; done; true";
        let line = format!("{} <lib/null >lib/null 2>&1", as_pid_1(&conf, ""));
        world.line(&line).env("COMMAND", change).run().ok();
        assert_eq!(
            world.ok("stat -c '%a %u:%g' lib/null"),
            "666 0:0",
            "{level}"
        );
        world.ok(&format!("overlay-boot {conf}"));
        world.ok(&format!(
            "ob-enter mta sh -c '{change}' <lib/null >lib/null 2>&1"
        ));
        assert_eq!(
            world.ok("stat -c '%a %u:%g' lib/null"),
            "666 0:0",
            "{level}"
        );
    }
}

/// ^Z in a pipeline stops ob-enter, whose child is in the pid namespace that must end.
#[test]
fn r06_stopped_enter_does_not_keep_its_subhost() {
    let world = booted("no");
    let mut enter = world.line("ob-enter mta sleep 1000 | cat").start();
    let state = |state: &str| {
        let line = format!("grep -q State:.{state} /proc/$(pgrep -ox ob-enter)/status");
        world.run(&line).status == 0
    };
    until("the command", || {
        world.run("pidof sleep").status == 0 && state("S")
    });
    world.ok("kill -TSTP $(pgrep -ox ob-enter)");
    until("ob-enter to stop", || state("T"));
    world.ok("timeout 60 overlay-stop mta");
    until("the end of ob-enter", || !enter.is_running());
    assert_eq!(world.ok("ls /run/overlay-boot"), "");
}
