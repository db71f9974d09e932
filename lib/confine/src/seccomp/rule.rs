//! Rules of a profile, and their compilation to filters for the kernel.
//!
//! A filter of the crate seccompiler has two outcomes. The kernel runs all filters of a process and
//! takes the strictest result, `seccomp(2)`. So a profile is compiled to one filter for the system
//! calls that it allows, and one for each other outcome.

use anyhow::{Result, anyhow, ensure};
use ob_sys::credentials::Instruction;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Maximum number of instructions of a filter, `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// What the kernel does on a system call, from the mildest to the strictest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Outcome {
    Allow,
    Log,
    Errno(u32),
    Trap,
    KillThread,
    KillProcess,
}

/// A rule: the outcome of the system calls `numbers` if all conditions are met.
pub(super) struct Rule {
    pub(super) numbers: Vec<i64>,
    pub(super) outcome: Outcome,
    pub(super) conditions: Vec<SeccompCondition>,
}

/// A profile: the outcome of system calls that match no rule, and the rules.
pub(super) struct Profile {
    pub(super) default: Outcome,
    pub(super) rules: Vec<Rule>,
}

impl Profile {
    /// Compiles the profile. Returns the filters in the order in which they must be loaded.
    pub(super) fn compile(&self) -> Result<Vec<Vec<Instruction>>> {
        let mut filters = Vec::new();
        let mut outcomes: Vec<Outcome> = self.rules.iter().map(|rule| rule.outcome).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        for outcome in outcomes {
            if outcome == Outcome::Allow || outcome == self.default {
                continue;
            }
            let rules = self.rules.iter().filter(|rule| rule.outcome == outcome);
            filters.push(filter(rules, outcome, Outcome::Allow)?);
        }
        // Last, because it may refuse seccomp(2) itself. If two filters return an errno, the kernel
        // takes the errno of the filter loaded last. So this filter allows the system calls that
        // have another outcome.
        if self.default != Outcome::Allow {
            let allowed = self
                .rules
                .iter()
                .filter(|rule| rule.outcome != self.default);
            filters.push(filter(allowed, Outcome::Allow, self.default)?);
        }
        // A profile that allows everything is a filter as well: none at all means a damaged file.
        if filters.is_empty() {
            let none = std::iter::empty();
            filters.push(filter(none, Outcome::KillProcess, Outcome::Allow)?);
        }
        Ok(filters)
    }
}

/// Compiles one filter: `matched` for a system call that matches a rule, else `other`.
fn filter<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    matched: Outcome,
    other: Outcome,
) -> Result<Vec<Instruction>> {
    let mut table: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for rule in rules {
        for number in &rule.numbers {
            let entry = table.entry(*number).or_insert_with(|| Some(Vec::new()));
            if rule.conditions.is_empty() {
                *entry = None; // a match without conditions includes any other
            } else if let Some(chain) = entry {
                chain.push(SeccompRule::new(rule.conditions.clone())?);
            }
        }
    }
    // For seccompiler, an empty list of rules is a match without conditions.
    let table = table
        .into_iter()
        .map(|(number, chain)| (number, chain.unwrap_or_default()));
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| anyhow!("this architecture has no system call filters"))?;
    let filter = SeccompFilter::new(table.collect(), other.into(), matched.into(), architecture)?;
    let program: BpfProgram = filter.try_into()?;
    ensure!(
        program.len() <= MAX_INSTRUCTIONS,
        "the filter has {} instructions; the kernel accepts {MAX_INSTRUCTIONS}",
        program.len()
    );
    let program = program.iter().map(|instruction| Instruction {
        code: instruction.code,
        jt: instruction.jt,
        jf: instruction.jf,
        k: instruction.k,
    });
    Ok(program.collect())
}

impl From<Outcome> for SeccompAction {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Allow => SeccompAction::Allow,
            Outcome::Log => SeccompAction::Log,
            Outcome::Errno(number) => SeccompAction::Errno(number),
            Outcome::Trap => SeccompAction::Trap,
            Outcome::KillThread => SeccompAction::KillThread,
            Outcome::KillProcess => SeccompAction::KillProcess,
        }
    }
}
