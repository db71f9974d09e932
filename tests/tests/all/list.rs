//! The states of subhosts, as overlay-list shows them.

use end_to_end::{World, until};

#[test]
fn list_shows_the_state_of_each_subhost() {
    let world = World::new();
    let conf = world.subhost("a", "");
    assert_eq!(world.ok("overlay-list --names"), "");
    world.boot(&conf);
    let slow_boot = world.subhost("b", "PREMOUNT=./hook");
    world.script("b/hook", ": >$BASE/begun; sleep 100000");
    let starting = world.line(&format!("overlay-boot {slow_boot}")).start();
    until("the hook to begin", || world.has("b/begun"));
    let slow_stop = world.subhost("c", "INIT=./init\nSTOP_TIMEOUT=60");
    world.init(
        "c",
        "trap '' TERM; sleep 100000 & : >/root/ready; exec sleep 100000",
    );
    world.boot(&slow_stop);
    until("pid 1 to ignore TERM", || world.has("c/root/root/ready"));
    let stopping = world.line("overlay-stop c").start();
    until("the state to be stopping", || {
        world.state("c") == "stopping"
    });
    assert_eq!(
        (world.state("a"), world.state("b")),
        ("running".into(), "starting".into())
    );
    assert_eq!(world.ok("overlay-list --names"), "a\nb\nc");
    assert_eq!(
        world.ok("overlay-list a >/dev/null; overlay-list --state running --names"),
        "a"
    );
    assert_eq!(world.run("overlay-list b").status, 1);
    assert_eq!(world.run("overlay-list a b").status, 1);
    world
        .run("overlay-list nobody")
        .fails(1, &["nobody", "not running"]);
    let json = world.ok("overlay-list --json a");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["pid"], world.document("a")["pid"]);
    assert_eq!(
        json[0]["conf"].as_str().or(json[0]["config"].as_str()),
        Some(conf.as_str()),
        "{json}"
    );
    world.ok("kill -9 $(ob-list --json c | grep -o '\"pid\":[0-9]*' | cut -d: -f2)");
    assert_eq!(stopping.wait().status, 0);
    world.ok("overlay-stop a b");
    starting.wait();
}

#[test]
fn state_is_stopping_while_services_stop() {
    let world = World::new();
    let conf = world.subhost("mta", "START=/slow\nSTOP_TIMEOUT=100");
    world.script(
        "mta/root/slow",
        "[ $1 = stop ] || exit 0\n: >/root/asked\nuntil [ -e /root/done ]; do sleep 0.05; done",
    );
    world.boot(&conf);
    let stop = world
        .line("echo $$ >stopper; exec overlay-stop mta >said 2>&1")
        .start();
    until("the stop of the service", || {
        world.has("mta/root/root/asked")
    });
    assert_eq!(world.state("mta"), "stopping");
    // If overlay-stop dies before it has stopped the services, the subhost still runs.
    world.ok("kill -9 $(cat stopper)");
    stop.wait();
    until("the state to be running again", || {
        world.state("mta") == "running"
    });
    world.inside("mta", "rm /root/asked");
    let stop = world.line("overlay-stop mta").start();
    until("the second stop of the service", || {
        world.has("mta/root/root/asked")
    });
    assert_eq!(world.state("mta"), "stopping");
    world.inside("mta", ": >/root/done");
    assert_eq!(stop.wait().status, 0);
    assert_eq!(world.run("overlay-list mta").status, 1);
}
