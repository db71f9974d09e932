//! `ob-reaper --stand-in`: the placeholder, which keeps a subhost without services running.

mod common;

use common::{Running, descriptors, name, reaper, send, until, waits, world};
use nix::sys::signal::Signal;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

/// A temporary directory, removed when it is dropped.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Place {
        let path = std::env::temp_dir().join(format!("ob-reaper-{test}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn fifo(&self) -> PathBuf {
        self.0.join("fifo")
    }

    /// Starts the placeholder and waits until it waits for a signal.
    fn start(&self) -> Running {
        let mut command = reaper(&["--stand-in"]);
        command.arg(self.fifo());
        let running = Running::start(command);
        until("the placeholder waits", || {
            name(running.pid()) == "dummy_service" && waits(running.pid())
        });
        running
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn placeholder_makes_a_fifo_and_exits_on_write() {
    let place = Place::new("write");
    let running = place.start();
    let status = fs::symlink_metadata(place.fifo()).unwrap();
    assert!(status.file_type().is_fifo());
    assert_eq!(status.permissions().mode() & 0o7777, 0o600);
    fs::write(place.fifo(), "x").unwrap();
    let end = running.end();
    assert_eq!((end.status, end.err.as_str()), (Some(0), ""));
    assert!(
        !place.fifo().exists(),
        "the placeholder removes the FIFO that it created"
    );
}

#[test]
fn placeholder_process_is_named_dummy_service() {
    let place = Place::new("name");
    let running = place.start();
    let line = fs::read(format!("/proc/{}/cmdline", running.pid())).unwrap();
    let words: Vec<_> = line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(
        words,
        [
            b"dummy_service".as_slice(),
            place.fifo().as_os_str().as_encoded_bytes()
        ]
    );
}

#[test]
fn placeholder_keeps_an_existing_fifo() {
    let place = Place::new("keep");
    nix::unistd::mkfifo(&place.fifo(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = place.start();
    fs::write(place.fifo(), "x").unwrap();
    assert_eq!(running.end().status, Some(0));
    assert!(place.fifo().exists());
}

#[test]
fn placeholder_keeps_a_file_that_replaced_the_fifo() {
    let place = Place::new("swap");
    let running = place.start();
    fs::remove_file(place.fifo()).unwrap();
    fs::write(place.fifo(), "precious").unwrap();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().status, Some(0));
    assert_eq!(fs::read(place.fifo()).unwrap(), b"precious");
}

#[test]
fn opening_the_fifo_does_not_end_the_placeholder() {
    let place = Place::new("open");
    let mut running = place.start();
    for _ in 0..20 {
        let open = OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(place.fifo());
        drop(open.expect("the placeholder has the FIFO open"));
        until("the placeholder waits", || waits(running.pid()));
    }
    assert!(running.lives());
    fs::write(place.fifo(), "x").unwrap();
    assert_eq!(running.end().status, Some(0));
}

#[test]
fn signal_ends_the_placeholder_cleanly() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let place = Place::new(signal.as_str());
        let mut running = place.start();
        running.signal(Signal::SIGUSR1);
        until("the placeholder waits", || waits(running.pid()));
        assert!(running.lives(), "USR1 does not end the placeholder");
        running.signal(signal);
        let end = running.end();
        assert_eq!((end.status, end.err.as_str()), (Some(0), ""), "{signal}");
        assert!(!place.fifo().exists(), "{signal}");
    }
}

#[test]
fn placeholder_idles_without_a_fifo_if_mkfifo_fails() {
    let place = Place::new("none");
    let expect = |what: &str, why: &str| {
        let running = place.start();
        running.signal(Signal::SIGTERM);
        let end = running.end();
        let path = place.fifo();
        let said = format!(
            "ob-reaper: wait for a signal only, without the fifo {}: {why}\n",
            path.display()
        );
        assert_eq!((end.status, end.err), (Some(0), said), "{what}");
    };
    fs::write(place.fifo(), "a file").unwrap();
    expect("a file", "File exists");
    assert_eq!(fs::read(place.fifo()).unwrap(), b"a file");

    const LOOP: &str = if cfg!(target_env = "musl") {
        "Symbolic link loop"
    } else {
        "Too many levels of symbolic links"
    };
    let target = place.0.join("target");
    nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::remove_file(place.fifo()).unwrap();
    symlink(&target, place.fifo()).unwrap();
    expect("a planted link", LOOP);
    assert!(place.fifo().is_symlink() && target.exists());

    fs::remove_dir_all(&place.0).unwrap();
    expect("no directory", "No such file or directory");
}

#[test]
fn placeholder_closes_inherited_descriptors() {
    let place = Place::new("close");
    let mut shell = Command::new("sh");
    let script = r#"exec 4</ 5</dev/null; exec "$0" --stand-in "$1""#;
    shell.args(["-c", script, common::REAPER]).arg(place.fifo());
    let running = Running::start(shell);
    until("the placeholder waits", || {
        name(running.pid()) == "dummy_service" && waits(running.pid())
    });
    assert_eq!(
        descriptors(running.pid()),
        ["0", "1", "2", "3"],
        "3 is the FIFO"
    );
}

#[test]
fn placeholder_keeps_the_subhost_alive() {
    // The default FIFO, as in a boot without services.
    let script = r#"mount -t tmpfs none /run || exit 9; exec "$REAPER" --with-stand-in mta 60"#;
    let running = Running::start(world(script));
    let pid1 = running.pid1();
    let mut stand_in = 0;
    until("the placeholder waits", || {
        stand_in = common::children(pid1).first().copied().unwrap_or(0);
        name(stand_in) == "dummy_service" && waits(stand_in)
    });
    fs::write(format!("/proc/{stand_in}/root/run/dummy_service"), "x").unwrap();
    assert_eq!(running.end().status, Some(0));

    let running = Running::start(world(script));
    send(running.pid1(), Signal::SIGTERM);
    let end = running.end();
    assert_eq!((end.status, end.err.as_str()), (Some(0), ""));
}

#[test]
fn write_before_the_placeholder_idles_is_not_lost() {
    for _ in 0..50 {
        let place = Place::new("early");
        let mut command = reaper(&["--stand-in"]);
        command.arg(place.fifo());
        let running = Running::start(command);
        until("the FIFO exists", || place.fifo().exists());
        fs::write(place.fifo(), "x").unwrap();
        assert_eq!(running.end().status, Some(0));
    }
}
