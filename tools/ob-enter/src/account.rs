//! The users of the subhost.

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// An entry of /etc/passwd of the subhost.
#[derive(Debug, PartialEq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

impl Account {
    /// Returns the user `name` of the current root. `ENOENT`: there is no such user.
    pub fn find(name: &str) -> Result<Self, Errno> {
        Self::in_table(&table("/etc/passwd"), name).ok_or(Errno::ENOENT)
    }

    /// Returns root, also if /etc/passwd does not list that user.
    pub fn root() -> Self {
        Self::find("root").unwrap_or(Account {
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
            home: "/root".to_owned(),
            shell: String::new(),
        })
    }

    fn in_table(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next().filter(|found| *found == name)?;
            let _password = fields.next()?;
            Some(Account {
                name: found.to_owned(),
                uid: fields.next()?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
                home: fields.nth(1)?.to_owned(),
                shell: fields.next().unwrap_or_default().to_owned(),
            })
        })
    }

    /// Sets the credentials of this process: uid, gid, and the groups that /etc/group lists.
    ///
    /// The real, effective and saved ids are set. Fails if a system call does.
    pub fn set_credentials(&self) -> Result<(), Errno> {
        let groups: Vec<Gid> = groups(&table("/etc/group"), self).collect();
        match setgroups(&groups) {
            // In a user namespace of an unprivileged user, setgroups(2) is denied for all
            // processes, see user_namespaces(7). Groups outside give no access there.
            Err(Errno::EPERM) if self.uid == 0 => {}
            set => set?,
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)
    }
}

fn groups<'a>(group: &'a str, account: &'a Account) -> impl Iterator<Item = Gid> + 'a {
    let named = group.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        let mut members = fields.next()?.split(',');
        members.any(|member| member == account.name).then_some(gid)
    });
    let others = named.filter(|gid| *gid != account.gid);
    std::iter::once(account.gid)
        .chain(others)
        .map(Gid::from_raw)
}

/// Returns the content of a file of the subhost: at most 1 MiB, and without waiting for a FIFO.
fn table(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open(path)
    {
        let _ = file.take(1 << 20).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken:x:zero\nann:x:1000:100::/home/ann:\n";

    #[test]
    fn account_has_uid_gid_and_groups() {
        let ann = Account::in_table(PASSWD, "ann").unwrap();
        assert_eq!(
            (ann.uid, ann.gid, ann.home.as_str()),
            (1000, 100, "/home/ann")
        );
        let group = "adm:x:4:bob,ann\nusers:x:100:ann\nx:x:7:anna\nbroken\n";
        let groups: Vec<u32> = groups(group, &ann).map(Gid::as_raw).collect();
        assert_eq!(groups, [100, 4]);
        assert_eq!(Account::in_table(PASSWD, "broken"), None);
        assert_eq!(Account::in_table(PASSWD, "nobody"), None);
    }
}
