//! Attacks from outside: by an unprivileged user of the host, or by root of another subhost. The
//! test plays them.

use crate::Entry;
use crate::table::{ALWAYS, STRICT};

/// Entries that run outside.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::outside(1, "posing-user", "a user of the host fakes a running subhost with the name of a process", ALWAYS),
    Entry::outside(11, "linked-file", "leave a link in UPPER that the next boot would write through", ALWAYS),
    Entry::outside(11, "linked-share", "leave a link in UPPER at the target of a share", ALWAYS),
    Entry::outside(14, "signal-namesake", "a user of the host signals a process with the same uid inside", STRICT),
    Entry::outside(14, "look-at-namesake", "a user of the host reads the root of a process with the same uid inside", STRICT),
    Entry::outside(17, "linked-log", "a user of the host plants a symbolic link at the path of the log", ALWAYS),
    Entry::outside(20, "posing-neighbour", "fake another subhost with the name of a process, to lock the administrator out", ALWAYS),
    Entry::outside(22, "planted-log", "a user of the host plants a file at the path of the log", ALWAYS),
    Entry::outside(22, "hard-linked-log", "a user of the host plants a hard link to a file of root at the path of the log", ALWAYS),
    Entry::outside(22, "planted-fifo", "a user of the host plants a FIFO at the path of the log, to block the boot", ALWAYS),
    Entry::outside(25, "swapped-directory", "exchange a directory and a link while a boot makes the target of a share", ALWAYS),
    Entry::outside(0, "state", "a user of the host reads the state of subhosts, or enters one", ALWAYS),
];
