//! Finds the subhosts that run, start, end, or were left behind.
#![forbid(unsafe_code)]

fn main() {}
