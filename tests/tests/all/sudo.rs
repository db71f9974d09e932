//! Without root, the commands run themselves again under sudo, with unchanged arguments.

use end_to_end::{World, is_root, scripts};

/// Makes a world in which another user owns /run, as the commands see it without root. Its sudo
/// prints its arguments.
fn world() -> World {
    let world = World::new();
    world.script("fake/sudo", "printf '<%s>' \"$0\" \"$@\"; echo; exit 3");
    if is_root() {
        world.ok("mount -t tmpfs -o uid=1 tmpfs /run");
    } else {
        // Owned by uid 0 outside, which is not mapped in this user namespace.
        world.ok("mount --bind /usr /run");
    }
    world
}

#[test]
fn sudo_gets_every_argument_unchanged() {
    let world = world();
    let w = world.directory();
    for (command, arguments) in [
        ("overlay-boot", "'a b.conf'"),
        ("overlay-boot", "'a  b'\"'\"'c.conf'"),
        ("overlay-boot", "-f \"it's\""),
        ("overlay-stop", "'x  y' '*' '$HOME'"),
        ("overlay-go", "mta -- sh -c 'echo \"a  b\"' ''"),
        ("overlay-go", ""),
    ] {
        let done = world.run(&format!("PATH=$W/fake:$PATH; {command} {arguments}"));
        assert_eq!(done.status, 3, "{done:#?}");
        let scripts = scripts().display();
        let called = world.ok(&format!(
            "printf '<%s>' {w}/fake/sudo -- {scripts}/{command} {arguments}"
        ));
        assert_eq!(done.out.trim_end(), called, "{done:#?}");
    }
}

#[test]
fn commands_without_sudo_print_one_line() {
    let world = world();
    // The commands set PATH themselves. A bind mount of /dev/null hides sudo: it is not a regular
    // file.
    world.ok("for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do [ ! -f $d/sudo ] || mount --bind /dev/null $d/sudo; done");
    for (command, words) in [
        ("overlay-boot a.conf", "only root can start"),
        ("overlay-stop a", "only root can stop"),
        ("overlay-go a", "only root can enter"),
    ] {
        world
            .run(command)
            .fails(1, &[command.split(' ').next().unwrap(), words]);
    }
}
