//! /proc: files that concern the whole machine.

use crate::places::open_anyhow;
use crate::table::FROM_YES;
use crate::{Entry, Refused, Try, not_here, refused};
use std::fs;
use std::io::{BufRead, BufReader, Write};

/// Entries about /proc.
#[rustfmt::skip]
pub const ENTRIES: &[Entry] = &[
    Entry::inside(9, "core-pattern", "write `kernel.core_pattern`, a program that the host runs after a crash", FROM_YES, || write_same("/proc/sys/kernel/core_pattern")),
    Entry::inside(9, "vm-sysctl", "write a sysctl of the memory, `vm.swappiness`", FROM_YES, || write_same("/proc/sys/vm/swappiness")),
    Entry::inside(9, "modprobe", "write `kernel.modprobe`, a program that the host runs to load a module", FROM_YES, || write_same("/proc/sys/kernel/modprobe")),
    Entry::inside(9, "sysrq", "open `/proc/sysrq-trigger` for writing", FROM_YES, || open_for_writing("/proc/sysrq-trigger")),
    Entry::inside(9, "kcore", "read the memory of the kernel in `/proc/kcore`", FROM_YES, || open_anyhow("/proc/kcore", false).map(drop)),
    Entry::inside(0, "fs-sysctl", "write `fs.protected_symlinks`, which protects `/tmp` on the host", FROM_YES, || write_same("/proc/sys/fs/protected_symlinks")),
    Entry::inside(0, "kernel-sysctl", "write `kernel.kptr_restrict`, which hides kernel addresses", FROM_YES, || write_same("/proc/sys/kernel/kptr_restrict")),
    Entry::inside(0, "kallsyms", "read kernel addresses in `/proc/kallsyms`", FROM_YES, see_addresses),
    Entry::inside(0, "kernel-memory-map", "read the memory map of the kernel in `/proc/vmallocinfo`", FROM_YES, || open_anyhow("/proc/vmallocinfo", false).map(drop)),
    Entry::inside(0, "page-flags", "read the flags of each page of memory in `/proc/kpageflags`", FROM_YES, || open_anyhow("/proc/kpageflags", false).map(drop)),
    Entry::inside(0, "interrupts", "open `/proc/irq/default_smp_affinity` for writing", FROM_YES, || open_for_writing("/proc/irq/default_smp_affinity")),
    Entry::inside(0, "pci", "open the registers of a PCI device in `/proc/bus/pci` for writing", FROM_YES, open_pci),
];

/// Opens a file in any possible way and writes its present value.
pub(crate) fn write_same(path: &str) -> Try {
    let value = fs::read(path).known(path)?;
    open_anyhow(path, true)?.write_all(&value).refused(path)
}

/// Opens a file for writing, without writing.
pub(crate) fn open_for_writing(path: &str) -> Try {
    open_anyhow(path, true).map(drop)
}

/// Per-CPU symbols at the beginning have address 0 in any case.
fn see_addresses() -> Try {
    let symbols = BufReader::new(open_anyhow("/proc/kallsyms", false)?);
    let mut symbols = symbols.lines().map_while(Result::ok);
    let is_shown = |symbol: String| !symbol.starts_with("0000000000000000 ");
    match symbols.any(is_shown) {
        true => Ok(()),
        false => refused("all addresses are 0"),
    }
}

fn open_pci() -> Try {
    let buses = fs::read_dir("/proc/bus/pci").known("/proc/bus/pci")?;
    let mut devices = buses
        .flatten()
        .filter_map(|bus| fs::read_dir(bus.path()).ok())
        .flatten()
        .flatten();
    match devices.next() {
        Some(device) => open_for_writing(&device.path().display().to_string()),
        None => not_here("this machine has no PCI device"),
    }
}
