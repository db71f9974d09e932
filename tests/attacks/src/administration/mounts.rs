//! Mounts in the mount namespace of the subhost.

use super::shell::sh;
use crate::Ends::{Refused, Works};
use crate::Entry;

/// Entries about mounts.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::work("mount-tmpfs", "mount a tmpfs, remount it read-only, unmount it", [Works, Refused, Works], || sh(&["mount"], TMPFS)),
    Entry::work("remount-tmpfs", "make a mounted tmpfs larger", [Works, Refused, Works], || sh(&["mount"], REMOUNT)),
    Entry::work("mount-bind", "bind a directory, also read-only", [Works, Refused, Works], || sh(&["mount"], BIND)),
    Entry::work("mount-overlay", "mount an overlay and write to it", [Works, Refused, Works], || sh(&["mount"], OVERLAY)),
    Entry::work("mount-proc", "mount a `/proc` for a chroot", [Works, Refused, Works], || sh(&["mount"], PROC)),
];

const TMPFS: &str = r#"
mkdir m; end() { umount m; }
mount -t tmpfs -o size=1M,mode=750,nosuid tmpfs m
echo text >m/file; same "$(stat -f -c %T m)" tmpfs
mount -o remount,bind,ro m; refuses touch m/other
umount m; same "$(ls m)" ''
"#;

/// Without the options that mount(8) would read from the mount table: the kernel shows the uid
/// outside, which cannot be mapped here.
const REMOUNT: &str = r#"
mkdir m; end() { umount m; }
mount -t tmpfs -o size=1M tmpfs m
mount --options-source=disable -o remount,size=2M m
same "$(findmnt -n -b -o SIZE "$W/m")" 2097152
"#;

const BIND: &str = r#"
mkdir from to ro; echo text >from/file; end() { umount to ro; }
mount --bind from to; same "$(cat to/file)" text; echo more >to/file; same "$(cat from/file)" more
mount --bind from ro; mount -o remount,bind,ro ro; refuses touch ro/other
umount to ro
"#;

const OVERLAY: &str = r#"
mkdir m; mount -t tmpfs tmpfs m; end() { umount m/o; umount m; }
mkdir m/lower m/upper m/work m/o; echo text >m/lower/file
mount -t overlay -o lowerdir=m/lower,upperdir=m/upper,workdir=m/work overlay m/o
rm m/o/file; echo more >m/o/other; same "$(ls m/o)" other; same "$(cat m/upper/other)" more
"#;

const PROC: &str = r#"
mkdir proc; end() { umount proc; }
mount -t proc proc proc
same "$(cat proc/1/comm)" "$(cat /proc/1/comm)"
"#;
