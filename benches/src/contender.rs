//! The programs that are compared, and their commands. Where a program lacks a step, the floor
//! performs the step in the same process before exec, so that no program pays for a helper.

use crate::world::{BRIDGE, World};
use anyhow::Result;
use std::fs;
use std::path::Path;

/// A program that boots, enters and ends a subhost.
pub struct Contender {
    /// The name of the program and of its subhost, at most eight letters.
    pub name: &'static str,
    /// The command that boots.
    pub boot: Vec<String>,
    /// Whether that command stays in the foreground; a signal then ends the subhost.
    pub stays: bool,
    /// The command that ends the subhost; empty for a program in the foreground.
    pub stop: Vec<String>,
    /// The command that runs `true` inside.
    pub enter: Vec<String>,
    /// The programs that stay in memory.
    pub resident: &'static [&'static str],
    /// Why the program failed the job, after the first try.
    pub unfit: Option<String>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Returns whether the program is installed.
pub fn is_here(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .any(|directory| Path::new(directory).join(program).exists())
}

/// Returns the floor, overlay-boot and all other installed programs.
pub fn all(world: &World) -> Result<Vec<Contender>> {
    let mut all = Vec::new();
    let floor = world.bin.join("floor").display().to_string();
    for (name, program) in [
        ("floor", "true"),
        ("first", "true"),
        ("idle", "true"),
        ("bwrap", "bwrap"),
        ("crun", "crun"),
        ("runc", "runc"),
        ("lxc", "lxc-start"),
        ("nspawn", "systemd-nspawn"),
    ] {
        if !is_here(program) {
            continue;
        }
        let place = world.place(name)?;
        let at = place.display().to_string();
        let room = format!("{floor} room {at} {name} {BRIDGE}");
        let mut contender = Contender {
            name,
            boot: Vec::new(),
            stays: false,
            stop: Vec::new(),
            enter: Vec::new(),
            resident: &[],
            unfit: None,
        };
        let (boot, stop, enter) = match name {
            "floor" => (
                format!("{floor} boot {at} {name} {BRIDGE}"),
                format!("{floor} stop {name}"),
                format!("{floor} enter {name} /bin/true"),
            ),
            "first" | "idle" => (
                format!("overlay-boot {at}/{name}.conf"),
                format!("overlay-stop {name}"),
                format!("overlay-go {name} true"),
            ),
            "bwrap" => {
                contender.stays = true;
                contender.resident = &["bwrap"];
                (
                    format!(
                        "{room} bwrap --bind {at}/live / --dev /dev --proc /proc --tmpfs /run --unshare-pid --unshare-ipc \
                         --unshare-uts --die-with-parent /bin/sh /bench-init"
                    ),
                    String::new(),
                    String::new(),
                )
            }
            "crun" | "runc" => {
                fs::write(place.join("bundle/config.json"), bundle(&at))?;
                let tool = match name {
                    "crun" => "crun --cgroup-manager=disabled --root /run/crun",
                    _ => "runc --root /run/runc",
                };
                (
                    format!("{room} {tool} run -d -b {at}/bundle {name}"),
                    format!("{tool} delete -f {name}"),
                    format!("{tool} exec {name} /bin/true"),
                )
            }
            "lxc" => {
                fs::write(place.join("lxc.conf"), lxc(&at))?;
                contender.resident = &["lxc-start", "[lxc monitor]"];
                (
                    format!(
                        "{floor} room {at} {name} - lxc-start -P {at}/bundle -f {at}/lxc.conf -n {name}"
                    ),
                    format!("lxc-stop -P {at}/bundle -k -n {name}"),
                    format!("lxc-attach -P {at}/bundle -n {name} -- /bin/true"),
                )
            }
            _ => {
                contender.stays = true;
                contender.resident = &["systemd-nspawn"];
                (
                    format!(
                        "{room} systemd-nspawn -q --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off \
                         -D {at}/live /bin/sh /bench-init"
                    ),
                    String::new(),
                    String::new(),
                )
            }
        };
        contender.boot = words(&boot);
        contender.stop = words(&stop);
        contender.enter = words(&enter);
        all.push(contender);
    }
    Ok(all)
}

/// Returns an OCI configuration of the same subhost. The caller provides the network.
fn bundle(at: &str) -> String {
    let mounts = [
        ("/proc", "proc", "nosuid"),
        ("/dev", "tmpfs", "mode=755"),
        ("/dev/pts", "devpts", "newinstance"),
        ("/dev/shm", "tmpfs", "mode=1777"),
        ("/sys", "sysfs", "nosuid"),
        ("/run", "tmpfs", "mode=755"),
    ]
    .map(|(to, kind, option)| {
        format!(
            r#"{{"destination":"{to}","type":"{kind}","source":"{kind}","options":["{option}"]}}"#
        )
    });
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| format!(r#"{{"type":"{kind}"}}"#));
    format!(
        r#"{{"ociVersion":"1.0.2","process":{{"terminal":false,"user":{{"uid":0,"gid":0}},"args":["/bin/sh","/bench-init"],
"env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"cwd":"/"}},"root":{{"path":"{at}/live"}},"mounts":[{}],
"linux":{{"namespaces":[{}]}}}}"#,
        mounts.join(","),
        namespaces.join(",")
    )
}

fn lxc(at: &str) -> String {
    format!(
        "lxc.rootfs.path = dir:{at}/live\nlxc.uts.name = lxc\nlxc.net.0.type = veth\nlxc.net.0.link = {BRIDGE}\nlxc.net.0.veth.pair = lxc0\nlxc.net.0.name = eth0\nlxc.net.0.flags = up\nlxc.init.cmd = /bin/sh /bench-init\n\
         lxc.autodev = 1\nlxc.mount.auto = proc:rw sys:rw\nlxc.mount.entry = tmpfs run tmpfs mode=755 0 0\n\
         lxc.apparmor.profile = unchanged\n"
    )
}
