//! What a boot, an entry, a list and a stop may take of processes, programs and system calls. A change that needs more has to say
//! here why it is worth it. No time is judged: `make bench` does that.

use end_to_end::{Cost, World, until};

/// The most that may be taken. The system calls have room for another C library: its dynamic loader makes a third of them.
const BOOT: Cost = Cost {
    processes: 9, // overlay-boot, ob-conf, the guard, four stages, pid 1, the stand-in
    execs: 9,     // overlay-boot, ob-conf, the guard, four stages, pid 1's shell, the reaper
    calls: 1000,
};
const ENTER: Cost = Cost {
    processes: 3, // overlay-go, who lets go of the control group's directory, the command
    execs: 4,     // overlay-go, ob-enter, its sealed copy, the command
    calls: 420,
};
const LIST: Cost = Cost {
    processes: 2,
    execs: 3,
    calls: 330,
};
const STOP: Cost = Cost {
    processes: 3, // overlay-stop, ob-list, ob-cable
    execs: 4,
    calls: 800, // some 450 at rest; what it waits for is looked at more often on a loaded machine
};

/// Of a stop that had to send a watcher.
const WATCHED: Cost = Cost {
    processes: 5,
    execs: 5,
    calls: 1000,
};

#[track_caller]
fn is_within(cost: &Cost, budget: &Cost) {
    assert!(
        cost.processes <= budget.processes
            && cost.execs <= budget.execs
            && cost.calls <= budget.calls,
        "{cost:?} is more than {budget:?}"
    );
    // What is counted must not have been missed, or the test could not fail.
    assert!(cost.execs > 1 && cost.calls > budget.calls / 3, "{cost:?}");
}

/// Runs a command, and counts what it and all that it started have done until they ended.
fn count(world: &World, command: &str) -> Cost {
    world.ok(&format!("strace -f -qq -o trace {command} >/dev/null 2>&1"));
    Cost::of(&world.read("trace"))
}

/// The same for a boot, of which something stays: until its stand-in has begun.
fn count_boot(world: &World, conf: &str) -> Cost {
    // As no parent of what it traces (-D) strace keeps nobody waiting, and goes on with what stays.
    world.ok(&format!(
        "strace -D -f -qq -o trace overlay-boot {conf} >/dev/null 2>&1"
    ));
    let mut trace = String::new();
    until("the stand-in to begin", || {
        trace = world.read("trace");
        trace.contains("\"dummy_service\"")
    });
    Cost::of(&trace)
}

#[test]
fn boot_enter_list_and_stop_stay_within_budget() {
    let world = World::new();
    world.ok("ip link add br0 type bridge && ip link set br0 up");
    let conf = world.subhost("mta", "CABLES=br0=");
    // The first one makes the directories of all.
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    is_within(&count_boot(&world, &conf), &BOOT);
    is_within(&count(&world, "overlay-go mta true"), &ENTER);
    is_within(&count(&world, "overlay-list mta"), &LIST);
    let stop = count(&world, "overlay-stop mta");
    // On a loaded machine pid 1 may take so long to end that a watcher is sent.
    let watched = stop.execs > STOP.execs;
    is_within(&stop, if watched { &WATCHED } else { &STOP });
}

#[test]
fn instructions_of_each_tool_stay_within_budget() {
    let world = World::new();
    world.ok("ip link add br0 type bridge && ip link set br0 up && mkdir -p /run/netns");
    let conf = world.subhost("mta", "CABLES=br0=");
    // With room for longer paths, another compiler, and another C library.
    let within = |program: &str, budget: usize| {
        let found = world.instructions(program);
        assert!(found <= budget, "{program}: {found} instructions");
        // What is counted must not have been missed, or the test could not fail.
        assert!(found > budget / 4, "{program}: {found} instructions");
    };
    within(&format!("ob-conf {conf} >1"), 300_000);
    within("ob-mount <1 >2", 400_000);
    within("ob-cable <2 >3", 320_000);
    within("ob-unshare -- true <3 >4", 480_000);
    within("ob-cable --undo <3 >4", 280_000);
    world.ok("ob-mount --undo <2 >4");
    world.boot(&conf);
    within("ob-enter mta true", 400_000);
    within("ob-list --documents mta >5", 300_000);
    world.ok("overlay-stop mta");
}
