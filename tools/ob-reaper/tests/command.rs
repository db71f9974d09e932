//! `ob-reaper -- CMD`: a command and its init, with the options of tini.

mod common;

use common::{REAPER, Running, children, reaper, run, send, status, until, waits, world};
use nix::libc;
use nix::pty::openpty;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::setsid;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

/// Starts a shell with `script` under `ob-reaper -s` and `options`. Waits until it prints `ready`.
fn start(options: &[&str], script: &str) -> Running {
    let mut command = reaper(options);
    command.args(["-s", "--", "sh", "-c", script]);
    let running = Running::start(command);
    running.ready();
    until("the reaper waits", || waits(running.pid()));
    running
}

#[test]
fn every_exit_status_is_returned() {
    for code in 0..=255 {
        let end = run(reaper(&["-s", "--", "sh", "-c", &format!("exit {code}")]));
        assert_eq!((end.status, end.err.as_str()), (Some(code), ""));
    }
}

#[test]
fn option_e_turns_only_its_status_into_0() {
    for code in 0..=255 {
        let exit = format!("exit {code}");
        let alone = code.to_string();
        let end = run(reaper(&["-s", "-e", &alone, "--", "sh", "-c", &exit]));
        assert_eq!(end.status, Some(0), "-e {code}");

        let others = (0..=255).filter(|&other| other != code);
        let others: Vec<String> = others.map(|other| format!("-e{other}")).collect();
        let mut command = reaper(&["-s"]);
        let end = run({
            command.args(others).args(["sh", "-c", &exit]);
            command
        });
        assert_eq!(end.status, Some(code), "-e for all but {code}");
    }
}

#[test]
fn death_by_signal_is_status_128_plus_number() {
    for number in [1, 2, 3, 6, 9, 11, 13, 15, 34, 64] {
        let script = format!("kill -{number} $$");
        let end = run(reaper(&["-s", "--", "sh", "-c", &script]));
        assert_eq!(end.status, Some(128 + number));
        let end = run(reaper(&[
            "-s",
            "-e",
            &(128 + number).to_string(),
            "--",
            "sh",
            "-c",
            &script,
        ]));
        assert_eq!(end.status, Some(0));
    }
}

#[test]
fn signals_are_forwarded() {
    // Signal 40 is a real-time signal.
    for number in [1, 2, 3, 10, 12, 13, 14, 15, 18, 20, 23, 24, 28, 29, 30, 40] {
        let script = format!("trap 'exit 42' {number}; echo ready; read x");
        let running = start(&[], &script);
        // SAFETY: kill(2) touches no memory; nix has no name for real-time signals.
        assert_eq!(unsafe { libc::kill(running.pid(), number) }, 0);
        assert_eq!(running.end().status, Some(42), "signal {number}");
    }
}

#[test]
fn signal_goes_to_the_command_or_its_group() {
    // The shell does not exit on USR1. Its child does, with status 7.
    let script = "trap '' TTIN; sh -c 'trap \"exit 7\" USR1; echo ready; read x'; exit $?";
    let shell = format!("trap : USR1; {script}");

    let running = start(&["-g"], &shell);
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.end().status, Some(7));

    let mut running = start(&[], &shell);
    running.signal(Signal::SIGUSR1);
    until("the signal is forwarded", || waits(running.pid()));
    assert!(
        running.lives(),
        "without -g the signal reached the child of the command"
    );
    let command = children(running.pid())[0];
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(command))).unwrap();
    assert_eq!(
        group.as_raw(),
        command,
        "the command leads a new process group"
    );
    nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
    assert_eq!(running.end().status, Some(128 + 9));
}

