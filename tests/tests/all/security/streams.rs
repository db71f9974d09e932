//! Descriptors, terminals and files that cross the border when a process enters, logs or compares.
