//! Represents a running command to its caller.

use crate::channel::{Channel, Feed, poll_now};
use crate::end::End;
use crate::event::{Event, Events};
use crate::relay::{Relay, Relays};
use crate::signals::Signals;
use crate::suspend::suspend;
use crate::terminal::Terminal;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, Whence, getpgrp, lseek, tcgetpgrp};
use ob_sys::process::{Child, pidfd_signal};
use ob_sys::terminal::waiting;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The time that a command has to exit after a hangup of its terminal, and that the reader of the
/// output has after TERM or HUP.
const HANGUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The milliseconds that a command has to exit after it has closed its output, before an output
/// socket is shut down.
const HALF_CLOSED_GRACE: u16 = 100;

/// The pause before keys that another program may read are examined again.
const KEYS_PAUSE: Duration = Duration::from_millis(100);

/// Copies the data of a command, and forwards signals and the window size to it.
pub struct Proxy {
    signals: Signals,
    terminal: Option<Terminal>,
    /// The channels to the command. If the terminal is standard input, the first has the keys.
    inputs: Vec<Channel>,
    /// The channels from the command. If there is a terminal, the last goes to it.
    outputs: Vec<Channel>,
    /// The threads that write the first of the outputs.
    relays: Relays,
    /// The feed from standard input, if that is a pipe.
    feed: Option<Feed>,
    /// A duplicate of the standard input of the command, if that is a pipe.
    fed: Option<OwnedFd>,
    /// The end of the pause in which keys are not read.
    keys_paused: Option<Instant>,
    /// The end of [`HANGUP_TIMEOUT`], and the signal that has caused the hangup.
    deadline: Option<(Instant, Signal)>,
    /// Whether TERM or HUP was forwarded.
    is_ending: bool,
}

impl Proxy {
    /// Returns a proxy without channels.
    pub(crate) fn new(signals: Signals) -> Self {
        Proxy {
            signals,
            terminal: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            relays: Relays::default(),
            feed: None,
            fed: None,
            keys_paused: None,
            deadline: None,
            is_ending: false,
        }
    }

    /// Adds the channel from standard input to the pipe whose reading end is `reading`.
    pub(crate) fn feed(&mut self, channel: Channel, reading: OwnedFd) {
        self.inputs.push(channel);
        self.fed = Some(reading);
    }

    /// Like [`Proxy::feed`], for a standard input that is a pipe.
    pub(crate) fn feed_pipe(&mut self, feed: Feed, reading: OwnedFd) {
        self.feed = Some(feed);
        self.fed = Some(reading);
    }

    /// Adds a channel from the command.
    pub(crate) fn drain(&mut self, channel: Channel) {
        self.outputs.push(channel);
    }

    /// Adds a channel from the command whose source `relay` writes.
    pub(crate) fn drain_relay(&mut self, relay: Relay, channel: Channel) {
        self.relays.add(relay);
        self.outputs.push(channel);
    }

    /// Adds the channels of the terminal. Fails if a descriptor cannot be duplicated.
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

    /// Copies data until the command has ended, and restores the terminal.
    ///
    /// Fails if output cannot be written, for example to a full disk (`ENOSPC`).
    pub fn serve(mut self, child: &Child) -> Result<End> {
        if let Some(terminal) = &mut self.terminal {
            terminal.set_raw();
        }
        self.relays.start().context("start a thread")?;
        let end = loop {
            let mut has_ended = false;
            for event in self.wait(Some(child))? {
                match event {
                    Event::Child => has_ended = true,
                    Event::Signal => self.take_signal(child),
                    Event::Feed => {
                        self.feed.as_mut().map(Feed::copy);
                    }
                    Event::Input(number) => self.copy_input(number),
                    Event::Output(number) => self.copy_output(number, child),
                }
            }
            if has_ended {
                let id = Id::PIDFd(child.pidfd.as_fd());
                break End::Ended(
                    waitid(id, WaitPidFlag::WEXITED).context("wait for the command")?,
                );
            }
            let is_over = |(deadline, _): &(Instant, Signal)| Instant::now() >= *deadline;
            if let Some((_, signal)) = self.deadline.filter(is_over) {
                break End::HungUp(signal);
            }
        };
        self.finish()?;
        Ok(end)
    }

