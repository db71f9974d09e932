//! The cost of a command in processes, programs and system calls, counted from `strace -f`. These
//! counts do not vary with the load of the machine. The benchmark uses them too.

/// The cost of a command and of all processes that it starts.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processes, including the first one.
    pub processes: usize,
    /// Successful execve(2) calls, including the first one.
    pub execs: usize,
    /// System calls.
    pub calls: usize,
}

impl Cost {
    /// Counts the calls in the output of `strace -f`.
    #[must_use]
    pub fn of(trace: &str) -> Self {
        let mut cost = Cost {
            processes: 1,
            execs: 0,
            calls: 0,
        };
        for line in trace.lines() {
            let call = line
                .split_once(' ')
                .map_or("", |(_, call)| call.trim_start());
            cost.calls += usize::from(call.starts_with(|c: char| c.is_ascii_lowercase()));
            // strace splits a call that another process interrupts into two lines; the second has
            // the result.
            let call = call.trim_start_matches("<... ");
            let result = call.rsplit_once(" = ").map_or("", |(_, result)| result);
            match call.split(['(', ' ']).next().unwrap_or_default() {
                "clone" | "clone3" | "fork" | "vfork" => {
                    cost.processes += usize::from(result.starts_with(|c: char| c.is_ascii_digit()));
                }
                "execve" | "execveat" => cost.execs += usize::from(result == "0"),
                _ => {}
            }
        }
        cost
    }
}
