//! The command: how the child becomes it, and what is told if it cannot.

use crate::account::Account;
use crate::sealed::is_kept;
use crate::subhost::Subhost;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fchmod, umask};
use nix::unistd::{AccessFlags, access, fchown, getppid, setsid, write};
use ob_document::inside;
use ob_enter::Inside;
use ob_sys::process::{Descriptors, exec, join_new_session_keyring};
use ob_sys::terminal::set_controlling;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is to be run, and how.
pub struct Command<'a> {
    /// The command and its arguments; nothing for a shell.
    pub words: &'a [CString],
    /// The user to be; root if not told.
    pub user: Option<&'a str>,
    /// The subhost's name.
    pub name: &'a str,
}

/// What can fail in the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Its own session, keys, terminal.
    Begin,
    /// Being confined like the subhost.
    Confine,
    /// Becoming the user.
    User,
    /// Looking for the program.
    Find,
    /// Running it.
    Run,
}

const STEPS: [Step; 5] = [
    Step::Begin,
    Step::Confine,
    Step::User,
    Step::Find,
    Step::Run,
];

/// Why the command did not begin. It crosses the pipe as numbers: what comes from inside is not to be printed as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    pub step: Step,
    pub error: Errno,
}

impl Failure {
    fn send(self, teller: &OwnedFd) {
        let [one, two, three, four] = (self.error as i32).to_ne_bytes();
        let step = STEPS
            .iter()
            .position(|step| *step == self.step)
            .unwrap_or(0);
        let step = u8::try_from(step).unwrap_or(0);
        let _ = write(teller, &[step, one, two, three, four]);
    }

    /// What the child has told; nothing if it became the command.
    pub fn receive(mut news: &File) -> Option<Self> {
        let mut bytes = [0; 5];
        news.read_exact(&mut bytes).ok()?;
        let [step, error @ ..] = bytes;
        Some(Failure {
            step: *STEPS.get(usize::from(step))?,
            error: Errno::from_raw(i32::from_ne_bytes(error)),
        })
    }

    /// The status as env(1) has it.
    pub fn status(self) -> u8 {
        match (self.step, self.error) {
            (Step::Begin | Step::Confine | Step::User, _) => 125,
            (Step::Find, Errno::ENOENT) => 127,
            (Step::Find | Step::Run, _) => 126,
        }
    }

    /// The reason in words, of a failure of `command`.
    pub fn describe(self, command: &Command) -> String {
        let why = self.error.desc();
        let program = match command.words.first() {
            Some(program) => program.to_string_lossy(),
            None => "a shell".into(),
        };
        match (self.step, self.error) {
            (Step::Begin, _) => format!("begin a session: {why}"),
            (Step::Confine, _) => format!("confine it like the subhost: {why}"),
            (Step::User, Errno::ENOENT) => {
                format!("there is no user {} in it", command.user.unwrap_or("root"))
            }
            (Step::User, _) => format!("become {}: {why}", command.user.unwrap_or("root")),
            (Step::Find, Errno::ENOENT) => format!("run {program}: not found"),
            // It was there a moment ago.
            (Step::Run, Errno::ENOENT) => {
                format!("run {program}: cannot be run: there is no interpreter for it")
            }
            (Step::Find | Step::Run, _) => format!("run {program}: cannot be run: {why}"),
        }
    }
}

