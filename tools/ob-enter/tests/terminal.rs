//! Tests of ob-enter on a terminal.

#[allow(dead_code)] // each test program uses its part of it
mod rig;

use nix::sys::termios::{LocalFlags, Termios};
use ob_sys::terminal::{resize, size};
use rig::{Screen, World, code, pair, until};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// The checksum of the pasted text.
const MD5: &str = "609a85cd4d5f8894e9bb58a7d7441347";

const ALL: [bool; 3] = [true; 3];

fn is_cooked(screen: &Screen) -> bool {
    screen
        .mode()
        .local_flags
        .contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
}

fn shell(world: &World, script: &str) -> Command {
    world.enter(&["mta", "sh", "-c", script])
}

#[test]
fn security_4_command_gets_a_terminal_of_the_subhost() {
    let world = World::new();
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all; ls -l /proc/$$/fd/1 | sed 's/.*-> //'; true </dev/tty && echo controlled; stty size";
    let mut screen = Screen::new(shell(&world, script), ALL);
    assert_eq!(screen.end(), 0);
    assert_eq!(
        screen.seen,
        "/dev/pts/0\r\nall\r\n/dev/pts/0\r\ncontrolled\r\n30 100\r\n"
    );
    assert!(is_cooked(&screen));
}

#[test]
fn security_4_command_without_terminal_has_no_tty() {
    let world = World::new();
    let mut command = world.command("setsid");
    let line = "$E mta sh -c 'true </dev/tty || echo none' </dev/null 2>&1 | cat";
    command
        .args(["-c", "-w", "sh", "-c", line])
        .env("E", env!("CARGO_BIN_EXE_ob-enter"));
    let mut screen = Screen::new(command, ALL);
    screen.expect("none");
    assert_eq!(screen.end(), 0);
    let mut screen = Screen::new(
        world.enter(&[
            "--no-pty",
            "mta",
            "sh",
            "-c",
            "readlink /proc/$$/fd/1; read a; echo got $a",
        ]),
        ALL,
    );
    screen.expect("pipe:");
    screen.type_in("line\n");
    screen.expect("got line");
    assert_eq!(screen.end(), 0);
}

#[test]
fn root_without_devpts_gets_a_terminal_of_the_host() {
    let world = World::new();
    let command = world.enter(&["bare", "sh", "-c", "test -t 0 && test -t 1 && stty size"]);
    let mut screen = Screen::new(command, ALL);
    assert_eq!(screen.end(), 0);
    assert_eq!(screen.seen, "30 100\r\n");
}

#[test]
fn control_keys_signal_the_command_inside() {
    let world = World::new();
    let script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep .05; done";
    let mut screen = Screen::new(shell(&world, script), ALL);
    screen.expect("ready");
    assert!(!is_cooked(&screen));
    screen.type_in("\x03");
    screen.expect("interrupted");
    assert_eq!(screen.end(), 3);
    assert!(is_cooked(&screen));
    let mut screen = Screen::new(shell(&world, "echo ready; cat; echo end"), ALL);
    screen.expect("ready");
    screen.type_in("typed\n\x04");
    screen.expect("typed\r\ntyped\r\nend");
    assert_eq!(screen.end(), 0);
}

#[test]
fn job_control_works_in_a_shell() {
    let world = World::new();
    let mut screen = Screen::new(world.enter(&["mta"]), ALL);
    screen.expect("# ");
    screen.type_in("sleep 1000\n");
    screen.expect("sleep 1000");
    until("sleep to run", || {
        world.sh("pgrep -x sleep -a | grep -q ' 1000$'").status == 0
    });
    screen.type_in("\x1a");
    screen.expect("Stopped");
    screen.type_in("fg\n");
    screen.expect("fg\r\nsleep 1000");
    until("sleep to go on", || {
        world
            .sh("p=$(pgrep -f '^sleep 1000$'); grep -q 'State:.S' /proc/$p/status")
            .status
            == 0
    });
    screen.type_in("\x03");
    screen.expect("# ");
    screen.type_in("echo status=$?\n");
    screen.expect("status=130");
    screen.type_in("exit 5\n");
    assert_eq!(screen.end(), 5);
}

#[test]
fn window_size_follows_the_outer_terminal() {
    let world = World::new();
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep .05; done";
    let mut command = world.command("setsid");
    command.args([
        "-c",
        "-w",
        env!("CARGO_BIN_EXE_ob-enter"),
        "mta",
        "sh",
        "-c",
        script,
    ]);
    let mut screen = Screen::new(command, ALL);
    screen.expect("ready");
    let mut window = size(screen.slave()).unwrap();
    (window.ws_row, window.ws_col) = (17, 71);
    resize(screen.master(), &window).unwrap();
    screen.expect("17 71");
    assert_eq!(screen.end(), 0);
}

