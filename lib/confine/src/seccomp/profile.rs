//! Parsing of seccomp profiles of the OCI runtime specification, with the extensions of Docker.

use super::rule::{Outcome, Profile, Rule};
use crate::capabilities::contains;
use crate::syscalls;
use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use ob_sys::credentials::Capabilities;
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};
use serde_json::Value;

impl Profile {
    /// Parses the profile `json` for a process with the capabilities `kept`.
    pub(super) fn parse(json: &str, kept: Capabilities) -> Result<Self> {
        let profile: Value = serde_json::from_str(json).context("not JSON")?;
        let default = outcome(&profile, "defaultAction", "defaultErrnoRet")?;
        let rules = profile.get("syscalls").and_then(Value::as_array);
        let mut parsed = Vec::new();
        for rule in rules.into_iter().flatten() {
            let outcome = outcome(rule, "action", "errnoRet")?;
            let mut names = texts(rule, "names");
            names.extend(rule.get("name").and_then(Value::as_str));
            ensure!(!names.is_empty(), "a rule has no names");
            if !applies(rule, kept)? {
                continue;
            }
            let numbers: Vec<i64> = names.into_iter().filter_map(syscalls::number).collect();
            for conditions in alternatives(rule)? {
                parsed.push(Rule {
                    numbers: numbers.clone(),
                    outcome,
                    conditions,
                });
            }
        }
        Ok(Profile {
            default,
            rules: parsed,
        })
    }
}

fn outcome(rule: &Value, key: &str, errno: &str) -> Result<Outcome> {
    let action = rule.get(key).and_then(Value::as_str);
    let action = action.with_context(|| format!("{key} is missing"))?;
    let number = rule.get(errno).and_then(Value::as_u64);
    let number = u32::try_from(number.unwrap_or(libc::EPERM as u64))?;
    Ok(match action {
        "SCMP_ACT_ALLOW" => Outcome::Allow,
        "SCMP_ACT_LOG" => Outcome::Log,
        "SCMP_ACT_ERRNO" => Outcome::Errno(number),
        "SCMP_ACT_TRAP" => Outcome::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Outcome::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Outcome::KillProcess,
        other => bail!("{other} is not supported"),
    })
}

/// Returns whether `includes` and `excludes`, extensions of Docker, select the rule.
///
/// Ignores `minKernel`: that of the profile of Docker is 4.8, and a subhost needs Linux 5.10.
fn applies(rule: &Value, kept: Capabilities) -> Result<bool> {
    let none = Value::Null;
    let (includes, excludes) = (
        rule.get("includes").unwrap_or(&none),
        rule.get("excludes").unwrap_or(&none),
    );
    let held = |name: &&str| contains(kept, name);
    for name in texts(includes, "caps") {
        if !held(&name)? {
            return Ok(false);
        }
    }
    for name in texts(excludes, "caps") {
        if held(&name)? {
            return Ok(false);
        }
    }
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let architectures = texts(includes, "arches");
    Ok((architectures.is_empty() || architectures.contains(&here))
        && !texts(excludes, "arches").contains(&here))
}

/// Returns the conditions of a rule, as a list of alternatives that must each be met as a whole.
///
/// If two conditions are on the same argument, each condition is an alternative, as in runc.
fn alternatives(rule: &Value) -> Result<Vec<Vec<SeccompCondition>>> {
    let arguments = rule.get("args").and_then(Value::as_array);
    let mut indices = Vec::new();
    let mut conditions = Vec::new();
    for argument in arguments.into_iter().flatten() {
        let number = |key| argument.get(key).and_then(Value::as_u64);
        let index = number("index").context("a condition has no index")?;
        let value = number("value").context("a condition has no value")?;
        let operation = argument.get("op").and_then(Value::as_str);
        let (operation, value) = match operation.unwrap_or_default() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, value),
            "SCMP_CMP_MASKED_EQ" => (
                SeccompCmpOp::MaskedEq(value),
                number("valueTwo").unwrap_or_default(),
            ),
            other => bail!("a condition has the operation '{other}'"),
        };
        indices.push(index);
        conditions.push(SeccompCondition::new(
            u8::try_from(index)?,
            SeccompCmpArgLen::Qword,
            operation,
            value,
        )?);
    }
    let count = indices.len();
    indices.sort_unstable();
    indices.dedup();
    Ok(if indices.len() == count {
        vec![conditions]
    } else {
        conditions.into_iter().map(|one| vec![one]).collect()
    })
}

fn texts<'a>(object: &'a Value, key: &str) -> Vec<&'a str> {
    let list = object.get(key).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.collect()
}
