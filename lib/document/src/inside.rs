//! The environment of the processes inside a subhost.

/// The directories in which programs inside are searched.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the variables that every process inside gets, besides the variables of its user and
/// caller.
///
/// `name` is the name of the subhost. Programs such as systemd read `container`.
#[must_use]
pub fn variables(name: &str) -> [(&'static str, &str); 3] {
    [
        ("PATH", PATH),
        ("container", "overlay-boot"),
        ("NAME", name),
    ]
}
