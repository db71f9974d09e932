//! The users of the subhost.

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// A user of the subhost, with its groups.
#[derive(Debug, PartialEq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
    /// The supplementary groups.
    groups: Vec<u32>,
}

/// The part of `USER[:GROUP]` that the subhost does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    User,
    Group,
}

impl Account {
    /// Returns the user that `user` names in the current root: `USER[:GROUP]`, names or numbers.
    ///
    /// Like chown(1), takes a word for a number only if there is no such name. A number that
    /// /etc/passwd does not list has a group of the same number. With GROUP, the user is in no
    /// other group. Fails if the user or the group does not exist.
    pub fn find(user: &str) -> Result<Self, Unknown> {
        Self::in_tables(&table("/etc/passwd"), &table("/etc/group"), user)
    }

    /// Returns root, also if /etc/passwd does not list that user.
    pub fn root() -> Self {
        Self::find("root").unwrap_or_else(|_| Account {
            home: "/root".to_owned(),
            ..Self::unlisted("root", 0)
        })
    }

    fn in_tables(passwd: &str, group: &str, user: &str) -> Result<Self, Unknown> {
        let (user, chosen) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let entries = || passwd.lines().filter_map(Self::parse);
        let by_name = entries().find(|entry| !user.is_empty() && entry.name == user);
        let by_uid = |uid| entries().find(|entry| entry.uid == uid);
        let by_number = || {
            let uid = id(user)?;
            Some(by_uid(uid).unwrap_or_else(|| Self::unlisted(user, uid)))
        };
        let mut account = by_name.or_else(by_number).ok_or(Unknown::User)?;
        match chosen {
            Some(chosen) => account.gid = gid(group, chosen).ok_or(Unknown::Group)?,
            None => account.groups = supplementary(group, &account),
        }
        Ok(account)
    }

    /// Returns the user of an entry of /etc/passwd.
    fn parse(entry: &str) -> Option<Self> {
        let mut fields = entry.split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        Some(Account {
            name,
            uid: id(fields.next()?)?,
            gid: id(fields.next()?)?,
            home: fields.nth(1)?.to_owned(),
            shell: fields.next().unwrap_or_default().to_owned(),
            groups: Vec::new(),
        })
    }

    /// Returns a user that /etc/passwd does not list.
    fn unlisted(name: &str, uid: u32) -> Self {
        Account {
            name: name.to_owned(),
            uid,
            gid: uid,
            home: "/".to_owned(),
            shell: String::new(),
            groups: Vec::new(),
        }
    }

    /// Sets the credentials of this process: uid, gid and supplementary groups.
    ///
    /// The real, effective and saved ids are set. Fails if a system call does.
    pub fn set_credentials(&self) -> Result<(), Errno> {
        let groups = std::iter::once(&self.gid).chain(&self.groups);
        let groups: Vec<Gid> = groups.copied().map(Gid::from_raw).collect();
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

/// Returns the supplementary groups: those whose entries in /etc/group list the user.
fn supplementary(group: &str, account: &Account) -> Vec<u32> {
    let listed = group.lines().filter_map(|entry| {
        let mut fields = entry.split(':').skip(2);
        let gid = id(fields.next()?)?;
        let mut members = fields.next()?.split(',');
        members.any(|member| member == account.name).then_some(gid)
    });
    listed.filter(|gid| *gid != account.gid).collect()
}

/// Returns the id of the group with this name in /etc/group, or with this number.
fn gid(group: &str, chosen: &str) -> Option<u32> {
    let by_name = group.lines().find_map(|entry| {
        let mut fields = entry.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (name == chosen).then(|| id(fields.nth(1)?))?
    });
    by_name.or_else(|| id(chosen))
}

/// Parses the number of a user or group.
///
/// The last one is -1, with which setresuid(2) and setresgid(2) change nothing.
fn id(text: &str) -> Option<u32> {
    let has_digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| has_digits_only);
    id.filter(|id| *id != u32::MAX)
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

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken:x:zero\n\
        minus:x:4294967295:0::/:\nann:x:1000:100::/home/ann:\n:x:9:9::/:\n";
    const GROUP: &str = "adm:x:4:bob,ann\nusers:x:100:ann\nx:x:7:anna\nbroken\n12:x:13:\n";

    fn found(user: &str) -> Result<(u32, u32, Vec<u32>), Unknown> {
        let account = Account::in_tables(PASSWD, GROUP, user)?;
        Ok((account.uid, account.gid, account.groups))
    }

    #[test]
    fn account_has_uid_gid_and_groups() {
        assert_eq!(found("ann"), Ok((1000, 100, vec![4])));
        assert_eq!(found("1000"), Ok((1000, 100, vec![4])));
        assert_eq!(found("1001"), Ok((1001, 1001, vec![])));
        assert_eq!(found("ann:adm"), Ok((1000, 4, vec![])));
        assert_eq!(found("1001:12"), Ok((1001, 13, vec![])));
        let home = |user| Account::in_tables(PASSWD, GROUP, user).unwrap().home;
        assert_eq!(
            (home("1000:4"), home("7")),
            ("/home/ann".into(), "/".into())
        );
    }

    #[test]
    fn unknown_user_or_group_is_an_error() {
        for user in [
            "",
            "broken",
            "minus",
            "nobody",
            "+1",
            "-1",
            "4294967295",
            " 1",
            ":4",
        ] {
            assert_eq!(found(user), Err(Unknown::User), "{user}");
        }
        for user in ["ann:", "ann:broken", "ann:4294967295", "ann:+4", "ann:4:4"] {
            assert_eq!(found(user), Err(Unknown::Group), "{user}");
        }
    }
}
