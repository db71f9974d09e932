//! Documents whose facts are forged, missing or somebody else's.
