//! The system calls that nix does not have, each in a small wrapper.
