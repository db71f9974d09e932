//! The record of the ids of all subhosts.

use crate::octal::{escape, unescape};
use crate::subids::{ACCOUNT, SubIds, pools};
use anyhow::{Context, Result, bail};
use ob_confine::userns::{IdRange, SIZE, UsernsSetting};
use std::path::Path;

/// The lines of the file, in order.
pub struct Ledger(Vec<Entry>);

/// A request for ids.
pub struct Request<'a> {
    /// `NAME PATH` of the subhost.
    pub owner: &'a str,
    /// The value of USERNS.
    pub setting: UsernsSetting,
    /// /etc/subuid and /etc/subgid.
    pub subids: &'a [SubIds; 2],
    /// The path of the file, for errors.
    pub file: &'a Path,
    /// Returns the ids of all running subhosts except one.
    pub running: &'a dyn Fn(&str) -> Vec<IdRange>,
}

struct Entry {
    /// The line.
    text: String,
    /// The range at the start of the line, if there is one.
    ids: Option<IdRange>,
    /// `NAME PATH` of the subhost; None if the line is damaged or a comment.
    owner: Option<String>,
    /// Whether a part of the owner may be missing, so that the ids must stay reserved.
    is_reserved: bool,
}

impl Request<'_> {
    fn name(&self) -> &str {
        self.owner
            .split_once(' ')
            .map_or(self.owner, |(name, _)| name)
    }

    /// Returns the user that has ids in `ids` by /etc/subuid or /etc/subgid.
    fn user_of(&self, ids: IdRange) -> Option<&(IdRange, String)> {
        self.subids.iter().find_map(|subids| subids.user_of(ids))
    }

    /// Whether the owner of `entry` is gone: its configuration (or UPPER) does not exist, and no
    /// running subhost has its ids.
    fn is_stale(&self, entry: &Entry) -> bool {
        let owner = entry.owner.as_deref().unwrap_or_default();
        let path = owner.split_once(' ').map_or("", |(_, path)| path);
        let is_gone = !entry.is_reserved && matches!(Path::new(path).try_exists(), Ok(false));
        is_gone
            && !(self.running)("")
                .into_iter()
                .any(|used| entry.overlaps(used))
    }
}

impl Entry {
    fn new(ids: IdRange, owner: &str) -> Self {
        Entry {
            text: format!("{ids} {}", escape(owner)),
            ids: Some(ids),
            owner: Some(owner.to_owned()),
            is_reserved: false,
        }
    }

    fn parse(text: &str) -> Self {
        let (ids, owner) = text.split_once(' ').unwrap_or((text, ""));
        let (ids, owner) = match IdRange::parse(ids) {
            Ok(ids) if owner.contains(" /") => (Some(ids), Some(unescape(owner))),
            _ => (leading_range(text), None),
        };
        Entry {
            text: text.to_owned(),
            ids,
            is_reserved: owner.is_none(),
            owner,
        }
    }

    fn is_damaged(&self) -> bool {
        self.owner.is_none() && !self.text.starts_with('#')
    }

    fn overlaps(&self, ids: IdRange) -> bool {
        self.ids.is_some_and(|own| own.overlaps(ids))
    }

    fn belongs_to(&self, owner: &str) -> bool {
        self.owner.as_deref() == Some(owner)
    }
}

/// Returns the range at the start of a damaged line. Its end may be missing, so the size is at
/// least the default size of a range.
fn leading_range(text: &str) -> Option<IdRange> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let first: u32 = numbers.next()?.parse().ok()?;
    let size = numbers.next().unwrap_or_default();
    let size = IdRange::parse(&format!("{first}:{size}")).map_or(SIZE, |ids| ids.size.max(SIZE));
    Some(IdRange {
        first,
        size: size.min(u32::MAX - first),
    })
}

