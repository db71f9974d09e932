//! The ids that /etc/subuid and /etc/subgid allot, subuid(5).

use anyhow::{Context, Result, ensure};
use ob_confine::userns::{IdRange, SIZE};
use std::io::ErrorKind;

/// The account with the ids for subhosts in /etc/subuid and /etc/subgid.
pub const ACCOUNT: &str = "overlay-boot";

/// The ids for subhosts if [`ACCOUNT`] has no line: above the ranges of useradd(8) and
/// systemd-nspawn(1), below the ids that systemd reserves.
const DEFAULT_POOL: IdRange = IdRange {
    first: 0x7800_0000,
    size: 0x7ffe_0000 - 0x7800_0000,
};

/// The ranges of one file.
#[derive(Default)]
pub struct SubIds {
    ours: Vec<IdRange>,
    others: Vec<(IdRange, String)>,
}

impl SubIds {
    /// Reads the file at `path`; a missing file has no ranges.
    pub fn read(path: &str) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(SubIds::default()),
            text => Ok(SubIds::parse(&text.with_context(|| path.to_owned())?)),
        }
    }

    /// Parses lines `USER:FIRST:COUNT`. Ignores invalid lines, as newuidmap(1) does.
    pub fn parse(text: &str) -> Self {
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

    /// Returns the user that has ids in `ids`, with the range of that user.
    pub fn user_of(&self, ids: IdRange) -> Option<&(IdRange, String)> {
        self.others.iter().find(|(range, _)| range.overlaps(ids))
    }
}

/// Returns the ranges that may be allocated: the ranges of [`ACCOUNT`], or the default.
pub fn pools([users, groups]: &[SubIds; 2]) -> Result<Vec<IdRange>> {
    ensure!(
        users.ours == groups.ours,
        "the lines of {ACCOUNT} in /etc/subuid and /etc/subgid differ; make them the same"
    );
    if users.ours.is_empty() {
        return Ok(vec![DEFAULT_POOL]);
    }
    Ok(users.ours.clone())
}