    /// Writes the last output of the command, and returns input that it has not read.
    fn finish(&mut self) -> Result<()> {
        self.return_input();
        self.inputs.clear();
        let limit = Instant::now() + HANGUP_TIMEOUT;
        let relayed = self.relays.stop();
        for (number, output) in self.outputs.iter_mut().enumerate() {
            if number < relayed {
                output.take_relayed(limit);
            } else {
                output.take_last();
            }
        }
        while self.outputs.iter().any(|output| output.target().is_some()) {
            self.deadline = self.is_ending.then_some((limit, Signal::SIGTERM));
            if self.is_ending && Instant::now() >= limit {
                break;
            }
            for event in self.wait(None)? {
                match event {
                    Event::Output(number) => self.outputs[number].send(),
                    // The reader of the output is slow or stopped, so a signal drops the output.
                    Event::Signal => match self.signals.next() {
                        Some(Signal::SIGTERM | Signal::SIGHUP | Signal::SIGINT) => {
                            self.outputs.clear();
                            break;
                        }
                        Some(Signal::SIGTSTP) => self.stop(None),
                        Some(Signal::SIGCONT) => self.resume(),
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

    /// Waits for events, and returns them. Without `child`, the inputs are not read.
    fn wait(&mut self, child: Option<&Child>) -> Result<Vec<Event>> {
        let now = Instant::now();
        self.keys_paused = self.keys_paused.filter(|until| now < *until);
        let mut events = Events::default();
        events.add(Event::Signal, self.signals.as_fd(), PollFlags::POLLIN);
        if let Some(child) = child {
            events.add(Event::Child, child.pidfd.as_fd(), PollFlags::POLLIN);
        }
        if let Some((fd, flags)) = self.feed.as_ref().and_then(Feed::event) {
            events.add(Event::Feed, fd, flags);
        }
        for (number, input) in self.inputs.iter().enumerate() {
            if self.keys_paused.is_none() {
                events.add_source(Event::Input(number), input);
            }
            events.add_target(Event::Input(number), input);
        }
        for (number, output) in self.outputs.iter().enumerate() {
            events.add_source(Event::Output(number), output);
            events.add_target(Event::Output(number), output);
        }
        let deadline = self.deadline.map(|(deadline, _)| deadline);
        events.wait([self.keys_paused, deadline].into_iter().flatten().min())
    }

    /// Returns whether the first of the inputs has the keys of the terminal.
    fn has_keys(&self) -> bool {
        self.terminal
            .as_ref()
            .is_some_and(|terminal| terminal.is_input)
    }

    /// Copies data of an input.
    fn copy_input(&mut self, number: usize) {
        let is_keys = number == 0 && self.has_keys();
        let Some(channel) = self.inputs.get_mut(number) else {
            return;
        };
        channel.send();
        let Some(source) = channel.source() else {
            return;
        };
        let (readable, hung_up) = poll_source(source.as_fd());
        if !readable && !hung_up {
            return;
        }
        let Some(terminal) = self.terminal.as_ref().filter(|_| is_keys) else {
            if is_in_background(source.as_fd()) {
                self.keys_paused = Some(Instant::now() + KEYS_PAUSE);
                return;
            }
            if channel.receive() == Some(0) {
                channel.finish();
            }
            return;
        };
        if !hung_up && !terminal.is_ours_to_read() {
            self.keys_paused = Some(Instant::now() + KEYS_PAUSE);
            return;
        }
        match channel.receive() {
            Some(0) if hung_up || terminal.is_whole => self.hang_up(Signal::SIGHUP),
            Some(0) => channel.push(&[terminal.end_of_file()]),
            _ => {}
        }
    }

    /// Copies data of an output.
    fn copy_output(&mut self, number: usize, child: &Child) {
        let Some(channel) = self.outputs.get_mut(number) else {
            return;
        };
        channel.send();
        let Some(source) = channel.source() else {
            return;
        };
        let (readable, hung_up) = poll_source(source.as_fd());
        if (readable || hung_up) && channel.receive() == Some(0) {
            channel.finish();
        }
        // Mostly the target has space, so that another poll(2) is not needed.
        channel.send();
        // A shutdown affects other processes of the caller that use the socket. So the socket is
        // not shut down if the command exits at the same time.
        if channel.is_half_closed() && !ends_within(child, HALF_CLOSED_GRACE) {
            channel.shut_down();
        }
        let broken = channel.to.is_none() && channel.from.is_none();
        let is_screen = self.terminal.is_some() && number + 1 == self.outputs.len();
        if broken && is_screen && self.deadline.is_none() {
            self.hang_up(Signal::SIGHUP);
        }
    }

    /// Handles the pending signals.
    fn take_signal(&mut self, child: &Child) {
        while let Some(signal) = self.signals.next() {
            // Not INT: the reader of the output may be a pager, which ignores it.
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
                    // A command in raw mode gets ^Z from its terminal. Not TSTP: the kernel ignores
                    // it in an orphaned process group (is_current_pgrp_orphaned).
                    if !is_whole {
                        send_signal(child, Signal::SIGSTOP);
                    }
                    self.stop(Some(child));
                }
                Signal::SIGCONT => {
                    self.resume();
                    send_signal(child, signal);
                }
                Signal::SIGUSR1 | Signal::SIGUSR2 => send_signal(child, signal),
                // It was not typed, since all keys go to the command; kill(1) has sent it. An
                // interactive shell ignores TERM, and exits at a hangup.
                signal if is_whole => self.hang_up(signal),
                signal => send_signal(child, signal),
            }
        }
    }

    /// Stops this process, while the terminal has the mode of the caller; see [`suspend`].
    fn stop(&mut self, child: Option<&Child>) {
        if let Some(terminal) = &mut self.terminal {
            terminal.restore();
        }
        suspend(child);
    }

    fn resume(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.resume();
        }
    }

    /// Closes the master of the terminal: the kernel then sends HUP to the session of the command.
    fn hang_up(&mut self, signal: Signal) {
        if let Some(mut terminal) = self.terminal.take() {
            terminal.restore();
            if terminal.is_input {
                self.inputs.remove(0);
            }
            self.outputs.pop();
        }
        self.deadline
            .get_or_insert((Instant::now() + HANGUP_TIMEOUT, signal));
    }

    /// Moves the offset of standard input back by the bytes that the command has not read.
    ///
    /// Then the next command of the caller reads from there, as it would without ob-enter.
    fn return_input(&mut self) {
        let Some(fed) = &self.fed else { return };
        let unread = waiting(fed).unwrap_or(0);
        if let Some(mut feed) = self.feed.take() {
            return feed.finish(unread);
        }
        let unread = unread + self.inputs.last().map_or(0, Channel::held);
        if let Some(unread) = i64::try_from(unread).ok().filter(|unread| *unread > 0) {
            // ESPIPE: not a file, and so without an offset.
            let _ = lseek(std::io::stdin(), -unread, Whence::SeekCur);
        }
    }
}

/// Returns whether there is data to read, and whether the other side is closed.
fn poll_source(fd: BorrowedFd) -> (bool, bool) {
    let events = poll_now(fd, PollFlags::POLLIN);
    // POLLNVAL: a descriptor opened with O_PATH, which cannot be read.
    let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    (
        events.contains(PollFlags::POLLIN),
        events.intersects(hung_up),
    )
}

/// Returns whether `child` ends within a time.
fn ends_within(child: &Child, milliseconds: u16) -> bool {
    let mut end = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut end, PollTimeout::from(milliseconds)).is_ok_and(|ended| ended > 0)
}

/// Returns whether another process group is in the foreground, so that a read would stop this
/// process (`SIGTTIN`).
fn is_in_background(terminal: BorrowedFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group != getpgrp())
}

/// Sends a signal to the process group of the command, as a terminal does.
///
/// The command leads a group after its setsid(2); before that, only it gets the signal.
fn send_signal(child: &Child, signal: Signal) {
    // The number is not reused before the command has been reaped.
    if kill(Pid::from_raw(-child.pid.as_raw()), signal) == Err(Errno::ESRCH) {
        let _ = pidfd_signal(&child.pidfd, signal);
    }
}
