//! Paths of configurations.

use end_to_end::World;

#[test]
fn configuration_boots_by_any_path() {
    let world = World::new();
    world.subhost("mta", "");
    world.ok("mkdir elsewhere; ln -s ../mta/mta.conf elsewhere/link.conf; ln -s mta linked; cp mta/mta.conf mta/plain");
    let w = world.directory();
    let before = world.snapshot();
    for (name, directory, path) in [
        ("mta", w, format!("{w}/mta/mta.conf")),
        ("mta", w, "mta/mta.conf".into()),
        ("mta", w, "./mta//../mta/./mta.conf".into()),
        ("mta", "mta", "mta.conf".into()),
        ("mta", "mta/root", "../mta.conf".into()),
        ("mta", "/", format!(".{w}/mta/mta.conf")),
        ("mta", w, "linked/mta.conf".into()),
        ("plain", "mta", "plain".into()),
    ] {
        let command = |command: &str| format!("cd {directory} && {command} {path}");
        world.boot_and_stop(name, &command("overlay-boot"), &command("overlay-stop"));
        world.boot_and_stop(
            name,
            &command("overlay-boot"),
            &format!("cd /; overlay-stop {name}"),
        );
        world.assert_same(&before);
    }
    // A link in another directory has another NAME and another BASE.
    world
        .run("overlay-boot elsewhere/link.conf")
        .fails(1, &["link", "UPPER", "elsewhere/root", "does not exist"]);
    world.assert_same(&before);
}

#[test]
fn hazard_33_paths_may_have_blanks_commas_and_colons() {
    let world = World::new();
    world.ok("mkdir 'l o,w:er'; cp -a busybox/* 'l o,w:er'");
    let before = world.snapshot();
    for directory in [
        "a blank",
        "a,comma",
        "a:colon",
        "a'quote",
        "a\"quote",
        "back\\slash",
        "star*",
        "dollar$HOME",
        "umlaut-ü",
        "new  blanks ",
        "a b,c:d",
    ] {
        world.script(
            format!("{directory}/hook"),
            "echo hook >>log2; ob-mount --furnish \"$LIVE\"",
        );
        world.ok(&format!(
            "mkdir -p {0}/live {0}/root {0}/work",
            quote(directory)
        ));
        world.write(
            format!("{directory}/o d,d.conf"),
            "BASE=.\nNAME=odd\nLOWER=../l o,w:er\nSTART=none\nLOG=log\nPOSTMOUNT=./hook\n",
        );
        let conf = quote(&format!("{directory}/o d,d.conf"));
        world.boot_and_stop(
            "odd",
            &format!("overlay-boot {conf}"),
            &format!("overlay-stop {conf}"),
        );
        assert!(
            world.has(format!("{directory}/root/root/was-here")),
            "{directory}"
        );
        assert_eq!(world.read(format!("{directory}/log2")), "hook\n");
        world.assert_same(&before);
        world.ok("rm log"); // relative to the directory of the caller
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
