//! What is free of noise: processes, programs and system calls, as `strace -f` tells of them. The bench counts so, too.

/// What a command takes, with all that it starts.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processes that were made, the first one too.
    pub processes: usize,
    /// Programs that were begun, the first one too.
    pub execs: usize,
    /// System calls.
    pub calls: usize,
}

impl Cost {
    /// Counts in what `strace -f` has written.
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
            // What others have interrupted is told in two parts, of which the second has the result.
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
