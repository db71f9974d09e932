//! Which range of ids a subhost gets, and gets again at its next boot: kept in a file, a line for each that was ever given.

use crate::octal::{escape, unescape};
use anyhow::{Context, Result, bail, ensure};
use ob_confine::userns::{IdRange, SIZE, UsernsSetting};
use ob_document::{Document, state};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Not /var/lib/overlay-boot: that is a link to the commands, for the hooks of old.
const DIRECTORY: &str = "/var/lib/subhosts";

/// In [`DIRECTORY`]: `FIRST:SIZE NAME PATH` of each subhost, PATH being its configuration, or its
/// UPPER if it has none, with control characters in octal.
const FILE: &str = "userns";

/// How long another boot may keep the file.
const TURN: Duration = Duration::from_secs(10);

/// Where ranges come from that the administrator has not set aside: above those that useradd(8) gives to users and that
/// systemd-nspawn(1) picks from, below those that systemd has reserved.
const POOL: IdRange = IdRange {
    first: 0x7800_0000,
    size: 0x7ffe_0000 - 0x7800_0000,
};

/// Whose lines in /etc/subuid and /etc/subgid are for subhosts.
const ACCOUNT: &str = "overlay-boot";

/// Gives the subhost of `document` the range that it wishes. It is nobody else's, neither a subhost's nor a user's with an entry in
/// /etc/subuid or /etc/subgid.
pub fn range(document: &Document, wish: UsernsSetting) -> Result<IdRange> {
    give(document, wish).with_context(|| match wish {
        UsernsSetting::Range(ids) => format!("USERNS={ids}"),
        _ => "USERNS=auto".to_owned(),
    })
}

fn give(document: &Document, wish: UsernsSetting) -> Result<IdRange> {
    let path = Path::new(DIRECTORY).join(FILE);
    let context = || format!("keep the ranges in {}", path.display());
    let mut builder = DirBuilder::new();
    match builder.recursive(true).mode(0o700).create(DIRECTORY) {
        // By something else than a directory, which the read fails for.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.with_context(context)?,
    }
    let directory = File::open(DIRECTORY).with_context(context)?;
    // The directory and not the file, which is replaced.
    ensure!(
        state::lock_within(&directory, TURN).with_context(context)?,
        "another boot keeps {DIRECTORY} locked, and does not end"
    );
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        text => text.with_context(context)?,
    };
    let text = String::from_utf8_lossy(&text);
    let mut ledger = Ledger::parse(&text);
    for line in ledger.0.iter().filter(|entry| entry.is_damaged()) {
        let text = format!(
            "{}: the line '{}' is damaged; mend or remove it. No range that it begins with is given",
            path.display(),
            escape(&line.text)
        );
        crate::note(document, &text);
    }
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

/// In one step, so that a crash or a full disk leaves the old or the new one.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let written = (|| {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    written
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&new);
        })
        .with_context(|| format!("write {}", new.display()))
}

/// Who has which range: lines of the file.
struct Ledger(Vec<Entry>);

struct Entry {
    /// The line.
    text: String,
    /// The range that it begins with; none if there is none.
    ids: Option<IdRange>,
    /// Whose it is; none if that cannot be read.
    owner: Option<String>,
    /// Whether a part of the owner may be missing: then the range is not given to another.
    is_kept: bool,
}

impl Entry {
    fn new(ids: IdRange, owner: &str) -> Self {
        Entry {
            text: format!("{ids} {}", escape(owner)),
            ids: Some(ids),
            owner: Some(owner.to_owned()),
            is_kept: false,
        }
    }

    fn parse(text: &str) -> Self {
        let (ids, owner) = text.split_once(' ').unwrap_or((text, ""));
        let (ids, owner) = match IdRange::parse(ids) {
            Ok(ids) if owner.contains(" /") => (Some(ids), Some(unescape(owner))),
            _ => (first_of(text), None),
        };
        Entry {
            text: text.to_owned(),
            ids,
            is_kept: owner.is_none(),
            owner,
        }
    }

    fn is_damaged(&self) -> bool {
        self.owner.is_none() && !self.text.starts_with('#')
    }

    fn overlaps(&self, ids: IdRange) -> bool {
        self.ids.is_some_and(|own| own.overlaps(ids))
    }

    fn is_of(&self, owner: &str) -> bool {
        self.owner.as_deref() == Some(owner)
    }

    /// Whether its configuration (or UPPER) does not exist any more, and no subhost that runs has
    /// its range.
    fn is_gone(&self) -> bool {
        let owner = self.owner.as_deref().unwrap_or_default();
        let path = owner.split_once(' ').map_or("", |(_, path)| path);
        let gone = !self.is_kept && matches!(Path::new(path).try_exists(), Ok(false));
        gone && !running("").into_iter().any(|used| self.overlaps(used))
    }
}

