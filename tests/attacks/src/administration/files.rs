//! Files: owners, modes, special files, and operations on them.

use super::shell::sh;
use crate::Ends::Works;
use crate::{Entry, Refused, Try, not_here, refused};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::linkat;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;

/// Entries about files.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::work("chown", "change the owners and groups of files", [Works; 3], || sh(&["chown"], CHOWN)),
    Entry::work("setuid", "run a setuid program as its owner", [Works; 3], || sh(&["su"], SETUID)),
    Entry::work("setcap", "give a program a capability, and use it as a user", [Works; 3], || sh(&["setcap", "getcap", "su"], SETCAP)),
    Entry::work("special-files", "make FIFOs, sockets, hard and symbolic links", [Works; 3], || sh(&["mkfifo", "mknod", "ln"], SPECIAL)),
    Entry::work("tar", "pack and unpack a tree with owners, setuid and sticky bits, links, a FIFO", [Works; 3], || sh(&["tar"], TAR)),
    Entry::work("rename", "rename a directory of LOWER, and make a new one in its place", [Works; 3], || sh(&["mv"], RENAME)),
    Entry::work("tmpfile", "make an unnamed file (`O_TMPFILE`) and link it", [Works; 3], make_and_name),
    Entry::work("lock", "lock a file against other processes", [Works; 3], lock),
    Entry::work("inotify", "watch changes in a directory, `inotify(7)`", [Works; 3], watch),
    Entry::work("memfd", "make a memfd and seal it", [Works; 3], seal),
    Entry::work("tmpfiles", "make directories and files with `systemd-tmpfiles`", [Works; 3], || sh(&["systemd-tmpfiles"], TMPFILES)),
];

const CHOWN: &str = r#"
mkdir d; : >d/f; ln -s f d/l
chown 33:8 d/f; chown -h 65534 d/l; chgrp 50 d; chmod 2770 d
same "$(stat -c %u:%g:%a d/f d/l d)" "33:8:644
65534:0:777
0:50:2770"
: >d/g
same "$(stat -c %g d/g)" 50
"#;

const SETUID: &str = r#"
cp "$(command -v id)" id; chmod 4755 id
same "$(su -s /bin/sh nobody -c './id -u')" 0
chown 33 id; chmod 4755 id
same "$(./id -u)" 33
"#;

const SETCAP: &str = r#"
cp "$(command -v cat)" cat; chmod 755 cat
echo secret >file; chmod 600 file
refuses su -s /bin/sh nobody -c './cat file'
setcap cap_dac_override=ep cat
same "$(getcap cat)" 'cat cap_dac_override=ep'
same "$(su -s /bin/sh nobody -c './cat file')" secret
setcap -r cat
"#;

const SPECIAL: &str = r#"
mkfifo -m 640 fifo; mknod other p; : >file; ln file hard; ln -s /no/where soft
chown 33 fifo
same "$(stat -c '%F %u %h' fifo other hard soft)" "fifo 33 1
fifo 0 1
regular empty file 0 2
symbolic link 0 1"
"#;

const TAR: &str = r#"
mkdir -p t/sub; echo text >t/file; ln t/file t/hard; ln -s file t/soft; mkfifo t/fifo; cp "$(command -v id)" t/tool
chown 33:33 t/file; chown 65534:8 t/sub; chown -h 1000:1000 t/soft; chmod 4755 t/tool; chmod 1777 t/sub; chmod 2644 t/file
tar -cf t.tar t; mkdir new; tar -xpf t.tar -C new --same-owner
look() { (cd "$1"; find t -printf '%p %y %m %U:%G %n %l\n' | sort); }
same "$(look new)" "$(look .)"
"#;

const RENAME: &str = r#"
end() { rm -rf /etc/skel; cp -a skel /etc/skel; }
cp -a /etc/skel skel; before=$(ls -A /etc/skel)
mv /etc/skel moved; same "$(ls -A moved)" "$before"
mkdir /etc/skel; same "$(ls -A /etc/skel)" ''
"#;

const TMPFILES: &str = r#"
printf 'd %s/d 1755 nobody 33\nf %s/d/f 0640 33 nogroup - text\nL %s/d/l - - - - f\n' "$W" "$W" "$W" >conf
systemd-tmpfiles --create "$W/conf"
same "$(stat -c '%U:%g:%a' d; stat -c %u:%G:%a d/f; cat d/l)" "nobody:33:1755
33:nogroup:640
text"
"#;

const DIRECTORY: &str = "/var/tmp";
const NAMED: &str = "/var/tmp/named-by-an-administrator";

fn make_and_name() -> Try {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let mut file: File = match open(DIRECTORY, flags, Mode::S_IRUSR) {
        Err(Errno::EOPNOTSUPP) => return not_here("overlayfs has no O_TMPFILE before Linux 6.3"),
        opened => opened.refused("open")?.into(),
    };
    file.write_all(b"text").refused("write")?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let root = File::open("/").refused("/")?;
    linkat(
        &root,
        path.as_str(),
        &root,
        NAMED,
        AtFlags::AT_SYMLINK_FOLLOW,
    )
    .refused("link")?;
    let text = fs::read(NAMED).refused(NAMED);
    let _ = fs::remove_file(NAMED);
    is_so(text? == b"text", "the text of the file has changed")
}

fn lock() -> Try {
    let path = "/var/tmp/locked-by-an-administrator";
    let [first, second] = [File::create(path), File::create(path)];
    let _ = fs::remove_file(path);
    let (first, second) = (first.refused(path)?, second.refused(path)?);
    let lock = Flock::lock(first, FlockArg::LockExclusiveNonblock);
    let _lock = lock.map_err(|(_, error)| error).refused("lock")?;
    let other = Flock::lock(second, FlockArg::LockExclusiveNonblock);
    is_so(other.is_err(), "two processes hold the lock")
}

fn watch() -> Try {
    let path = "/var/tmp/watched-by-an-administrator";
    let inotify =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).refused("inotify")?;
    inotify
        .add_watch(DIRECTORY, AddWatchFlags::IN_CREATE)
        .refused("watch")?;
    let made = File::create(path);
    let _ = fs::remove_file(path);
    made.refused(path)?;
    let events = inotify.read_events().refused("read the events")?;
    let name = path.rsplit('/').next().map(Into::into);
    is_so(
        events.iter().any(|event| event.name == name),
        "no event was reported",
    )
}

fn seal() -> Try {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file: File = memfd_create(c"administration", flags)
        .refused("memfd_create")?
        .into();
    file.write_all(b"text").refused("write")?;
    let seals = nix::fcntl::SealFlag::F_SEAL_WRITE;
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_ADD_SEALS(seals)).refused("seal")?;
    is_so(
        file.write_all(b"more").is_err(),
        "the sealed file is writable",
    )
}

fn is_so(so: bool, why_not: &str) -> Try {
    if so { Ok(()) } else { refused(why_not) }
}
