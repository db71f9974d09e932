//! At the prompt: help, usage errors, completion and terminals.

use end_to_end::{World, bin, booted, not_done, scripts, until};
use std::path::Path;

/// The commands for users; the hooks, such as overlay-init, are for configurations.
const COMMANDS: &[&str] = &[
    "overlay-boot",
    "overlay-diff",
    "overlay-diskfile",
    "overlay-go",
    "overlay-list",
    "overlay-log",
    "overlay-new",
    "overlay-share",
    "overlay-stop",
    "overlay-subhosts",
];
const TOOLS: &[&str] = &[
    "ob-cable",
    "ob-conf",
    "ob-diff",
    "ob-enter",
    "ob-list",
    "ob-mount",
    "ob-reaper",
    "ob-room",
    "ob-unshare",
];

fn names(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory)
        .expect("read the directory")
        .flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(prefix) && !name.contains('.'))
        .collect();
    names.sort();
    names
}

#[test]
fn every_command_has_help_and_suggests_options() {
    let hooks = ["overlay-init", "overlay-postmount", "overlay-premount"];
    let found = names(scripts(), "overlay-");
    let typed: Vec<&String> = found
        .iter()
        .filter(|name| !hooks.contains(&name.as_str()))
        .collect();
    assert_eq!(typed, COMMANDS, "the table lists every program");
    assert_eq!(names(bin(), "ob-"), TOOLS, "the table lists every program");
    let world = World::new();
    for command in COMMANDS.iter().chain(TOOLS) {
        let help = world.ok(&format!("{command} --help"));
        assert!(help.lines().count() <= 24, "{command}: more than a screen");
        assert!(
            help.lines().all(|line| line.chars().count() <= 80),
            "{command}: too wide"
        );
        assert!(help.starts_with("Usage: "), "{command}");
        assert!(
            help.contains("--help") && help.contains("--version"),
            "{command}"
        );
        let (_, examples) = help.split_once("\nExamples:\n").expect(command);
        assert!(examples.lines().count() >= 2, "{command}: two examples");
        assert_eq!(world.ok(&format!("{command} -h")), help);
        let version = world.ok(&format!("{command} --version"));
        assert_eq!(
            version,
            format!("{command} {}", env!("CARGO_PKG_VERSION")),
            "all programs have one version"
        );
        assert_eq!(world.ok(&format!("{command} -V")), version);
        // ob-reaper is pid 1, so it continues with any arguments.
        if *command != "ob-reaper" {
            let mistyped = world.run(&format!("{command} --hlep </dev/null"));
            let status = mistyped.status;
            assert!(status == 2 || status == 125, "{mistyped:?}");
            mistyped.fails(
                status,
                &[&format!("{command}: "), "--hlep", "did you mean --help?"],
            );
        }
    }
}

