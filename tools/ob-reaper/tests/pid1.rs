//! `ob-reaper NAME`: pid 1 of a subhost.

mod common;

use common::{Running, children, descriptors, run, send, state, status, until, waits, world};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// A service that prints `ready`, and `bye` on SIGTERM.
const POLITE: &str = r#"exec 3<&0; sh -c 'trap "echo bye; exit" TERM; echo ready; read x' <&3 &"#;
/// A service that ignores SIGTERM.
const STUBBORN: &str = r#"sh -c 'trap "" TERM; echo ready; exec sleep 1000' &"#;
/// A service that exits when the test closes standard input.
const LISTENER: &str = "exec 3<&0; cat <&3 >/dev/null &";

#[test]
fn reaper_without_children_exits_at_once() {
    let end = run(world(r#"exec "$REAPER" mta"#));
    assert_eq!((end.status, end.err.as_str()), (Some(0), ""));
}

#[test]
fn reaper_exits_with_its_last_child() {
    let mut running = Running::start(world(&format!(r#"{LISTENER} (:) & exec "$REAPER" mta"#)));
    let pid1 = running.pid1();
    until("the first child is reaped", || {
        children(pid1).len() == 1 && waits(pid1)
    });
    assert!(running.lives());
    running.hang_up();
    let end = running.end();
    assert_eq!((end.status, end.err.as_str()), (Some(0), ""));
}

#[test]
fn reaper_resets_an_ignored_sigchld() {
    let script = format!(r#"{LISTENER} exec env --ignore-signal=CHLD "$REAPER" mta"#);
    let mut running = Running::start(world(&script));
    running.pid1();
    running.hang_up();
    assert_eq!(running.end().status, Some(0));
}

#[test]
fn reaper_closes_descriptors_of_the_shell() {
    let script = format!(r#"{LISTENER} exec 4</ 5</dev/null 9>/dev/null; exec "$REAPER" mta"#);
    let running = Running::start(world(&script));
    assert_eq!(descriptors(running.pid1()), ["0", "1", "2"]);
}

#[test]
fn reaper_started_from_a_descriptor_has_its_name() {
    let script = format!(r#"{LISTENER} exec 9<"$REAPER"; exec /proc/self/fd/9 mta"#);
    let running = Running::start(world(&script));
    assert_eq!(descriptors(running.pid1()), ["0", "1", "2"]);
}

#[test]
fn term_int_and_pwr_shut_down_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR] {
        let running = Running::start(world(&format!(r#"{POLITE} exec "$REAPER" mta 60"#)));
        running.ready();
        send(running.pid1(), signal);
        let end = running.end();
        assert_eq!(end.out, "bye\n", "{signal}: {end:?}");
        assert_eq!((end.status, end.err.as_str()), (Some(0), ""), "{signal}");
    }
}

#[test]
fn term_from_inside_shuts_down() {
    let script = r#"exec 3<&0
        sh -c 'trap "echo bye; exit" TERM; echo ready; read go; kill -TERM 1; while :; do :; done' <&3 &
        exec "$REAPER" mta 60"#;
    let mut running = Running::start(world(script));
    running.ready();
    running.pid1();
    running.tell("go\n");
    let end = running.end();
    assert_eq!(
        (end.status, end.out.as_str()),
        (Some(0), "bye\n"),
        "{end:?}"
    );
}

#[test]
fn kill_and_stop_from_inside_have_no_effect() {
    let script = r#"exec 3<&0
        (read go; kill -KILL 1; kill -STOP 1; echo still; read go) <&3 & exec "$REAPER" mta"#;
    let mut running = Running::start(world(script));
    let pid1 = running.pid1();
    running.tell("go\n");
    assert_eq!(running.line(), "still");
    assert!(waits(pid1) && running.lives());
    running.hang_up();
    assert_eq!(running.end().status, Some(0));
}

#[test]
fn other_signals_are_ignored() {
    let mut running = Running::start(world(&format!(r#"{LISTENER} exec "$REAPER" mta"#)));
    let pid1 = running.pid1();
    let harmless = [
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGPIPE,
        Signal::SIGTSTP,
        Signal::SIGSEGV,
        Signal::SIGABRT,
    ];
    for signal in harmless {
        send(pid1, signal);
        until("the signal is handled", || {
            waits(pid1) || state(pid1).is_none()
        });
        assert!(running.lives(), "{signal}");
    }
    running.hang_up();
    assert_eq!(running.end().status, Some(0));
}

#[test]
fn many_terms_count_as_one() {
    let running = Running::start(world(&format!(r#"{POLITE} exec "$REAPER" mta 60"#)));
    running.ready();
    let pid1 = running.pid1();
    for _ in 0..1000 {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid1), Signal::SIGTERM);
    }
    let end = running.end();
    assert_eq!(
        (end.status, end.out.as_str()),
        (Some(0), "bye\n"),
        "{end:?}"
    );
}

#[test]
fn stragglers_are_killed_after_the_timeout() {
    for patience in [0, 1] {
        let script = format!(r#"{STUBBORN} exec "$REAPER" mta {patience}"#);
        let running = Running::start(world(&script));
        running.ready();
        let pid1 = running.pid1();
        let start = Instant::now();
        send(pid1, Signal::SIGTERM);
        let end = running.end();
        assert!(
            start.elapsed() >= Duration::from_secs(patience),
            "too early"
        );
        let said =
            format!("ob-reaper: mta: not all ended within {patience} s of TERM: sending KILL\n");
        assert_eq!((end.status, end.err), (Some(0), said));
    }
}

#[test]
fn stopped_service_gets_term() {
    let script =
        r#"sh -c 'trap "echo bye; exit" TERM; kill -STOP $$; exit 3' & exec "$REAPER" mta 60"#;
    let running = Running::start(world(script));
    let pid1 = running.pid1();
    until("the service stops", || {
        children(pid1).iter().any(|&pid| state(pid) == Some('T'))
    });
    send(pid1, Signal::SIGTERM);
    let end = running.end();
    assert_eq!(
        (end.status, end.out.as_str()),
        (Some(0), "bye\n"),
        "{end:?}"
    );
}

#[test]
fn reaper_refuses_to_run_unless_pid_1() {
    let end = run(common::reaper(&["mta"]));
    assert_eq!(end.status, Some(125));
    let said = "ob-reaper: mta: this is not pid 1; to run a command, say: ob-reaper -- CMD\n";
    assert_eq!(end.err, said);
}

/// Returns how long a process has waited for a CPU so far, `/proc/PID/schedstat`.
fn waited(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split(' ').nth(1).and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// The zombies that a test has seen among the children of a process.
#[derive(Default)]
struct Watch {
    dead_since: HashMap<i32, Instant>,
    oldest: Duration,
}

impl Watch {
    /// Updates the ages of the zombies. Returns the number of children, zombies included.
    fn look(&mut self, pid: i32) -> usize {
        let there = children(pid);
        for &child in &there {
            if state(child) == Some('Z') {
                let now = Instant::now();
                let since = *self.dead_since.entry(child).or_insert(now);
                self.oldest = self.oldest.max(now - since);
            }
        }
        there.len()
    }
}

fn memory(pid: i32) -> (String, String) {
    (status(pid, "VmRSS"), status(pid, "VmSize"))
}

/// Ends `orphans` orphans at once under a new pid 1. Returns the age of the oldest zombie, and the
/// bound for it.
fn storm(orphans: usize) -> (Duration, Duration) {
    // The orphans wait for the end of one pipe. Their parents have exited, so they are children of
    // pid 1.
    let script = format!(
        r#"exec 3<&0
        sh -c 'i=0; while [ $i -lt {orphans} ]; do (read x <&3 &); i=$((i+1)); done; echo ready; read x <&3' &
        sleep 1000 & exec "$REAPER" mta"#
    );
    let mut running = Running::start(world(&script));
    let pid1 = running.pid1();
    let before = memory(pid1);
    assert_eq!(running.line(), "ready");
    // Both services and all orphans; with fewer, the test would test less.
    until("all orphans run", || children(pid1).len() == orphans + 2);
    let idle = waited(pid1);
    running.hang_up();
    let mut watch = Watch::default();
    until("all orphans are reaped", || watch.look(pid1) == 1);
    let oldest = watch.oldest;
    let promise = Duration::from_millis(100) + waited(pid1) - idle;
    eprintln!("{orphans} orphans at once: the oldest zombie was {oldest:?} old");
    assert_eq!(memory(pid1), before);
    assert!(running.lives());
    (oldest, promise)
}

#[test]
fn ten_thousand_orphans_at_once_leave_no_zombie() {
    // Ten thousand exiting processes contend for tasklist_lock with all other processes of the
    // machine, so one storm of five within the bound is enough. A reaper that misses a SIGCHLD is
    // never within the bound.
    let kept = (0..5).any(|_| {
        let (oldest, promise) = storm(10_000);
        oldest < promise
    });
    assert!(kept, "a zombie was too old in each of five storms");
}

#[test]
fn stream_of_orphans_leaves_no_zombie() {
    // About 100 orphans a second, for OB_REAPER_SECONDS.
    let seconds = std::env::var("OB_REAPER_SECONDS").map_or(3, |text| text.parse().unwrap());
    let script = format!(
        r#"sh -c 'i=0; while [ $i -lt {} ]; do (sleep 0.02 &) ; sleep 0.01; i=$((i+1)); done' &
        sleep 1000 & exec "$REAPER" mta"#,
        seconds * 100
    );
    let mut running = Running::start(world(&script));
    let pid1 = running.pid1();
    let before = memory(pid1);
    let idle = waited(pid1);
    let start = Instant::now();
    let mut watch = Watch::default();
    while start.elapsed() < Duration::from_secs(seconds) {
        watch.look(pid1);
        thread::sleep(Duration::from_millis(2));
    }
    until("all orphans are reaped", || watch.look(pid1) == 1);
    let oldest = watch.oldest;
    let bound = Duration::from_millis(100) + waited(pid1) - idle;
    eprintln!(
        "100 orphans a second for {seconds} s: the oldest zombie was {oldest:?} old of {bound:?}"
    );
    assert!(
        oldest < bound,
        "a zombie was {oldest:?} old, more than {bound:?}"
    );
    assert_eq!(memory(pid1), before);
    assert!(running.lives());
}

#[test]
fn term_is_handled_while_children_keep_dying() {
    // The service forks as fast as it can and ignores SIGTERM: the reaper must check for signals
    // between two batches of zombies.
    let script =
        r#"sh -c 'trap "" TERM; echo ready; while :; do (: &) ; done' & exec "$REAPER" mta 0"#;
    let running = Running::start(world(script));
    assert_eq!(running.line(), "ready");
    let pid1 = {
        let mut found = 0;
        until("ob-reaper is pid 1", || {
            found = children(running.pid()).first().copied().unwrap_or(0);
            common::name(found) == "ob-reaper"
                && fs::read_dir(format!("/proc/{found}/fd")).is_ok_and(|open| open.count() == 3)
        });
        found
    };
    send(pid1, Signal::SIGTERM);
    assert_eq!(running.end().status, Some(0));
}
