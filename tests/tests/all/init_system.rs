//! The host at boot and shutdown: the init script, the systemd unit, and the examples for other
//! supervisors.

use end_to_end::{Done, World, scripts, until};

/// Returns the path of a file in etc/ beside the scripts.
fn etc(file: &str) -> String {
    let source = scripts().parent().expect("a directory above the scripts");
    source.join("etc").join(file).display().to_string()
}

/// Makes a world whose commands are where the init script looks for them. Three of four subhosts
/// are in $W/subhosts.conf. Each records its starts and stops in $W/order.
fn machine() -> World {
    let world = World::new();
    world.ok("mkdir sbin; for d in $(echo $PATH | tr : ' '); do case $d in /usr/*|/bin|/sbin) ;; *) ln -s $d/o* sbin ;; esac; done; mount --bind sbin /usr/local/sbin");
    world.script(
        "busybox/etc/one",
        "echo $1 $(cat /etc/name) >>/order/order; sleep 1000 &",
    );
    world.ok("mkdir order");
    for name in ["a", "b", "c", "d"] {
        let share = format!("SHARE={}/order:/order\nSTART=/etc/one", world.directory());
        world.subhost(name, &share);
        world.write(format!("{name}/root/etc/name"), name);
    }
    let w = world.directory();
    world.write(
        "subhosts.conf",
        &format!(
            "# remark\n{w}/c/c.conf {w}/a/a.conf # two, and a remark\n\n{w}/b/b.conf#right behind"
        ),
    );
    world
}

/// Runs etc/init.d/subhosts.
fn init(world: &World, action: &str) -> Done {
    let script = etc("init.d/subhosts");
    let file = format!("{}/subhosts.conf", world.directory());
    world
        .line(&format!("{script} {action}"))
        .env("SUBHOSTS_CONF", &file)
        .run()
}

#[test]
fn hazard_28_init_script_starts_in_order_and_stops_in_reverse() {
    let world = machine();
    world.ok("overlay-boot d/d.conf");
    until("the service of d", || world.has("order/order"));
    assert_eq!(init(&world, "status").status, 3);
    init(&world, "start").ok();
    assert_eq!(world.ok("ob-list --names | sort | tr '\n' ' '"), "a b c d ");
    until("all services", || {
        world.read("order/order").lines().count() == 4
    });
    init(&world, "status").ok();
    let running = world.snapshot();
    init(&world, "start").ok(); // running subhosts are left alone
    world.assert_same(&running);
    for refused in ["restart", "force-reload"] {
        init(&world, refused).fails(3, &["stop"]);
    }
    init(&world, "fly").fails(2, &["Usage"]);
    world.ok("rm order/order");
    init(&world, "stop").ok();
    assert_eq!(world.read("order/order"), "stop b\nstop a\nstop c\n");
    assert_eq!(world.ok("ob-list --names"), "d");
    init(&world, "stop").ok(); // LSB: stopping a stopped service succeeds
    assert_eq!(init(&world, "status").status, 3);
    // A failing subhost is reported, and the rest are started.
    world.ok("mv a/live a/gone");
    init(&world, "start").fails(1, &["a/live"]);
    assert_eq!(world.ok("ob-list --names | sort | tr '\n' ' '"), "b c d ");
}