/// Prints the words that bash offers after `line`, by the function that `complete` has registered.
const BASH: &str = r#"
. ./overlay.bash
line=$1
read -ra COMP_WORDS <<<"$line"
[[ $line != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p "${COMP_WORDS[0]}"); function=${function#*-F }; "${function%% *}"
printf '%s\n' "${COMPREPLY[@]}" | sort
"#;

/// Like `BASH`, but for zsh, at a prompt in a terminal; `$2` is searched for completions first.
pub const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; unset zle_bracketed_paste; fpath=($2 \$fpath); autoload -U compinit; compinit -u -D"
zpty -w shell "LISTMAX=1000; setopt nobeep nolistambiguous; finish() { zle -I; print END-OF-'LIST' }; zle -N finish; bindkey '^X' finish; print READ'Y'"
zpty -r shell out '*READY*'
zpty -w -n shell "$1"$'\t\x18'
zpty -r shell out '*END-OF-LIST*'
print -r -- "$out"
zpty -d shell
"#;

#[test]
fn shells_complete_names_files_and_options() {
    let world = World::new();
    let completions = [
        (
            "overlay.bash",
            include_str!("../../../etc/completions/overlay.bash"),
        ),
        (
            "_overlay",
            include_str!("../../../etc/completions/_overlay"),
        ),
        (
            "overlay.fish",
            include_str!("../../../etc/completions/overlay.fish"),
        ),
    ];
    for (name, text) in completions {
        world.write(name, text);
    }
    world.write("bash-test", BASH);
    world.write("zsh-test", ZSH);
    let conf = world.subhost("mta", "");
    let other = world.subhost("mtb", "");
    world.ok(&format!(
        "cp {conf} mtx.conf; touch mty.txt; overlay-boot {conf}; overlay-boot {other}"
    ));
    // The line, words that must be offered, and words that must not.
    let table: &[(&str, &[&str], &[&str])] = &[
        ("overlay-stop mt", &["mta", "mtb", "mtx.conf"], &["mty.txt"]),
        ("overlay-go mt", &["mta", "mtb"], &["mtx.conf"]),
        ("overlay-log -f mt", &["mta", "mtb"], &["mty.txt"]),
        ("overlay-boot mt", &["mtx.conf"], &["mty.txt"]),
        ("overlay-share mty.txt m", &["mta", "mtb"], &["mtx.conf"]),
        (
            "overlay-boot --",
            &["--dry-run", "--foreground", "--help", "--json"],
            &["--lower"],
        ),
        ("overlay-new --l", &["--lower"], &["--help"]),
        (
            "ob-mount --",
            &["--dry-run", "--undo", "--share"],
            &["--lower"],
        ),
        (
            "overlay-list --state s",
            &["starting", "stopping"],
            &["running"],
        ),
        (
            "overlay-subhosts st",
            &["start", "status", "stop"],
            &["list"],
        ),
    ];
    let shells = [
        ("bash", "bash bash-test \"$LINE\""),
        (
            "fish",
            "fish --no-config -c 'source overlay.fish; complete -C \"$LINE\"' | cut -f1",
        ),
        ("zsh", "TERM=dumb zsh -f zsh-test \"$LINE\" \"$PWD\""),
    ];
    for (shell, command) in shells {
        if world.run(&format!("command -v {shell}")).status != 0 {
            not_done("completion", &format!("needs {shell}"));
            continue;
        }
        for (line, offered, others) in table {
            let command = world.line(command).env("LINE", line).env("TERM", "dumb");
            let words = command.run().ok();
            // The output of zsh contains the line too, without the prefix that all words share.
            let words: Vec<&str> = words
                .split_whitespace()
                .map(|word| word.trim_start_matches("./"))
                .collect();
            for word in *offered {
                assert!(
                    words.contains(word),
                    "{shell}: no {word} after {line}: {words:?}"
                );
            }
            for word in *others {
                assert!(
                    line.contains(word) || !words.contains(word),
                    "{shell}: {word} after {line}: {words:?}"
                );
            }
        }
    }
    world.ok("overlay-stop --all");
}

#[test]
fn shell_inside_works_in_a_real_terminal() {
    let world = World::new();
    if world.run("command -v tmux").status != 0 {
        return not_done("a real terminal", "needs tmux");
    }
    let conf = world.subhost("mta", "");
    world.boot(&conf);
    // tmux gets its size from -x and -y, because the test has no terminal.
    let tmux = |line: &str| {
        world
            .line(&format!("tmux -S $W/tmux -f /dev/null {line}"))
            .env("TERM", "xterm")
            .run()
            .ok()
    };
    tmux("new-session -d -x 80 -y 24 'overlay-go mta; echo \"it was $?\"; exec sleep 1000'");
    let see = |text: &str| {
        until(&format!("the text {text} on the screen"), || {
            tmux("capture-pane -p").contains(text)
        });
    };
    let enter = |keys: &str| tmux(&format!("send-keys '{keys}' Enter"));
    enter("echo prompt-$((6*7))");
    see("prompt-42");
    enter("stty size; echo has-${TERM:+term}");
    see("24 80");
    see("has-term");
    tmux("resize-window -x 100 -y 30");
    until("the new window size", || {
        enter("clear; stty size");
        tmux("capture-pane -p").contains("30 100")
    });
    enter("vi /root/letter");
    see("/root/letter");
    tmux("send-keys i");
    tmux("send-keys -l 'dear friend'");
    tmux("send-keys Escape");
    see("- /root/letter"); // command mode again, after the timeout of the escape key
    enter(":wq");
    until("the written file", || world.has("mta/root/root/letter"));
    until("the text in the file", || {
        world.read("mta/root/root/letter").contains("dear friend")
    });
    enter("clear; sleep 1000");
    until("the process sleep", || {
        world
            .processes()
            .iter()
            .any(|process| process.starts_with("sleep: sleep 1000 "))
    });
    tmux("send-keys C-z");
    see("Stopped");
    enter("clear; echo again-$((6*8)); fg");
    see("again-48");
    see("sleep 1000");
    tmux("send-keys C-c");
    enter("exit 5");
    see("it was 5");
    tmux("kill-server");
    world.ok("overlay-stop mta");
}

#[test]
fn overlay_go_works_with_and_without_a_terminal() {
    let (world, _) = booted("");
    // script(1) makes a terminal, here without any capability, and returns the status of the
    // command.
    let inside = "overlay-go mta sh -c \"tty; echo is \\$TERM; exit 3\"";
    let done = world
        .line(&format!("script -qec '{inside}' /dev/null </dev/null"))
        .env("TERM", "dumb")
        .run();
    assert!(
        done.status == 3 && done.out.contains("/dev/pts/") && done.out.contains("is dumb"),
        "{done:?}"
    );
    // As cron does: no terminal, and an almost empty environment.
    let done = world.run(&format!(
        "env -i PATH=\"$PATH\" setsid -w {inside} </dev/null"
    ));
    assert_eq!(
        (done.status, done.out.as_str()),
        (3, "not a tty\nis\n"),
        "{done:?}"
    );
    // In a pipeline.
    assert_eq!(
        world.ok("echo hello | overlay-go mta cat | tr l r"),
        "herro"
    );
    assert_eq!(world.ok("overlay-go mta yes | head -n 2"), "y\ny");
    world.ok("overlay-stop mta");
}

#[test]
fn usage_errors_are_one_line_with_status_2() {
    let world = World::new();
    for (line, meant) in [
        ("ob-conf --chek x", "--check"),
        ("ob-mount --udno", "--undo"),
        ("ob-cable --udno", "--undo"),
        ("ob-unshare --rom x", "--room"),
    ] {
        world.run(line).fails(2, &["did you mean", meant]);
    }
    for line in [
        "ob-conf",
        "ob-conf --check",
        "ob-conf x --",
        "ob-room",
        "ob-room --undo x",
        "ob-room --cleanup x true",
        "ob-unshare --room",
        "ob-unshare --then x",
        "ob-cable x",
        "ob-mount x",
        "overlay-boot",
        "overlay-boot --bogus",
        "overlay-stop",
        "overlay-stop --bogus",
    ] {
        let done = world.run(line);
        assert_eq!((done.status, done.err.lines().count()), (2, 1), "{done:#?}");
    }
}
