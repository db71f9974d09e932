//! Configurations and words of the command line that are meant to run something, to hide a protection or to write to a terminal.
