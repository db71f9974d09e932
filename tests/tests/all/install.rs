//! The files of `make install`, and their use from where they are installed.

use end_to_end::{NO_SOURCE, NOT_INSTALLED, World, bin, is_root_or_tell, not_done, scripts};
use std::process::Command;

/// Installs below `dest` in the world.
fn install(world: &World, prefix: &str) {
    make(world, "install", prefix);
}

fn make(world: &World, target: &str, prefix: &str) {
    let output = Command::new("make")
        .args(["-s", target, &format!("PREFIX={prefix}")])
        .arg(format!("BUILT={}/", bin().display()))
        .arg(format!("DESTDIR={}", world.at("dest").display()))
        .current_dir(scripts().join(".."))
        .output()
        .expect("run make");
    assert!(output.status.success(), "{output:?}");
}

/// Prints the words that bash offers after `line`, with only the installed completions.
const BASH: &str = r#"
. /usr/share/bash-completion/bash_completion
line=$1
read -ra COMP_WORDS <<<"$line"
[[ $line != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
loader=$(complete -p -D); loader=${loader#*-F }
"${loader%% *}" "${COMP_WORDS[0]}"
function=$(complete -p "${COMP_WORDS[0]}"); function=${function#*-F }; "${function%% *}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

const SHELLS: &[(&str, &str, &str)] = &[
    (
        "bash",
        "/usr/share/bash-completion/bash_completion",
        "bash --norc bash-test \"$LINE\"",
    ),
    ("zsh", "/usr/bin/zsh", "zsh -f zsh-test \"$LINE\""),
    ("fish", "/usr/bin/fish", "fish -c 'complete -C \"$LINE\"'"),
];

#[test]
fn installed_files_boot_and_complete() {
    if !is_root_or_tell("installed files") {
        return;
    }
    if !scripts().join("../Makefile").exists() {
        return not_done("make install", NO_SOURCE);
    }
    // The mount puts the installed files where they belong, in this world only.
    let places = [
        (
            "/usr/local",
            "mount --bind dest/usr/local /usr/local && mount -t overlay fish -o lowerdir=$W/dest/etc/fish:/etc/fish /etc/fish",
        ),
        (
            "/usr",
            "mount -t overlay usr -o lowerdir=$W/dest/usr:/usr /usr",
        ),
    ];
    for (prefix, mount) in places {
        let world = World::new();
        install(&world, prefix);
        world.write("bash-test", BASH);
        world.write("zsh-test", super::prompt::ZSH);
        world.ok(mount);
        let installed = |line: &str| {
            let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            let home = format!("{}/home", world.directory());
            let line = world.line(line).env("PATH", path).env("HOME", &home);
            line.env("TERM", "dumb")
        };
        let ok = |line: &str| installed(line).run().ok();
        let conf = world.subhost("mta", "POSTMOUNT=./post");
        world.script(
            "mta/post",
            &format!(
                "{}/dest/var/lib/overlay-boot/overlay-postmount \"$@\"",
                world.directory()
            ),
        );
        assert_eq!(
            ok("command -v overlay-boot; command -v ob-conf"),
            format!("{prefix}/sbin/overlay-boot\n{prefix}/bin/ob-conf")
        );
        ok(&format!("overlay-boot {conf}; cp {conf} mtx.conf"));
        assert_eq!(ok("overlay-go mta ls -d /dev/pts/ptmx"), "/dev/pts/ptmx");
        // The shell, a file that it needs, the line, and a word that must be offered.
        for (shell, needs, command) in SHELLS {
            if !std::path::Path::new(needs).exists() {
                not_done(&format!("completion in {shell}"), NOT_INSTALLED);
                continue;
            }
            for (line, offered) in [
                ("overlay-stop mt", "mta"),
                ("overlay-boot mt", "mtx.conf"),
                ("overlay-boot --dr", "--dry-run"),
                ("ob-list --", "--documents"),
            ] {
                let words = installed(command).env("LINE", line).run().ok();
                let mut words = words.split_whitespace();
                assert!(
                    words.any(|word| word.trim_start_matches("./") == offered),
                    "{prefix}: {shell}: no {offered} after {line}"
                );
            }
        }
        ok("overlay-stop --all");
        // A second installation keeps files of the administrator.
        world.ok("echo mine >dest/etc/subhosts.conf; rm dest/var/lib/overlay-boot; mkdir dest/var/lib/overlay-boot");
        world.ok(&format!("umount -l {prefix}"));
        install(&world, prefix);
        assert_eq!(
            world.ok("cat dest/etc/subhosts.conf; ls dest/var/lib/overlay-boot"),
            "mine"
        );
    }
}

#[test]
fn uninstall_removes_the_installed_files_alone() {
    if !scripts().join("../Makefile").exists() {
        return not_done("make uninstall", NO_SOURCE);
    }
    for prefix in ["/usr/local", "/usr", "/opt/x"] {
        let world = World::new();
        world.ok("mkdir -p dest/etc/init.d dest/usr/bin dest/var/lib");
        world.ok("echo mine | tee dest/etc/other dest/etc/init.d/other dest/usr/bin/ob-other >dest/var/lib/other");
        let files = || world.ok("cd dest; find . ! -type d | sort");
        let before = files();
        make(&world, "uninstall", prefix);
        assert_eq!(files(), before, "nothing is installed");
        install(&world, prefix);
        // The page and the README name the files outside of the prefix.
        let outside = world.ok(&format!(
            "cd dest; find . ! -type d ! -path '.{prefix}/*' | sort"
        ));
        let fish = outside
            .lines()
            .filter(|line| line.starts_with("./etc/fish/"));
        assert_eq!(fish.count() == 0, prefix == "/usr", "{outside}");
        let others = outside.lines().filter(|line| {
            !line.starts_with("./etc/fish/") && !before.lines().any(|mine| mine == *line)
        });
        assert_eq!(
            others.collect::<Vec<_>>(),
            [
                "./etc/init.d/subhosts",
                "./etc/subhosts.conf",
                "./var/lib/overlay-boot"
            ]
        );
        make(&world, "uninstall", prefix);
        assert_eq!(files(), before);
        assert!(!world.has(format!("dest{prefix}/lib/overlay-boot")));
        // Changed files, and a directory in the place of the link, stay.
        install(&world, prefix);
        world.ok("cd dest; echo mine >>etc/subhosts.conf; echo mine >>etc/init.d/subhosts");
        world.ok(
            "cd dest/var/lib; rm overlay-boot; mkdir overlay-boot; echo mine >overlay-boot/hook",
        );
        make(&world, "uninstall", prefix);
        let mut kept: Vec<&str> = before.lines().collect();
        kept.extend(["./etc/init.d/subhosts", "./etc/subhosts.conf"]);
        kept.push("./var/lib/overlay-boot/hook");
        kept.sort_unstable();
        assert_eq!(files(), kept.join("\n"));
    }
}

#[test]
fn boot_needs_no_other_programs() {
    let world = World::new();
    world.ok("ip link add br0 type bridge");
    for program in [
        "brctl",
        "bc",
        "fdisk",
        "ldd",
        "pivot_root",
        "unshare",
        "nsenter",
        "ip",
        "ps",
        "pgrep",
        "pkill",
        "mount",
        "umount",
        "bash",
        "sudo",
    ] {
        world.script(format!("fake/{program}"), "echo \"$0\" >>$W/needed; exit 1");
    }
    let conf = world.subhost("mta", "CABLES=br0=");
    world.ok(&format!(
        "PATH=$W/fake:$PATH; overlay-boot {conf} && overlay-go mta true && overlay-stop mta"
    ));
    assert!(!world.has("needed"), "{}", world.read("needed"));
}
