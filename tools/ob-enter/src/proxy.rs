//! The life of a command that runs elsewhere, seen from the caller's terminal.

use crate::channel::{Channel, Feed, asked};
use crate::signals::Signals;
use crate::terminal::Terminal;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, Whence, getpgrp, lseek, setsid, tcgetpgrp};
use ob_sys::process::{Child, close_all_except, pidfd_open, pidfd_signal, spawn};
use ob_sys::terminal::waiting;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a command may take to end when its terminal is gone, and a reader to take the output
/// after TERM or HUP.
const HUNG_UP: Duration = Duration::from_secs(2);

/// How long a command that has closed its output may take to end, before the peer of a socket is
/// sent the end alone.
const HALF_CLOSED: u16 = 100;

/// How long to leave keys alone that are not for us, before looking again whose they are.
const NOT_OURS: Duration = Duration::from_millis(100);

/// How it ended.
pub enum End {
    /// The command has ended.
    Ended(WaitStatus),
    /// The terminal is gone, or we were told to end, and the command has not ended in time. It ends with this process.
    HungUp(Signal),
}

impl End {
    /// The status as env(1) has it: the command's own, 128+N for a signal.
    #[must_use]
    pub fn status(&self) -> u8 {
        let status = match self {
            End::Ended(WaitStatus::Exited(_, status)) => *status,
            End::Ended(WaitStatus::Signaled(_, signal, _)) | End::HungUp(signal) => {
                128 + *signal as i32
            }
            End::Ended(_) => 125,
        };
        u8::try_from(status).unwrap_or(125)
    }
}

/// Stands in for the command towards the caller.
pub struct Proxy {
    signals: Signals,
    terminal: Option<Terminal>,
    /// Towards the command: its keys, or what comes from a file.
    inputs: Vec<Channel>,
    /// From it.
    outputs: Vec<Channel>,
    /// Copies a pipe on our standard input to the command.
    feed: Option<Feed>,
    /// The command's end of the pipe that is fed from our standard input.
    fed: Option<OwnedFd>,
    /// Until when keys are left alone.
    patience: Option<Instant>,
    /// When to give up on a command that was hung up, and why it was.
    deadline: Option<(Instant, Signal)>,
    /// Whether a signal that asks us to end was passed on.
    is_ending: bool,
}

/// What there is to wait for.
enum Event {
    Child,
    Signal,
    Feed,
    Input(usize),
    Output(usize),
}

impl Proxy {
    pub(crate) fn new(signals: Signals) -> Self {
        Proxy {
            signals,
            terminal: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            feed: None,
            fed: None,
            patience: None,
            deadline: None,
            is_ending: false,
        }
    }

    pub(crate) fn feed(&mut self, channel: Channel, reading: OwnedFd) {
        self.inputs.push(channel);
        self.fed = Some(reading);
    }

    /// Like [`Proxy::feed`], from a pipe.
    pub(crate) fn feed_pipe(&mut self, feed: Feed, reading: OwnedFd) {
        self.feed = Some(feed);
        self.fed = Some(reading);
    }

    pub(crate) fn drain(&mut self, channel: Channel) {
        self.outputs.push(channel);
    }

    pub(crate) fn connect(&mut self, terminal: Terminal) -> Result<()> {
        let (host, master) = (&terminal.host, &terminal.master);
        if terminal.is_input {
            let keys = Channel::new(host.try_clone()?, master.try_clone()?);
            self.inputs.insert(0, keys);
        }
        let screen = Channel::new(master.try_clone()?, host.try_clone()?);
        self.outputs.push(screen);
        self.terminal = Some(terminal);
        Ok(())
    }

    /// Carries over what there is until the command has ended, and gives the terminal back.
    ///
    /// Fails if output could not be written, for want of room on a disk for instance.
    pub fn serve(mut self, child: &Child) -> Result<End> {
        if let Some(terminal) = &mut self.terminal {
            terminal.take();
        }
        let end = loop {
            let mut has_ended = false;
            for event in self.wait(Some(child))? {
                match event {
                    Event::Child => has_ended = true,
                    Event::Signal => self.take_signal(child),
                    Event::Feed => {
                        self.feed.as_mut().map(Feed::carry);
                    }
                    Event::Input(number) => self.carry_input(number),
                    Event::Output(number) => self.carry_output(number, child),
                }
            }
            if has_ended {
                let id = Id::PIDFd(child.pidfd.as_fd());
                break End::Ended(waitid(id, WaitPidFlag::WEXITED).context("wait for it")?);
            }
            if let Some((deadline, signal)) = self.deadline
                && Instant::now() >= deadline
            {
                break End::HungUp(signal);
            }
        };
        self.finish()?;
        Ok(end)
    }