#[test]
fn orphans_are_reaped_and_reported_with_w() {
    // The command exits when kill -0 fails for its grandchild, which a zombie does not make fail.
    let script = r#"pid=$(sh -c 'sleep 0.01 >&- & echo $!'); while kill -0 $pid; do sleep 0.01; done 2>/dev/null; echo $pid"#;
    let end = run(reaper(&["-s", "-w", "--", "sh", "-c", script]));
    let said = format!(
        "ob-reaper: Reaped zombie process with pid={}\n",
        end.out.trim_end()
    );
    assert_eq!((end.status, end.err), (Some(0), said));

    let end = run(reaper(&["-s", "--", "sh", "-c", script]));
    assert_eq!((end.status, end.err.as_str()), (Some(0), ""));

    // As pid 1, without -s and without a warning.
    let inner = script.replace('\'', r"'\''");
    let end = run(world(&format!(r#"exec "$REAPER" -- sh -c '{inner}'"#)));
    assert_eq!((end.status, end.err.as_str()), (Some(0), ""));
}

#[test]
fn missing_subreaper_role_is_warned_about() {
    let end = run(reaper(&["--", "true"]));
    let said = "ob-reaper: neither pid 1 nor a subreaper, so zombie reaping won't work: say -s\n";
    assert_eq!((end.status, end.err.as_str()), (Some(0), said));
}

#[test]
fn verbose_logs_each_step() {
    let end = run(reaper(&["-sv", "--", "sh", "-c", "echo $$; exit 3"]));
    let pid = end.out.trim_end();
    let said = format!("ob-reaper: sh started as pid {pid}\nob-reaper: sh ended with status 3\n");
    assert_eq!((end.status, end.err), (Some(3), said));

    let running = start(&["-vv"], "trap 'exit 4' HUP; echo ready; read x");
    running.signal(Signal::SIGHUP);
    let end = running.end();
    assert!(
        end.err.contains("ob-reaper: sh: passing on signal 1\n"),
        "{end:?}"
    );
}

#[test]
fn command_gets_signals_as_the_reaper_inherited_them() {
    fn odd(mut command: Command) -> Command {
        // SAFETY: between fork and exec, the closure only calls the kernel.
        unsafe {
            command.pre_exec(|| {
                let blocked: SigSet = [Signal::SIGTTIN, Signal::SIGILL, Signal::SIGTERM]
                    .into_iter()
                    .collect();
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
                for ignored in [
                    Signal::SIGTTOU,
                    Signal::SIGSEGV,
                    Signal::SIGINT,
                    Signal::SIGCHLD,
                ] {
                    signal(ignored, SigHandler::SigIgn)?;
                }
                Ok(())
            });
        }
        command
    }
    let mut plain = Command::new("grep");
    plain.args(["^Sig[BIC]", "/proc/self/status"]);
    let plain = run(odd(plain));
    let under = run(odd(reaper(&[
        "-s",
        "--",
        "grep",
        "^Sig[BIC]",
        "/proc/self/status",
    ])));
    assert!(
        plain.out.contains("SigBlk:\t0000000000104008\n"),
        "{plain:?}"
    );
    assert_eq!((under.status, &under.out), (Some(0), &plain.out));
}

#[test]
fn option_p_signals_when_the_parent_dies() {
    for name in ["SIGUSR1", "USR1", "10"] {
        let script = "trap 'echo orphaned; exit' USR1; echo ready; read x";
        let mut parent = Command::new("sh");
        parent.args([
            "-c",
            r#"exec 3<&0; "$@" <&3 & wait"#,
            "sh",
            REAPER,
            "-s",
            "-p",
            name,
            "--",
            "sh",
            "-c",
            script,
        ]);
        let running = Running::start(parent);
        running.ready();
        let reaper = children(running.pid())[0];
        until("the reaper waits", || waits(reaper));
        running.signal(Signal::SIGKILL);
        assert_eq!(running.line(), "orphaned", "-p {name}");
        until("the reaper exits", || {
            !matches!(common::state(reaper), Some('S' | 'R'))
        });
    }
}

#[test]
fn failing_exec_is_status_126_or_127() {
    for (command, status, why) in [
        ("/nonexistent/command", 127, "No such file or directory"),
        ("no-such-command", 127, "No such file or directory"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/", 126, "Permission denied"),
        ("/etc/passwd/x", 126, "Not a directory"),
    ] {
        let end = run(reaper(&["-s", "--", command]));
        let said = format!("ob-reaper: run {command}: {why}\n");
        assert_eq!((end.status, end.err), (Some(status), said));
    }
}

#[test]
fn usage_error_is_status_2_and_one_line() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "neither NAME nor -- CMD"),
        (&["--"], "there is no command to run"),
        (&["-s"], "there is no command to run"),
        (&["-x", "--", "true"], "there is no option -x"),
        (&["-sx", "--", "true"], "there is no option -x"),
        (
            &["--subreaper", "--", "true"],
            "there is no option --subreaper",
        ),
        (&["-e"], "an option lacks its value: -e"),
        (
            &["-e", "256", "--", "true"],
            "not a status from 0 to 255: 256",
        ),
        (
            &["-e", "-1", "--", "true"],
            "not a status from 0 to 255: -1",
        ),
        (&["-p", "SIGNAL", "--", "true"], "there is no signal SIGNAL"),
        (&["mta", "soon"], "not a number of seconds: soon"),
        (&["mta", "1", "2"], "unexpected argument: 2"),
        (&["--stand-in", "/x", "/y"], "unexpected argument: /y"),
    ];
    for (args, what) in cases {
        let end = run(reaper(args));
        let said = format!("ob-reaper: {what}; see ob-reaper --help\n");
        assert_eq!(
            (end.status, end.err, end.out.as_str()),
            (Some(2), said, ""),
            "{args:?}"
        );
    }
}

#[test]
fn options_end_at_the_first_operand() {
    let end = run(reaper(&["-s", "echo", "-s", "--", "-h"]));
    assert_eq!((end.status, end.out.as_str()), (Some(0), "-s -- -h\n"));
    let end = run(reaper(&["-s", "--", "--", "x"]));
    assert_eq!(end.status, Some(127), "the second -- is the command");
}

#[test]
fn help_and_version_are_printed() {
    for args in [["--help"], ["-h"], ["-sh"]] {
        let end = run(reaper(&args));
        assert_eq!((end.status, end.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(
            end.out.contains("Examples:\n") && end.out.lines().count() <= 24,
            "{args:?}"
        );
        assert!(end.out.lines().all(|line| line.len() < 80), "{args:?}");
    }
    for args in [["--version"], ["-V"]] {
        let end = run(reaper(&args));
        let version = concat!("ob-reaper ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(
            (end.status, end.out.as_str()),
            (Some(0), version),
            "{args:?}"
        );
    }
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let done = reaper(&["--help"]).stdout(full).output().unwrap();
    assert_eq!(done.status.code(), Some(125));
    let said = "ob-reaper: write to standard output: No space left on device\n";
    assert_eq!(String::from_utf8_lossy(&done.stderr), said);
}

#[test]
fn variables_of_tini_are_honoured() {
    for (variable, value) in [("TINI_SUBREAPER", ""), ("TINI_VERBOSITY", "0")] {
        let mut command = reaper(&["--", "true"]);
        let end = run({
            command.env(variable, value);
            command
        });
        assert_eq!((end.status, end.err.as_str()), (Some(0), ""), "{variable}");
    }
}

#[test]
fn closed_stderr_does_not_cause_failure() {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#""$0" -vvs -- sh -c 'exit 5' 2>&-"#, REAPER]);
    assert_eq!(run(shell).status, Some(5));
}

#[test]
fn killed_reaper_has_no_exit_status() {
    let running = start(&[], "echo ready; read x");
    let command = children(running.pid())[0];
    running.signal(Signal::SIGKILL);
    send(command, Signal::SIGKILL);
    assert_eq!(running.end().status, None);
}

#[test]
fn memory_stays_constant() {
    let running = start(
        &["-w", "-vv"],
        "trap : HUP; echo ready; while :; do (: &) ; sleep 0.001; done",
    );
    let before = status(running.pid(), "VmSize");
    for _ in 0..1000 {
        running.signal(Signal::SIGHUP);
    }
    until("the signals are forwarded", || waits(running.pid()));
    assert_eq!(status(running.pid(), "VmSize"), before);
    let command = children(running.pid())[0];
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(command), Signal::SIGKILL).unwrap();
}

/// Runs a shell script as the leader of a session with a new terminal. Returns its exit status.
fn on_a_terminal(script: &str) -> Option<i32> {
    let pty = openpty(None, None).unwrap();
    let terminal = File::from(pty.slave);
    let number = terminal.as_raw_fd();
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).env("REAPER", REAPER);
    shell.stdin(terminal.try_clone().unwrap());
    // SAFETY: between fork and exec, the closure only calls the kernel. The descriptor stays open
    // until after that.
    unsafe {
        shell.pre_exec(move || {
            setsid()?;
            match libc::ioctl(number, libc::TIOCSCTTY, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let mut child = shell.spawn().unwrap();
    until("the shell exits", || child.try_wait().unwrap().is_some());
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), None, "killed by a signal");
    status.code()
}

/// Compares the process group and the foreground group, fields 5 and 8 of `/proc/PID/stat`.
const CHECK: &str = r#"check() { set -- $(cat /proc/$$/stat); [ "$5" = "$8" ]; }"#;

#[test]
fn command_gets_the_terminal_and_returns_control() {
    let inner =
        format!("{CHECK}; check && [ $$ = $(cut -d\\  -f5 /proc/$$/stat) ]").replace('\'', "");
    let script = format!(
        r#"{CHECK}; check || exit 3; "$REAPER" -s -- sh -c '{inner}' || exit 4; check || exit 5"#
    );
    assert_eq!(on_a_terminal(&script), Some(0));
}

#[test]
fn background_reaper_does_not_take_the_terminal() {
    let script = format!(
        r#"{CHECK}; set -m; "$REAPER" -s -- sh -c '{CHECK}; check && exit 9; exit 0' < /dev/tty & wait $!"#
    );
    assert_eq!(on_a_terminal(&script), Some(0));
}
