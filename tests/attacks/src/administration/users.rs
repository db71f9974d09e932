//! Users: adding, switching and limiting them.

use super::shell::sh;
use crate::Ends::Works;
use crate::Entry;

/// Entries about users.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::work("su", "become another user with its groups", [Works; 3], || sh(&["su"], SU)),
    Entry::work("useradd", "add a user with a home and a password, become the user, remove the user", [Works; 3], || sh(&["useradd", "userdel", "chpasswd", "su"], USERADD)),
    Entry::work("adduser", "add a user with `adduser`, and a system user with a group", [Works; 3], || sh(&["adduser", "deluser"], ADDUSER)),
    Entry::work("ulimit", "lower a soft limit and raise it to the hard limit", [Works; 3], || sh(&[], ULIMIT)),
];

const SU: &str = r#"
same "$(su -s /bin/sh www-data -c 'id -u; id -g; id -G')" "33
33
33"
same "$(su -s /bin/sh nobody -c 'echo $(id -u)')" 65534
refuses su -s /bin/sh nobody -c ': >>/etc/passwd'
"#;

const USERADD: &str = r#"
end() { userdel -r one-more; }
useradd -m -s /bin/sh -G www-data one-more
echo one-more:secret | chpasswd
case $(getent shadow one-more || grep ^one-more: /etc/shadow) in one-more:\$*) ;; *) echo 'no password' >&2; exit 1 ;; esac
same "$(su - one-more -c 'pwd; id -nG; : >mine; stat -c %U mine')" "/home/one-more
one-more www-data
one-more"
"#;

const ADDUSER: &str = r#"
end() { deluser a-person; deluser --system a-daemon; rm -rf /home/a-person; }
adduser --quiet --disabled-password --gecos '' a-person >/dev/null
same "$(stat -c %U /home/a-person)" a-person
adduser --quiet --system --group --no-create-home a-daemon >/dev/null
same "$(id -nG a-daemon)" a-daemon
"#;

const ULIMIT: &str = r#"
hard=$(ulimit -Hn); ulimit -Sn 64; same "$(ulimit -Sn)" 64
ulimit -Sn "$hard"; same "$(ulimit -Sn)" "$hard"
ulimit -n 200; same "$(sh -c 'ulimit -Hn')" 200
"#;
