//! The command: how the child executes it, and the reason if that fails.

use crate::account::{Account, Unknown};
use crate::limits::CallerLimits;
use crate::sealed::is_kept;
use crate::subhost::Subhost;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fchmod, umask};
use nix::unistd::{AccessFlags, access, fchown, getppid, setsid, write};
use ob_document::inside;
use ob_enter::ChildStdio;
use ob_sys::process::{Descriptors, exec, join_new_session_keyring};
use ob_sys::terminal::set_controlling;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A command to execute in a subhost.
pub struct Command<'a> {
    /// The program and its arguments; empty for a shell.
    pub words: &'a [CString],
    /// The user, as [`Account::find`] takes it; by default root.
    pub user: Option<&'a str>,
    /// The name of the subhost.
    pub name: &'a str,
    /// The limits of the caller, which RLIMITS of the configuration overrides.
    pub limits: &'a CallerLimits,
}

/// The steps of the child, each of which can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Create a session with its keyring and terminal.
    Begin,
    /// Apply the protection of the subhost.
    Confine,
    /// Change the user.
    User,
    /// Look up the group of the user.
    Group,
    /// Look up the program.
    Find,
    /// Execute the program.
    Run,
}

const STEPS: [Step; 6] = [
    Step::Begin,
    Step::Confine,
    Step::User,
    Step::Group,
    Step::Find,
    Step::Run,
];

/// The reason why the command was not executed.
///
/// The pipe carries numbers, because text from inside must not reach the terminal of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    pub step: Step,
    pub error: Errno,
}

impl Failure {
    /// Writes the failure to the pipe.
    fn send(self, failure_tx: &OwnedFd) {
        let [one, two, three, four] = (self.error as i32).to_ne_bytes();
        let step = STEPS
            .iter()
            .position(|step| *step == self.step)
            .unwrap_or(0);
        let step = u8::try_from(step).unwrap_or(0);
        let _ = write(failure_tx, &[step, one, two, three, four]);
    }

    /// Reads the failure from the pipe; returns `None` if the child has executed the command.
    pub fn receive(mut failure_rx: &File) -> Option<Self> {
        let mut bytes = [0; 5];
        failure_rx.read_exact(&mut bytes).ok()?;
        let [step, error @ ..] = bytes;
        Some(Failure {
            step: *STEPS.get(usize::from(step))?,
            error: Errno::from_raw(i32::from_ne_bytes(error)),
        })
    }

    /// Returns the exit status, like `env(1)`.
    pub fn status(self) -> u8 {
        match (self.step, self.error) {
            (Step::Begin | Step::Confine | Step::User | Step::Group, _) => 125,
            (Step::Find, Errno::ENOENT) => 127,
            (Step::Find | Step::Run, _) => 126,
        }
    }

    /// Returns the message for a failure of `command`.
    pub fn describe(self, command: &Command) -> String {
        let why = self.error.desc();
        let program = match command.words.first() {
            Some(program) => program.to_string_lossy(),
            None => "a shell".into(),
        };
        let user = command.user.unwrap_or("root");
        let (name, group) = user.split_once(':').unwrap_or((user, ""));
        match (self.step, self.error) {
            (Step::Begin, _) => format!("create a session: {why}"),
            (Step::Confine, _) => format!("apply the protection of the subhost: {why}"),
            (Step::User, Errno::ENOENT) => format!("there is no user {name} in it"),
            (Step::User, _) => format!("change the user to {user}: {why}"),
            (Step::Group, _) => format!("there is no group {group} in it"),
            (Step::Find, Errno::ENOENT) => format!("run {program}: not found"),
            // The lookup has found the file, so execve(2) has not found its interpreter.
            (Step::Run, Errno::ENOENT) => {
                format!("run {program}: cannot be run: there is no interpreter for it")
            }
            (Step::Find | Step::Run, _) => format!("run {program}: cannot be run: {why}"),
        }
    }
}