#[test]
fn all_output_arrives_before_exit() {
    let world = World::new();
    for _ in 0..5 {
        let mut screen = Screen::new(shell(&world, "seq 20000"), ALL);
        assert_eq!(screen.end(), 0);
        let lines: Vec<&str> = screen.seen.lines().collect();
        assert_eq!((lines.len(), *lines.last().unwrap()), (20000, "20000"));
    }
    // A process that is left behind holds the terminal open; we do not wait for it.
    let mut screen = Screen::new(shell(&world, "trap '' HUP; sleep 3000 & echo last"), ALL);
    assert_eq!(screen.end(), 0);
    assert_eq!(screen.seen, "last\r\n");
}

#[test]
fn large_paste_arrives_whole() {
    let world = World::new();
    let script = "stty raw -echo; echo ready; head -c 500000 | md5sum";
    let mut screen = Screen::new(shell(&world, script), ALL);
    screen.expect("ready");
    screen.type_in(&"0123456789".repeat(50_000));
    screen.expect(MD5);
    assert_eq!(screen.end(), 0);
    // And one that comes back, in both directions at once.
    let mut screen = Screen::new(
        shell(
            &world,
            "stty raw -echo; echo ready; head -c 300000; echo end",
        ),
        ALL,
    );
    screen.expect("ready");
    screen.type_in(&"abcdefghij".repeat(30_000));
    screen.expect("jend");
    assert_eq!(screen.end(), 0);
}

#[test]
fn killed_subhost_restores_the_terminal() {
    let world = World::new();
    let mut screen = Screen::new(world.enter(&["mta"]), ALL);
    screen.expect("# ");
    assert!(!is_cooked(&screen));
    world.sh(r#"kill -9 $(sed 's/.*"pid":\([0-9]*\).*/\1/' /run/overlay-boot/mta/subhost)"#);
    assert_eq!(screen.end(), 137);
    assert!(
        screen
            .seen
            .contains("ob-enter: mta: the subhost has ended\r\n"),
        "{:?}",
        screen.seen
    );
    assert!(is_cooked(&screen));
}

#[test]
fn signal_restores_the_terminal() {
    let world = World::new();
    for (signal, status) in [("TERM", 129), ("HUP", 129), ("INT", 129)] {
        let mut screen = Screen::new(world.enter(&["mta"]), ALL);
        screen.expect("# ");
        let killed = world.sh(&format!("kill -{signal} $(pidof ob-enter)"));
        assert_eq!(killed.status, 0, "{killed:?}");
        assert_eq!(screen.end(), status, "{signal}");
        assert!(is_cooked(&screen));
    }
    // A command that ignores the hangup is killed.
    let mut screen = Screen::new(
        shell(&world, "trap '' HUP; echo ready; exec sleep 98765"),
        ALL,
    );
    screen.expect("ready");
    world.sh("kill -TERM $(pidof ob-enter)");
    assert_eq!(screen.end(), 143);
    until("it to end", || {
        world.sh("pgrep -f '^sleep 98765'").status == 1
    });
}

#[test]
fn closed_window_ends_ob_enter() {
    let world = World::new();
    let script =
        "trap 'echo hangup >/tmp/told; exit 4' HUP; echo ready; while :; do sleep .05; done";
    let (master, slave) = pair();
    let mut command = shell(&world, script);
    command.stdin(slave.try_clone().unwrap());
    command.stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut line = String::new();
    BufReader::new(File::from(master))
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\r\n");
    assert_eq!(code(child.wait().unwrap()), 4);
    assert_eq!(world.sh("cat /run/root/tmp/told").out, "hangup");
}

#[test]
fn pipeline_leaves_the_terminal_alone() {
    let world = World::new();
    let mut command = shell(
        &world,
        "test -t 0 && ! test -t 1 && echo pipe >&2; cat; echo end >&2",
    );
    command.stdout(Stdio::piped());
    let mut screen = Screen::new(command, [true, false, true]);
    screen.expect("pipe\r\n");
    assert!(is_cooked(&screen));
    // After each line, cat of busybox may wait for the next one with the lock of its output.
    for _ in 0..20 {
        screen.type_in("a line\n");
        screen.expect("a line\r\n");
    }
    screen.type_in("\x04");
    screen.expect("end\r\n");
    assert_eq!(screen.end(), 0);
    // A pager at the end of the pipeline has the keys to itself.
    let command = shell(&world, "echo ready >&2; read a; echo got $a >&2");
    let mut command = command;
    command.stdout(Stdio::piped());
    let mut screen = Screen::new(command, [true, false, true]);
    screen.expect("ready");
    let cooked = screen.mode();
    let mut paged = cooked.clone();
    paged.local_flags -= LocalFlags::ICANON;
    let set = |mode: &Termios| {
        nix::sys::termios::tcsetattr(screen.slave(), nix::sys::termios::SetArg::TCSANOW, mode)
            .unwrap();
    };
    set(&paged);
    nix::unistd::write(screen.master(), b"q\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(
        ob_sys::terminal::waiting(screen.slave()).unwrap(),
        2,
        "nobody has taken the keys"
    );
    set(&cooked);
    screen.expect("got q");
    assert_eq!(screen.end(), 0);
}