impl Ledger {
    /// Parses the text of the file.
    ///
    /// Earlier versions wrote a newline in a path as it is. The rest of such a path is a line that
    /// begins with no number, and marks the line above as incomplete.
    pub fn parse(text: &str) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        let cut = Some("# the line above was cut short")
            .filter(|_| !text.is_empty() && !text.ends_with('\n'));
        for line in text.split('\n').filter(|line| !line.is_empty()).chain(cut) {
            let entry = Entry::parse(line);
            if let Some(last) = entries.last_mut().filter(|_| entry.ids.is_none()) {
                last.is_reserved = true;
            }
            entries.push(entry);
        }
        Ledger(entries)
    }

    /// Returns the text for the file.
    pub fn text(&self) -> String {
        let lines = self.0.iter().map(|entry| entry.text.clone() + "\n");
        lines.collect()
    }

    /// Returns the lines that are neither comments nor the range of a subhost.
    pub fn damaged_lines(&self) -> impl Iterator<Item = &str> {
        let damaged = self.0.iter().filter(|entry| entry.is_damaged());
        damaged.map(|entry| entry.text.as_str())
    }

    /// Allocates a range and records it. For USERNS=auto this is the previous range of the owner,
    /// if it is still allowed, or else any free range.
    ///
    /// # Errors
    /// Fails if a user or another subhost has one of the ids, or if no range is free.
    pub fn allocate(&mut self, request: &Request) -> Result<IdRange> {
        let pools = pools(request.subids)?;
        let previous = self.0.iter().find(|entry| entry.belongs_to(request.owner));
        let previous = previous.and_then(|entry| entry.ids);
        let ids = match request.setting {
            UsernsSetting::Range(ids) => {
                if let Some((taken, user)) = request.user_of(ids) {
                    bail!(
                        "it overlaps {taken}, which belongs to {user} by /etc/subuid or /etc/subgid"
                    );
                }
                ids
            }
            _ => {
                let allowed = |ids: &IdRange| {
                    ids.size == SIZE
                        && request.user_of(*ids).is_none()
                        && pools.iter().any(|pool| is_within(*ids, *pool))
                };
                match previous.filter(allowed) {
                    Some(ids) => ids,
                    None => self.find_free(request, &pools)?,
                }
            }
        };
        self.release_stale(request, ids);
        if let Some(entry) = self.overlapping(request.owner, ids) {
            let taken = entry.ids.unwrap_or(ids);
            let other = match &entry.owner {
                Some(other) => format!("the range of the subhost {other}"),
                None => format!("the line '{}'", escape(&entry.text)),
            };
            let file = request.file.display();
            bail!("it overlaps {other} in {file}, {taken}; set another, or auto");
        }
        if previous != Some(ids) {
            let mut running = (request.running)(request.name()).into_iter();
            if let Some(used) = running.find(|used| used.overlaps(ids)) {
                bail!("it overlaps {used}, which a running subhost has; set another, or auto");
            }
            self.0.retain(|entry| !entry.belongs_to(request.owner));
            self.0.push(Entry::new(ids, request.owner));
        }
        Ok(ids)
    }

    /// Returns the first free range of the pools, or else the first with a stale owner. The ids of
    /// a running subhost are not free, even if the file has lost its line.
    fn find_free(&self, request: &Request, pools: &[IdRange]) -> Result<IdRange> {
        let ranges = || {
            let all = pools.iter().flat_map(|pool| {
                let firsts = (pool.first..).step_by(SIZE as usize);
                firsts.take((pool.size / SIZE) as usize)
            });
            all.map(|first| IdRange { first, size: SIZE })
                .filter(|ids| request.user_of(*ids).is_none())
        };
        let mut unused = ranges().filter(|ids| self.overlapping(request.owner, *ids).is_none());
        let running = (request.running)(request.name());
        let unused = unused.find(|ids| !running.iter().any(|used| used.overlaps(*ids)));
        let unused = unused.or_else(|| {
            ranges().find(|ids| {
                let mut owners = self.0.iter().filter(|entry| entry.overlaps(*ids));
                owners.all(|entry| request.is_stale(entry))
            })
        });
        unused.with_context(|| {
            format!("no range of {SIZE} ids is left; add a line {ACCOUNT}:FIRST:COUNT to /etc/subuid and /etc/subgid")
        })
    }

    fn overlapping(&self, owner: &str, ids: IdRange) -> Option<&Entry> {
        let mut others = self.0.iter().filter(|entry| !entry.belongs_to(owner));
        others.find(|entry| entry.overlaps(ids))
    }

    /// Removes the entries of stale owners that overlap `ids`.
    fn release_stale(&mut self, request: &Request, ids: IdRange) {
        self.0.retain(|entry| {
            entry.belongs_to(request.owner) || !entry.overlaps(ids) || !request.is_stale(entry)
        });
    }
}

