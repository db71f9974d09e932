//! The values of SHARE and SHARE_RO.

use crate::closest;
use anyhow::{Error, Result, anyhow, bail, ensure};
use std::path::{Component, Path, PathBuf};

/// A share: `HOST[:DEST[:OPTIONS]]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    /// The path on the host.
    pub host: PathBuf,
    /// The path inside, absolute.
    pub inside: PathBuf,
    /// `ro`: read-only, submounts included.
    pub read_only: bool,
    /// `rec`: with its submounts.
    pub recursive: bool,
    /// `idmap`: an idmapped mount, mount_setattr(2), if the subhost has a user namespace.
    pub mapped: bool,
}

/// The options, each followed by its names in other programs.
const OPTIONS: &[&[&str]] = &[
    &["ro", "readonly", "read-only", "rro"],
    &["rw", "readwrite", "read-write"],
    &["rec", "rbind", "recursive"],
    &["idmap", "mapped"],
];

impl Share {
    /// Parses a share. The text after the last colon is the options, separated by commas, unless it
    /// has a `/`: then it is a part of DEST, with all colons before it.
    ///
    /// Fails for an unknown option: as a part of DEST it would leave the share writable.
    pub fn parse(text: &str) -> Result<Self> {
        let (host, rest) = text.split_once(':').unwrap_or((text, ""));
        ensure!(!host.is_empty(), "there is no path of the host");
        let rest = rest.trim_end_matches(':');
        let split = rest.rsplit_once(':');
        let split = split.filter(|(_, options)| !options.contains('/'));
        let (inside, options) = split.unwrap_or((rest, ""));
        ensure!(
            split.is_some() || !inside.split(',').all(|word| option(word).is_some()),
            "'{inside}' stands in the place of a path; write {host}::{inside} if it is \
             meant as an option, /{inside} if as a path"
        );
        let options: Vec<&str> = options.split(',').filter(|word| !word.is_empty()).collect();
        for word in &options {
            refuse_unknown(word)?;
        }
        Ok(Share {
            host: host.into(),
            inside: Path::new("/").join(if inside.is_empty() { host } else { inside }),
            read_only: options.contains(&"ro"),
            recursive: options.contains(&"rec"),
            mapped: options.contains(&"idmap"),
        })
    }

    /// Returns DEST without `..`, as it is if no directory in it is a symbolic link.
    #[must_use]
    pub fn plain_inside(&self) -> PathBuf {
        let mut plain = PathBuf::from("/");
        for component in self.inside.components() {
            match component {
                Component::Normal(name) => plain.push(name),
                Component::ParentDir => drop(plain.pop()),
                _ => {}
            }
        }
        plain
    }

    /// Fails if a boot would hide the share: ob-unshare mounts /proc and /sys after the shares.
    pub fn ensure_visible(&self) -> Result<()> {
        let inside = self.plain_inside();
        let hidden = ["/proc", "/sys"]
            .into_iter()
            .find(|of| inside.starts_with(of));
        hidden.map_or(Ok(()), |of| Err(hidden_by(of)))
    }
}

/// Returns the error for a share that the mount on `directory` of the subhost would hide.
#[must_use]
pub fn hidden_by(directory: &str) -> Error {
    anyhow!(
        "a boot mounts {directory} later, which would hide the share; use another path inside, or \
         overlay-share when the subhost runs"
    )
}

/// Returns the option of which `word` is a name, regardless of case.
fn option(word: &str) -> Option<&'static str> {
    let word = word.trim().to_lowercase();
    let named = OPTIONS.iter().find(|names| names.contains(&word.as_str()));
    named.map(|names| names[0])
}

/// Fails unless `word` is an option. The error suggests the closest one.
fn refuse_unknown(word: &str) -> Result<()> {
    let known = || OPTIONS.iter().map(|names| names[0]);
    if known().any(|option| option == word) {
        return Ok(());
    }
    let closest = option(word).or_else(|| closest(word, known()));
    let remedy = match closest {
        Some(closest) => format!("did you mean {closest}?"),
        None => "use ro, rw, rec or idmap.".to_owned(),
    };
    bail!("there is no option '{word}'; {remedy} If it belongs to the path, write :rw after it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_split_at_the_first_and_the_last_colon() {
        for (text, inside, read_only) in [
            ("/home", "/home", false),
            ("/home:", "/home", false),
            ("/home::", "/home", false),
            ("/a:b c", "/b c", false),
            ("/a:/b:ro", "/b", true),
            ("/a::ro", "/a", true),
            ("/a:/b:rw", "/b", false),
            ("/a:/b:ro:", "/b", true),
            ("/a:/b:rec,ro,", "/b", true),
            ("/a:/b:c/d", "/b:c/d", false),
            ("/a:/b:/c", "/b:/c", false),
            ("/a:/b:c:rw", "/b:c", false),
            ("/a:/b:ro:rw", "/b:ro", false),
            ("/a:/b:c/d:ro", "/b:c/d", true),
            ("/a:ro:rw", "/ro", false),
            ("/a:/ro", "/ro", false),
            ("/a:rose", "/rose", false),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!(share.host, Path::new(text.split(':').next().unwrap()));
            assert_eq!(share.inside, Path::new(inside), "{text}");
            assert_eq!(share.read_only, read_only, "{text}");
        }
    }

    #[test]
    fn share_below_proc_or_sys_is_hidden() {
        for (text, is_hidden) in [
            ("/k:/sys/fs/bpf", true),
            ("/k:proc", true),
            ("/sys", true),
            ("/k:/srv/../proc/./x", true),
            ("/k:/../sys/", true),
            ("/proc:/host/proc", false),
            ("/k:/sysroot", false),
            ("/k:/proc/../srv", false),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!(share.ensure_visible().is_err(), is_hidden, "{text}");
        }
    }

    #[test]
    fn unknown_option_is_refused_with_the_closest() {
        for (text, reason) in [
            ("/a:/b:readonly", "no option 'readonly'; did you mean ro?"),
            ("/a:/b:RO", "did you mean ro?"),
            ("/a:/b: ro", "did you mean ro?"),
            ("/a:/b:Read-Only", "did you mean ro?"),
            ("/a:/b:rec,r0", "no option 'r0'; use ro, rw, rec or idmap."),
            ("/a:/b:ro,z", "no option 'z'; use ro,"),
            ("/a:/b:ro;rec", "no option 'ro;rec'"),
            ("/a:/b:idmaps", "did you mean idmap?"),
            ("/a:/b:c", "write :rw after it"),
            (
                "/a:ro",
                "write /a::ro if it is meant as an option, /ro if as a path",
            ),
            ("/a:ro,rec", "write /a::ro,rec"),
            ("/a:readonly", "stands in the place of a path"),
            (":/b", "there is no path"),
            ("", "there is no path"),
        ] {
            let error = Share::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