impl Command<'_> {
    /// Becomes the command, in the child; returns if that fails, after telling why.
    pub fn become_it(&self, subhost: &Subhost, inside: &Inside, teller: &OwnedFd) -> u8 {
        let failure = self.try_to(subhost, inside);
        failure.send(teller);
        failure.status()
    }

    fn try_to(&self, subhost: &Subhost, inside: &Inside) -> Failure {
        let failed = |step| move |error| Failure { step, error };
        let prepared = || {
            let confined = |done: anyhow::Result<()>| {
                done.map_err(|error| *error.downcast_ref().unwrap_or(&Errno::EINVAL))
                    .map_err(failed(Step::Confine))
            };
            confined(subhost.limit())?;
            begin(subhost, inside).map_err(failed(Step::Begin))?;
            let account = self.account().map_err(failed(Step::User))?;
            confined(subhost.confine())?;
            change_user(&account, inside).map_err(failed(Step::User))?;
            die_with_parent().map_err(failed(Step::Begin))?;
            let (program, words) = self.find().map_err(failed(Step::Find))?;
            Ok((program, words, environment(&account, self.name, subhost)))
        };
        let (program, words, environment) = match prepared() {
            Ok(prepared) => prepared,
            Err(failure) => return failure,
        };
        let descriptors = Descriptors {
            standard: inside.standard.each_ref().map(AsFd::as_fd),
            extra: None,
        };
        let error = exec(&program, &words, &environment, &descriptors);
        failed(Step::Run)(error)
    }

    fn account(&self) -> Result<Account, Errno> {
        self.user.map_or_else(|| Ok(Account::root()), Account::find)
    }

    /// The program, and its words.
    fn find(&self) -> Result<(CString, Vec<CString>), Errno> {
        if let Some(program) = self.words.first() {
            return Ok((look_up(program)?, self.words.to_vec()));
        }
        // With the dash a shell takes itself for that of a login, and sets up what its user expects.
        match look_up(c"bash") {
            Ok(bash) => Ok((bash, vec![c"-bash".into()])),
            Err(_) => Ok((look_up(c"sh")?, vec![c"-sh".into()])),
        }
    }
}

fn begin(subhost: &Subhost, inside: &Inside) -> Result<(), Errno> {
    umask(Mode::from_bits_truncate(0o022));
    // Also without a terminal: /dev/tty would be that of the caller's session.
    setsid()?;
    if let Some(terminal) = &inside.terminal {
        set_controlling(terminal)?;
    }
    // A kernel without keyrings has no keys to hide.
    let _ = join_new_session_keyring();
    subhost.join_users()
}

fn change_user(account: &Account, inside: &Inside) -> Result<(), Errno> {
    if let Some(terminal) = &inside.terminal
        && account.uid != 0
    {
        // As login does it: the terminal is the user's.
        fchown(terminal, Some(account.uid.into()), None)?;
        fchmod(terminal, Mode::from_bits_truncate(0o620))?;
    }
    account.become_it()
}

/// Has the kernel kill us with our parent, which it forgets with a change of user.
fn die_with_parent() -> Result<(), Errno> {
    set_pdeathsig(Signal::SIGKILL)?;
    // Our parent is in no pid namespace of ours. If we have one here, ours has died before it could take us along.
    match getppid().as_raw() {
        0 => Ok(()),
        _ => Err(Errno::ECHILD),
    }
}

/// The path of a program in the root that we have. `ENOENT`: there is none; `EACCES`: it cannot be executed.
fn look_up(program: &std::ffi::CStr) -> Result<CString, Errno> {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        access(program, AccessFlags::F_OK)?;
        return Ok(program.into());
    }
    let mut reason = Errno::ENOENT;
    for directory in inside::PATH.split(':').filter(|_| !name.is_empty()) {
        let path = [directory.as_bytes(), b"/", name].concat();
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        match access(path.as_c_str(), AccessFlags::X_OK) {
            Ok(()) if is_file(&path) => return Ok(path),
            Ok(()) | Err(Errno::EACCES) => reason = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(reason)
}

fn is_file(path: &CString) -> bool {
    path.to_str().is_ok_and(|path| Path::new(path).is_file())
}

/// All that the command finds: nothing of the caller's but what its terminal and its language are. SETENV counts before it.
fn environment(account: &Account, name: &str, subhost: &Subhost) -> Vec<CString> {
    let set = subhost.environment();
    let is_set = |name: &OsString| set.iter().any(|(set, _)| name == set.as_str());
    let shell = Some(account.shell.as_str()).filter(|shell| !shell.is_empty());
    let kept = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_kept));
    let variables = [
        ("HOME", account.home.as_str()),
        ("USER", &account.name),
        ("LOGNAME", &account.name),
        ("SHELL", shell.unwrap_or("/bin/sh")),
    ];
    let variables = inside::variables(name).into_iter().chain(variables);
    variables
        .map(|(name, value)| (name.into(), value.into()))
        .chain(kept)
        .filter(|(name, _)| !is_set(name))
        .chain(set.iter().map(|(name, value)| (name.into(), value.into())))
        // One with a zero byte in it, which a table of users may hold, cannot be.
        .filter_map(|(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}
