//! What `ps` shows.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

/// Writes `title` over our own command line, which is where `ps` reads it.
pub fn show_as(title: &str) -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .context("stat")?
        .1
        .split(' ')
        .collect();
    // Fields 48 and 49, of which the third was the first after the name.
    let (start, end): (u64, u64) = match fields.get(45..47) {
        Some([start, end]) => (start.parse()?, end.parse()?),
        _ => bail!("stat"),
    };
    let length = usize::try_from(end - start)?;
    let mut line = title.as_bytes().to_vec();
    line.resize(length, 0);
    line[length - 1] = 0;
    let mut memory = File::options().write(true).open("/proc/self/mem")?;
    memory.seek(SeekFrom::Start(start))?;
    Ok(memory.write_all(&line)?)
}
