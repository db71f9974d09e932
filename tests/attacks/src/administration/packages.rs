//! Packages, unpacked and configured as apt does.

use super::shell::sh;
use crate::Ends::Works;
use crate::{Entry, Try};

/// Entries about packages.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::work("dpkg", "install a package with setuid files, owners, links and scripts with `dpkg -i`; purge it", [Works; 3], || install(&["dpkg", "dpkg-deb"], DPKG)),
    Entry::work("apt", "install a package with `apt-get`, which drops root for a part", [Works; 3], || install(&["apt-get", "dpkg-deb"], APT)),
];

fn install(programs: &[&str], line: &str) -> Try {
    sh(programs, &[END, BUILD, line].concat())
}

/// Makes `p.deb`: a file of another user, a setuid file, a hard link, a symbolic link, a
/// configuration file, and scripts that make a user.
const BUILD: &str = r#"
mkdir -p p/DEBIAN p/usr/bin p/etc p/var/lib/tiny
printf 'Package: tiny-for-a-test\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n' >p/DEBIAN/control
printf '#!/bin/sh\nset -e\n[ "$1" != configure ] || { id tiny >/dev/null 2>&1 || useradd --system tiny; chown tiny /var/lib/tiny; }\n' >p/DEBIAN/postinst
printf '#!/bin/sh\nset -e\n[ "$1" != purge ] || userdel tiny\n' >p/DEBIAN/postrm
chmod 755 p/DEBIAN/postinst p/DEBIAN/postrm
echo /etc/tiny.conf >p/DEBIAN/conffiles; echo text >p/etc/tiny.conf
cp "$(command -v id)" p/usr/bin/tiny-id; ln p/usr/bin/tiny-id p/usr/bin/tiny-hard; ln -s tiny-id p/usr/bin/tiny-soft
chown 0:33 p/usr/bin/tiny-id; chmod 4750 p/usr/bin/tiny-id; chown 33:33 p/etc/tiny.conf
dpkg-deb --build p p.deb >/dev/null
installed() {
    same "$(stat -c '%U:%g:%a:%h' /usr/bin/tiny-id /etc/tiny.conf /var/lib/tiny)" "root:33:4750:2
www-data:33:644:1
tiny:0:755:2"
    same "$(dpkg-query -W -f '${Status}' tiny-for-a-test)" 'install ok installed'
}
"#;

/// Removes the package, even after a failed step.
const END: &str = r#"
end() { dpkg --purge tiny-for-a-test; userdel tiny; }
"#;

const DPKG: &str = r#"
dpkg -i p.deb >/dev/null
installed
dpkg --purge tiny-for-a-test >/dev/null
[ ! -e /usr/bin/tiny-id ]; refuses id tiny
"#;

const APT: &str = r#"
chmod 644 p.deb
apt-get install -y -q ./p.deb >/dev/null
installed
"#;
