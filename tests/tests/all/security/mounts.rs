//! Objects of the host that are visible inside, their flags and propagation, and layers that are used twice.