    /// Writes what the command has left, and takes back what it has not read.
    fn finish(&mut self) -> Result<()> {
        self.give_back();
        self.inputs.clear();
        for output in &mut self.outputs {
            output.take_last();
        }
        let limit = Instant::now() + HUNG_UP;
        while self.outputs.iter().any(|output| output.target().is_some()) {
            self.deadline = self.is_ending.then_some((limit, Signal::SIGTERM));
            if self.is_ending && Instant::now() >= limit {
                break;
            }
            for event in self.wait(None)? {
                match event {
                    Event::Output(number) => self.outputs[number].send(),
                    // Only if nobody takes it: whoever wants us to end now will have us end.
                    Event::Signal => match self.signals.next() {
                        Some(Signal::SIGTERM | Signal::SIGHUP | Signal::SIGINT) => {
                            self.outputs.clear();
                            break;
                        }
                        Some(Signal::SIGTSTP) => self.stop(None),
                        Some(Signal::SIGCONT) => self.go_on(),
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.restore();
        }
        let failure = self.outputs.iter().find_map(|output| output.failure);
        if let Some(error) = failure {
            bail!("write its output: {}", error.desc());
        }
        Ok(())
    }

    /// Waits until something has happened, and tells what. With no child given, only for the outputs to take something.
    fn wait(&mut self, child: Option<&Child>) -> Result<Vec<Event>> {
        let now = Instant::now();
        self.patience = self.patience.filter(|patience| now < *patience);
        let mut events = vec![(Event::Signal, self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(child) = child {
            events.push((Event::Child, child.pidfd.as_fd(), PollFlags::POLLIN));
        }
        if let Some((fd, flags)) = self.feed.as_ref().and_then(Feed::event) {
            events.push((Event::Feed, fd, flags));
        }
        for (number, input) in self.inputs.iter().enumerate() {
            if self.patience.is_none() {
                push(
                    &mut events,
                    Event::Input(number),
                    input.source(),
                    PollFlags::POLLIN,
                );
            }
            push(
                &mut events,
                Event::Input(number),
                input.target(),
                PollFlags::POLLOUT,
            );
        }
        for (number, output) in self.outputs.iter().enumerate() {
            push(
                &mut events,
                Event::Output(number),
                output.source(),
                PollFlags::POLLIN,
            );
            push(
                &mut events,
                Event::Output(number),
                output.target(),
                PollFlags::POLLOUT,
            );
        }
        let deadline = self.deadline.map(|(deadline, _)| deadline);
        let next = [self.patience, deadline].into_iter().flatten().min();
        let timeout = match next.map(|next| next.saturating_duration_since(now).as_millis()) {
            None => PollTimeout::NONE,
            Some(time) => PollTimeout::from(u16::try_from(time + 1).unwrap_or(u16::MAX)),
        };
        let mut fds: Vec<PollFd> = events
            .iter()
            .map(|(_, fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("wait for it"),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| fd.any() != Some(false)).collect();
        let events = events.into_iter().zip(happened);
        Ok(events
            .filter(|(_, happened)| *happened)
            .map(|((event, ..), _)| event)
            .collect())
    }

    /// Whether the first of the inputs is a terminal's.
    fn keys(&self) -> bool {
        self.terminal
            .as_ref()
            .is_some_and(|terminal| terminal.is_input)
    }

    fn carry_input(&mut self, number: usize) {
        let is_keys = number == 0 && self.keys();
        let Some(channel) = self.inputs.get_mut(number) else {
            return;
        };
        channel.send();
        let Some(source) = channel.source() else {
            return;
        };
        let (readable, gone) = look(source.as_fd());
        if !readable && !gone {
            return;
        }
        let Some(terminal) = self.terminal.as_ref().filter(|_| is_keys) else {
            if is_in_background(source.as_fd()) {
                self.patience = Some(Instant::now() + NOT_OURS);
                return;
            }
            if channel.receive() == Some(0) {
                channel.finish();
            }
            return;
        };
        if !gone && !terminal.is_ours_to_read() {
            self.patience = Some(Instant::now() + NOT_OURS);
            return;
        }
        match channel.receive() {
            Some(0) if gone || terminal.is_whole => self.hang_up(Signal::SIGHUP),
            Some(0) => channel.push(&[terminal.end_of_file()]),
            _ => {}
        }
    }

    fn carry_output(&mut self, number: usize, child: &Child) {
        let Some(channel) = self.outputs.get_mut(number) else {
            return;
        };
        channel.send();
        let Some(source) = channel.source() else {
            return;
        };
        let (readable, gone) = look(source.as_fd());
        if (readable || gone) && channel.receive() == Some(0) {
            channel.finish();
        }
        // At once, which saves a round in the common case; what does not fit waits.
        channel.send();
        // A socket may be shared with processes of the caller: it is shut down for them too, so not
        // if the command just ends.
        if channel.is_half_closed() && !ends_within(child, HALF_CLOSED) {
            channel.shut_down();
        }
        let broken = channel.to.is_none() && channel.from.is_none();
        let is_screen = self.terminal.is_some() && number + 1 == self.outputs.len();
        if broken && is_screen && self.deadline.is_none() {
            self.hang_up(Signal::SIGHUP);
        }
    }

    fn take_signal(&mut self, child: &Child) {
        while let Some(signal) = self.signals.next() {
            // Not INT: the reader, a pager perhaps, goes on after a ^C.
            self.is_ending |= matches!(signal, Signal::SIGTERM | Signal::SIGHUP);
            let is_whole = self
                .terminal
                .as_ref()
                .is_some_and(|terminal| terminal.is_whole);
            match signal {
                Signal::SIGWINCH => {
                    if let Some(terminal) = &self.terminal {
                        terminal.resize();
                    }
                }
                Signal::SIGTSTP => {
                    // In a terminal of its own the command stops by itself, when it likes. Not TSTP: a process group without a
                    // parent in its session does not heed that.
                    if !is_whole {
                        tell(child, Signal::SIGSTOP);
                    }
                    self.stop(Some(child));
                }
                Signal::SIGCONT => {
                    self.go_on();
                    tell(child, signal);
                }
                Signal::SIGUSR1 | Signal::SIGUSR2 => tell(child, signal),
                // Not typed, since all keys go inside: we are to end. An interactive shell heeds a hangup and not much else.
                signal if is_whole => self.hang_up(signal),
                signal => tell(child, signal),
            }
        }
    }

    /// Stops this process, with the terminal as its user's shell wants it; until it is continued,
    /// or `child` has ended: a pid namespace does not end before this process has waited for its
    /// child (`zap_pid_ns_processes`), and no stop of the subhost.
    fn stop(&mut self, child: Option<&Child>) {
        if let Some(terminal) = &mut self.terminal {
            terminal.restore();
        }
        let waker = child.and_then(|child| {
            let us = pidfd_open(Pid::this()).ok()?;
            spawn(0, None, || wake(&us, child)).ok()
        });
        let _ = raise(Signal::SIGSTOP);
        if let Some(waker) = waker {
            let _ = pidfd_signal(&waker.pidfd, Signal::SIGKILL);
            let _ = waitid(Id::PIDFd(waker.pidfd.as_fd()), WaitPidFlag::WEXITED);
        }
    }

    fn go_on(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.take_again();
        }
    }

    /// Closes the command's terminal, whereupon the kernel tells its session.
    fn hang_up(&mut self, signal: Signal) {
        if let Some(mut terminal) = self.terminal.take() {
            terminal.restore();
            if terminal.is_input {
                self.inputs.remove(0);
            }
            self.outputs.pop();
        }
        self.deadline
            .get_or_insert((Instant::now() + HUNG_UP, signal));
    }

    /// Sets our standard input back by what the command has not read, as if it had read the file itself.
    fn give_back(&mut self) {
        let Some(fed) = &self.fed else { return };
        let unread = waiting(fed).unwrap_or(0);
        if let Some(mut feed) = self.feed.take() {
            return feed.finish(unread);
        }
        let unread = unread + self.inputs.last().map_or(0, Channel::held);
        if let Ok(unread) = i64::try_from(unread)
            && unread > 0
        {
            // Fails where it is no file, which then has kept no place either.
            let _ = lseek(std::io::stdin(), -unread, Whence::SeekCur);
        }
    }
}

fn push<'a>(
    events: &mut Vec<(Event, BorrowedFd<'a>, PollFlags)>,
    event: Event,
    fd: Option<&'a OwnedFd>,
    flags: PollFlags,
) {
    if let Some(fd) = fd {
        events.push((event, fd.as_fd(), flags));
    }
}

/// Whether there is something to read, and whether the other side is gone.
fn look(fd: BorrowedFd) -> (bool, bool) {
    let events = asked(fd, PollFlags::POLLIN);
    // POLLNVAL: a descriptor of open(2) with O_PATH, which reads nothing.
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    (events.contains(PollFlags::POLLIN), events.intersects(gone))
}

fn ends_within(child: &Child, milliseconds: u16) -> bool {
    let mut end = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut end, PollTimeout::from(milliseconds)).is_ok_and(|ended| ended > 0)
}

/// Continues the process `us` when `child` has ended.
fn wake(us: &OwnedFd, child: &Child) -> u8 {
    // Out of reach of what stops a process group.
    let _ = setsid();
    let _ = close_all_except(&[us.as_fd(), child.pidfd.as_fd()]);
    let mut ends = [us, &child.pidfd].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
    while poll(&mut ends, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let _ = pidfd_signal(us, Signal::SIGCONT);
    0
}

/// Whether the terminal belongs to another process group, so that a read would stop this process.
fn is_in_background(terminal: BorrowedFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group != getpgrp())
}

/// Sends a signal to the process group that the command leads, as a terminal does; to itself before it leads one.
fn tell(child: &Child, signal: Signal) {
    // The number is the command's as long as we have not waited for it.
    if kill(Pid::from_raw(-child.pid.as_raw()), signal) == Err(Errno::ESRCH) {
        let _ = pidfd_signal(&child.pidfd, signal);
    }
}
