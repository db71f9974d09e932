//! The environment of the processes inside a subhost.

/// The directories in which programs inside are searched.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the variables that every process inside gets, besides those of its user and of its caller.
///
/// `name` is the name of the subhost. systemd and others read `container`.
#[must_use]
pub fn variables(name: &str) -> [(&'static str, &str); 3] {
    [
        ("PATH", PATH),
        ("container", "overlay-boot"),
        ("NAME", name),
    ]
}
