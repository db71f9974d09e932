//! Which range of ids a subhost gets, and gets again at its next boot: kept in a file, a line for each that was ever given.

use anyhow::{Context, Result, bail, ensure};
use ob_confine::userns::{Ids, SIZE, Wish};
use ob_document::{Document, state};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Not /var/lib/overlay-boot: that is a link to the commands, for the hooks of old.
const DIRECTORY: &str = "/var/lib/subhosts";

/// In [`DIRECTORY`]: `FIRST:SIZE NAME PATH` of each subhost, PATH being its configuration, or its UPPER if it has none.
const FILE: &str = "userns";

/// Where ranges come from that the administrator has not set aside: above those that useradd(8) gives to users and that
/// systemd-nspawn(1) picks from, below those that systemd has reserved.
const POOL: Ids = Ids {
    first: 0x7800_0000,
    size: 0x7ffe_0000 - 0x7800_0000,
};

/// Whose lines in /etc/subuid and /etc/subgid are for subhosts.
const ACCOUNT: &str = "overlay-boot";

/// Gives the subhost of `document` the range that it wishes. It is nobody else's, neither a subhost's nor a user's with an entry in
/// /etc/subuid or /etc/subgid.
pub fn range(document: &Document, wish: Wish) -> Result<Ids> {
    give(document, wish).with_context(|| match wish {
        Wish::Range(ids) => format!("USERNS={ids}"),
        _ => "USERNS=auto".to_owned(),
    })
}

fn give(document: &Document, wish: Wish) -> Result<Ids> {
    let context = || format!("keep the ranges in {DIRECTORY}/{FILE}");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(DIRECTORY)
        .with_context(context)?;
    let directory = File::open(DIRECTORY).with_context(context)?;
    // The directory and not the file, which is replaced.
    directory.lock().with_context(context)?;
    let path = Path::new(DIRECTORY).join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.with_context(context)?,
    };
    let mut ledger = Ledger::parse(&text).with_context(context)?;
    let subids = [SubIds::read("/etc/subuid")?, SubIds::read("/etc/subgid")?];
    let path_of_plan = document
        .path("CONFIG")
        .or_else(|_| document.path("UPPER"))?;
    let owner = format!("{} {}", document.name(), path_of_plan.display());
    let ids = ledger.give(&owner, wish, &subids)?;
    let new = ledger.text();
    if new != text {
        write(&path, &new).with_context(context)?;
    }
    Ok(ids)
}

/// In one step, so that a crash leaves the old or the new one.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(std::fs::rename(&new, path)?)
}

/// Who has which range: lines of the file.
struct Ledger(Vec<(Ids, String)>);

impl Ledger {
    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| {
            let (ids, owner) = line.split_once(' ').unwrap_or((line, ""));
            let ids = Ids::parse(ids).with_context(|| format!("'{line}'"))?;
            Ok((ids, owner.to_owned()))
        });
        Ok(Ledger(lines.collect::<Result<_>>()?))
    }

    fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (ids, owner)| {
            let _ = writeln!(text, "{ids} {owner}");
            text
        })
    }

    /// Gives `owner` a range: the one it had, if that is what it wants and may have still.
    fn give(&mut self, owner: &str, wish: Wish, subids: &[SubIds; 2]) -> Result<Ids> {
        let pools = pools(subids)?;
        let others: Vec<_> = subids.iter().flat_map(|ids| &ids.others).collect();
        let had = self.0.iter().find(|(_, known)| known == owner);
        let had = had.map(|(ids, _)| *ids);
        let is_free = |ids: Ids| !others.iter().any(|(taken, _)| taken.overlaps(ids));
        let ids = match wish {
            Wish::Range(ids) => {
                if let Some((taken, user)) = others.iter().find(|(taken, _)| taken.overlaps(ids)) {
                    bail!(
                        "it overlaps {taken}, which belongs to {user} by /etc/subuid or /etc/subgid"
                    );
                }
                ids
            }
            _ => {
                let still = had.filter(|ids| ids.size == SIZE && is_free(*ids));
                let still = still.filter(|ids| pools.iter().any(|pool| is_within(*ids, *pool)));
                match still {
                    Some(ids) => ids,
                    None => self.find(owner, &pools, is_free)?,
                }
            }
        };
        self.forget_gone(owner, ids);
        if let Some((taken, other)) = self.overlapping(owner, ids) {
            bail!("it overlaps {taken}, the range of the subhost {other}; set another, or auto");
        }
        if had != Some(ids) {
            self.0.retain(|(_, known)| known != owner);
            self.0.push((ids, owner.to_owned()));
        }
        Ok(ids)
    }

    /// The first range that nobody has, or whose owner is gone.
    fn find(&self, owner: &str, pools: &[Ids], is_free: impl Fn(Ids) -> bool) -> Result<Ids> {
        let ranges = || {
            let all = pools.iter().flat_map(|pool| {
                let firsts = (pool.first..).step_by(SIZE as usize);
                firsts.take((pool.size / SIZE) as usize)
            });
            all.map(|first| Ids { first, size: SIZE })
                .filter(|ids| is_free(*ids))
        };
        let unused = ranges().find(|ids| self.overlapping(owner, *ids).is_none());
        let unused = unused.or_else(|| {
            ranges().find(|ids| {
                let mut owners = self.0.iter().filter(|(known, _)| known.overlaps(*ids));
                owners.all(is_gone)
            })
        });
        unused.with_context(|| {
            format!("no range of {SIZE} ids is left; add a line {ACCOUNT}:FIRST:COUNT to /etc/subuid and /etc/subgid")
        })
    }

    fn overlapping(&self, owner: &str, ids: Ids) -> Option<&(Ids, String)> {
        let mut others = self.0.iter().filter(|(_, known)| known != owner);
        others.find(|(known, _)| known.overlaps(ids))
    }

    /// Takes the ranges in the way of `ids` from subhosts that are no more.
    fn forget_gone(&mut self, owner: &str, ids: Ids) {
        self.0
            .retain(|entry| entry.1 == owner || !entry.0.overlaps(ids) || !is_gone(entry));
    }
}

