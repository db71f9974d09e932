//! overlay-diff: the changes of a subhost.

use end_to_end::{World, is_root_or_tell, not_done};

#[test]
fn diff_lists_added_changed_and_deleted_files() {
    if !is_root_or_tell("opaque directories") {
        return;
    }
    let world = World::new();
    world.ok("mkdir -p busybox/srv/kept busybox/srv/emptied busybox/srv/moved busybox/srv/anew; cd busybox/srv; touch kept/file kept/other emptied/a emptied/b moved/x moved/y anew/old anew/both gone");
    let conf = world.subhost("mta", "");
    world.boot(&conf);
    world.inside("mta", "cd /srv; echo >kept/new; chmod 600 kept/other; rm -r emptied gone; rm -r anew; mkdir anew; touch anew/both; ln -s nowhere link; mkdir -m 700 own; touch \"own/a\nb\"");
    // The first boot creates files that a subhost needs.
    let expected = "C /srv\nC /srv/anew\nC /srv/anew/both\nD /srv/anew/old\nD /srv/emptied\nD /srv/gone\nC /srv/kept\nA /srv/kept/new\nC /srv/kept/other\nA /srv/link\nA /srv/own\nA /srv/own/a\\012b";
    let diff = |of: &str| world.ok(&format!("overlay-diff {of} | grep ' /srv'"));
    assert_eq!(diff("mta"), expected);
    assert_eq!(diff(&conf), expected);
    assert_eq!(
        world.ok(&format!("ob-conf {conf} | ob-diff | grep ' /srv'")),
        expected
    );
    let array = world.ok("overlay-diff --json mta");
    let array: serde_json::Value = serde_json::from_str(&array).expect("JSON");
    let deleted: Vec<_> = array
        .as_array()
        .expect("an array")
        .iter()
        .filter(|change| change["kind"] == "deleted")
        .map(|change| {
            (
                change["path"].as_str().unwrap(),
                change["type"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        deleted,
        [
            ("/srv/anew/old", "file"),
            ("/srv/emptied", "directory"),
            ("/srv/gone", "file")
        ]
    );
    assert_eq!(world.run("overlay-diff mta | head -n 1").status, 0);
    world.ok("overlay-stop mta");
    assert_eq!(diff(&conf), expected);
    world
        .run("overlay-diff mta")
        .fails(1, &["mta: not running; name its configuration"]);
    let bound = world.subhost("bound", "UPPER=../busybox");
    world
        .run(&format!("overlay-diff {bound}"))
        .fails(1, &["overlay-diff: bound: ", "UPPER is LOWER"]);
}

#[test]
fn renamed_directory_is_added_and_deleted() {
    if !is_root_or_tell("redirects") {
        return;
    }
    let world = World::new();
    world.ok("mkdir -p l/a/b l/old/deep u w m; touch l/a/b/f l/old/g l/old/h l/old/deep/z");
    let mount =
        "mount -t overlay o -o redirect_dir=on,metacopy=on,lowerdir=l,upperdir=u,workdir=w m";
    if world.run(mount).status != 0 {
        return not_done("redirects", "this kernel has no redirect_dir");
    }
    world.ok(
        "cd m; mv old a/new; rm a/new/g; touch a/new/i; mkdir old; touch old/h; chmod 600 a/b/f",
    );
    let document = r#"echo "{\"NAME\":\"x\",\"LOWER\":\"$W/l\",\"UPPER\":\"$W/u\"}""#;
    assert_eq!(
        world.ok(&format!("{document} | ob-diff")),
        "C /a\nC /a/b/f\nA /a/new\nA /a/new/deep\nA /a/new/deep/z\nA /a/new/h\nA /a/new/i\nC /old\nD /old/deep\nD /old/g\nC /old/h"
    );
    assert_eq!(
        world.ok(&format!(
            "{document} | ob-diff -j | jq -r '.[] | select(.from) | .from + \" \" + .path'"
        )),
        "/old /a/new"
    );
    world.ok("umount m");
}