/// The range that a damaged line begins with. Its end may be missing, so it is taken to be no
/// smaller than the range of a subhost that has not asked for another.
fn first_of(text: &str) -> Option<IdRange> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let first: u32 = numbers.next()?.parse().ok()?;
    let size = numbers.next().unwrap_or_default();
    let size = IdRange::parse(&format!("{first}:{size}")).map_or(SIZE, |ids| ids.size.max(SIZE));
    Some(IdRange {
        first,
        size: size.min(u32::MAX - first),
    })
}

/// The ranges of all subhosts that run, but for the one of that name.
fn running(name: &str) -> Vec<IdRange> {
    let others = state::names().into_iter().filter(|other| other != name);
    let documents =
        others.filter_map(|other| state::StateDir::of(&other).document().ok().flatten());
    documents
        .filter_map(|document| IdRange::of(&document).ok().flatten())
        .collect()
}

impl Ledger {
    /// Earlier versions divided a line where the path had a newline: the rest of it stands on a
    /// line that begins with no number.
    fn parse(text: &str) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        let cut = Some("# the line above was cut short")
            .filter(|_| !text.is_empty() && !text.ends_with('\n'));
        for line in text.split('\n').filter(|line| !line.is_empty()).chain(cut) {
            let entry = Entry::parse(line);
            if let Some(last) = entries.last_mut().filter(|_| entry.ids.is_none()) {
                last.is_kept = true;
            }
            entries.push(entry);
        }
        Ledger(entries)
    }

    fn text(&self) -> String {
        let lines = self.0.iter().map(|entry| entry.text.clone() + "\n");
        lines.collect()
    }

    /// Gives `owner` a range: the one it had, if that is what it wants and may have still.
    fn give(&mut self, owner: &str, wish: UsernsSetting, subids: &[SubIds; 2]) -> Result<IdRange> {
        let pools = pools(subids)?;
        let others: Vec<_> = subids.iter().flat_map(|ids| &ids.others).collect();
        let had = self.0.iter().find(|entry| entry.is_of(owner));
        let had = had.and_then(|entry| entry.ids);
        let is_free = |ids: IdRange| !others.iter().any(|(taken, _)| taken.overlaps(ids));
        let ids = match wish {
            UsernsSetting::Range(ids) => {
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
        if let Some(entry) = self.overlapping(owner, ids) {
            let taken = entry.ids.unwrap_or(ids);
            let other = match &entry.owner {
                Some(other) => format!("the range of the subhost {other}"),
                None => format!(
                    "of the line '{}' in {DIRECTORY}/{FILE}",
                    escape(&entry.text)
                ),
            };
            bail!("it overlaps {taken}, {other}; set another, or auto");
        }
        if had != Some(ids) {
            let (name, _) = owner.split_once(' ').unwrap_or((owner, ""));
            if let Some(used) = running(name).into_iter().find(|used| used.overlaps(ids)) {
                bail!("it overlaps {used}, which a subhost has that runs; set another, or auto");
            }
            self.0.retain(|entry| !entry.is_of(owner));
            self.0.push(Entry::new(ids, owner));
        }
        Ok(ids)
    }

    /// The first range that nobody has, or whose owner is gone. Subhosts that run keep theirs, also
    /// where the file has lost it.
    fn find(
        &self,
        owner: &str,
        pools: &[IdRange],
        is_free: impl Fn(IdRange) -> bool,
    ) -> Result<IdRange> {
        let ranges = || {
            let all = pools.iter().flat_map(|pool| {
                let firsts = (pool.first..).step_by(SIZE as usize);
                firsts.take((pool.size / SIZE) as usize)
            });
            all.map(|first| IdRange { first, size: SIZE })
                .filter(|ids| is_free(*ids))
        };
        let (name, _) = owner.split_once(' ').unwrap_or((owner, ""));
        let mut unused = ranges().filter(|ids| self.overlapping(owner, *ids).is_none());
        let running = running(name);
        let unused = unused.find(|ids| !running.iter().any(|used| used.overlaps(*ids)));
        let unused = unused.or_else(|| {
            ranges().find(|ids| {
                let mut owners = self.0.iter().filter(|entry| entry.overlaps(*ids));
                owners.all(Entry::is_gone)
            })
        });
        unused.with_context(|| {
            format!("no range of {SIZE} ids is left; add a line {ACCOUNT}:FIRST:COUNT to /etc/subuid and /etc/subgid")
        })
    }

    fn overlapping(&self, owner: &str, ids: IdRange) -> Option<&Entry> {
        let mut others = self.0.iter().filter(|entry| !entry.is_of(owner));
        others.find(|entry| entry.overlaps(ids))
    }

    /// Takes the ranges in the way of `ids` from subhosts that are no more.
    fn forget_gone(&mut self, owner: &str, ids: IdRange) {
        self.0
            .retain(|entry| entry.is_of(owner) || !entry.overlaps(ids) || !entry.is_gone());
    }
}

fn is_within(ids: IdRange, pool: IdRange) -> bool {
    ids.first >= pool.first && ids.first - pool.first <= pool.size.saturating_sub(ids.size)
}

/// What may be given: what both files set aside for subhosts, or our own choice.
fn pools(subids: &[SubIds; 2]) -> Result<Vec<IdRange>> {
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
    ours: Vec<IdRange>,
    others: Vec<(IdRange, String)>,
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
            let ids = IdRange {
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
        let given = ledger.give(owner, UsernsSetting::Auto, subids);
        given.map_or_else(|error| format!("{error:#}"), |ids| ids.to_string())
    }

    fn subids(text: &str) -> [SubIds; 2] {
        [SubIds::parse(text), SubIds::parse(text)]
    }

    #[test]
    fn subhost_gets_the_same_exclusive_range_again() {
        let mut ledger = Ledger::parse("");
        let none = subids("");
        assert_eq!(auto(&mut ledger, "a /", &none), "2013265920:65536");
        assert_eq!(auto(&mut ledger, "b /", &none), "2013331456:65536");
        let mut ledger = Ledger::parse(&ledger.text());
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
        let mut ledger = Ledger::parse("");
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
        let mut ledger = Ledger::parse("100000:65536 a /\n");
        let ask = |ledger: &mut Ledger, owner: &str, first| {
            let wish = UsernsSetting::Range(IdRange { first, size: SIZE });
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
    fn any_path_is_one_line_and_gets_its_range_again() {
        let none = subids("");
        for path in ["/a\nb", "/a\n300000:65536 b /", "/a\r", "/a\\n", "/a  b "] {
            let mut ledger = Ledger::parse("");
            let owner = format!("a {path}");
            let range = auto(&mut ledger, &owner, &none);
            auto(&mut ledger, "b /", &none);
            assert_eq!(ledger.text().lines().count(), 2);
            let mut ledger = Ledger::parse(&ledger.text());
            assert_eq!(auto(&mut ledger, &owner, &none), range, "{path}");
            assert!(!ledger.0.iter().any(Entry::is_damaged));
        }
    }

    #[test]
    fn a_range_that_a_damaged_line_begins_with_is_not_given() {
        let ours = subids("overlay-boot:300000:131072");
        let full = "no range of 65536 ids is left";
        for (line, second) in [
            ("300000:65536\n", "365536:65536"),
            ("300000\n", "365536:65536"),
            ("300000:655\n", "365536:65536"),
            ("300000:65536 a\n", "365536:65536"),
            ("300000:65536:a /\n", "365536:65536"),
            ("300000:99999999999 a /\n", "365536:65536"),
            ("300001:1 x\n", full),
            ("300000:65536? a /\n", "365536:65536"),
            // Cut short, or divided by a newline: the path is not to be looked for.
            ("300000:65536 a /no/such", "365536:65536"),
            ("300000:65536 a /no/such\nfile/a.conf\n", "365536:65536"),
            // What begins with no number stands for no range.
            ("rubbish\n\n\u{fffd}\n# 300000:65536 a /\n", "300000:65536"),
            ("99999999999:1 a /\n", "300000:65536"),
            (
                "4294967295:1 a /\n0:4294967295 b /\n65536:1 c /\n",
                "300000:65536",
            ),
        ] {
            let mut ledger = Ledger::parse(line);
            let given = auto(&mut ledger, "b /", &ours);
            assert!(given.starts_with(second), "{line}: {given}");
            // The line stays, and means the same when it is read again.
            let text = ledger.text();
            assert!(text.starts_with(line.lines().next().unwrap()), "{text}");
            let mut ledger = Ledger::parse(&text);
            assert!(second == full || auto(&mut ledger, "b /", &ours).starts_with(second));
            if second != full && !second.starts_with("300000") {
                assert!(auto(&mut ledger, "c /", &ours).starts_with(full), "{line}");
            }
        }
        // One that was cut at its end is still its owner's.
        let mut ledger = Ledger::parse("300000:65536 a /");
        assert_eq!(auto(&mut ledger, "a /", &ours), "300000:65536");
        assert_eq!(Ledger::parse("").text(), "");
    }

    #[test]
    fn range_of_a_removed_subhost_is_reused() {
        let mut ledger = Ledger::parse("300000:65536 a /no/such/file\n");
        let ours = subids("overlay-boot:300000:65536");
        assert_eq!(auto(&mut ledger, "b /", &ours), "300000:65536");
        assert_eq!(ledger.text(), "300000:65536 b /\n");
    }
}
