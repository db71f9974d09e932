//! The floor: one process that makes exactly the system calls that the job needs. It reads no
//! configuration, writes no log, takes no lock, reports nothing and undoes nothing. Other times are
//! given as multiples of its time.
//!
//! - `floor boot DIR NAME BRIDGE`: boots a subhost with DIR/root over `/` and a cable to BRIDGE;
//!   pid 1 is `sh /bench-init`
//! - `floor enter NAME CMD [ARG...]`: runs CMD inside
//! - `floor stop NAME...`: stops subhosts; returns when their cables are gone
//! - `floor room DIR NAME BRIDGE CMD [ARG...]`: makes the overlay on DIR/live and the cable, for
//!   programs that lack these, and executes CMD in the network namespace; without a cable if BRIDGE
//!   is `-`
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::libc::{self, makedev};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat, umask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{
    Gid, Pid, chdir, chown, dup2_stderr, dup2_stdin, dup2_stdout, execv, pipe2, pivot_root, read,
    setsid, symlinkat, unlink,
};
use ob_cable::links::{Links, Pair, Watch};
use ob_sys::mount::{Filesystem, attach};
use ob_sys::process::{pidfd_open, pidfd_signal, set_cloexec_from, spawn};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["boot", directory, name, bridge] => boot(directory, name, bridge).map(|()| 0),
        ["enter", name, ref command @ ..] => enter(name, command),
        ["stop", ref names @ ..] => stop(names).map(|()| 0),
        ["room", directory, name, bridge, ref command @ ..] => {
            room(directory, name, bridge, command).map(|()| 0)
        }
        _ => Err(anyhow::anyhow!("usage: see the head of floor.rs")),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the path of the file with the pid of pid 1.
fn note(name: &str) -> String {
    format!("/run/floor-{name}")
}

/// Returns the path of the name of the network namespace.
fn pin(name: &str) -> String {
    format!("/run/floor-net-{name}")
}