impl Command<'_> {
    /// Executes the command in the child.
    ///
    /// Returns only if that fails: writes the reason to `failure_tx`, and returns the exit status.
    pub fn exec(&self, subhost: &Subhost, stdio: &ChildStdio, failure_tx: &OwnedFd) -> u8 {
        let failure = self.try_exec(subhost, stdio);
        failure.send(failure_tx);
        failure.status()
    }

    fn try_exec(&self, subhost: &Subhost, stdio: &ChildStdio) -> Failure {
        let failed = |step| move |error| Failure { step, error };
        let prepared = || {
            let confined = |done: anyhow::Result<()>| {
                done.map_err(|error| *error.downcast_ref().unwrap_or(&Errno::EINVAL))
                    .map_err(failed(Step::Confine))
            };
            self.limits.restore().map_err(failed(Step::Confine))?;
            confined(subhost.set_rlimits())?;
            begin(subhost, stdio).map_err(failed(Step::Begin))?;
            let account = self.account()?;
            confined(subhost.confine())?;
            change_user(&account, stdio).map_err(failed(Step::User))?;
            die_with_parent().map_err(failed(Step::Begin))?;
            let (program, words) = self.find().map_err(failed(Step::Find))?;
            Ok((program, words, environment(&account, self.name, subhost)))
        };
        let (program, words, environment) = match prepared() {
            Ok(prepared) => prepared,
            Err(failure) => return failure,
        };
        let descriptors = Descriptors {
            standard: stdio.standard.each_ref().map(AsFd::as_fd),
            extra: None,
        };
        let error = exec(&program, &words, &environment, &descriptors);
        failed(Step::Run)(error)
    }

    fn account(&self) -> Result<Account, Failure> {
        let account = self.user.map_or_else(|| Ok(Account::root()), Account::find);
        account.map_err(|unknown| Failure {
            step: match unknown {
                Unknown::User => Step::User,
                Unknown::Group => Step::Group,
            },
            error: Errno::ENOENT,
        })
    }

    /// Returns the path of the program, and its arguments with argument zero.
    fn find(&self) -> Result<(CString, Vec<CString>), Errno> {
        if let Some(program) = self.words.first() {
            return Ok((look_up(program)?, self.words.to_vec()));
        }
        // A dash in argument zero makes a shell a login shell, which reads the profile.
        match look_up(c"bash") {
            Ok(bash) => Ok((bash, vec![c"-bash".into()])),
            Err(_) => Ok((look_up(c"sh")?, vec![c"-sh".into()])),
        }
    }
}

fn begin(subhost: &Subhost, stdio: &ChildStdio) -> Result<(), Errno> {
    umask(Mode::from_bits_truncate(0o022));
    // Also without a terminal, since /dev/tty would be the terminal of the caller.
    setsid()?;
    if let Some(terminal) = &stdio.terminal {
        set_controlling(terminal)?;
    }
    // ENOSYS: the kernel was built without keyrings, so there are no keys to hide.
    let _ = join_new_session_keyring();
    subhost.join_users()
}

fn change_user(account: &Account, stdio: &ChildStdio) -> Result<(), Errno> {
    if let Some(terminal) = stdio.terminal.as_ref().filter(|_| account.uid != 0) {
        // login(1) does the same, so that the user can reopen the terminal.
        fchown(terminal, Some(account.uid.into()), None)?;
        fchmod(terminal, Mode::from_bits_truncate(0o620))?;
    }
    account.set_credentials()
}

/// Has the kernel kill this process when its parent ends.
///
/// A change of the user clears the setting, `prctl(2)`. `ECHILD`: the parent has ended.
fn die_with_parent() -> Result<(), Errno> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent is outside the pid namespace, so its number is 0 here. Any other number is that of
    // a process which has adopted this process.
    match getppid().as_raw() {
        0 => Ok(()),
        _ => Err(Errno::ECHILD),
    }
}

/// Returns the path of a program, looked up in PATH.
///
/// `ENOENT`: there is no such file; `EACCES`: the file is not executable.
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

/// Returns the environment of the command.
///
/// Of the caller it has the terminal type and the language. SETENV overrides any variable.
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
        // /etc/passwd of the subhost may contain zero bytes, which a variable cannot.
        .filter_map(|(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}
