//! Services of Debian: started as their init scripts do, used, and stopped.

use super::shell::sh;
use crate::Ends::Works;
use crate::Entry;

/// Entries about services.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::work("sshd", "start sshd, which separates privileges; log in with a key, as root and as a user, with a terminal", [Works; 3], || sh(&["sshd", "ssh", "ssh-keygen", "ip", "useradd"], SSHD)),
    Entry::work("nginx", "start nginx with workers of www-data; fetch a page", [Works; 3], || sh(&["nginx", "ip"], NGINX)),
    Entry::work("init-scripts", "start services with init scripts, read their status, stop them", [Works; 3], || sh(&["sshd", "nginx", "ip"], SCRIPTS)),
    Entry::work("ambient", "start a daemon of a user with an ambient capability for low ports", [Works; 3], || sh(&["setpriv", "busybox", "ip"], AMBIENT)),
    Entry::work("syslog", "start a syslogd and log to it", [Works; 3], || sh(&["busybox", "logger"], SYSLOG)),
];

const SSHD: &str = r#"
end() { kill "$(cat sshd.pid)"; pkill -KILL -U a-guest; userdel -r a-guest; }
ip link set lo up; useradd -m -s /bin/sh a-guest; mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f key; cp key.pub authorized; chmod 644 authorized
"$(command -v sshd)" -o Port=2222 -o ListenAddress=127.0.0.1 -o HostKey="$W/host" -o PidFile="$W/sshd.pid" -o UsePAM=yes \
    -o AuthorizedKeysFile="$W/authorized" -o StrictModes=no -o PermitRootLogin=yes -E log
login() {
    ssh -q -F /dev/null -i key -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "$@" </dev/null
}
until_done login root@127.0.0.1 true || { tail -n 1 log >&2; exit 1; }
same "$(login a-guest@127.0.0.1 'id -un; pwd')" "a-guest
/home/a-guest"
case $(login -tt a-guest@127.0.0.1 tty) in /dev/pts/*) ;; *) echo 'no terminal' >&2; exit 1 ;; esac
"#;

const NGINX: &str = r#"
end() { kill "$(cat pid)"; }
ip link set lo up; mkdir www; echo a page >www/index.html; chmod 755 "$W" www
cat >conf <<END
user www-data; worker_processes 1; pid $W/pid; error_log $W/errors;
events { }
http {
    access_log off;
    client_body_temp_path $W/1; proxy_temp_path $W/2; fastcgi_temp_path $W/3; uwsgi_temp_path $W/4; scgi_temp_path $W/5;
    server { listen 127.0.0.1:80; root $W/www; }
}
END
nginx -c "$W/conf" -e "$W/errors"
until_done test -s pid
get() { printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc 127.0.0.1 80; }
until_done get
same "$(get | tail -n 1)" 'a page'
same "$(ps -o user= --ppid "$(cat pid)" | sort -u)" www-data
"#;

const SYSLOG: &str = r#"
end() { kill "$pid"; }
busybox syslogd -n -O "$W/messages" & pid=$!
until_done test -S /dev/log
logger -t administrator all is well
logged() { grep -q 'administrator: all is well' messages; }
until_done logged
"#;

const SCRIPTS: &str = r#"
end() { for name in ssh nginx; do "/etc/init.d/$name" stop; done; }
ip link set lo up
for name in ssh nginx; do
    "/etc/init.d/$name" start >log 2>&1 || { cat log >&2; exit 1; }
    until_done "/etc/init.d/$name" status
done
banner() { busybox nc 127.0.0.1 22 </dev/null | grep -q ^SSH-; }
until_done banner
for name in ssh nginx; do
    "/etc/init.d/$name" stop >log 2>&1 || { cat log >&2; exit 1; }
    until_done refuses "/etc/init.d/$name" status
done
"#;

const AMBIENT: &str = r#"
end() { kill "$pid"; }
ip link set lo up; echo a page >index.html; cap=net_bind_service
setpriv --reuid=33 --regid=33 --clear-groups --inh-caps=+$cap --ambient-caps=+$cap busybox httpd -f -p 127.0.0.1:81 -h "$W" & pid=$!
get() { busybox wget -q -O - http://127.0.0.1:81/; }
until_done get
same "$(get; stat -c %u "/proc/$pid")" "a page
33"
"#;