fn boot(directory: &str, name: &str, bridge: &str) -> Result<()> {
    let root = overlay(directory)?;
    let home = File::open("/proc/self/ns/net")?;
    let mut host = Links::here()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let pin = pin(name);
    File::create(&pin)?;
    mount(
        Some("/proc/self/ns/net"),
        pin.as_str(),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let net = File::open("/proc/self/ns/net")?;
    Links::here()?.set_loopback_up()?;
    cable(&mut host, name, bridge, &net)?;
    let (exec_rx, exec_tx) = pipe2(OFlag::O_CLOEXEC)?;
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWTIME;
    let live = format!("{directory}/live");
    let child = spawn(namespaces, None, || {
        let error = become_pid_1(&live, &root).err();
        eprintln!("floor: {error:?}");
        1
    })?;
    setns(home, CloneFlags::CLONE_NEWNET)?;
    drop(exec_tx);
    // EOF: exec has closed the other end.
    read(&exec_rx, &mut [0])?;
    std::fs::write(note(name), child.pid.to_string())?;
    Ok(())
}

/// Makes the overlay of DIR/root on `/`, as a detached mount.
fn overlay(directory: &str) -> Result<OwnedFd> {
    let overlay = Filesystem::new(c"overlay")?;
    overlay.set(c"lowerdir", "/")?;
    overlay.set(c"upperdir", format!("{directory}/root").as_str())?;
    overlay.set(c"workdir", format!("{directory}/work").as_str())?;
    overlay.create().with_context(|| overlay.complaint())?;
    Ok(overlay.mount(0)?)
}

fn cable(host: &mut Links, name: &str, bridge: &str, net: &File) -> Result<()> {
    let bridge = host.find(bridge)?.context("no bridge")?.index;
    let pair = Pair {
        outside: &format!("{name}0"),
        inside: "eth0",
        outside_mac: [0xfe; 6],
        inside_mac: None,
        bridge: Some(bridge),
        up: true,
    };
    Ok(host.make_pair(&pair, net.as_fd())?)
}

fn become_pid_1(live: &str, root: &OwnedFd) -> Result<()> {
    setsid()?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let target = open(live, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    attach(root, target)?;
    chdir(live)?;
    mount_api_fs()?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    execv(c"/bin/sh", &[c"/bin/sh", c"/bench-init"])?;
    Ok(())
}

/// Mounts /dev, /run, /proc and /sys below the working directory.
fn mount_api_fs() -> Result<()> {
    umask(Mode::empty());
    let put = |kind: &str, target: &str, options: &str, flags: MsFlags| {
        mount(Some(kind), target, Some(kind), flags, Some(options))
    };
    let (safe, bare) = (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, MsFlags::empty());
    put("tmpfs", "dev", "mode=755", MsFlags::MS_NOSUID)?;
    let dev = open("dev", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    for (node, mode, group, major, minor) in [
        ("console", 0o622, 5, 5, 1),
        ("full", 0o666, 0, 1, 7),
        ("null", 0o666, 0, 1, 3),
        ("ptmx", 0o666, 5, 5, 2),
        ("random", 0o444, 0, 1, 8),
        ("tty", 0o666, 5, 5, 0),
        ("urandom", 0o444, 0, 1, 9),
        ("zero", 0o666, 0, 1, 5),
    ] {
        let mode = Mode::from_bits_truncate(mode);
        mknodat(&dev, node, SFlag::S_IFCHR, mode, makedev(major, minor))?;
        if group != 0 {
            chown(
                format!("dev/{node}").as_str(),
                None,
                Some(Gid::from_raw(group)),
            )?;
        }
    }
    for (link, target) in [
        ("core", "/proc/kcore"),
        ("fd", "/proc/self/fd"),
        ("stderr", "/proc/self/fd/2"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
    ] {
        symlinkat(target, &dev, link)?;
    }
    mkdirat(&dev, "pts", Mode::from_bits_truncate(0o755))?;
    mkdirat(&dev, "shm", Mode::from_bits_truncate(0o755))?;
    put("devpts", "dev/pts", "gid=5,mode=620,ptmxmode=666", bare)?;
    put("tmpfs", "dev/shm", "mode=1777", safe)?;
    put("tmpfs", "run", "mode=755,size=50M", safe)?;
    put("proc", "proc", "", safe | MsFlags::MS_NOEXEC)?;
    put("sysfs", "sys", "", safe | MsFlags::MS_NOEXEC)?;
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

fn pid_1(name: &str) -> Result<OwnedFd> {
    let pid = std::fs::read_to_string(note(name))?.parse()?;
    Ok(pidfd_open(Pid::from_raw(pid))?)
}

fn enter(name: &str, command: &[&str]) -> Result<u8> {
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    setns(pid_1(name)?, namespaces)?;
    let words = words(command)?;
    let child = spawn(0, None, || {
        let _ = execv(&words[0], &words);
        127
    })?;
    match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)? {
        WaitStatus::Exited(_, status) => Ok(u8::try_from(status)?),
        other => bail!("{other:?}"),
    }
}

fn stop(names: &[&str]) -> Result<()> {
    let watch = Watch::begin()?;
    let mut host = Links::here()?;
    let mut awaited = Vec::new();
    let mut killed = Vec::new();
    for name in names {
        awaited.extend(host.find(&format!("{name}0"))?.map(|link| link.index));
        let pid_1 = pid_1(name)?;
        pidfd_signal(&pid_1, Signal::SIGKILL)?;
        killed.push(pid_1);
    }
    for pid_1 in killed {
        let mut ended = [PollFd::new(pid_1.as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, PollTimeout::NONE)?;
    }
    for name in names {
        let pin = pin(name);
        umount2(pin.as_str(), MntFlags::MNT_DETACH)?;
        unlink(pin.as_str())?;
        unlink(note(name).as_str())?;
    }
    watch.wait(&mut host, &mut awaited, Duration::from_secs(10))?;
    if !awaited.is_empty() {
        bail!("the cable is still there");
    }
    Ok(())
}

fn room(directory: &str, name: &str, bridge: &str, command: &[&str]) -> Result<()> {
    let root = overlay(directory)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    if bridge != "-" {
        let mut host = Links::here()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let net = File::open("/proc/self/ns/net")?;
        Links::here()?.set_loopback_up()?;
        cable(&mut host, name, bridge, &net)?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let live = format!("{directory}/live");
    let target = open(
        live.as_str(),
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    attach(root, target)?;
    set_cloexec_from(3)?;
    let words = words(command)?;
    nix::unistd::execvp(&words[0], &words)?;
    Ok(())
}

fn words(command: &[&str]) -> Result<Vec<CString>> {
    let words = command.iter().map(|word| CString::new(*word));
    Ok(words.collect::<Result<_, _>>()?)
}
