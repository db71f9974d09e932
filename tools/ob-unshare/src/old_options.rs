//! The options `--room` and `--then` of earlier versions, now the tool `ob-room`.

use anyhow::{Context, Error, Result};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Executes `ob-room` if the arguments have the option `--room` or `--then`; otherwise returns.
pub fn exec_room(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let Some(arguments) = translate(arguments) else {
        return Ok(());
    };
    let beside = std::env::current_exe()?.with_file_name("ob-room");
    let program = match beside.exists() {
        true => beside,
        false => "ob-room".into(),
    };
    let mut room = Command::new(program);
    // Error messages begin with the command that was typed.
    room.env("OB_COMMAND", "ob-unshare").args(arguments);
    Err(Error::from(room.exec())).context("run ob-room")
}

/// Returns the arguments of `ob-room` for arguments of an earlier version, or `None` if no option
/// has moved.
fn translate(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let (mut is_room, mut options) = (false, Vec::new());
    let mut cleanup: Option<OsString> = None;
    let mut command = None;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--room") => is_room = true,
            Some("--then") => cleanup = Some(arguments.next()?),
            Some(option) if option.starts_with("--then=") => {
                cleanup = Some(option["--then=".len()..].into());
            }
            Some("--notify-fd") => options.extend([argument, arguments.next()?]),
            Some(option) if option.starts_with('-') && option != "--" => options.push(argument),
            _ => {
                command = Some(argument);
                break;
            }
        }
    }
    if !is_room && cleanup.is_none() {
        return None;
    }
    if let Some(line) = &mut cleanup {
        // LINE was always a line for a shell. ob-room gives a line to the shell if it has other
        // than plain words.
        line.push("\n");
        if is_room {
            options.insert(0, "--guard".into());
        }
        options.extend(["--cleanup".into(), line.clone()]);
    }
    options.extend(command);
    options.extend(arguments);
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn old_command_lines_are_translated() {
        let translated = |line: &str| {
            let words = translate(line.split(' ').map(Into::into))?;
            let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
            Some(words.join(" "))
        };
        for (old, new) in [
            ("--room sh -c true", "sh -c true"),
            ("--room -- sh --then", "-- sh --then"),
            ("--room --then u a | b", "--guard --cleanup u\n a | b"),
            (
                "--room --foreground --notify-fd 3 --then=u a | b",
                "--guard --foreground --notify-fd 3 --cleanup u\n a | b",
            ),
            ("--undo --then u", "--undo --cleanup u\n"),
        ] {
            assert_eq!(translated(old).as_deref(), Some(new), "{old}");
        }
        for line in ["--undo", "-- sh --room", "-n", "--then", "sh --then x"] {
            assert_eq!(translated(line), None, "{line}");
        }
    }
}
