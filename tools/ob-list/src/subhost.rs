//! A subhost and its state.

use crate::detail::Detail;
use ob_document::Document;
use ob_document::state::{StateDir, lives};
use ob_sys::lock::is_free;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

/// The state of a subhost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Its pid 1 is alive.
    Running,
    /// A process is booting the subhost, and there is no pid 1 yet.
    Starting,
    /// A process is stopping the subhost, or cleans up after it.
    Stopping,
    /// The process that booted or stopped the subhost was killed before it cleaned up.
    Dead,
}

impl State {
    /// All states, in the order in which a subhost enters them.
    pub const ALL: [State; 4] = [
        State::Starting,
        State::Running,
        State::Stopping,
        State::Dead,
    ];

    /// Returns the name of the state.
    pub fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Starting => "starting",
            State::Stopping => "stopping",
            State::Dead => "dead",
        }
    }

    /// Returns the state that follows from `signs`.
    pub fn of(signs: &Signs) -> Self {
        match signs {
            Signs { stopped: true, .. } => State::Stopping,
            Signs { held: false, .. } => State::Dead,
            Signs { alive: true, .. } => State::Running,
            Signs { begun: true, .. } => State::Stopping,
            _ => State::Starting,
        }
    }
}

/// The facts that the state follows from.
#[derive(Default)]
pub struct Signs {
    /// A process holds the lock of the subhost.
    pub held: bool,
    /// A process is stopping the subhost; see [`is_being_stopped`].
    pub stopped: bool,
    /// The document has facts about a pid 1.
    pub begun: bool,
    /// That pid 1 is alive, as a pidfd proves.
    pub alive: bool,
}

/// One subhost.
pub struct Subhost {
    /// Its document in the state directory, without the facts about a pid 1 that has ended. If
    /// there is no document yet it has the name alone.
    pub document: Document,
    /// Its state.
    pub state: State,
    /// The time since its pid 1 was started.
    pub uptime: Option<Duration>,
    /// The measurements of `-l`; `None` without `-l`, or if the subhost does not run.
    pub detail: Option<Detail>,
    /// The reason why its document cannot be read.
    pub damage: Option<anyhow::Error>,
    /// Whether the process that boots the subhost has written no document yet.
    pub unknown: bool,
}

impl Subhost {
    /// Returns the path of the configuration that the subhost was started from.
    pub fn conf(&self) -> Option<&str> {
        self.document.optional("CONFIG")
    }
}

/// Returns whether a process is stopping the subhost.
///
/// The file `stopping` shows that: the process that ends pid 1 holds a lock on it; overlay-stop,
/// while it runs stop scripts, writes the identity of its process into it.
pub fn is_being_stopped(state_dir: &StateDir) -> bool {
    let Ok(mut mark) = File::open(state_dir.file("stopping")) else {
        return false;
    };
    let mut noted = String::new();
    !is_free(&mark) || mark.read_to_string(&mut noted).is_ok_and(|_| lives(&noted))
}
