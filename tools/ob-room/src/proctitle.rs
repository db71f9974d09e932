//! The title of this process in ps(1).

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

/// Writes `title` over the command line of this process, which ps(1) reads from /proc/PID/cmdline.
pub fn set_proctitle(title: &str) -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .context("parse /proc/self/stat")?
        .1
        .split(' ')
        .collect();
    // arg_start and arg_end, fields 48 and 49 of proc_pid_stat(5). The first field after the name
    // is the third.
    let (start, end): (u64, u64) = match fields.get(45..47) {
        Some([start, end]) => (start.parse()?, end.parse()?),
        _ => bail!("parse /proc/self/stat"),
    };
    let length = usize::try_from(end - start)?;
    let mut line = title.as_bytes().to_vec();
    line.resize(length, 0);
    line[length - 1] = 0;
    let mut memory = File::options().write(true).open("/proc/self/mem")?;
    memory.seek(SeekFrom::Start(start))?;
    Ok(memory.write_all(&line)?)
}
