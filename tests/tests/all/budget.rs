//! Budgets: the processes, programs and system calls of a boot, an entry, a list and a stop. A
//! change that raises a budget must justify it here. Times are the subject of `make bench`.

use end_to_end::{Cost, World, is_root, until};

/// The upper limits. The system calls allow for another C library: with glibc, the dynamic loader
/// makes a third of them.
const BOOT: Cost = Cost {
    processes: 8, // overlay-boot, the guard, four stages, pid 1, the placeholder
    execs: 8,     // overlay-boot, the guard, four stages, the shell of pid 1, the reaper
    calls: 1030,
};
const ENTER: Cost = Cost {
    processes: 3, // overlay-go, the intermediate child of ob-enter, the command
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
    calls: 800, // about 450; on a loaded machine it polls more often
};

/// The upper limits of a stop that starts the shutdown helper.
const HELPED: Cost = Cost {
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
    // The lower limits prove that the counting works.
    assert!(cost.execs > 1 && cost.calls > budget.calls / 3, "{cost:?}");
}

/// Runs a command; counts the calls of the command and of its descendants until they have exited.
fn count(world: &World, command: &str) -> Cost {
    world.ok(&format!("strace -f -qq -o trace {command} >/dev/null 2>&1"));
    Cost::of(&world.read("trace"))
}

/// Counts the calls of a boot until its placeholder has started.
fn count_boot(world: &World, conf: &str) -> Cost {
    // With -D, strace is not the parent of overlay-boot: the command returns while strace traces
    // on.
    world.ok(&format!(
        "strace -D -f -qq -o trace overlay-boot {conf} >/dev/null 2>&1"
    ));
    let mut trace = String::new();
    until("the placeholder to start", || {
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
    // The first boot makes directories that stay.
    world.ok(&format!("overlay-boot {conf} && overlay-stop mta"));
    let mut boot = BOOT;
    if !is_root() {
        boot.calls += 80; // the second tries of what a user namespace may not do
    }
    is_within(&count_boot(&world, &conf), &boot);
    is_within(&count(&world, "overlay-go mta true"), &ENTER);
    is_within(&count(&world, "overlay-list mta"), &LIST);
    let stop = count(&world, "overlay-stop mta");
    // On a loaded machine pid 1 may take so long to exit that the shutdown helper starts.
    let helped = stop.execs > STOP.execs;
    is_within(&stop, if helped { &HELPED } else { &STOP });
}

#[test]
fn instructions_of_each_tool_stay_within_budget() {
    let world = World::new();
    world.ok("ip link add br0 type bridge && ip link set br0 up && mkdir -p /run/netns");
    let conf = world.subhost("mta", "CABLES=br0=");
    // The limits allow for longer paths, another compiler and another C library.
    let within = |program: &str, budget: usize| {
        let found = world.instructions(program);
        assert!(found <= budget, "{program}: {found} instructions");
        // The lower limit proves that the counting works.
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