fn is_within(ids: IdRange, pool: IdRange) -> bool {
    ids.first >= pool.first && ids.first - pool.first <= pool.size.saturating_sub(ids.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocate(
        ledger: &mut Ledger,
        owner: &str,
        setting: UsernsSetting,
        subids: &[SubIds; 2],
    ) -> String {
        let request = Request {
            owner,
            setting,
            subids,
            file: Path::new("/var/lib/subhosts/userns"),
            running: &|_| Vec::new(),
        };
        let allocated = ledger.allocate(&request);
        allocated.map_or_else(|error| format!("{error:#}"), |ids| ids.to_string())
    }

    fn auto(ledger: &mut Ledger, owner: &str, subids: &[SubIds; 2]) -> String {
        allocate(ledger, owner, UsernsSetting::Auto, subids)
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
    fn ranges_of_users_are_avoided() {
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
            let setting = UsernsSetting::Range(IdRange { first, size: SIZE });
            allocate(ledger, owner, setting, &subids("alice:500000:65536"))
        };
        assert!(ask(&mut ledger, "b /", 165_535).contains("the range of the subhost a /"));
        assert!(ask(&mut ledger, "b /", 434_465).contains("which belongs to alice"));
        assert_eq!(ask(&mut ledger, "b /", 165_536), "165536:65536");
        // A subhost may change its range, but not to one that overlaps that of another subhost.
        assert_eq!(ask(&mut ledger, "a /", 99_999), "99999:65536");
        assert!(ask(&mut ledger, "a /", 100_001).contains("range of the subhost b /"));
    }

    #[test]
    fn subhost_with_any_path_gets_the_same_range_again() {
        let none = subids("");
        for path in ["/a\nb", "/a\n300000:65536 b /", "/a\r", "/a\\n", "/a  b "] {
            let mut ledger = Ledger::parse("");
            let owner = format!("a {path}");
            let range = auto(&mut ledger, &owner, &none);
            auto(&mut ledger, "b /", &none);
            assert_eq!(ledger.text().lines().count(), 2);
            let mut ledger = Ledger::parse(&ledger.text());
            assert_eq!(auto(&mut ledger, &owner, &none), range, "{path}");
            assert_eq!(ledger.damaged_lines().count(), 0);
        }
    }

    #[test]
    fn range_at_the_start_of_a_damaged_line_stays_reserved() {
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
            // Cut short, or divided by a newline: that the path is missing means nothing.
            ("300000:65536 a /no/such", "365536:65536"),
            ("300000:65536 a /no/such\nfile/a.conf\n", "365536:65536"),
            // Lines that begin with no range.
            ("rubbish\n\n\u{fffd}\n# 300000:65536 a /\n", "300000:65536"),
            ("99999999999:1 a /\n", "300000:65536"),
            (
                "4294967295:1 a /\n0:4294967295 b /\n65536:1 c /\n",
                "300000:65536",
            ),
        ] {
            let mut ledger = Ledger::parse(line);
            let allocated = auto(&mut ledger, "b /", &ours);
            assert!(allocated.starts_with(second), "{line}: {allocated}");
            // The line stays, and has the same meaning when it is parsed again.
            let text = ledger.text();
            assert!(text.starts_with(line.lines().next().unwrap()), "{text}");
            let mut ledger = Ledger::parse(&text);
            assert!(second == full || auto(&mut ledger, "b /", &ours).starts_with(second));
            if second != full && !second.starts_with("300000") {
                assert!(auto(&mut ledger, "c /", &ours).starts_with(full), "{line}");
            }
        }
        // A line that was cut at its end still belongs to its owner.
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