#[test]
fn hazard_29_unit_takes_a_path_or_name_and_signals_readiness() {
    let unit = std::fs::read_to_string(etc("systemd/subhosts@.service")).expect("read the unit");
    for line in [
        "Type=notify",
        "ExecStart=/usr/sbin/overlay-subhosts run %I",
        "ExecStop=/usr/sbin/overlay-subhosts end %I",
    ] {
        assert!(unit.lines().any(|there| there == line), "no {line}");
    }
    let world = machine();
    let w = world.directory();
    let file = format!("{w}/subhosts.conf");
    for name in ["my-web", "usr"] {
        let conf = world.subhost(name, "");
        world.ok(&format!("printf '\\n%s' {conf} >>subhosts.conf"));
    }
    let before = world.snapshot();
    // As systemd unescapes %I: a path loses its first slash, a name its dashes. /usr exists and is
    // not a configuration.
    for (instance, name) in [
        (format!("{}/d/d.conf", &w[1..]), "d"),
        ("a".to_owned(), "a"),
        ("my/web".to_owned(), "my-web"),
        ("usr".to_owned(), "usr"),
    ] {
        let message = format!("{w}/message-{name}");
        let listen = format!(
            "python3 -c 'import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.bind(\"{w}/notify\"); print(s.recv(99).decode(), file=open(\"{message}\",\"w\"))'"
        );
        let _listener = world.line(&listen).start();
        until("the socket", || world.has("notify"));
        let mut unit = world
            .line(&format!("exec overlay-subhosts run {instance}"))
            .env("NOTIFY_SOCKET", &format!("{w}/notify"))
            .env("SUBHOSTS_CONF", &file)
            .start();
        until("the readiness message", || {
            assert!(unit.is_running(), "{instance}");
            world.has(&message) && !world.read(&message).is_empty()
        });
        assert_eq!(world.read(&message).trim(), "READY=1");
        assert_eq!(world.ok("ob-list --names"), name);
        assert!(unit.is_running());
        world
            .line(&format!("overlay-subhosts end {instance}"))
            .env("SUBHOSTS_CONF", &file)
            .run()
            .ok();
        assert_eq!(unit.wait().status, 0);
        world.ok("rm notify");
        world.until_same(&before);
    }
}

/// Installs a file of docs/examples, with the directory of the world in place of /opt/subhost.
fn example(world: &World, file: &str) -> String {
    let source = scripts().parent().expect("a directory above the scripts");
    let text =
        std::fs::read_to_string(source.join("docs/examples").join(file)).expect("read the example");
    world.script(file, &text.replace("/opt/subhost", world.directory()));
    format!("./{file}")
}

#[test]
fn examples_for_supervisors_start_and_stop_a_subhost() {
    let world = World::new();
    let conf = world.subhost("mta", "CABLES==");
    let before = world.snapshot();

    // s6 waits for a newline on descriptor 3, and stops with TERM.
    assert_eq!(
        std::fs::read_to_string(scripts().with_file_name("docs/examples/s6/mta/notification-fd"))
            .expect("read the descriptor number"),
        "3\n"
    );
    let run = example(&world, "s6/mta/run");
    let s6 = world.line(&format!("mkfifo ready; {run} 3>ready & run=$!; exec 3<>ready; head -n 1 <&3 >up; exec 3<&-; read -r go; kill $run; wait $run; echo $?"));
    let s6 = s6.input("go\n").start();
    assert_eq!(s6.wait().ok(), "0");
    assert_eq!(world.read("up"), "\n");
    world.until_same(&before);

    // runit calls ./check, and runs control/t instead of sending TERM.
    let (run, check, control) = (
        example(&world, "runit/mta/run"),
        example(&world, "runit/mta/check"),
        example(&world, "runit/mta/control/t"),
    );
    assert_ne!(world.run(&check).status, 0);
    let runit = world.line(&format!("exec {run}")).start();
    until("the subhost of runit", || world.run(&check).status == 0);
    world.ok(&control);
    let runit = runit.wait(); // 1 if the stop came before the boot was complete
    assert!([0, 1].contains(&runit.status), "{runit:#?}");
    world.until_same(&before);

    // OpenRC sources service scripts.
    let openrc = example(&world, "openrc/subhost");
    let source = format!(
        "ebegin() {{ :; }}; eend() {{ return $1; }}; RC_SVCNAME=subhost.mta; conf={conf}; . {openrc}"
    );
    world.ok(&format!("{source}; start && status && stop"));
    world.assert_same(&before);
    assert_ne!(world.run(&format!("{source}; status")).status, 0);
    let supervised = example(&world, "openrc/subhost-supervised");
    let source = source.replace(&openrc, &supervised);
    assert_eq!(
        world.ok(&format!("{source}; echo $command $command_args")),
        format!("/usr/sbin/overlay-boot --foreground --notify-fd 3 {conf}")
    );
}
