//! Others: an ordinary user of the host, and root of a neighbour. What they do is in the test, which plays them.

use crate::Entry;
use crate::table::{ALWAYS, STRICT};

/// What is done from outside.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::outside(1, "posing-user", "a user of the host poses as a subhost by the name of a process, for root to enter it", ALWAYS),
    Entry::outside(11, "linked-file", "leave a link in UPPER for the host to write through at the next boot", ALWAYS),
    Entry::outside(11, "linked-share", "leave a link in UPPER where a share is to be mounted", ALWAYS),
    Entry::outside(14, "signal-namesake", "a user of the host signals a process of the user with the same number inside", STRICT),
    Entry::outside(14, "look-at-namesake", "a user of the host looks into the root of such a process", STRICT),
    Entry::outside(17, "linked-log", "a user of the host lays a link to another file where the log will be", ALWAYS),
    Entry::outside(20, "posing-neighbour", "pose as a neighbour's boot by the name of a process, to lock the administrator out of it", ALWAYS),
    Entry::outside(22, "planted-log", "a user of the host lays a file of his own where the log will be", ALWAYS),
    Entry::outside(22, "hard-linked-log", "the same with another name of a file of root's", ALWAYS),
    Entry::outside(22, "planted-fifo", "the same with a FIFO, for the boot to hang", ALWAYS),
    Entry::outside(25, "swapped-directory", "swap a directory with a link again and again while a boot makes the target of a share", ALWAYS),
    Entry::outside(0, "state", "a user of the host reads the state of subhosts, or enters one", ALWAYS),
];