/// Whether the configuration (or UPPER) of an entry does not exist any more, and no subhost that runs has its range.
fn is_gone((ids, owner): &(Ids, String)) -> bool {
    let path = owner.split_once(' ').map_or("", |(_, path)| path);
    let runs = |name: &String| {
        let document = state::Home::of(name).document().ok().flatten();
        let used = document.and_then(|document| Ids::of(&document).ok().flatten());
        used.is_some_and(|used| used.overlaps(*ids))
    };
    matches!(Path::new(path).try_exists(), Ok(false)) && !state::names().iter().any(runs)
}

fn is_within(ids: Ids, pool: Ids) -> bool {
    ids.first >= pool.first && ids.first - pool.first <= pool.size.saturating_sub(ids.size)
}

/// What may be given: what both files set aside for subhosts, or our own choice.
fn pools(subids: &[SubIds; 2]) -> Result<Vec<Ids>> {
    let [users, groups] = subids;
    ensure!(
        users.ours == groups.ours,
        "the lines of {ACCOUNT} in /etc/subuid and /etc/subgid differ; make them the same"
    );
    if users.ours.is_empty() {
        return Ok(vec![POOL]);
    }
    Ok(users.ours.clone())
}

/// A file of `USER:FIRST:COUNT`, see subuid(5).
#[derive(Default)]
struct SubIds {
    ours: Vec<Ids>,
    others: Vec<(Ids, String)>,
}

impl SubIds {
    fn read(path: &str) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(SubIds::default()),
            text => Ok(SubIds::parse(&text.with_context(|| path.to_owned())?)),
        }
    }

    /// Takes the lines that have a meaning; newuidmap(1) does not mind the others either.
    fn parse(text: &str) -> Self {
        let mut subids = SubIds::default();
        for line in text.lines() {
            let mut fields = line.trim().split(':');
            let (Some(user), Some(first), Some(count)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else {
                continue;
            };
            let ids = Ids {
                first,
                size: count.min(u32::MAX - first),
            };
            if user == ACCOUNT && first >= SIZE {
                subids.ours.push(ids);
            } else {
                subids.others.push((ids, user.to_owned()));
            }
        }
        subids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(ledger: &mut Ledger, owner: &str, subids: &[SubIds; 2]) -> String {
        let given = ledger.give(owner, Wish::Auto, subids);
        given.map_or_else(|error| format!("{error:#}"), |ids| ids.to_string())
    }

    fn subids(text: &str) -> [SubIds; 2] {
        [SubIds::parse(text), SubIds::parse(text)]
    }

    #[test]
    fn subhost_gets_the_same_exclusive_range_again() {
        let mut ledger = Ledger::parse("").unwrap();
        let none = subids("");
        assert_eq!(auto(&mut ledger, "a /", &none), "2013265920:65536");
        assert_eq!(auto(&mut ledger, "b /", &none), "2013331456:65536");
        let mut ledger = Ledger::parse(&ledger.text()).unwrap();
        assert_eq!(auto(&mut ledger, "b /", &none), "2013331456:65536");
        assert_eq!(auto(&mut ledger, "a /", &none), "2013265920:65536");
        assert_eq!(
            ledger.text(),
            "2013265920:65536 a /\n2013331456:65536 b /\n"
        );
    }

    #[test]
    fn ranges_of_users_are_avoided_and_overlay_boot_divided() {
        let none = subids("alice:2013265920:65537\n# x\nbob:x:1\n");
        let mut ledger = Ledger::parse("").unwrap();
        assert_eq!(auto(&mut ledger, "a /", &none), "2013396992:65536");
        let ours = subids("overlay-boot:300000:131072\nalice:365536:1\n");
        assert_eq!(auto(&mut ledger, "a /", &ours), "300000:65536");
        assert!(auto(&mut ledger, "b /", &ours).starts_with("no range of 65536 ids is left"));
        let differ = [
            SubIds::parse("overlay-boot:300000:65536"),
            SubIds::default(),
        ];
        assert!(auto(&mut ledger, "a /", &differ).contains("differ"));
    }

    #[test]
    fn requested_range_must_be_free() {
        let mut ledger = Ledger::parse("100000:65536 a /\n").unwrap();
        let ask = |ledger: &mut Ledger, owner: &str, first| {
            let wish = Wish::Range(Ids { first, size: SIZE });
            let given = ledger.give(owner, wish, &subids("alice:500000:65536"));
            given.map_or_else(|error| format!("{error:#}"), |ids| ids.to_string())
        };
        assert!(ask(&mut ledger, "b /", 165_535).contains("the range of the subhost a /"));
        assert!(ask(&mut ledger, "b /", 434_465).contains("which belongs to alice"));
        assert_eq!(ask(&mut ledger, "b /", 165_536), "165536:65536");
        // Its own it may change, but not so that it comes into another's.
        assert_eq!(ask(&mut ledger, "a /", 99_999), "99999:65536");
        assert!(ask(&mut ledger, "a /", 100_001).contains("range of the subhost b /"));
    }

    #[test]
    fn range_of_a_removed_subhost_is_reused() {
        let mut ledger = Ledger::parse("300000:65536 a /no/such/file\n").unwrap();
        let ours = subids("overlay-boot:300000:65536");
        assert_eq!(auto(&mut ledger, "b /", &ours), "300000:65536");
        assert_eq!(ledger.text(), "300000:65536 b /\n");
    }
}
