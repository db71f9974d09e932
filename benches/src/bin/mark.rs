//! The first command inside. `mark start` creates the file /mark, which the bench observes, and
//! writes its namespaces, root and cable into it, so that no program is credited for skipped work.
//! `mark stay` waits for a signal.
#![forbid(unsafe_code)]

use nix::net::if_::if_nametoindex;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use std::fs::{File, read_link};
use std::io::Write;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("stay") {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
    let mut mark = File::create("/mark").expect("create /mark");
    let mut facts = String::new();
    for kind in ["pid", "mnt", "ipc", "uts", "net", "time"] {
        let link = read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        facts.push_str(&format!("{}\n", link.display()));
    }
    let overlay = statfs("/").is_ok_and(|root| root.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
    facts.push_str(if overlay { "overlay\n" } else { "other root\n" });
    let cable = if_nametoindex("eth0").is_ok();
    facts.push_str(if cable { "cable\n" } else { "no cable\n" });
    let dev = std::path::Path::new("/dev/null").exists();
    facts.push_str(if dev { "dev\n" } else { "no dev\n" });
    mark.write_all(facts.as_bytes()).expect("write /mark");
}
