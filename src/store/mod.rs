//! The driver's one tmpfs: a directory and a record for each volume, the atomic swap, and the bind mounts.
